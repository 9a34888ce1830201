"""Sources of images: the content of a folder or file before it is decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from condensekit.data.decoding import alike, decoded, fits, mapped, shown, stacked
from condensekit.errors import DataError
from condensekit.progress import Progress
from condensekit.rng import Draw

Pair = tuple[Tensor, Tensor]  # of the training and of the test images
HELD_OUT = 0.2  # share of each class that is held out if a source has no test images
FIFTH = f"no test part: a fixed {HELD_OUT:.0%} of each class are the test images"  # note
VAL_IS_TEST = "no test part: val is the test part"  # note


@dataclass(frozen=True)
class Source:
    """Images and labels that were found, before the images are resized.

    Args:
        labels: int64 labels of the training images, of the test images and of further images to tune on, if any.
        names: Class name by label.
        files: The files. Without ``arrays``, each file is one image, training images first.
        arrays: (N, C, H, W) images of the same parts, if they are in memory already.
        statistics: Mean and std of each channel in [0, 1]; None: computed from the training images.
        flippable: Whether a mirrored image still shows its class.
        normalised: Whether the arrays were normalised elsewhere, so that their values are no pixels.
        notes: What was done that the user should know, one short clause for each.
    """

    labels: tuple[Tensor, ...]
    names: Mapping[int, str]
    files: tuple[Path, ...] = ()
    arrays: tuple[Tensor, ...] | None = None
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    flippable: bool = True
    normalised: bool = False
    notes: tuple[str, ...] = ()

    def tag(self, image_size: int | None, layout: str | None = None) -> str:
        """16 hex digits that change with the files, their sizes and dates, the image size, type and layout."""
        stats = [(str(file.resolve()), (s := file.stat()).st_size, s.st_mtime_ns) for file in self.files]
        kind = () if self.arrays is None else (str(self.arrays[0].dtype), layout)
        return hashlib.sha256(repr((stats, image_size, *kind)).encode()).hexdigest()[:16]

    def pixels(self, image_size: int | None, file: Path | None, progress: Progress) -> tuple[Tensor, ...]:
        """(N, C, H, W) of the images of each part, mapped from ``file`` or in memory."""
        count = sum(len(labels) for labels in self.labels)
        alike_now = self.arrays is not None and len({array.shape[1:] for array in self.arrays}) == 1
        if self.arrays is not None and file is None and alike_now and fits(self.arrays[0], image_size):
            with progress.stage("read images", count) as stage:
                stage.advance(count)
            return self.arrays
        images: Iterable[Tensor] = decoded(self.files) if self.arrays is None else chain(*self.arrays)

        def name_of(index: int) -> str:
            return f"image {index}" if self.arrays is not None else str(self.files[index])

        read = shown(alike(images, name_of, image_size), count, progress)
        whole = stacked(read, count) if file is None else mapped(read, count, file)
        return torch.split(whole, [len(labels) for labels in self.labels])


def hold_out(labels: Tensor, names: Mapping[int, str]) -> Pair:
    """Training rows and held-out rows, both ascending; always the same :data:`HELD_OUT` of each class is held out."""
    train, test = [], []
    for label in torch.unique(labels).tolist():
        rows = (labels == label).nonzero()[:, 0]
        if len(rows) < 2:
            raise DataError(
                f"class {names[label]!r} has 1 image, so none can be held out as test image: add some, "
                "or bring test images (a test folder; test_images in a .npz)"
            )
        rows = rows[Draw(0).permutation(f"held out/{label}", len(rows))]
        cut = max(1, round(HELD_OUT * len(rows)))
        test.append(rows[:cut])
        train.append(rows[cut:])
    return torch.cat(train).sort().values, torch.cat(test).sort().values
