"""Bits: images whose values are stored with 2 to 8 bits each, and the levels that these bits name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from condensekit.errors import DataError
from condensekit.sets.codes import Code, Codec, Shape

Bytes = NDArray[np.uint8]
ROUNDS = 20  # of the search for learned levels
FINEST = 255  # the levels are multiples of this part of the range of their class


@dataclass(frozen=True)
class Bits(Codec):
    """Codec of values with a few bits each.

    Each channel of an image has its own levels. Where it has at least ``4 ** (bits + 1)`` pixels, these are the
    ``2 ** bits`` values of least squared error (Lloyd and Max); else they are evenly spaced between two ends. A level
    takes one byte: a place in the range of its class and channel, which is stored once in float32.

    Args:
        bits: Bits of a value, 2 to 8.
    """

    bits: int
    pixels = False

    @property
    def name(self) -> str:
        """See :class:`Codec`."""
        return f"{self.bits}bit"

    def code(self, images: Tensor, quality: int = 0) -> list[Code]:
        """See :class:`Codec`; images (N, C, H, W) float32, there is no choice of quality."""
        lo, hi = images.amin((0, 2, 3)), images.amax((0, 2, 3))
        head = torch.stack([lo, hi]).numpy().astype("<f4").tobytes()
        span = torch.where(hi > lo, hi - lo, torch.ones_like(hi))
        values = ((images - lo[:, None, None]) / span[:, None, None]).flatten(2)  # (N, C, P) in 0 to 1
        stored = self._levels(values)
        levels = self._all(stored)
        places = torch.searchsorted((levels[..., 1:] + levels[..., :-1]) / 2, values.contiguous())
        packed = self._packed(places.flatten(1).to(torch.uint8).numpy())
        return [Code(head, own.numpy().tobytes() + row.tobytes()) for own, row in zip(stored, packed, strict=True)]

    def decode(self, codes: Sequence[Code], shape: Shape) -> Tensor:
        """See :class:`Codec`; (N, C, H, W) float32."""
        count, (channels, height, width) = len(codes), shape
        ends = np.stack([np.frombuffer(code.head, "<f4").reshape(2, channels) for code in codes])
        lo, hi = torch.from_numpy(ends.astype(np.float32)).unbind(1)
        good = torch.isfinite(hi - lo).all(1) & (lo <= hi).all(1)
        if not good.all():
            raise DataError(f"image {int((~good).nonzero()[0])} has a range that is not finite, or exchanged ends")
        bodies = np.stack([np.frombuffer(code.body, np.uint8) for code in codes])
        each = self._each(height * width) * channels
        levels = self._all(torch.from_numpy(bodies[:, :each].copy()).reshape(count, channels, -1))
        places = self._unpacked(bodies[:, each:], channels * height * width).reshape(count, channels, -1)
        values: Tensor = levels.gather(2, torch.from_numpy(places).to(torch.int64)).reshape(count, *shape)
        span = torch.where(hi > lo, hi - lo, torch.zeros_like(hi))
        found: Tensor = values * span[..., None, None] + lo[..., None, None]
        return found

    def cut(self, part: bytes, shape: Shape) -> int | None:
        """See :class:`Codec`."""
        place = len(part) - self._each(shape[1] * shape[2]) * shape[0] - -(-math.prod(shape) * self.bits // 8)
        return place if place in (0, 1, 8 * shape[0]) else None

    def _each(self, pixels: int) -> int:
        """Stored levels of a channel with so many pixels."""
        return 2**self.bits if pixels >= 4 ** (self.bits + 1) else 2

    def _levels(self, values: Tensor) -> Tensor:
        """(N, C, L) uint8 stored levels, ascending, of values (N, C, P) in 0 to 1."""
        lo, hi = values.amin(2, keepdim=True), values.amax(2, keepdim=True)
        lo, hi = (lo * FINEST).floor() / FINEST, (hi * FINEST).ceil() / FINEST
        if self._each(values.shape[2]) == 2:
            return (torch.cat([lo, hi], 2) * FINEST).round().to(torch.uint8)
        values = values.sort(2)[0]
        levels = lo + (hi - lo) * (torch.arange(2**self.bits) + 0.5) / 2**self.bits
        sums = torch.cat([torch.zeros_like(lo), values.double().cumsum(2)], 2)
        for _ in range(ROUNDS):
            ends = torch.searchsorted(values, (levels[..., 1:] + levels[..., :-1]) / 2)
            first, last = torch.full_like(ends[..., :1], 0), torch.full_like(ends[..., :1], values.shape[2])
            ends = torch.cat([first, ends, last], 2)
            counts, totals = ends.diff(dim=2), sums.gather(2, ends).diff(dim=2)
            levels = torch.where(counts > 0, (totals / counts.clamp(min=1)).float(), levels)
        found: Tensor = (levels * FINEST).round().clamp(0, FINEST).to(torch.uint8)
        return found

    def _all(self, stored: Tensor) -> Tensor:
        """(N, C, 2 ** bits) float32 levels in 0 to 1."""
        levels = stored.to(torch.float32) / FINEST
        if stored.shape[2] != 2:
            return levels
        share = torch.arange(2**self.bits) / (2**self.bits - 1)
        found: Tensor = levels[..., :1] + (levels[..., 1:] - levels[..., :1]) * share
        return found

    def _packed(self, places: Bytes) -> Bytes:
        """(N, ceil(V * bits / 8)) bytes of (N, V) places."""
        return np.packbits(
            np.unpackbits(places[..., None], axis=2)[..., 8 - self.bits :].reshape(len(places), -1), axis=1
        )

    def _unpacked(self, packed: Bytes, values: int) -> Bytes:
        """(N, values) places of :meth:`_packed`."""
        bits = np.unpackbits(packed, axis=1, count=values * self.bits).reshape(len(packed), values, self.bits)
        return np.packbits(np.pad(bits, ((0, 0), (0, 0), (8 - self.bits, 0))), axis=2)[..., 0]
