"""Summary of images: one line that shows how the data were understood."""

from __future__ import annotations

import torch
from torch import Tensor

from condensekit.data.arrays import blocks
from condensekit.data.images import HASHED_WHOLE, ClassImages
from condensekit.errors import printable

NAMED = 5  # classes that are named
MIRRORED = "assumed: mirrored images keep their class (else flippable=False)"
NAME, NOTE, NOTES = 24, 160, 6  # characters of a name and of a note, and number of notes


def summary(train: ClassImages, test: ClassImages | None = None) -> str:
    """One line about the data: numbers of images, classes, size, values, whether mirrored, and notes of the reader.

    >>> from condensekit.testing import shapes
    >>> for told in summary(shapes(per_class=10)).split("; "):
    ...     print(told)
    46 training images
    4 classes: -3, 0, 7, 42
    fewest: 10 of class -3
    3 x 8 x 8, uint8 pixels 0..254
    assumed: mirrored images keep their class (else flippable=False)

    Args:
        train: Training images, perhaps with images that are held out to tune on.
        test: Test images; None: not shown.
    """
    counts = [f"{len(train):,} training"]
    counts += [] if test is None else [f"{len(test):,} test"]
    counts += [] if train.held_out is None else [f"{len(train.held_out):,} validation"]
    parts = [train, *(part for part in (test, train.held_out) if part is not None)]
    notes = list(dict.fromkeys(note for part in parts for note in part.notes))
    more = [f"{len(notes) - NOTES} further notes"] if len(notes) > NOTES else []
    channels, height, width = train.spec.shape
    told = [
        f"{_listed(counts)} images",
        _classes(train),
        f"{channels} x {height} x {width}, {_values(train)}",
        MIRRORED if train.spec.flippable else "mirrored images show another class",
        *(_short(note, NOTE) for note in notes[:NOTES]),
        *more,
    ]
    return printable("; ".join(told))


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _classes(images: ClassImages) -> str:
    names = [_short(images.spec.class_names.get(label, str(label)), NAME) for label in images.classes[:NAMED]]
    count = len(images.classes)
    told = f"{count:,} class{'es' * (count != 1)}: {', '.join(names)}{', ...' * (count > NAMED)}"
    return f"{told}{_fewest(images)}"


def _fewest(images: ClassImages) -> str:
    """The class with fewest images; nothing if all classes have equally many."""
    counts = {label: images.count(label) for label in images.classes}
    label = min(counts, key=counts.__getitem__)
    if counts[label] == max(counts.values()):
        return ""
    return f"; fewest: {counts[label]:,} of class {_short(images.spec.class_names.get(label, str(label)), NAME)}"


def _values(images: ClassImages) -> str:
    """Type and range of the values, such as ``uint8 pixels 0..255``."""
    low, high = _range(images.images)
    kind = str(images.images.dtype).removeprefix("torch.")
    return f"{kind} {'pixels' if images.spec.pixels else 'values'} {low:.4g}..{high:.4g}"


def _range(images: Tensor) -> tuple[float, float]:
    """The lowest and highest value; of more than 1 GiB, that of 4,096 evenly spaced images."""
    if images.numel() * images.element_size() > HASHED_WHOLE:
        images = images[torch.linspace(0, len(images) - 1, 4096, dtype=torch.float64).long()]
    ends = [block.aminmax() for block in blocks(images)]
    return float(min(low for low, _ in ends)), float(max(high for _, high in ends))


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
