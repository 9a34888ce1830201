"""Folders of pictures: layouts, what is left out, and the same reading as plain Python's."""

import functools
import os
import socket
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from condensekit.data import datasets, decoding, pictures
from condensekit.data.files import FIFTH
from condensekit.data.folders import split_of
from condensekit.errors import ConfigError, DataError
from tests.data.stopping import Stopping


def write_folder(path, classes=("ant", "bee", "cow"), count=5, size=(8, 8), mode="RGB"):
    for k, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for i in range(count):
            value = 40 * k + i
            Image.new(mode, size, value if mode == "L" else (value, 0, 255)).save(path / name / f"{i}.png")
    return path


def test_folder_with_train_and_val(tmp_path):
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "val", classes=("cow", "bee"), count=2, mode="L")
    train, test = datasets.load(tmp_path)
    assert train.spec.class_names == {0: "ant", 1: "bee", 2: "cow"}
    assert train.spec.shape == (3, 8, 8)
    assert train.images[train.indices_of(2), 0, 0, 0].tolist() == [80, 81, 82, 83, 84]
    assert test.labels.tolist() == [1, 1, 2, 2]
    assert test.images[:, 1, 0, 0].tolist() == [40, 41, 0, 1]  # grey became RGB
    assert test.spec is train.spec
    assert train.spec.mean == pytest.approx((float((train.images[:, 0] / 255).mean()), 0, 1))


def test_one_folder_holds_a_fifth_out(tmp_path):
    write_folder(tmp_path, mode="L")
    train, test = datasets.load(tmp_path)
    assert train.spec.shape == (1, 8, 8)
    assert [train.count(k) for k in range(3)] == [4, 4, 4]
    values = [sorted(torch.cat([p.images[p.indices_of(k), 0, 0, 0] for p in (train, test)]).tolist()) for k in range(3)]
    assert values == [[40 * k + i for i in range(5)] for k in range(3)]


def test_all_files_of_other_sizes_are_listed_with_the_option(tmp_path):
    write_folder(tmp_path)
    Image.new("RGB", (9, 8)).save(tmp_path / "bee" / "odd.png")
    reason = r"1 of 16 images differ .* 8 x 8: .*odd\.png is 8 x 9: use image_size=N"
    with pytest.raises(DataError, match=reason):
        datasets.load(tmp_path)
    for i in range(12):
        Image.new("RGB", (9, 7)).save(tmp_path / "ant" / f"odd{i}.png")
    with pytest.raises(DataError, match=r"13 of 28 images differ .*; and 3 more: use image_size=N"):
        datasets.load(tmp_path)
    train, _ = datasets.load(tmp_path, image_size=4)
    assert train.spec.shape == (3, 4, 4)


@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_corrupt_image_is_named(tmp_path, damage):
    write_folder(tmp_path, size=(64, 64))
    bad = tmp_path / "bee" / "2.png"
    bad.write_bytes(b"hello" if damage == "text" else bad.read_bytes()[:60])
    with pytest.raises(DataError, match=r"cannot read the image .*bee/2\.png"):
        datasets.load(tmp_path, mmap=tmp_path.parent / "maps")
    assert not list((tmp_path.parent / "maps").glob("*.npy"))


def test_folders_without_images_are_refused(tmp_path):
    with pytest.raises(DataError, match="has no sub-folders"):
        datasets.load(tmp_path)
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "notes.txt").write_text("none")
    with pytest.raises(DataError, match=r"there are no images in the folders of .*1 file left out: 1 \.txt"):
        datasets.load(tmp_path)
    write_folder(tmp_path, classes=("bee",))
    (tmp_path / "bee" / "notes.txt").write_text("none")
    train, _ = datasets.load(tmp_path)
    assert train.spec.class_names == {0: "bee"}
    assert train.notes == ("2 files left out: 2 .txt", "1 folder left out: ant (no images)", FIFTH)
    write_folder(tmp_path / "split" / "train")
    with pytest.raises(DataError, match=r"has a train folder but no test or val beside it: .*splits=False"):
        datasets.load(tmp_path / "split")
    write_folder(tmp_path / "split" / "test", classes=("dog",))
    with pytest.raises(DataError, match="split/test: unknown class 'dog'; known: ant, bee, cow"):
        datasets.load(tmp_path / "split")
    write_folder(tmp_path / "single", classes=("ant",), count=1)
    with pytest.raises(DataError, match="class 'ant' has 1 image"):
        datasets.load(tmp_path / "single")


