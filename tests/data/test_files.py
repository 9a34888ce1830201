import pickle
import time

import numpy as np
import pytest
import torch

from condensekit.data import datasets
from condensekit.errors import DataError

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


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"x": PIXELS, "y": LABELS}, "lacks images and labels; it holds x, y"),
        ({"images": PIXELS, "labels": LABELS, "test_images": PIXELS}, "lacks test_labels"),
        ({"images": PIXELS, "labels": LABELS[:5]}, "has 40 images but 5 labels"),
        ({"images": PIXELS[:0], "labels": LABELS[:0]}, "has 0 images but 0 labels"),
        ({"images": PIXELS, "labels": LABELS / 2}, "labels must be integers or strings, got float64"),
        ({"images": PIXELS, "labels": np.eye(40, dtype=int)}, "one-hot rows"),
        ({"images": PIXELS.astype(int), "labels": LABELS}, "pixels must be uint8 or floating point, got torch.int64"),
        ({"images": np.array(["a"]), "labels": LABELS[:1]}, "images or labels cannot be used"),
        ({"images": PIXELS[:, :3], "labels": LABELS}, "cannot tell the channels"),
        ({"images": PIXELS, "labels": range(40)}, "class '0' has 1 image, so none can be held out"),
        ({"images": PIXELS * np.nan, "labels": LABELS}, "image 0 has a pixel that is not finite"),
        (
            {"images": PIXELS, "labels": LABELS, "test_images": PIXELS, "test_labels": LABELS + 1},
            "test images have class -1, which the training images lack",
        ),
        (
            {"images": PIXELS, "labels": LABELS, "test_images": PIXELS[:, :4], "test_labels": LABELS},
            r"images must be \(N, 3, 8, 6\), got shape \(40, 3, 4, 6\)",
        ),
        (
            {"images": PIXELS, "labels": LABELS, "test_images": PIXELS - 0.5, "test_labels": LABELS},
            "images are torch.uint8, test_images torch.float32",
        ),
        ({"images": np.array([{}]), "labels": [0]}, "cannot read .*a.npz: Object arrays cannot be loaded"),
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
