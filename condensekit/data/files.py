"""Sources of images: the content of a folder or file before it is decoded."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from condensekit.data import pictures
from condensekit.data.decoding import alike, as_bytes, as_nchw, enough_memory, fits, mapped, shown, stacked
from condensekit.data.images import as_labels
from condensekit.errors import DataError
from condensekit.progress import Progress
from condensekit.rng import Draw
from condensekit.runs.files import regular

Pair = tuple[Tensor, Tensor]  # of the training and of the test images
Parts = tuple[Tensor, ...]  # of the training, of the test, and perhaps of the validation images
DECODING = 2  # number of the rules of decoding; raise it when images decoded earlier would differ
HELD_OUT = 0.2  # share of each class that is held out if a source has no test images


@dataclass(frozen=True)
class Source:
    """Images and labels that were found, before the images are resized.

    Args:
        labels: int64 labels of the training and of the test images; and of the validation images if there are all
            three.
        names: Class name by label.
        files: The files. Without ``arrays``, each file is one image, in the order of the labels.
        arrays: (N, C, H, W) images, as many arrays as ``labels``, if they are in memory already.
        statistics: Mean and std of each channel in [0, 1]; None: computed from the training images.
        flippable: Whether a mirrored image still shows its class.
        notes: What the reader left out or changed: one short clause for each.
    """

    labels: Parts
    names: Mapping[int, str]
    files: tuple[Path, ...] = ()
    arrays: Parts | None = None
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    flippable: bool = True
    notes: tuple[str, ...] = ()

    def tag(self, image_size: int | None) -> str:
        """16 hex digits that change with the files, their sizes and dates, the image size, and the decoding."""
        real = cache(os.path.realpath)
        places = (os.path.join(real(folder), name) for folder, name in map(os.path.split, self.files))
        stats = [(place, (s := os.stat(place)).st_size, s.st_mtime_ns) for place in places]
        return hashlib.sha256(repr((DECODING, stats, image_size)).encode()).hexdigest()[:16]

    def pixels(self, image_size: int | None, file: Path | None, progress: Progress) -> tuple[Parts, tuple[str, ...]]:
        """(N, C, H, W) images of each part, mapped from ``file`` or in memory; and :attr:`notes` with further ones.

        Raises:
            DataError: Files that cannot be used, or too little memory.
            StoreError: The file cannot be written or is damaged.
        """
        counts = [len(labels) for labels in self.labels]
        count = sum(counts)
        if self.arrays is not None and file is None and all(fits(array, image_size) for array in self.arrays):
            with progress.stage("read images", count) as stage:
                stage.advance(count)
            return self.arrays, self.notes
        if self.arrays is None:
            whole, notes = pictures.read(self.files, image_size, file, progress)
        else:
            images = shown(alike(chain(*self.arrays), "image {}".format, image_size), count, progress)
            with enough_memory(sum(array.nbytes for array in self.arrays)):
                whole, notes = stacked(images, count) if file is None else mapped(images, count, file), []
        return torch.split(whole, counts), (*self.notes, *notes)


def npz(path: Path) -> Source:
    """Arrays ``images`` and ``labels``, and perhaps ``test_images`` and ``test_labels``."""
    try:
        regular(path)
        if not zipfile.is_zipfile(path):
            raise ValueError("it is not a .npz archive")
        with np.load(path, allow_pickle=False) as archive:
            found = {name: archive[name] for name in archive.files}
    except Exception as error:  # a damaged archive may raise anything
        raise DataError(f"cannot read {path}: {error}") from error
    prefixes = ("", "test_") if {"test_images", "test_labels"} & set(found) else ("",)
    missing = [f"{prefix}{name}" for prefix in prefixes for name in ("images", "labels") if prefix + name not in found]
    if missing:
        raise DataError(f"{path} lacks {' and '.join(missing)}; it holds {', '.join(found) or 'nothing'}")
    names: dict[int, str] | None = None
    arrays, numbers = [], []
    for prefix in prefixes:
        try:
            images = as_nchw(torch.from_numpy(found[f"{prefix}images"]))
            labels, listed = as_labels(found[f"{prefix}labels"], names)
        except (DataError, TypeError, ValueError) as error:
            raise DataError(f"{path}: {prefix}images or {prefix}labels cannot be used: {error}") from error
        if len(images) != len(labels) or not len(images):
            raise DataError(f"{path} has {len(images)} {prefix}images but {len(labels)} {prefix}labels")
        names = names or listed
        arrays.append(images)
        numbers.append(labels)
    names = names or {label: str(label) for label in torch.unique(numbers[0]).tolist()}
    bytes_ = [as_bytes(images) for images in arrays]
    if all(images.dtype == torch.uint8 for images in bytes_):
        arrays = bytes_
    if arrays[0].dtype != arrays[-1].dtype:
        raise DataError(f"{path}: images are {arrays[0].dtype}, test_images {arrays[-1].dtype}: store both alike")
    if len(prefixes) == 1:
        rows = hold_out(numbers[0], names)
        arrays, numbers = [arrays[0][r] for r in rows], [numbers[0][r] for r in rows]
    return Source((numbers[0], numbers[1]), names, (path,), (arrays[0].contiguous(), arrays[1].contiguous()))


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
