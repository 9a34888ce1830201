"""Arrays of images: the axis of the channels, the type, and what the values mean."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condensekit.errors import ConfigError, DataError, quoted, unknown, whole

LAYOUTS = ("NCHW", "NHWC")
USUAL = (1, 3)  # numbers of channels of grey and RGB images
BLOCK = 1 << 22  # values looked at in one call
SLACK = 1e-5  # by which values may leave [0, 1], as resized images do by rounding
LEVELS = 8  # floats from 0 to above this are neither pixels in [0, 1] nor normalised
BRIGHT = 128  # whole floats are pixels in 0..255 if the brightest is at least this


def check_layout(layout: str | None) -> None:
    """Raise ConfigError unless ``layout`` is None or one of :data:`LAYOUTS`."""
    if layout is not None and not (isinstance(layout, str) and layout in LAYOUTS):
        raise unknown("layout", layout, LAYOUTS)


def check_tensors(**given: object) -> None:
    """Raise DataError for the first argument that is no tensor."""
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise DataError(f"{name} must be a torch.Tensor, got {quoted(value)}: pass torch.as_tensor({name})")


def check_places(name: str, value: object) -> None:
    """Raise DataError unless a value is an int64 tensor, which says places of images."""
    if not isinstance(value, Tensor) or value.dtype != torch.int64:
        told = f"a tensor of {value.dtype}" if isinstance(value, Tensor) else quoted(value)
        raise DataError(f"{name} must be an int64 torch.Tensor, got {told}: pass torch.tensor([0, 1])")


def listed(labels: Any) -> list[int]:
    """Labels that a caller lists.

    Raises:
        ConfigError: They are no list, array or tensor of integers.
    """
    found = labels.tolist() if isinstance(labels, np.ndarray | Tensor) else labels
    good = isinstance(found, list | tuple | set | frozenset | range) and not any(whole("label", one) for one in found)
    if not good:
        raise ConfigError(f"labels must be a list of integers, got {quoted(labels)}: pass such as [0, 1]")
    return [int(label) for label in found]


def as_tensor(images: Any) -> Tensor:
    """An array or a tensor as a tensor without a graph that shares its memory, where torch can.

    Raises:
        DataError: Something else, a sparse or quantised tensor, or an array with masked values.
    """
    if isinstance(images, Tensor):
        if images.layout != torch.strided or images.is_quantized:
            kind, way_out = ("quantised", "dequantize") if images.is_quantized else ("sparse", "to_dense")
            raise DataError(f"images must be a dense tensor, got a {kind} one: pass images.{way_out}()")
        return images.detach()
    if isinstance(images, torch.utils.data.Dataset | torch.utils.data.DataLoader):
        raise DataError(f"images must be an array, got {quoted(images)}: condensekit.load and condense take data sets")
    if np.ma.is_masked(images):
        raise DataError("images have masked values: fill them, say with images.filled(0), or leave these images out")
    try:
        array = np.asarray(images)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        array = array.copy() if any(stride < 0 for stride in array.strides) else array
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes to images
            return torch.from_numpy(array)
    except (TypeError, ValueError) as error:
        kind = getattr(images, "dtype", type(images).__name__)
        raise DataError(f"images must be an array of uint8 or float32, got {kind}: {error}") from error


def as_nchw(images: Tensor, layout: str | None = None) -> Tensor:
    """Images (N, C, H, W), (N, H, W, C) or (N, H, W) as (N, C, H, W).

    The channels are on axis 1 or 3: on the one of 1 or 3 entries (grey, RGB), if only one is; else on the one with
    fewer entries than the image has rows and columns, if only one has.

    Args:
        images: Of any type.
        layout: ``NCHW`` or ``NHWC`` says where the channels are; None: the rule decides.

    Raises:
        DataError: Another number of axes, or the rule does not decide.
    """
    shape = tuple(images.shape)
    if len(shape) == 3:
        return images[:, None]
    if len(shape) == 2:
        raise DataError(f"images of shape {shape} are flat rows: {_reshape(shape[1])}")
    if len(shape) != 4:
        raise DataError(f"images must be (N, C, H, W), (N, H, W, C) or (N, H, W), got shape {shape}")
    layout = layout or _layout(shape[1:])
    if layout is None:
        raise DataError(
            f"cannot tell the channels of images of shape {shape}: give layout='NCHW' if they are on axis 1, or "
            "layout='NHWC' if they are on axis 3"
        )
    return images if layout == "NCHW" else images.permute(0, 3, 1, 2)


def channels_last(shape: tuple[int, ...]) -> bool:
    """Whether an image that should be (C, H, W) is (H, W, C): only its last axis has 1 or 3 entries."""
    return shape[2] in USUAL and not {*shape[:2]} & {*USUAL}


def _layout(shape: tuple[int, ...]) -> str | None:
    """The layout of images of this shape by the rule of :func:`as_nchw`; None if the rule does not decide."""
    first, middle, last = shape
    if first == middle == last == 1:
        return "NCHW"
    for either in (
        (first in USUAL, last in USUAL),
        (first < min(middle, last), last < min(first, middle)),
    ):
        if either[0] != either[1]:
            return LAYOUTS[either[1]]
        if all(either):
            return None
    return None


def _reshape(count: int) -> str:
    """How to give flat rows of ``count`` values the shape of images."""
    for channels in (1, 3, 4):
        side = math.isqrt(count // channels)
        if side and channels * side * side == count:
            if channels == 1:
                return f"pass images.reshape(-1, {side}, {side})"
            return (
                f"pass images.reshape(-1, {channels}, {side}, {side}), or images.reshape(-1, {side}, {side}, "
                f"{channels}) if the channels of a pixel lie side by side"
            )
    return "pass images.reshape(-1, C, H, W) with their channels, height and width"


def as_numbers(images: Tensor) -> Tensor:
    """Images of any real type as uint8 or float32, without loss of a pixel.

    Floats become float32; True and False become 255 and 0; integers in 0..255 become uint8.

    Raises:
        DataError: Integers below 0 or above 255, or complex numbers.
    """
    if images.dtype == torch.uint8:
        return images
    if images.dtype == torch.bool:
        return images.to(torch.uint8) * 255
    if images.is_floating_point():
        return images.to(torch.float32)
    if images.is_complex():
        raise DataError(f"pixels must be real numbers, got {images.dtype}: pass their absolute values")
    values = images.cpu().numpy()  # torch has no minimum of uint16
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if low < 0 or high > 255:
        raise DataError(
            f"pixels must be uint8 or floating point, got {images.dtype} in {low}..{high}: scale them to 0..255 first, "
            "16 bits by (images // 257).astype('uint8'), or to floats in [0, 1]"
        )
    return torch.from_numpy(values.astype(np.uint8))


def as_bytes(images: Tensor) -> Tensor:
    """uint8 pixels if every value is a multiple of 1/255 in [0, 1], as ``ToTensor`` makes them; else unchanged."""
    if not images.is_floating_point():
        return images
    found = torch.empty(images.shape, dtype=torch.uint8)
    for block, out in zip(blocks(images), blocks(found), strict=True):
        levels = block * 255
        codes = levels.round()
        if not ((codes >= 0) & (codes <= 255) & ((levels - codes).abs() < 1e-3)).all():
            return images
        out.copy_(codes)
    return found


def blocks(images: Tensor) -> Iterator[Tensor]:
    """The images in parts of about :data:`BLOCK` values."""
    yield from torch.split(images, max(1, BLOCK // max(1, images[:1].numel()))) if len(images) else ()


@dataclass
class Values:
    """The range of images, looked at before they are resized; it says what the values mean.

    Args:
        low: The lowest value so far; of uint8 images, 0 to 255 count as 0 to 1.
        high: The highest value so far.
        whole: Whether all values so far are whole numbers.
        seen: Number of images so far.
    """

    low: float = math.inf
    high: float = -math.inf
    whole: bool = True
    seen: int = 0

    def see(self, images: Tensor) -> Values:
        """Add (N, C, H, W) uint8 or float32 images.

        Raises:
            DataError: A value that is not finite; the text names the image by its number.
        """
        if images.dtype == torch.uint8:
            self.low, self.high = min(self.low, 0.0), max(self.high, 1.0)
            self.seen += len(images)
            return self
        for block in blocks(images):
            finite = torch.isfinite(block).flatten(1).all(1)
            if not finite.all():
                index = self.seen + int((~finite).nonzero()[0])
                raise DataError(f"image {index} has a pixel that is not finite (NaN or infinite): remove or repair it")
            low, high = block.aminmax()
            self.low, self.high = min(self.low, float(low)), max(self.high, float(high))
            self.whole = self.whole and bool((block == block.round()).all())
            self.seen += len(block)
        return self

    @property
    def pixels(self) -> bool:
        """Whether all values lie in [0, 1]."""
        return self.low >= -SLACK and self.high <= 1 + SLACK

    def bytes(self, brightest: float) -> bool:
        """Whether they are 8-bit pixels stored as floats, where ``brightest`` is the highest value of all parts."""
        return self.low >= 0 and self.whole and BRIGHT <= max(self.high, brightest) <= 255

    def check(self) -> None:
        """Raise DataError for values from 0 to far above 1, which are neither pixels in [0, 1] nor normalised."""
        if self.low >= 0 and self.high > LEVELS:
            whole = "whole numbers" if self.whole else "values"
            way_out = "as astype('uint8'), or " if self.whole and self.high <= 255 else ""
            scale = ", which is 255 for 8 bits" if BRIGHT <= self.high <= 255 else ""
            raise DataError(
                f"float images must be pixels in [0, 1], or normalised already, and these are {whole} in "
                f"{self.low:.4g}..{self.high:.4g}: pass them {way_out}divided by their highest possible value{scale}"
            )


def settled(images: Tensor, values: Values, brightest: float | None = None) -> tuple[Tensor, bool]:
    """uint8 or float32 images in the unit that their values tell, and whether they are pixels.

    Floats in [0, 1] are pixels: uint8 if all are multiples of 1/255. Whole floats in 0..255 become uint8. Other floats
    with values below 0 are taken as normalised already, and stay as they are.

    Args:
        images: (N, C, H, W) uint8 or float32.
        values: Their values before they were resized.
        brightest: The highest value of all parts of the data; None: of these images.

    Raises:
        DataError: Floats from 0 to above :data:`LEVELS` that are no whole numbers in 0..255.
    """
    if images.dtype == torch.uint8:
        return images, True
    if values.pixels:
        inside = values.low >= 0 and values.high <= 1
        return as_bytes(images if inside else images.clamp(0, 1)), True
    if values.bytes(values.high if brightest is None else brightest):
        return images.round().to(torch.uint8), True
    values.check()
    return images, False
