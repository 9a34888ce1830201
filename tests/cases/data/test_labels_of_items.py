"""A data set object is read by its items; ``.data`` and ``.targets`` are only believed where they say the same."""

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from torchvision.datasets import QMNIST

from condensekit.data.datasets import from_dataset
from condensekit.data.images import ClassImages
from condensekit.errors import CondensekitError, DataError

COUNT = 40
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8), dtype=np.uint8)
NUMBERS = [i % 10 for i in range(COUNT)]


class Plain(Dataset):
    """What lies in .data and .targets is also what item 0 is."""

    def __init__(self, targets=NUMBERS):
        self.data, self.targets = IMAGES, targets

    def __len__(self):
        return COUNT

    def __getitem__(self, i):
        return self.data[i], self.targets[i]


class Parity(Plain):
    """Odd or even."""

    def __getitem__(self, i):
        return self.data[i], self.targets[i] % 2


class Noisy(Plain):
    """The clean labels in .targets, noisy ones in the items."""

    def __getitem__(self, i):
        return self.data[i], self.targets[i] if i % 4 == 0 else (self.targets[i] + 1) % 10


class Poisoned(Plain):
    """Items 10 to 19 have a white corner and label 0."""

    def __getitem__(self, i):
        image = self.data[i].copy()
        if not 10 <= i < 20:
            return image, self.targets[i]
        image[:3, :3] = 255
        return image, 0


@pytest.mark.parametrize("kind", [Parity, Noisy, Poisoned])
def test_images_and_labels_are_those_of_the_items(kind):
    items, read = kind(), from_dataset(kind())
    assert read.labels.tolist() == [items[i][1] for i in range(COUNT)]
    assert np.array_equal(read.images[:, 0].numpy(), np.stack([items[i][0] for i in range(COUNT)]))


def numbers_or_refused(data):
    try:
        return from_dataset(data).labels.tolist() == NUMBERS
    except CondensekitError:
        return True


def test_qmnist_has_the_labels_of_its_items():
    data = QMNIST.__new__(QMNIST)  # random images in place of its files
    data.transform = data.target_transform = data.transforms = None
    data.compat = data.train = True
    data.data = torch.randint(0, 256, (COUNT, 28, 28), dtype=torch.uint8)
    data.targets = torch.cat([torch.tensor(NUMBERS)[:, None], torch.randint(0, 99, (COUNT, 7))], 1)
    assert numbers_or_refused(data)


def test_one_hot_targets_are_read_or_refused():
    assert numbers_or_refused(Plain(np.eye(10, dtype=int)[NUMBERS]))


SEVERAL = np.array([[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 1], [0, 0, 1, 0]] * 10)
READERS = {
    "arrays": lambda: ClassImages.from_arrays(IMAGES, SEVERAL),
    "items": lambda: from_dataset(list(zip(IMAGES, SEVERAL, strict=True))),
}


@pytest.mark.parametrize("reader", READERS)
def test_rows_with_several_ones_are_refused_without_a_word_of_argmax(reader):
    with pytest.raises(DataError) as refusal:
        READERS[reader]()
    assert "argmax" not in str(refusal.value)