def private_memory():
    """Bytes of this process's memory that no file backs."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))


def test_a_mapped_folder_does_not_stand_in_memory(tmp_path):
    write_folder(tmp_path / "data", classes=("ant", "bee"), count=64, size=(640, 640))
    datasets.load(write_folder(tmp_path / "warm", classes=("ant",)), mmap=tmp_path / "maps")
    before = private_memory()
    train, test = datasets.load(tmp_path / "data", mmap=tmp_path / "maps")
    grown, pixels = private_memory() - before, (len(train) + len(test)) * 3 * 640 * 640
    assert pixels > 140 << 20
    assert grown < pixels / 2
    assert train.images[train.indices_of(1)[0], 2].unique().tolist() == [255]
    train.images[0] = 7  # changes this process's copy only
    again, _ = datasets.load(tmp_path / "data", mmap=tmp_path / "maps")
    assert again.images[0, 2].unique().tolist() == [255]


@pytest.mark.parametrize("after", [0, 1, 20, 39])
def test_a_build_of_a_map_that_was_stopped_goes_on(tmp_path, monkeypatch, after):
    """No image is decoded again but those of the last block, and pixels and notes are those of one build."""
    write_folder(tmp_path / "data", classes=("ant", "bee"), count=20, size=(9, 8))
    Image.new("LA", (8, 9)).save(tmp_path / "data" / "bee" / "z.png")
    maps, read = tmp_path / "maps", functools.partial(datasets.load, tmp_path / "data", image_size=6)
    decoded, upright = [], decoding.upright
    whole, _ = read(mmap=tmp_path / "others")

    def watched(image):
        decoded.append(image)
        return upright(image)

    monkeypatch.setattr(pictures, "upright", watched)
    with pytest.raises(KeyboardInterrupt):
        read(mmap=maps, progress=Stopping(after))
    progress = Stopping(99)
    train, _ = read(mmap=maps, progress=progress)
    assert progress.begun == [("read headers", 41, 0), ("read images", 41, after)]
    assert 41 <= len(decoded) <= 41 + pictures.BATCH
    assert train.fingerprint() == whole.fingerprint()
    assert train.notes == whole.notes
    assert [file.suffix for file in sorted(maps.iterdir())] == [".json", ".lock", ".npy"]
    again = Stopping(0)
    read(mmap=maps, progress=again)
    assert again.begun == []


def test_a_changed_folder_does_not_go_on_with_the_map_of_the_former(tmp_path):
    write_folder(tmp_path / "data", count=9)
    with pytest.raises(KeyboardInterrupt):
        datasets.load(tmp_path / "data", mmap=tmp_path / "maps", progress=Stopping(12))
    time.sleep(0.02)  # a new date, should the size happen to be the old one
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "data" / "ant" / "0.png")
    progress = Stopping(99)
    train, _ = datasets.load(tmp_path / "data", mmap=tmp_path / "maps", progress=progress)
    assert progress.begun[-1] == ("read images", 27, 0)
    assert train.fingerprint() == datasets.load(tmp_path / "data")[0].fingerprint()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *[(name, "train") for name in ("train", "TRAINING", "Training_set", "seg_train", "train2017", "train_images")],
        *[(name, "train") for name in ("TrainSet", "data-train", "train_32x32")],
        *[(name, "test") for name in ("Testing", "seg_test", "test_set", "evaluation", "Test Images", "testdata")],
        *[(name, "val") for name in ("valid", "Validation", "val_256")],
        *[
            (name, None)
            for name in ("trainer", "contest", "invalid", "dev", "interval", "streets", "set", "0", "seg_pred")
        ],
        ("dataset" * 36, None),  # no exponential search
    ],
)
def test_names_of_splits(name, kind):
    assert split_of(Path(name)) == kind


def test_wrappers_of_one_folder_are_looked_through(tmp_path):
    """Intel's images come as ``archive/seg_train/seg_train/<class>``."""
    write_folder(tmp_path / "archive" / "seg_train" / "seg_train")
    write_folder(tmp_path / "archive" / "seg_test" / "seg_test", count=2)
    (tmp_path / "archive" / "seg_pred" / "seg_pred").mkdir(parents=True)
    (tmp_path / "archive" / "read.me").write_text("")
    train, test = datasets.load(tmp_path)
    assert (train.spec.class_names, len(train), len(test)) == ({0: "ant", 1: "bee", 2: "cow"}, 15, 6)
    assert train.notes == ("1 file left out: 1 .me", "1 folder left out: archive/seg_pred (beside the splits)")


