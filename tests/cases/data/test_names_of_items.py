"""Class names and errors of a user's own data set object."""

import re

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder

from condensekit.data.datasets import from_dataset
from condensekit.errors import DataError


class Pets(Dataset):
    """Numbers of classes as a user's own find_classes() gives them."""

    def __init__(self):
        self.classes, self.class_to_idx = ["cat", "dog"], {"dog": 0, "cat": 1}

    def __len__(self):
        return 10

    def __getitem__(self, i):
        return np.zeros((8, 8), np.uint8), i % 2


class Grades(Dataset):
    """Labels from 1."""

    classes = ("healthy", "mild", "severe")

    def __len__(self):
        return 9

    def __getitem__(self, i):
        return np.full((8, 8), 9 * i, np.uint8), i % 3 + 1


def names_of(dataset):
    """Class names by label; none where the data set is refused."""
    try:
        return dict(from_dataset(dataset).spec.class_names)
    except DataError:
        return {}


def test_class_to_idx_decides_which_number_has_which_name():
    assert names_of(Pets()) in ({}, {0: "dog", 1: "cat"})


def test_a_label_never_gets_the_name_of_another():
    names = names_of(Grades())
    assert all(names.get(i + 1) in (None, name, str(i + 1)) for i, name in enumerate(Grades.classes))


def test_an_unreadable_item_is_named(tmp_path):
    (tmp_path / "cats").mkdir()
    noise = np.random.default_rng(0)
    for name in ("one", "two", "three", "zero"):  # in the order of their names the damaged one is item 1
        Image.fromarray(noise.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "cats" / f"{name}.jpg")
    damaged = tmp_path / "cats/three.jpg"
    damaged.write_bytes(damaged.read_bytes()[:1500])
    with pytest.raises(DataError) as refusal:
        from_dataset(ImageFolder(tmp_path))
    assert re.search(r"three\.jpg|item 1\b", str(refusal.value))
