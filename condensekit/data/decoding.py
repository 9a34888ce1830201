"""Decoding: items and arrays as one (N, C, H, W) tensor in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from condensekit.data.arrays import as_nchw, as_numbers, as_tensor
from condensekit.errors import DataError, refuse, whole
from condensekit.progress import Progress

MAX_BYTES = 8 << 30  # of decoded images in memory
LISTED = 10  # images that an error names
SQUARE = 1.05  # longer side over shorter side up to which an image is taken for a square
GREY = ("1", "L", "LA", "La")  # Pillow's modes that hold one channel of 8 bits
ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
WHITE = 255  # transparent parts are laid on this ground, as documents and most viewers show them
ORIENTATION = 0x0112  # number of the EXIF entry
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by its EXIF orientation."""


def as_image(item: Any, layout: str | None = None) -> Tensor:
    """(C, H, W) uint8 or float32 from a PIL image, an array or a tensor; transparent parts become white.

    Args:
        item: The image.
        layout: See :func:`condensekit.data.arrays.as_nchw`.

    Raises:
        DataError: Another object, or pixels of another type or of more than 8 bits.
    """
    if isinstance(item, Image.Image):
        if is_wide(item):
            raise DataError(f"it has more than 8 bits per pixel (mode {item.mode}): convert it to 8 bits first")
        return from_pil(item, "L" if is_grey(item) else "RGB")
    if not isinstance(item, np.ndarray | Tensor):
        raise DataError(f"an image must be a PIL image, an array or a tensor, got {type(item).__name__}")
    image = as_tensor(item if isinstance(item, Tensor) else item.copy()).cpu()
    if image.ndim not in (2, 3):
        raise DataError(f"an image must be (C, H, W), (H, W, C) or (H, W), got shape {tuple(image.shape)}")
    return as_numbers(as_nchw(image[None], layout))[0]


def is_wide(image: Image.Image) -> bool:
    """Whether an image has one channel of 16 bits; PNG and PGM files of 16 bits may have mode ``I``."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def is_grey(image: Image.Image) -> bool:
    """Whether an image has one channel of brightness; a palette counts as colours."""
    return image.mode in GREY or is_wide(image)


def has_alpha(image: Image.Image) -> bool:
    """Whether an image may have transparent parts."""
    palette = getattr(image.palette, "mode", "")
    return image.mode in ALPHA or palette == "RGBA" or "transparency" in image.info


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) if it is missing or damaged."""
    try:
        found = Image.Image.getexif(image).get(ORIENTATION)  # that of PNG files would read all pixels
    except Exception:  # damaged EXIF data may raise anything
        return 1
    return found if found in TURNS else 1


def upright(image: Image.Image) -> Image.Image:
    """The image, turned by its EXIF orientation."""
    turn = orientation(image)
    return image if turn == 1 else image.transpose(TURNS[turn])


def from_pil(image: Image.Image, mode: str) -> Tensor:
    """The uint8 pixels (C, H, W) of an image in mode ``L`` or ``RGB``, on white; of 16 bits, the upper 8 are kept.

    Raises:
        DataError: Pixels of 32 bits.
    """
    if is_wide(image):
        array = np.asarray(image)
        levels = (array >> 8).astype(np.uint8)
        if "transparency" in image.info:
            levels[array == image.info["transparency"]] = WHITE
        image = Image.fromarray(levels)
    if image.mode in ("I", "F"):
        raise DataError(f"it has 32 bits per pixel (mode {image.mode}): convert it to 8 bits first")
    if has_alpha(image):
        ground = Image.new("RGBA", image.size, (WHITE, WHITE, WHITE, 255))
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    pixels = torch.from_numpy(np.array(image.convert(mode)))
    return pixels[None] if mode == "L" else pixels.permute(2, 0, 1)


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
    if size == 1 and not images.is_floating_point():  # torch's kernel for bytes fails on one pixel of three channels
        return resized(images.float(), size).round().to(images.dtype)
    scaled = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    return scaled.clamp(*images.aminmax()) if images.is_floating_point() else scaled  # rounding must not leave [0, 1]


def stretched(sizes: Iterable[Sequence[int]], size: int | None) -> tuple[str, ...]:
    """A note that counts the images of these heights and widths that :func:`resized` stretches; empty without any."""
    count = sum(max(sides) > SQUARE * min(sides) for sides in sizes) if size else 0
    return (f"{count:,} image{'s' * (count > 1)} stretched to a square: height and width differ",) if count else ()


def alike(
    images: Iterable[Tensor], name_of: Callable[[int], str], size: int | None, way_out: str = "use image_size=N"
) -> Iterator[Tensor]:
    """The images, resized to ``size``; ``way_out`` ends the error about sizes that differ.

    Raises:
        DataError: Images still differ in shape; the text names those unlike the first, or the first ten of them.
    """
    shape: tuple[int, ...] = ()
    others: list[str] = []
    grey = False
    for index, image in enumerate(images):
        fitted = resized(image[None], size)[0]
        shape = shape or tuple(fitted.shape)
        if tuple(fitted.shape) != shape:
            others.append(f"{name_of(index)} is {tuple(fitted.shape)}")
            grey = grey or len(fitted) != shape[0]
        elif not others:
            yield fitted
    if others:
        more = f" and {len(others) - LISTED:,} more" if len(others) > LISTED else ""
        way_out = "convert all to grey or all to RGB" if grey else way_out
        raise DataError(
            f"images differ in shape: {name_of(0)} is {shape}; {', '.join(others[:LISTED])}{more}: {way_out}"
        )


def check_bytes(images: int, needed: int) -> None:
    """Raise DataError if decoded images need more than :data:`MAX_BYTES` of memory."""
    if needed > MAX_BYTES:
        raise DataError(
            f"{images:,} images need {needed:,} bytes of memory, more than the limit of {MAX_BYTES:,}: use a smaller "
            "image_size=N, or mmap=FOLDER"
        )


def shown(images: Iterable[Tensor], count: int, progress: Progress, done: int = 0) -> Iterator[Tensor]:
    """The images after the first ``done`` of ``count``; each image advances the progress."""
    with progress.stage("read images", count, done) as stage:
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


@contextlib.contextmanager
def enough_memory(needed: int, way_out: str = "use a smaller image_size=N, or mmap=FOLDER") -> Iterator[None]:
    """Turn a lack of memory inside into a DataError that says how many bytes are needed at least."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):  # torch's kind of MemoryError
            raise
        raise DataError(f"not enough memory for images of {needed:,} bytes: {way_out}") from error
