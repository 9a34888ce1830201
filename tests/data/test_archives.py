import importlib
import pickle
import sys
import tempfile
import time
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from condensekit.data import datasets
from condensekit.data.files import VAL_IS_TEST
from condensekit.errors import ConfigError, DataError
from tests.data.stopping import Stopping

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 8, 6, 3), dtype=np.uint8)
LABELS = np.array([-2, 0, 7, 42] * 10)


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_arrays_with_test_images_and_gaps(tmp_path):
    path = save(tmp_path / "a.npz", images=PIXELS, labels=LABELS, test_images=PIXELS[:8], test_labels=LABELS[:8])
    train, test = datasets.load(path)
    assert train.classes == test.classes == (-2, 0, 7, 42)
    assert torch.equal(train.images, torch.from_numpy(PIXELS).permute(0, 3, 1, 2))
    assert test.spec is train.spec
    assert train.spec.mean == pytest.approx((PIXELS / 255).mean((0, 1, 2)).tolist())
    assert train.spec.std == pytest.approx((PIXELS / 255).std((0, 1, 2)).tolist())


def test_a_fixed_fifth_of_each_class_is_held_out(tmp_path):
    path = save(tmp_path / "a.npz", images=PIXELS[..., 0], labels=LABELS)
    train, test = datasets.load(str(path))
    assert [train.count(label) for label in train.classes] == [8] * 4
    assert [test.count(label) for label in test.classes] == [2] * 4
    rows = {image.numpy().tobytes() for part in (train, test) for image in part.images}
    assert rows == {image.tobytes() for image in PIXELS[..., 0]}
    again = datasets.load(path)
    assert [part.fingerprint() for part in again] == [train.fingerprint(), test.fingerprint()]
    assert train.spec.mean == pytest.approx([float((train.images / 255).mean())])


def test_string_labels_count_by_the_training_names(tmp_path):
    path = save(
        tmp_path / "a.npz", images=PIXELS[:3], labels=["b", "c", "a"], test_images=PIXELS[:1], test_labels=["c"]
    )
    train, test = datasets.load(path)
    assert train.spec.class_names == {0: "a", 1: "b", 2: "c"}
    assert test.labels.tolist() == [2]


def test_floats(tmp_path):
    scaled, _ = datasets.load(save(tmp_path / "a.npz", images=PIXELS / 255, labels=LABELS))
    assert scaled.images.dtype == torch.uint8
    normalised, held = datasets.load(save(tmp_path / "b.npz", images=PIXELS / 255 - 0.5, labels=LABELS))
    assert normalised.images.dtype == held.images.dtype == torch.float32
    assert normalised.spec.std == (1.0, 1.0, 1.0)


def test_resized_and_mapped(tmp_path):
    path = save(tmp_path / "a.npz", images=PIXELS, labels=LABELS)
    small, _ = datasets.load(path, image_size=4)
    assert small.spec.shape == (3, 4, 4)
    for _ in range(2):
        train, test = datasets.load(path, image_size=4, mmap=tmp_path / "maps")
        assert train.fingerprint() == small.fingerprint()
        assert len(test) == 8
    assert len(list((tmp_path / "maps").glob("a-*.npy"))) == 1
    datasets.load(path, mmap=tmp_path / "maps")
    time.sleep(0.02)  # a new date, should the size happen to be the old one
    save(path, images=255 - PIXELS, labels=LABELS)
    changed, _ = datasets.load(path, image_size=4, mmap=tmp_path / "maps")
    assert changed.fingerprint() != small.fingerprint()
    assert len(list((tmp_path / "maps").glob("a-*.npy"))) == 3


