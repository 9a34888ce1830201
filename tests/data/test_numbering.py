"""Images that are read later, with the numbers and the normalisation of former ones."""

import numpy as np
import pytest
import torch

import condensekit as ck
from condensekit.data.images import KEPT, ClassImages
from condensekit.data.numbering import numbered
from condensekit.errors import ConfigError, DataError


def images(labels, level=100, size=8, channels=3):
    """Images of one level each; five of each label."""
    pixels = np.arange(5 * len(labels), dtype=np.uint8)[:, None, None, None] + np.uint8(level)
    return np.broadcast_to(pixels, (5 * len(labels), channels, size, size)).copy(), np.repeat(labels, 5)


def test_a_name_keeps_its_number_and_a_new_name_gets_the_next():
    first = ClassImages.from_arrays(*images(["bear", "mouse"]))
    later = ClassImages.from_arrays(*images(["ant", "bear", "worm"], level=10))
    found = numbered(later, first)
    assert found.spec.class_names == {0: "bear", 1: "mouse", 2: "ant", 3: "worm"}
    assert found.labels.tolist() == [2] * 5 + [0] * 5 + [3] * 5
    assert (found.spec.mean, found.spec.std) == (first.spec.mean, first.spec.std)
    assert torch.equal(found.images, later.images)
    assert found.classes == (0, 2, 3)


def test_labels_without_names_stay():
    first, later = (ClassImages.from_arrays(*images(labels)) for labels in ([0, 1], [1, 5]))
    assert numbered(later, first).classes == (1, 5)
    named = ClassImages.from_arrays(*images(["bear", "mouse"]))
    assert numbered(later, named).classes == (2, 5)  # 1 is the mouse: a class of its own


def test_training_test_and_validation_images_of_a_file(tmp_path):
    parts = {part: images(["ant", "bear"]) for part in ("train", "test", "val")}
    arrays = {
        f"{letter}_{part}": given for part, pair in parts.items() for letter, given in zip("xy", pair, strict=True)
    }
    np.savez(tmp_path / "second.npz", **arrays)
    first, _ = ck.load(images(["bear", "mouse"], level=3))
    train, test = ck.load(tmp_path / "second.npz", like=first)
    assert train.held_out is not None
    assert [part.classes for part in (train, test, train.held_out)] == [(0, 2)] * 3
    assert {part.spec.mean for part in (train, test, train.held_out)} == {first.spec.mean}
    train, test = ck.load(images(["ant", "bear"]), like=first)  # parts of one array
    assert (len(train), len(test), train.classes, test.classes) == (8, 2, (0, 2), (0, 2))


def test_images_that_are_not_alike():
    first = ClassImages.from_arrays(*images(["bear"]))
    for given, words in (
        (images(["bear"], size=9), r"shape \(3, 9, 9\), those of like have \(3, 8, 8\): pass image_size=8"),
        (images(["bear"], channels=1), r"shape \(1, 8, 8\), those of like have \(3, 8, 8\)$"),
        ((images([0])[0] / -255, np.repeat([0], 5)), "are values that are no pixels, those of like pixels: give"),
    ):
        with pytest.raises(DataError, match=words):
            ck.load(given, like=first)
    with pytest.raises(ConfigError, match=r"like must be a ClassImages, got .*: pass the training images of the exp"):
        ck.load(images(["bear"]), like=(first, first))


def test_notes_stay_as_they_are():
    values = ClassImages.from_arrays(images([0])[0] / -255, np.repeat([0], 5))
    assert numbered(values, values).notes == (KEPT,)
