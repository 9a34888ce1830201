"""Scale of images whose normalisation is unknown: it tells whether later images were normalised in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from condensekit.data.images import ClassImages

LOOKED_AT = 256  # images whose values are looked at
LEVELS = 256  # levels of a pixel of 8 bits
OFF = 0.02  # largest distance of a value from its level, in steps
ENDS = 0.25  # largest distance of the ends of two ranges with different steps, as a part of both ranges
SPREAD = 3.0  # largest ratio of the standard deviations of two sets of images without levels
ENOUGH = 16  # images from which standard deviations are compared


@dataclass(frozen=True)
class Channel:
    """Values of one channel.

    Args:
        low: Least value.
        high: Greatest value.
        step: Distance of the levels, if the values lie on at most 256 of them, as those of 8-bit pixels do; else 0.
        std: Standard deviation.
        mean: Mean.
        images: Number of images.
    """

    low: float
    high: float
    step: float
    std: float
    mean: float
    images: int

    @classmethod
    def of(cls, values: Tensor) -> Channel:
        """Look at values (N, H, W) float32."""
        flat = values.flatten()
        low, high = float(flat.min()), float(flat.max())
        std, mean = torch.std_mean(flat.double(), correction=0)
        return cls(low, high, _step(flat, low, high - low), float(std), float(mean), len(values))

    def fits(self, other: Channel) -> bool:
        """Whether both have levels on one grid of at most 256, or, without levels, similar standard deviations."""
        if not (self.step and other.step):
            small, large = sorted((self.std, other.std))
            return large <= SPREAD * small or small == 0 or min(self.images, other.images) < ENOUGH
        step, coarse = sorted((self.step, other.step))
        low, high = min(self.low, other.low), max(self.high, other.high)
        steps = (coarse / step, (other.low - self.low) / step)
        apart = max(abs(self.low - other.low), abs(self.high - other.high)) / (high - low)
        return (
            all(abs(n - round(n)) < OFF * max(1, abs(n) / LEVELS) for n in steps)
            and (high - low) / step < LEVELS - 0.5
            and (coarse < 1.5 * step or apart < ENDS)
        )

    def joined(self, other: Channel) -> Channel:
        """The values of both."""
        step, images = min(self.step, other.step), self.images + other.images
        share = other.images / images
        mean = (1 - share) * self.mean + share * other.mean
        square = (1 - share) * self.std**2 + share * other.std**2 + share * (1 - share) * (self.mean - other.mean) ** 2
        return Channel(min(self.low, other.low), max(self.high, other.high), step, square**0.5, mean, images)


@dataclass(frozen=True)
class Scale:
    """Values of each channel."""

    channels: tuple[Channel, ...]

    @classmethod
    def of(cls, data: ClassImages) -> Scale:
        """Look at some images of ``data``, evenly spaced, in normalised values."""
        rows = torch.linspace(0, len(data) - 1, min(len(data), LOOKED_AT)).long()
        values = data.at(rows).transpose(0, 1)
        return cls(tuple(Channel.of(channel) for channel in values))

    def misfit(self, later: Scale) -> str | None:
        """The problem of later images that belong to another normalisation; None: there is no problem."""
        pairs = list(zip(self.channels, later.channels, strict=True))
        if all(mine.fits(theirs) for mine, theirs in pairs):
            return None
        shown = [
            f"values in {min(c.low for c in which):.3g}..{max(c.high for c in which):.3g} with a standard deviation of "
            f"{max(c.std for c in which):.2g}"
            for which in (later.channels, self.channels)
        ]
        return (
            f"the images were normalised in another way than those in the memory: {shown[0]}, against {shown[1]}; "
            "normalise them alike, or use a new memory"
        )

    def joined(self, other: Scale) -> Scale:
        """The values of both."""
        return Scale(tuple(a.joined(b) for a, b in zip(self.channels, other.channels, strict=True)))

    def to_json(self) -> list[list[float]]:
        """Plain values that :meth:`from_json` reads."""
        return [[c.low, c.high, c.step, c.std, c.mean, c.images] for c in self.channels]

    @classmethod
    def from_json(cls, record: Sequence[Sequence[float]]) -> Scale:
        """The scale of :meth:`to_json`."""
        return cls(tuple(Channel(low, high, step, std, mean, int(n)) for low, high, step, std, mean, n in record))


def _step(values: Tensor, low: float, width: float) -> float:
    """Distance of the levels of values (n,); 0: there are no levels, or only one."""
    if width == 0:
        return 0.0
    levels = torch.unique(((values.double() - low) / width).round(decimals=5))
    if len(levels) > LEVELS:
        return 0.0
    least = float(levels.diff().min())
    for parts in range(1, 9):  # up to eight neighbouring levels may be missing in the images
        count = round(parts / least)  # steps from the least value to the greatest
        if count < LEVELS and float((levels * count - (levels * count).round()).abs().max()) < OFF:
            return width / count
    return 0.0