def test_validation_images_are_the_test_images_or_held_out(tmp_path):
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "valid", count=3)
    train, test = datasets.load(tmp_path)
    assert (len(test), train.held_out, train.notes) == (9, None, ("no test images: valid is the test part",))
    write_folder(tmp_path / "test", count=2)
    train, test = datasets.load(tmp_path, mmap=tmp_path / "maps")
    assert train.held_out is not None
    assert train.held_out.source is not None
    assert (len(train), len(test), len(train.held_out), train.notes) == (15, 6, 9, ())
    assert train.held_out.spec is train.spec
    assert train.held_out.source["part"] == "validation"
    assert train.held_out.images[4, 0, 0, 0] == 41
    mirrored = train.with_spec(flippable=False).held_out
    assert mirrored is not None
    assert mirrored.spec.flippable is False
    assert train.to("cpu").held_out is not None
    assert train.select([0]).held_out is None


def test_a_test_part_without_classes_is_left_out(tmp_path):
    """Kaggle's competitions give ``test/1.jpg`` without labels."""
    write_folder(tmp_path / "train")
    write_folder(tmp_path, classes=("test",))
    with pytest.raises(DataError, match=r"no test or val beside it \(test has no class folders\): .*splits=False"):
        datasets.load(tmp_path)
    write_folder(tmp_path / "val", count=1)
    train, test = datasets.load(tmp_path)
    assert len(test) == 3
    assert train.notes == ("1 folder left out: test (no class folders)", "no test images: val is the test part")


def test_classes_with_the_name_of_a_split(tmp_path):
    write_folder(tmp_path, classes=("bus", "train", "Valid"))
    with pytest.raises(DataError, match=r"train holds images but no class folders.* use splits=False"):
        datasets.load(tmp_path)
    train, _ = datasets.load(tmp_path, splits=False)
    assert train.spec.class_names == {0: "Valid", 1: "bus", 2: "train"}
    assert train.source is not None
    assert train.source["splits"] is False
    write_folder(tmp_path, classes=("training",))
    with pytest.raises(DataError, match=r"two train folders, train and training: keep one of them, or use splits=Fal"):
        datasets.load(tmp_path)
    write_folder(tmp_path / "other", classes=("valid", "invalid"))
    with pytest.raises(DataError, match=r"the split valid but no train folder beside it: .*splits=False"):
        datasets.load(tmp_path / "other")
    with pytest.raises(ConfigError, match="splits=False is for folders, got 'digits'"):
        datasets.load("digits", splits=False)


@pytest.mark.parametrize(
    ("places", "reason"),
    [
        (("Dataset/train", "Dataset/test"), "Dataset: pass a folder .*, such as .*Dataset$"),
        (("big/dogs", "small/dogs"), "big, small: pass a folder .*, such as .*big/dogs or .*small/dogs$"),
        (
            ("a/b/dogs", "small"),
            "hold folders, not only .*: a, small: pass a folder .*, such as .*small or .*a/b/dogs$",
        ),
    ],
)
def test_folders_of_folders_of_folders_are_refused(tmp_path, places, reason):
    """A repository's root: no class is named "Dataset" or "Examples"."""
    for place in places:
        write_folder(tmp_path / place)
    write_folder(tmp_path, classes=("Examples",))
    with pytest.raises(DataError, match=reason):
        datasets.load(tmp_path)


