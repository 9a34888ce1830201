"""Sources of images: the content of a folder or file before it is decoded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from pathlib import Path

import torch
from torch import Tensor

from condensekit.data import pictures
from condensekit.data.decoding import alike, check_bytes, enough_memory, fits, shown, stacked, stretched
from condensekit.data.maps import mapped
from condensekit.errors import DataError
from condensekit.progress import Progress
from condensekit.rng import Draw

Pair = tuple[Tensor, Tensor]  # of the training and of the test images
Parts = tuple[Tensor, ...]  # of the training, of the test, and perhaps of the validation images
DECODING = 2  # number of the rules of decoding; raise it when images decoded earlier would differ
HELD_OUT = 0.2  # share of each class that is held out if a source has no test images
FIFTH = f"no test part: a fixed {HELD_OUT:.0%} of each class are the test images"  # note
VAL_IS_TEST = "no test part: val is the test part"  # note


@dataclass(frozen=True)
class Source:
    """Images and labels that were found, before the images are resized.

    Args:
        labels: int64 labels of the training images, of the test images and of further images to tune on, if any.
        names: Class name by label.
        files: The files. Without ``arrays``, each file is one image, in the order of the labels.
        arrays: (N, C, H, W) images of the same parts, if they are in memory already.
        statistics: Mean and std of each channel in [0, 1]; None: computed from the training images.
        flippable: Whether a mirrored image still shows its class.
        normalised: Whether the arrays were normalised elsewhere, so that their values are no pixels.
        notes: What the reader left out or changed: one short clause for each.
    """

    labels: Parts
    names: Mapping[int, str]
    files: tuple[Path, ...] = ()
    arrays: Parts | None = None
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    flippable: bool = True
    normalised: bool = False
    notes: tuple[str, ...] = ()

    def tag(self, image_size: int | None, layout: str | None = None) -> str:
        """16 hex digits that change with the files, their sizes and dates, image size, layout and decoding."""
        real = cache(os.path.realpath)
        kind = () if self.arrays is None else (str(self.arrays[0].dtype), layout)
        digest = hashlib.sha256(repr((DECODING, image_size, *kind)).encode())
        for file in self.files:  # one by one: there may be millions
            (folder, name), found = os.path.split(file), os.stat(file)
            digest.update(repr((os.path.join(real(folder), name), found.st_size, found.st_mtime_ns)).encode())
        return digest.hexdigest()[:16]

    def pixels(self, image_size: int | None, file: Path | None, progress: Progress) -> tuple[Parts, tuple[str, ...]]:
        """(N, C, H, W) images of each part, mapped from ``file`` or in memory; and :attr:`notes` with further ones.

        Raises:
            DataError: Files that cannot be used, or too little memory.
            StoreError: The file cannot be written or is damaged.
        """
        counts, arrays = [len(labels) for labels in self.labels], self.arrays
        count = sum(counts)
        alike_now = arrays is not None and len({array.shape[1:] for array in arrays}) == 1
        if arrays is not None and file is None and alike_now and fits(arrays[0], image_size):
            with progress.stage("read images", count) as stage:
                stage.advance(count)
            return arrays, self.notes
        if arrays is None:
            whole, notes = pictures.read(self.files, image_size, file, progress)
        else:
            if file is None and image_size:
                each = [array[:1, :, :1, :1].nbytes * image_size**2 for array in arrays]
                check_bytes(count, sum(n * size for n, size in zip(counts, each, strict=True)))

            def images(done: int = 0) -> Iterator[Tensor]:
                rest = islice(chain(*arrays), done, None)
                return shown(alike(rest, lambda row: f"image {done + row}", image_size), count, progress, done)

            with enough_memory(sum(array.nbytes for array in arrays)):
                whole = stacked(images(), count) if file is None else mapped(images, count, file)
            notes = [*stretched((array.shape[2:] for array in arrays for _ in array), image_size)]
        return torch.split(whole, counts), (*self.notes, *notes)


def hold_out(labels: Tensor, names: Mapping[int, str]) -> Pair:
    """Training rows and held-out rows, both ascending; always the same :data:`HELD_OUT` of each class is held out.

    A class of one image keeps it for the training.
    """
    train, test = [], []
    for label in torch.unique(labels).tolist():
        rows = (labels == label).nonzero()[:, 0]
        rows = rows[Draw(0).permutation(f"held out/{label}", len(rows))]
        cut = min(max(1, round(HELD_OUT * len(rows))), len(rows) - 1)
        test.append(rows[:cut])
        train.append(rows[cut:])
    if not sum(map(len, test)):
        raise DataError(
            f"class {names[int(labels.min())]!r} has 1 image, so none can be held out as test image, and no class has "
            "more: add some, or bring test images (a test folder; test_images in a .npz)"
        )
    return torch.cat(train).sort().values, torch.cat(test).sort().values
