"""Image spec: the common properties of all images of a set, and the way between pixels and normalised values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condensekit.errors import DataError, instance, quoted, refuse

EXACT = 0.01  # largest distance of a value from an 8-bit pixel
EXAMPLE = {"shape": "(3, 32, 32)", "mean": "(0.5, 0.5, 0.5)", "std": "(0.2, 0.2, 0.2)"}


@dataclass(frozen=True)
class ImageSpec:
    """The common properties of all images of a set: shape, normalisation and class names.

    >>> import condensekit as ck
    >>> spec = ck.ImageSpec((1, 8, 8), mean=(0.5,), std=(0.25,), class_names={3: "cat"}, flippable=False)
    >>> spec.name_of(3), spec.range
    ("3 ('cat')", ((-2.0,), (2.0,)))

    Args:
        shape: (channels, height, width).
        mean: Per-channel mean of the pixels, which lie in [0, 1].
        std: Per-channel standard deviation of the pixels, above 0 and at most 1.
        class_names: Class name by integer label; labels may have gaps.
        flippable: Whether a mirrored image still shows its class; False for digits and letters.
        pixels: Whether ``mean`` and ``std`` turn the values back into pixels in [0, 1]. False for float32 images that
            were normalised elsewhere.
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: Mapping[int, str] = field(default_factory=dict)
    flippable: bool = True
    pixels: bool = True

    def __post_init__(self) -> None:
        refuse(
            *(_numbers(name, getattr(self, name)) for name in ("shape", "mean", "std")),
            instance("class_names", self.class_names, Mapping, "such as {0: 'cat', 1: 'dog'}"),
        )
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise DataError(f"image shape must be (C, H, W) with positive sizes, got {self.shape}")
        channels = self.shape[0]
        if len(self.mean) != channels or len(self.std) != channels:
            raise DataError(
                f"mean and std need one value for each of the {channels} channels, "
                f"got {len(self.mean)} and {len(self.std)}"
            )
        if not all(np.isfinite(self.mean)) or not all(s > 0 and np.isfinite(s) for s in self.std):
            raise DataError(f"mean must be finite and std positive, got {self.mean} and {self.std}")
        refuse(*(instance(name, getattr(self, name), bool, "True or False") for name in ("flippable", "pixels")))
        if self.pixels and not (min(self.mean) >= 0 and max(*self.mean, *self.std) <= 1):
            likely = "they look like those of 0..255: " if max(*self.mean, *self.std) > 2 else "of pixels in 0..255 "
            raise DataError(
                f"mean and std must be those of pixels in [0, 1], got mean {self.mean}, std {self.std}: {likely}divide "
                "both by 255; images that were normalised elsewhere have mean 0 and std 1 here"
            )

    @property
    def classes(self) -> tuple[int, ...]:
        """The labels, ascending."""
        return tuple(sorted(self.class_names))

    @property
    def range(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """The values of the pixels 0 and 1 in each channel; None if they are unknown."""
        if not self.pixels:
            return None
        pairs = list(zip(self.mean, self.std, strict=True))
        return tuple(-m / s for m, s in pairs), tuple((1 - m) / s for m, s in pairs)

    def alike(self, other: ImageSpec) -> bool:
        """Whether both have the same shape and normalisation, so that their images may share a batch."""
        return (self.shape, self.mean, self.std) == (other.shape, other.mean, other.std)

    def name_of(self, label: int) -> str:
        """A label and its class name: ``7 ('horse')``, or ``7`` if the name is the number."""
        name = self.class_names.get(label, str(label))
        return str(label) if name == str(label) else f"{label} ({name!r})"

    def constants(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Mean and std as (C, 1, 1) float32 tensors."""
        mean, std = torch.tensor([self.mean, self.std], dtype=torch.float32).to(device, non_blocking=True)
        return mean[:, None, None], std[:, None, None]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Turn pixels (..., C, H, W), uint8 in 0..255 or float32 in [0, 1], into normalised float32 images."""
        mean, std = self.constants(pixels.device)
        scaled = pixels.to(torch.float32) * (1 / 255) if pixels.dtype == torch.uint8 else pixels
        return (scaled - mean) / std

    def to_pixels(self, images: Tensor) -> Tensor:
        """Turn normalised images (..., C, H, W) into float32 pixels, clamped to [0, 1]."""
        mean, std = self.constants(images.device)
        return (images.to(torch.float32) * std + mean).clamp(0, 1)

    def to_bytes(self, images: Tensor, start: int = 0) -> Tensor:
        """Turn normalised images (N, C, H, W) into the uint8 pixels that they were made of.

        Args:
            images: The images.
            start: Number of the first image, for the text of an error.

        Raises:
            DataError: An image is no image of 8-bit pixels under this mean and std, or is not finite.
        """
        mean, std = self.constants(images.device)
        exact = (images * std + mean) * 255
        whole = exact.round()
        finite = torch.isfinite(exact).flatten(1).all(1)
        if not finite.all():
            index = start + int(finite.int().argmin())
            raise DataError(f"image {index} has a pixel that is not finite (NaN or infinite): remove or repair it")
        wrong = (((exact - whole).abs() > EXACT) | (whole < 0) | (whole > 255)).flatten(1).any(1)
        if wrong.any():
            raise DataError(
                f"image {start + int(wrong.int().argmax())} is not an 8-bit image under mean {self.mean} and std "
                f"{self.std}: give the normalisation of the images, or leave out the spec"
            )
        return whole.to(torch.uint8)

    def between(self, ends: tuple[float, float]) -> ImageSpec:
        """The spec of values that are no pixels, whose mean and std turn ``ends`` into the pixels 0 and 1, and back."""
        low, high = ends
        width = high - low if high > low else 1.0
        channels = self.shape[0]
        return replace(self, mean=(-low / width,) * channels, std=(1 / width,) * channels)

    def told(self) -> dict[str, str]:
        """What a page says of the images besides their classes."""
        mean, std = (", ".join(f"{value:.3g}" for value in values) for values in (self.mean, self.std))
        return {
            "images": " x ".join(map(str, self.shape)) + (" pixels" if self.pixels else " values that are no pixels"),
            "mean, std": f"{mean}; {std}",
            "mirrored images": "keep their class" if self.flippable else "show another class",
        }

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that :meth:`from_json` reads back."""
        names = {str(k): v for k, v in self.class_names.items()}
        return {
            "shape": list(self.shape),
            "mean": list(self.mean),
            "std": list(self.std),
            "class_names": names,
            "flippable": self.flippable,
            "pixels": self.pixels,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ImageSpec:
        """The inverse of :meth:`to_json`; records of version 0.1 lack the last two entries."""
        names = {int(k): str(v) for k, v in record["class_names"].items()}
        c, h, w = record["shape"]
        flippable, pixels = bool(record.get("flippable", True)), bool(record.get("pixels", True))
        return cls((c, h, w), tuple(record["mean"]), tuple(record["std"]), names, flippable, pixels)


def _numbers(name: str, value: object) -> str | None:
    """The problem of a value that must be a tuple of numbers; None if there is no problem."""
    good = isinstance(value, tuple | list) and all(isinstance(v, Real) and not isinstance(v, bool) for v in value)
    return None if good else f"{name} must be a tuple of numbers, got {quoted(value)}: pass such as {EXAMPLE[name]}"
