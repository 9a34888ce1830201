"""Decoding: items, files and arrays as one (N, C, H, W) tensor, in memory or memory-mapped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from condensekit.data.arrays import as_nchw, as_numbers, as_tensor
from condensekit.errors import DataError, StoreError, refuse, whole
from condensekit.progress import Progress
from condensekit.runs.lock import waiting

T = TypeVar("T")

GREY = ("1", "L", "LA")  # Pillow's modes that hold one 8-bit channel
WIDE = ("I", "I;16", "I;16B", "I;16L", "F")  # Pillow's modes of more than 8 bits, which it would cut without a warning
BATCH = 16  # files decoded together; large photographs at full size must fit into memory


def as_image(item: Any, layout: str | None = None) -> Tensor:
    """(C, H, W) uint8 or float32 from a PIL image, an array or a tensor; see :func:`as_nchw` for ``layout``."""
    if isinstance(item, Image.Image):
        return _from_pil(item, "L" if item.mode in GREY else "RGB")
    if not isinstance(item, np.ndarray | Tensor):
        raise DataError(f"an image must be a PIL image, an array or a tensor, got {type(item).__name__}")
    image = as_tensor(item if isinstance(item, Tensor) else item.copy()).cpu()
    if image.ndim not in (2, 3):
        raise DataError(f"an image must be (C, H, W), (H, W, C) or (H, W), got shape {tuple(image.shape)}")
    return as_numbers(as_nchw(image[None], layout))[0]


def _from_pil(image: Image.Image, mode: str) -> Tensor:
    if image.mode in WIDE:
        raise DataError(f"it has more than 8 bits per pixel (mode {image.mode}): convert it to 8 bits first")
    array = torch.from_numpy(np.array(image.convert(mode)))
    return array[None] if mode == "L" else array.permute(2, 0, 1)


def decoded(files: Sequence[Path]) -> Iterator[Tensor]:
    """The uint8 (C, H, W) image in each file, in order; grey only if all files are, else RGB.

    Raises:
        DataError: A file that is not an image, is damaged, or has more than 8 bits; the text names the file.
    """
    grey = all(_each(files, lambda image: image.mode in GREY))  # reads no more than headers, up to the first RGB one
    yield from _each(files, lambda image: _from_pil(image, "L" if grey else "RGB"))


def _each(files: Sequence[Path], use: Callable[[Image.Image], T]) -> Iterator[T]:
    """``use`` of every opened image, in order, on all cores."""

    def opened(file: Path) -> T:
        try:
            with Image.open(file) as image:
                return use(image)
        except Exception as error:  # a decoder may raise anything when its file is damaged
            raise DataError(f"cannot read the image {file}: {error}; repair or remove it") from error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), BATCH):
            yield from pool.map(opened, files[start : start + BATCH])


def check_size(image_size: int | None) -> None:
    """Raise ConfigError unless ``image_size`` is None or an integer of at least 1."""
    refuse(None if image_size is None else whole("image_size", image_size, 1))


def fits(images: Tensor, size: int | None) -> bool:
    """Whether the images have ``size`` already; any size will do if it is None."""
    return size is None or images.shape[-2:] == (size, size)


def resized(images: Tensor, size: int | None) -> Tensor:
    """(N, C, size, size), bilinear and anti-aliased as Pillow does it; unchanged if they fit."""
    if size is None or fits(images, size):
        return images
    scaled = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    return scaled.clamp(*images.aminmax()) if images.is_floating_point() else scaled  # rounding must not leave [0, 1]


def alike(images: Iterable[Tensor], name_of: Callable[[int], str], size: int | None) -> Iterator[Tensor]:
    """The images, resized to ``size``.

    Raises:
        DataError: Two images still differ in shape; the text names both.
    """
    shape = None
    for index, image in enumerate(images):
        fitted = resized(image[None], size)[0]
        shape = shape or fitted.shape
        if fitted.shape != shape:
            way_out = "convert all to grey or all to RGB" if len(fitted) != shape[0] else "use image_size=N"
            raise DataError(
                f"images differ in shape: {name_of(index)} is {tuple(fitted.shape)}, {name_of(0)} is {tuple(shape)}: "
                + way_out
            )
        yield fitted


def shown(images: Iterable[Tensor], count: int, progress: Progress) -> Iterator[Tensor]:
    """The images; each image advances the progress."""
    with progress.stage("read images", count) as stage:
        for image in images:
            stage.advance()
            yield image


def stacked(images: Iterable[Tensor], count: int) -> Tensor:
    """(count, C, H, W) in memory: bytes as long as all images are, else float32 (bytes then count as 1/255)."""
    out = None
    for index, image in enumerate(images):
        if out is None:
            out = torch.empty(count, *image.shape, dtype=image.dtype)
        if image.dtype != out.dtype and out.dtype == torch.uint8:
            out = out.to(torch.float32) / 255
        out[index] = image if image.dtype == out.dtype else image.to(torch.float32) / 255
    if out is None:
        raise DataError("the set is empty: expected at least one image")
    return out


def mapped(images: Iterable[Tensor], count: int, file: Path) -> Tensor:
    """(count, C, H, W) memory-mapped copy-on-write from ``file``, which is written first if it is missing.

    Only one process writes at a time, and an incomplete file never appears. If the file exists, ``images`` is unused.

    Raises:
        StoreError: The file cannot be written, or is damaged.
    """
    if not file.exists():
        try:
            _write_once(images, count, file)
        except OSError as error:
            raise StoreError(f"{file}: cannot write the decoded images: {error}") from error
    try:
        return torch.from_numpy(np.load(file, mmap_mode="c", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise StoreError(f"{file}: cannot map the decoded images: {error}; delete it") from error


def _write_once(images: Iterable[Tensor], count: int, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    with waiting(file.with_suffix(".lock")):
        if file.exists():
            return
        try:
            with part.open("wb") as out:
                _write_array(images, count, out)
                out.flush()
                os.fsync(out.fileno())
            os.replace(part, file)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _write_array(images: Iterable[Tensor], count: int, out: BinaryIO) -> None:
    """A ``.npy`` file, image by image: pages of a file written this way never count as the process's memory."""
    for index, image in enumerate(images):
        array = image.contiguous().numpy()
        if index == 0:
            needed, free = count * array.nbytes, shutil.disk_usage(out.name).free
            if needed > free:
                raise OSError(f"{needed >> 20} MiB needed, {free >> 20} MiB free")
            header = {"descr": array.dtype.str, "fortran_order": False, "shape": (count, *array.shape)}
            np.lib.format.write_array_header_1_0(out, header)
        out.write(array.data)