def test_a_map_of_arrays_goes_on_where_it_was_stopped(tmp_path):
    path = save(tmp_path / "a.npz", images=PIXELS, labels=LABELS)
    with pytest.raises(KeyboardInterrupt):
        datasets.load(path, image_size=4, mmap=tmp_path / "maps", progress=Stopping(11))
    progress = Stopping(99)
    train, _ = datasets.load(path, image_size=4, mmap=tmp_path / "maps", progress=progress)
    assert progress.begun == [("read images", len(PIXELS), 11)]
    assert train.fingerprint() == datasets.load(path, image_size=4)[0].fingerprint()


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"pictures": PIXELS, "kinds": LABELS}, "lacks images and labels; it holds pictures, kinds"),
        ({"x_train": PIXELS, "x_test": PIXELS}, "lacks y_train; it holds x_train, x_test"),
        ({"images": PIXELS, "labels": LABELS, "val_labels": LABELS}, "lacks val_images"),
        ({"x": PIXELS, "data": PIXELS, "y": LABELS}, r"several images of the train part \(x, data\)"),
        ({"images": PIXELS, "labels": LABELS, "test_images": PIXELS}, "lacks test_labels"),
        ({"images": PIXELS, "labels": LABELS[:5]}, "has 40 images but 5 labels"),
        ({"images": PIXELS[:0], "labels": LABELS[:0]}, "has 0 images but 0 labels"),
        ({"images": PIXELS, "labels": LABELS + 0.5}, "labels cannot be used: .* the label of image 0 is -1.5"),
        ({"images": PIXELS, "labels": np.ones((40, 3), int)}, "the labels are multi-label: image 0 has 3 of 3 classes"),
        (
            {"images": PIXELS.astype(np.uint16) * 257, "labels": LABELS},
            "must be uint8 or floating point, got torch.uint16",
        ),
        ({"images": np.array(["a"]), "labels": LABELS[:1]}, "images cannot be used"),
        ({"images": PIXELS[:, :3], "labels": LABELS}, "cannot tell the channels .* layout='NCHW' .* layout='NHWC'"),
        ({"images": PIXELS.reshape(40, -1), "labels": LABELS}, r"flat rows: pass images.reshape\(-1, 12, 12\)"),
        ({"images": PIXELS, "labels": range(40)}, "class '0' has 1 image, so none can be held out"),
        ({"images": PIXELS * np.nan, "labels": LABELS}, "image 0 has a pixel that is not finite"),
        (
            {"images": PIXELS, "labels": LABELS, "test_images": PIXELS, "test_labels": LABELS + 1},
            "test images have class -1, which the training images lack",
        ),
        (
            {"images": PIXELS, "labels": LABELS, "test_images": PIXELS[:, :4], "test_labels": LABELS},
            r"image 0 is \(3, 8, 6\); image 40 is \(3, 4, 6\), .* and 30 more: use image_size=N",
        ),
        (
            {"images": PIXELS, "labels": LABELS, "test_images": PIXELS[..., 0], "test_labels": LABELS},
            "images have 3 channels, test_images 1: store both alike",
        ),
        (
            {"images": PIXELS, "labels": LABELS, "test_images": PIXELS - 0.5, "test_labels": LABELS},
            "images are pixels, test_images are normalised already: store both alike",
        ),
        (
            {"images": PIXELS, "labels": LABELS, "test_images": PIXELS, "test_labels": LABELS.astype(str)},
            "test_labels must be numbers as the others are",
        ),
        ({"images": np.array([{}]), "labels": [0]}, "cannot read images of .*a.npz: Object arrays cannot be loaded"),
    ],
)
def test_unusable_archives_are_refused(tmp_path, arrays, reason):
    with pytest.raises(DataError, match=reason):
        datasets.load(save(tmp_path / "a.npz", **arrays))


