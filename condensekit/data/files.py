"""Sources of images: the content of a folder or file before it is decoded."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from condensekit.data.decoding import alike, as_bytes, as_nchw, decoded, fits, mapped, shown, stacked
from condensekit.data.images import as_labels
from condensekit.errors import DataError
from condensekit.progress import Progress
from condensekit.rng import Draw

Pair = tuple[Tensor, Tensor]  # of the training and of the test images
HELD_OUT = 0.2  # share of each class that is held out if a source has no test images


@dataclass(frozen=True)
class Source:
    """Images and labels that were found, before the images are resized.

    Args:
        labels: int64 labels of the training and of the test images.
        names: Class name by label.
        files: The files. Without ``arrays``, each file is one image, training images first.
        arrays: (N, C, H, W) training and test images, if they are in memory already.
        statistics: Mean and std of each channel in [0, 1]; None: computed from the training images.
        flippable: Whether a mirrored image still shows its class.
    """

    labels: Pair
    names: Mapping[int, str]
    files: tuple[Path, ...] = ()
    arrays: Pair | None = None
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    flippable: bool = True

    def tag(self, image_size: int | None) -> str:
        """16 hex digits that change with the files, their sizes and dates, and the image size."""
        stats = [(str(file.resolve()), (s := file.stat()).st_size, s.st_mtime_ns) for file in self.files]
        return hashlib.sha256(repr((stats, image_size)).encode()).hexdigest()[:16]

    def pixels(self, image_size: int | None, file: Path | None, progress: Progress) -> Pair:
        """(N, C, H, W) of the training and of the test images, mapped from ``file`` or in memory."""
        count = sum(len(labels) for labels in self.labels)
        if self.arrays is not None and file is None and all(fits(array, image_size) for array in self.arrays):
            with progress.stage("read images", count) as stage:
                stage.advance(count)
            return self.arrays
        images: Iterable[Tensor] = decoded(self.files) if self.arrays is None else chain(*self.arrays)

        def name_of(index: int) -> str:
            return f"image {index}" if self.arrays is not None else str(self.files[index])

        read = shown(alike(images, name_of, image_size), count, progress)
        whole = stacked(read, count) if file is None else mapped(read, count, file)
        return whole[: len(self.labels[0])], whole[len(self.labels[0]) :]


def npz(path: Path) -> Source:
    """Arrays ``images`` and ``labels``, and perhaps ``test_images`` and ``test_labels``."""
    try:
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
