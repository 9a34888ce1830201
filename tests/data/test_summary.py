import numpy as np
import pytest
import torch

import condensekit as ck
from condensekit.data.images import ClassImages
from condensekit.data.summary import summary

PIXELS = np.arange(12 * 8 * 8, dtype=np.uint8).reshape(12, 1, 8, 8)


def images(pixels=PIXELS, labels=(0, 1, 2) * 4, **more):
    return ClassImages.from_arrays(pixels, list(labels), **more)


def test_a_line_tells_what_was_read():
    train, test = ck.load("digits")
    assert summary(train, test) == (
        "1,438 training and 359 test images; 10 classes: 0, 1, 2, 3, 4, ...; fewest: 139 of class 8; 1 x 8 x 8, uint8 "
        "pixels 0..255; mirrored images show another class; no test part: a fixed 20% of each class are the test images"
    )


def test_the_class_with_fewest_images_is_named_unless_all_are_equal():
    assert "fewest" not in summary(images())
    few = images(labels=[0] * 6 + [1] * 2 + [2] * 4, class_names={0: "cat", 1: "dog", 2: "owl"})
    assert "; 3 classes: cat, dog, owl; fewest: 2 of class dog; 1 x 8 x 8" in summary(few)


def test_the_values_tell_their_unit():
    assert "3 classes: 0, 1, 2; 1 x 8 x 8, uint8 pixels 0..255; assumed: mirrored images keep" in summary(images())
    assert "float32 pixels 0..0.5; " in summary(images(PIXELS / 510))
    text = summary(images(PIXELS / 255 - 0.5))
    assert "float32 values -0.5..0.5; " in text
    assert "values that are no pixels in 0..1 are kept as they are, as normalised already" in text


def test_validation_images_are_counted():
    train = images()
    train.held_out = images(PIXELS[:3], [0, 1, 2])
    assert summary(train, images()).startswith("12 training, 12 test and 3 validation images; ")


def test_long_names_and_notes_are_short_and_cannot_control_a_terminal():
    names = [f"\x1b[2J{'n' * 999}\n{i}" for i in range(1000)]
    train = images(torch.zeros(1000, 1, 2, 2, dtype=torch.uint8), range(1000), class_names=dict(enumerate(names)))
    train.notes = tuple(f"note {i} {'x' * 999}" for i in range(50))
    text = summary(train)
    assert len(text) < 1500
    assert text.isprintable()
    assert r"\x1b[2Jnnn" in text
    assert "1,000 classes" in text
    assert "44 further notes" in text


@pytest.mark.parametrize("label", [7, -3])
def test_one_class(label):
    assert f"; 1 class: {label}; " in summary(images(labels=[label] * 12))