def test_splits_of_splits_and_mixed_class_folders_are_refused(tmp_path):
    write_folder(tmp_path / "train" / "x", classes=("train", "val"))
    write_folder(tmp_path / "test")
    with pytest.raises(DataError, match=r"the folders of .*x are splits again"):
        datasets.load(tmp_path)
    write_folder(tmp_path / "other", classes=("ant", "bee", "ant/young"))
    with pytest.raises(DataError, match="hold folders, not only the images of a class: ant"):
        datasets.load(tmp_path / "other")


def test_class_folders_may_hold_one_folder_of_images(tmp_path):
    """As TinyImageNet's training images do, and archives that hold a folder of their own name."""
    write_folder(tmp_path, classes=("ant/images", "bee/Bee", "cow"))
    (tmp_path / "ant" / "boxes.txt").write_text("")
    train, _ = datasets.load(tmp_path)
    assert [train.count(k) for k in range(3)] == [4, 4, 4]
    assert train.notes == ("1 file left out: 1 .txt", FIFTH)


def test_what_systems_leave_behind_is_no_data(tmp_path):
    write_folder(tmp_path)
    write_folder(tmp_path, classes=("__MACOSX", ".ipynb_checkpoints", ".git", "cow/.ipynb_checkpoints"))
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", "bee/._1.png", "cow/Desktop.ini"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    train, test = datasets.load(tmp_path)
    assert (train.spec.class_names, len(train) + len(test)) == ({0: "ant", 1: "bee", 2: "cow"}, 15)
    assert train.notes == test.notes == (FIFTH,)


def test_what_is_left_out_is_counted(tmp_path):
    write_folder(tmp_path)
    for name in ("a.txt", "ant/b.TXT", "cow/c.heic", "cow/README", "logo.png"):
        (tmp_path / name).write_text("")
    for name in ("void", "notes", "ant/labels"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes" / "x.xml").write_text("")
    train, _ = datasets.load(tmp_path)
    files = Counter({"2 .txt": 1, "1 .heic": 1, "1 without ending": 1, "1 .xml": 1, "1 outside the class folders": 1})
    assert train.notes[0].startswith("6 files left out: 2 .txt, ")
    assert Counter(train.notes[0].partition(": ")[2].split(", ")) == files
    assert train.notes[1] == "3 folders left out: ant/labels (no images), notes (no images), void (no images)"


def test_links(tmp_path):
    write_folder(tmp_path / "real")
    data = tmp_path / "data"
    write_folder(data, classes=("ant",))
    (data / "bee").symlink_to(tmp_path / "real" / "bee")
    (data / "ant" / "more.png").symlink_to(tmp_path / "real" / "cow" / "0.png")
    (data / "ant" / "loop").symlink_to(data)
    (data / "self").symlink_to("self")
    train, test = datasets.load(data)
    assert [train.count(k) + test.count(k) for k in (0, 1)] == [6, 5]
    assert train.notes == ("2 files left out: 1 without ending, 1 link to a folder above it", FIFTH)
    (tmp_path / "real" / "bee" / "down").mkdir()
    (tmp_path / "real" / "cow" / "up").symlink_to(tmp_path / "real" / "bee" / "down")
    (tmp_path / "real" / "bee" / "down" / "up").symlink_to(tmp_path / "real" / "cow")
    with pytest.raises(DataError, match="hold folders, not only"):
        datasets.load(tmp_path / "real")


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "broken link"])
@pytest.mark.timeout(60)
def test_special_files_among_the_images_are_refused(tmp_path, kind):
    write_folder(tmp_path)
    path = tmp_path / "bee" / "odd.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "broken link":
        path.symlink_to("nowhere")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as held:
            held.bind(f"{short}/s")
            os.rename(f"{short}/s", path)
    with pytest.raises(DataError, match=rf"cannot read the image .*odd.png: .*{kind.split(' ')[0]}|No such file"):
        datasets.load(tmp_path)
    with pytest.raises(DataError, match=r"odd\.png"):
        datasets.load(tmp_path, mmap=tmp_path.parent / "maps")


