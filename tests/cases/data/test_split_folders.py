"""Folders of training and test images under the names that published data sets use."""

import numpy as np
import pytest
from PIL import Image

from condensekit.data import datasets
from condensekit.errors import CondensekitError

CLASSES = ["glioma", "meningioma", "notumor", "pituitary"]
SPLITS = [
    ("Training", "Testing"),
    ("Train", "Test"),
    ("training_set", "test_set"),
    ("seg_train", "seg_test"),
    ("TRAIN", "VAL"),
]


@pytest.mark.parametrize("splits", SPLITS, ids="/".join)
def test_splits_never_become_classes(tmp_path, splits):
    noise = np.random.default_rng(0)
    for split in splits:
        for name in CLASSES:
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(6):
                image = Image.fromarray(noise.integers(0, 256, (16, 16), dtype=np.uint8))
                image.save(tmp_path / split / name / f"{i}.png")
    try:
        train, test = datasets.load(tmp_path)
    except CondensekitError:
        return
    assert sorted(train.spec.class_names[label] for label in train.classes) == CLASSES
    assert (len(train), len(test)) == (24, 24)