class Bomb:
    """A pickle that would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("content", ["pickle", "torch", "nothing", "cut", "npy"])
def test_foreign_archives_are_refused_without_running_them(tmp_path, content):
    path, trace = tmp_path / "a.npz", tmp_path / "trace"
    if content == "pickle":
        path.write_bytes(pickle.dumps(Bomb(trace)))
    elif content == "torch":
        torch.save({"images": Bomb(trace)}, path)
    elif content == "npy":
        with path.open("wb") as file:
            np.save(file, PIXELS)
    else:
        save(path, images=PIXELS, labels=LABELS)
        path.write_bytes(path.read_bytes()[: 0 if content == "nothing" else 3000])
    with pytest.raises(DataError, match=r"a\.npz"):
        datasets.load(path)
    assert not trace.exists()


# names of published files, and what is read of them


def members(spelling, part):
    """The names of images and labels of a part in one of the usual spellings."""
    return {
        "plain": ("images", "labels") if part == "train" else (f"{part}_images", f"{part}_labels"),
        "medmnist": (f"{part}_images", f"{part}_labels"),
        "keras": (f"x_{part}", f"y_{part}"),
        "sklearn": (f"X_{part}", f"y_{part}"),
        "torch": (f"{part}_data", f"{part}_targets"),
        "short": ("x", "y") if part == "train" else (f"x_{part}", f"y_{part}"),
    }[spelling]


FORMS = ("npz", "npy", *(["h5"] if find_spec("h5py") else []))
SPELLINGS = ("plain", "medmnist", "keras", "sklearn", "torch", "short")


def write(folder, form, arrays):
    """Arrays as an ``.npz`` file, a folder of ``.npy`` files or an HDF5 file; its path."""
    if form == "npz":
        return save(folder / "a.npz", **arrays)
    if form == "h5":
        h5py = importlib.import_module("h5py")
        with h5py.File(folder / "a.h5", "w") as file:
            for name, array in arrays.items():
                array = np.asarray(array)
                file[name] = array.astype(object) if array.dtype.kind == "U" else array
        return folder / "a.h5"
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


@settings(max_examples=60, deadline=None)
@given(
    form=st.sampled_from(FORMS),
    spelling=st.sampled_from(SPELLINGS),
    parts=st.sampled_from([("train",), ("train", "val"), ("train", "test"), ("train", "val", "test")]),
    channels=st.sampled_from([1, 2, 3, 4]),
    layout=st.sampled_from(["NCHW", "NHWC", "NHW"]),
    kind=st.sampled_from(["uint8", "int64", "float32 whole", "float64 to 1", "normalised"]),
    labelled=st.sampled_from(["gaps", "column", "floats", "names", "one-hot"]),
    seed=st.integers(0, 99),
)
def test_a_file_is_what_numpy_reads(form, spelling, parts, channels, layout, kind, labelled, seed):
    rng, expected = np.random.default_rng(seed), []
    stored: dict[str, np.ndarray[Any, Any]] = {}
    for part in parts:
        classes = np.tile(np.arange(3), 4)
        pixels = rng.integers(0, 256, (12, 1 if layout == "NHW" else channels, 8, 7), dtype=np.uint8)
        pixels[0, 0, 0, :2] = 0, 255
        values = {
            "float32 whole": pixels.astype("float32"),
            "float64 to 1": pixels / 255,
            "normalised": (pixels / 255 - 0.4) / 0.3,
        }.get(kind, pixels.astype(kind.split()[0]) if kind in ("uint8", "int64") else pixels)
        array = {"NCHW": values, "NHWC": values.transpose(0, 2, 3, 1), "NHW": values[:, 0]}[layout]
        numbers = np.array([-2, 7, 40])[classes] if labelled in ("gaps", "column", "floats") else classes
        names, labels = (
            members(spelling, part),
            {
                "gaps": numbers,
                "column": numbers[:, None].astype("int16"),
                "floats": numbers.astype("float32"),
                "names": np.array(["ant", "bee", "cow"])[classes],
                "one-hot": np.eye(3, dtype="uint8")[classes],
            }[labelled],
        )
        stored |= {names[0]: array, names[1]: labels}
        expected.append((values.astype("float32") if kind == "normalised" else pixels, numbers))
    with tempfile.TemporaryDirectory() as folder:
        train, test = datasets.load(write(Path(folder), form, stored))
    found = [train, test, *([train.held_out] if train.held_out else [])]
    if len(parts) == 1:
        rows = [{image.tobytes() for image in part.images.numpy()} for part in found]
        assert rows[0] | rows[1] == {image.tobytes() for image in expected[0][0]}
        assert sorted(torch.cat([train.labels, test.labels]).tolist()) == sorted(expected[0][1].tolist())
        assert train.notes[0].startswith("no test part: a fixed 20%")
    else:
        order = [parts.index(part) for part in ("train", "test", "val") if part in parts]
        assert len(found) == len(parts)
        for part, index in zip(found, order, strict=True):
            assert np.array_equal(part.images.numpy(), expected[index][0])
            assert part.labels.tolist() == expected[index][1].tolist()
            assert part.spec is train.spec
        assert (train.notes[:1] == (VAL_IS_TEST,)) == (parts == ("train", "val"))
    assert train.spec.pixels == (kind != "normalised")
    assert list(train.spec.class_names.values())[:2] == {
        "names": ["ant", "bee"],
        "one-hot": ["0", "1"],
    }.get(labelled, ["-2", "7"])


def test_a_path_of_training_images_finds_the_labels_beside_it(tmp_path):
    write(tmp_path, "npy", {"x_train": PIXELS, "y_train": LABELS, "x_test": PIXELS[:8], "y_test": LABELS[:8]})
    train, test = datasets.load(tmp_path / "x_train.npy")
    assert (len(train), len(test)) == (40, 8)
    assert train.fingerprint() == datasets.load(tmp_path)[0].fingerprint()
    with pytest.raises(DataError, match=r"y_train\.npy: name the training images, such as .* or their folder"):
        datasets.load(tmp_path / "y_train.npy")
    (tmp_path / "y_train.npy").unlink()
    with pytest.raises(DataError, match="lacks y_train; it holds x_test, x_train, y_test"):
        datasets.load(tmp_path / "x_train.npy")


def test_folders_of_other_npy_files_are_no_arrays(tmp_path):
    for name in ("cat", "dog"):  # one file for each class, as Quick, Draw! has them
        np.save(tmp_path / f"{name}.npy", PIXELS[..., 0].reshape(40, -1))
    with pytest.raises(DataError, match="has no sub-folders"):
        datasets.load(tmp_path)
    with pytest.raises(DataError, match="name the training images"):
        datasets.load(tmp_path / "cat.npy")


class Trap:
    """A pickle that raises when it is read."""

    def __reduce__(self):
        return pytest.fail, ("read",)


def test_other_members_are_not_read(tmp_path):
    """Annotations of any type may lie beside the images; object arrays are pickles, and would be refused."""
    other = np.array([Trap()], dtype=object)
    path = save(tmp_path / "a.npz", images=PIXELS, labels=LABELS, filenames=other, landmarks=PIXELS, meta=other)
    with np.load(path) as archive:
        assert set(archive.files) > {"filenames", "meta"}
    assert len(datasets.load(path)[0]) == 32
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("broken.npy", b"nothing")
    assert len(datasets.load(path)[0]) == 32


def test_without_h5py_one_line_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.hdf5").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"a\.hdf5: HDF5 files need h5py: pip install h5py"):
        datasets.load(tmp_path / "a.hdf5")


@pytest.mark.parametrize("content", ["nothing", "text", "objects", "groups"])
def test_other_hdf5_files_are_refused(tmp_path, content):
    h5py, path = pytest.importorskip("h5py"), tmp_path / "a.h5"
    if content in ("nothing", "text"):
        path.write_bytes(b"hello" if content == "text" else b"")
    else:
        with h5py.File(path, "w") as file:
            file["labels"] = LABELS
            if content == "objects":
                file.create_dataset("images", (40,), dtype=h5py.vlen_dtype(np.uint8))
            else:
                file.create_group("images")
    with pytest.raises(DataError, match=r"a\.h5"):
        datasets.load(path)


def test_bytes_and_floats_of_pixels_may_be_mixed(tmp_path):
    fine = (PIXELS / 255).clip(0.001, 0.999)
    path = save(tmp_path / "a.npz", images=PIXELS, labels=LABELS, test_images=fine, test_labels=LABELS)
    train, test = datasets.load(path)
    torch.testing.assert_close(train.images, test.images, atol=0.002, rtol=0)
    dark = save(
        tmp_path / "b.npz", images=PIXELS.astype(float), labels=LABELS, test_images=PIXELS // 8.0, test_labels=LABELS
    )
    assert datasets.load(dark)[1].images.dtype == torch.uint8  # as the brighter training images tell


def test_the_range_is_looked_at_before_resizing(tmp_path):
    whole = datasets.load(save(tmp_path / "a.npz", images=PIXELS, labels=LABELS), image_size=4)[0]
    floats = datasets.load(save(tmp_path / "b.npz", images=PIXELS.astype("float32"), labels=LABELS), image_size=4)[0]
    assert torch.equal(floats.images, whole.images)
    lines = np.zeros((40, 8, 8), np.float32)
    lines[:, ::2] = -0.1
    lines[:, 1] = 0.5
    kept = datasets.load(save(tmp_path / "c.npz", images=lines, labels=LABELS), image_size=2)[0]
    assert not kept.spec.pixels  # though all values are above 0 now


def test_a_layout_is_remembered_and_refused_where_it_says_nothing(tmp_path):
    path = save(tmp_path / "a.npz", images=np.zeros((40, 8, 8, 8), np.uint8), labels=LABELS)
    train, _ = datasets.load(path, layout="NHWC", mmap=tmp_path / "maps")
    assert train.source is not None
    assert train.source["layout"] == "NHWC"
    datasets.load(path, layout="NCHW", mmap=tmp_path / "maps")
    assert len(list((tmp_path / "maps").glob("*.npy"))) == 2
    with pytest.raises(ConfigError, match="layout='NHWC' is for files of arrays, got 'digits': leave it out"):
        datasets.load("digits", layout="NHWC")