def test_class_names_are_kept_as_they_are(tmp_path):
    names = ("Cat", "cat", "cat ", "été", "train car")
    write_folder(tmp_path, classes=names)
    train, _ = datasets.load(tmp_path)
    assert list(train.spec.class_names.values()) == sorted(names)


def test_a_folder_that_cannot_be_entered_is_named(tmp_path, monkeypatch):
    """Root may enter every folder, so the answer of the system is made up."""
    write_folder(tmp_path)
    asked, real = tmp_path / "bee", os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != asked and real(path, mode))
    with pytest.raises(DataError, match=r"cannot read the folder .*bee: Permission denied: .*chmod u\+rx"):
        datasets.load(tmp_path)


def test_a_place_that_cannot_be_reached_is_named(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    for source in ("a" * 5000, "x\0y", "~nobody-of-this-name/data"):
        with pytest.raises(DataError, match=r"cannot reach|is no path|does not exist"):
            datasets.load(source)
    for call in (lambda: datasets.load(tmp_path / "inner"), lambda: datasets.load("mnist", root=tmp_path)):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "stat", lambda path, **_: denied(path))
            with pytest.raises(DataError, match=r"cannot reach .*Permission denied: check the path and its"):
                call()


@pytest.mark.parametrize("place", ["/", "/dev", "/usr", "/etc"])
def test_folders_of_the_system_are_refused(place):
    with pytest.raises(DataError):
        datasets.load(place)


@pytest.mark.parametrize(
    ("made", "given", "name"),
    [
        ("tiny-imagenet-200/val", "tiny-imagenet-200", "tinyimagenet"),
        ("tiny-imagenet-200/val", ".", "tinyimagenet"),
        ("cifar-10-batches-py/batches.meta", "cifar-10-batches-py", "cifar10"),
        ("MNIST/raw", "MNIST/raw", "mnist"),
        ("FashionMNIST/raw", "FashionMNIST", "fashionmnist"),
        ("train_32x32.mat", ".", "svhn"),
    ],
)
def test_published_layouts_name_their_set(tmp_path, made, given, name):
    (tmp_path / made).mkdir(parents=True)
    reason = f"holds {name} as published: use the name '{name}' with root='{tmp_path}'"
    with pytest.raises(DataError, match=reason):
        datasets.load(tmp_path / given)


def test_a_folder_is_listed_once(tmp_path, monkeypatch):
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "test")
    listed, real = Counter[Path](), os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.update([Path(path)]) or real(path))
    datasets.load(tmp_path)
    assert listed.pop(tmp_path) == 2  # the first time for array files
    assert set(listed.values()) == {1}


def test_constant_data_are_noticed(tmp_path):
    """White drawings on a transparent ground become white images."""
    for k, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        for i in range(4):
            image = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
            image.putpixel((k, i), (255, 255, 255, 255))
            image.save(tmp_path / name / f"{i}.png")
    train, _ = datasets.load(tmp_path)
    assert train.notes == (
        FIFTH,
        "8 images with an alpha channel laid on white",
        "all training images are equal, all pixels 255",
    )
    write_folder(tmp_path / "other")
    assert datasets.load(tmp_path / "other")[0].notes == (FIFTH,)


MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK")
JUNK = (".DS_Store", "._x.png", "notes.txt", "x.heic", "Thumbs.db", "none")


def plain(path, grey):
    """One picture as plain Python reads it: (C, H, W), transparent parts on white."""
    with Image.open(path) as image:
        if image.mode.startswith("I;16"):
            pixels = np.asarray(image)[..., None] // 256
        elif image.mode in ("LA", "RGBA"):
            *colours, alpha = np.moveaxis(np.asarray(image).astype(float), -1, 0)
            pixels = np.stack([np.rint((c * alpha + 255 * (255 - alpha)) / 255) for c in colours], -1)
        else:
            pixels = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
            pixels = pixels.reshape(*pixels.shape[:2], -1)
    return np.moveaxis(np.broadcast_to(pixels, (*pixels.shape[:2], 1 if grey else 3)), -1, 0).astype(int)


def is_grey(path):
    with Image.open(path) as image:
        return image.mode in ("1", "L", "LA") or image.mode.startswith("I;16")


def write_part(path, draw, noise, size):
    """Class folders of random pictures; returns the pictures by class."""
    classes = draw(
        st.lists(st.sampled_from(["ant", "Bee", "bee", "10", "9", "été"]), min_size=1, max_size=4, unique=True)
    )
    modes = draw(st.lists(st.sampled_from(MODES), min_size=1, max_size=3))
    written: dict[str, list[Path]] = {}
    for name in classes:
        (path / name).mkdir(parents=True)
        written[name] = []
        for i in range(draw(st.integers(2, 4))):
            mode = draw(st.sampled_from(modes))
            ending = draw(st.sampled_from([".tif", ".TIFF"] if mode == "CMYK" else [".png", ".PNG", ".tif"]))
            bands = len(Image.new(mode, (1, 1)).getbands())
            levels = noise.integers(0, 65536, (*size, bands)).astype(np.uint16)
            pixels = (levels >> 8).astype(np.uint8)
            if mode == "I;16":
                image = Image.fromarray(levels[..., 0])
            elif bands == 1:
                image = Image.fromarray(pixels[..., 0]).convert(mode)
            else:
                image = Image.merge(mode, [Image.fromarray(band) for band in np.moveaxis(pixels, -1, 0)])
            file = path / name / f"{i}{ending}"
            image.save(file)
            written[name].append(file)
    return written


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_folders_are_read_as_plain_python_reads_them(data):
    """Random layouts, modes, sizes, endings and labels: counts, names, order and pixels."""
    draw = data.draw
    noise = np.random.default_rng(draw(st.integers(0, 99)))
    size = (draw(st.integers(1, 7)), draw(st.integers(1, 7)))
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        top = root / draw(st.sampled_from([".", "wrapper", "a/b"]))
        names = draw(st.sampled_from([(), ("Train", "TESTING"), ("training_set", "val"), ("train", "test", "valid")]))
        parts = [write_part(top / name, draw, noise, size) for name in names or ["."]]
        if names and set().union(*parts) != set(parts[0]):
            with pytest.raises(DataError, match="unknown class"):
                datasets.load(root)
            return
        junk = draw(st.lists(st.sampled_from(JUNK), unique=True))
        for name in junk:
            (top / (names or ("ant",))[0]).mkdir(exist_ok=True)
            (top / (names or ("ant",))[0] / name).write_bytes(b"junk")
        files = [file for part in parts for found in part.values() for file in found]
        grey = all(is_grey(file) for file in files)
        train, test = datasets.load(root, mmap=draw(st.sampled_from([None, root.parent / f"{root.name}-maps"])))
        read = [train, test] if train.held_out is None else [train, test, train.held_out]
        labels = {name: label for label, name in train.spec.class_names.items()}
        assert sorted(parts[0]) == list(labels)
        assert list(labels.values()) == list(range(len(labels)))
        wanted = [
            [(labels[name], plain(file, grey)) for name in sorted(part) for file in sorted(part[name])]
            for part in parts
        ]
        got = [
            [(int(k), image.numpy().astype(int)) for k, image in zip(part.labels, part.images, strict=True)]
            for part in read
        ]
        if not names:  # some are held out: which ones is not for plain Python to say
            got = [[item for part in got for item in part]]
            assert all(test.count(k) for k in test.classes)
            key = lambda item: (item[0], item[1].tolist())  # noqa: E731
            got, wanted = [sorted(got[0], key=key)], [sorted(wanted[0], key=key)]
        assert [len(part) for part in got] == [len(part) for part in wanted]
        for found, expected in zip(got, wanted, strict=True):
            assert [k for k, _ in found] == [k for k, _ in expected]
            for (_, image), (_, pixels) in zip(found, expected, strict=True):
                assert image.shape == pixels.shape
                assert np.abs(image - pixels).max() <= 1  # one level: rounding of transparency
        left = sum(not name.startswith((".", "Thumbs")) for name in junk)
        assert any(f"{left} file" in note for note in train.notes) == (left > 0)
