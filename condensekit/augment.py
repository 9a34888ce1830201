"""Siamese differentiable augmentation (DSA: Zhao and Bilen, ICML 2021): pure functions of explicit parameters.

Parameters are uniform numbers from the counted generator; the same ones applied to the real and to the
synthetic images of a class transform both alike. One operation is drawn for each class and call, as in the
authors' mode "S". Images are normalised float32; nothing is clamped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from condensekit.errors import refuse, unknown
from condensekit.rng import Draw

NUMBERS = 3  # uniforms for each image, as many as the hungriest operation takes


@dataclass(frozen=True)
class AugmentParams:
    """One operation and its numbers for each of L classes.

    Args:
        ops: L names of operations; on the host, so that choosing one never waits for a device.
        values: (L, m, 3) float32 in [0, 1); m is 1 where all images of a class share them, else n.
    """

    ops: tuple[str, ...]
    values: Tensor

    def rows(self, index: slice | Sequence[int]) -> AugmentParams:
        """The parameters of some of the classes."""
        chosen = range(len(self.ops))[index] if isinstance(index, slice) else index
        return AugmentParams(tuple(self.ops[i] for i in chosen), self.values[list(chosen)])


@dataclass(frozen=True)
class Augmentation:
    """Which operations are drawn from, and their ranges (the authors' defaults).

    Args:
        ops: Names of :data:`OPS`, drawn with equal probability; at least one.
        brightness: Added, from +-half of this, in units of normalised values.
        saturation: Distance from the channel mean is scaled by a factor in [0, this].
        contrast: Distance from the image mean is scaled by a factor in [this, 1 + this].
        crop: Shift of up to this share of the size on each axis, zeros moving in.
        cutout: Side of the blanked square, as a share of the size.
        flip: Probability of mirroring left to right.
        scale: Each axis is scaled by a factor in [1 / this, this].
        rotate: Up to this many degrees either way.

    Raises:
        ConfigError: An unknown operation or a range that makes no sense.
    """

    ops: tuple[str, ...] = ("color", "crop", "cutout", "flip", "scale", "rotate")
    brightness: float = 1.0
    saturation: float = 2.0
    contrast: float = 0.5
    crop: float = 0.125
    cutout: float = 0.5
    flip: float = 0.5
    scale: float = 1.2
    rotate: float = 15.0

    def __post_init__(self) -> None:
        for op in self.ops:
            if op not in OPS:
                raise unknown("augmentation", op, OPS)
        amounts = {k: getattr(self, k) for k in ("brightness", "saturation", "contrast", "rotate")}
        refuse(
            None if self.ops else "an augmentation needs at least one operation; pass None for no augmentation",
            *(None if 0 <= v < math.inf else f"{k} must be finite and at least 0, got {v}" for k, v in amounts.items()),
            *(
                None if 0 <= v <= 1 else f"{k} must lie in [0, 1], got {v}"
                for k, v in {"crop": self.crop, "cutout": self.cutout, "flip": self.flip}.items()
            ),
            None if 1 <= self.scale < math.inf else f"scale must be at least 1, got {self.scale}",
        )

    def without(self, *ops: str) -> Augmentation:
        """The same augmentation, these operations left out."""
        for op in ops:
            if op not in OPS:
                raise unknown("augmentation", op, OPS)
        return replace(self, ops=tuple(op for op in self.ops if op not in ops))

    def draw(
        self, draw: Draw, labels: Sequence[int], role: str = "augment", n: int | None = None
    ) -> AugmentParams:
        """Parameters for the classes in ``labels``.

        Args:
            draw: The randomness of this step.
            labels: L class labels; a class's parameters do not depend on the others.
            role: Names what the parameters are for.
            n: None gives one set for all images of a class (siamese); a number gives each of n images its own.
        """
        keys = torch.tensor(list(labels), dtype=torch.int64)
        chosen = draw.integers(role + "/op", keys, 1, len(self.ops))[:, 0].tolist()
        values = draw.uniform(role, keys, NUMBERS * (n or 1)).reshape(len(keys), n or 1, NUMBERS)
        return AugmentParams(tuple(self.ops[i] for i in chosen), values)

    def apply(self, images: Tensor, params: AugmentParams) -> Tensor:
        """Transform the images of each class.

        Args:
            images: (L, n, C, H, W) float, normalised.
            params: Of :meth:`draw`, for the same L classes (and n images, where not siamese).

        Returns:
            The same shape; differentiable in ``images``.
        """
        values = params.values.to(images.device, images.dtype)
        rows = {op: [i for i, name in enumerate(params.ops) if name == op] for op in dict.fromkeys(params.ops)}
        if len(rows) == 1:
            return OPS[params.ops[0]](images, values, self)
        parts = [OPS[op](images[index], values[index], self) for op, index in rows.items()]
        order = torch.tensor([i for index in rows.values() for i in index])
        return torch.cat(parts)[torch.argsort(order).to(images.device)]

    def apply_batch(self, images: Tensor, draw: Draw, role: str = "augment") -> Tensor:
        """(N, C, H, W) training images under one operation, each image with its own parameters."""
        return self.apply(images[None], self.draw(draw, [0], role, len(images)))[0]


def cutmix_batch(
    images: Tensor, draw: Draw, role: str = "cutmix", probability: float = 0.5, beta: float = 1.0
) -> tuple[Tensor, Tensor, float]:
    """CutMix (Yun et al., ICCV 2019): paste one box of a shuffled batch into the batch.

    Args:
        images: (N, C, H, W).
        draw: The randomness of this step.
        role: Names what it is for.
        probability: Of mixing at all, in [0, 1].
        beta: Both parameters of the beta distribution of the area kept; above 0.

    Returns:
        The images; (N,) int64, the partner of each; and the share in [0, 1] of each image's own label. Where
        nothing is mixed: the batch itself, everyone its own partner, 1.
    """
    count, height, width = len(images), images.shape[-2], images.shape[-1]
    coin, x, y = draw.uniform(role, torch.zeros(1, dtype=torch.int64), 3)[0].tolist()
    if coin >= probability:
        return images, torch.arange(count, device=images.device), 1.0
    generator = draw.generator(role + "/area")
    gammas = torch._standard_gamma(torch.tensor([beta, beta], dtype=torch.float64), generator=generator)
    kept = float(gammas[0] / gammas.sum())
    side = math.sqrt(1 - kept)
    top, left = int(y * height), int(x * width)
    half_h, half_w = int(height * side) // 2, int(width * side) // 2
    rows = slice(max(0, top - half_h), min(height, top + half_h))
    columns = slice(max(0, left - half_w), min(width, left + half_w))
    partner = draw.permutation(role + "/partner", count).to(images.device)
    mixed = images.clone()
    mixed[..., rows, columns] = images[partner][..., rows, columns]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return mixed, partner, 1 - area / (height * width)


def _color(x: Tensor, u: Tensor, a: Augmentation) -> Tensor:
    """Brightness, then saturation, then contrast."""
    b, s, c = (u[..., i, None, None, None] for i in range(3))
    x = x + (b - 0.5) * a.brightness
    grey = x.mean(-3, keepdim=True)
    x = (x - grey) * (s * a.saturation) + grey
    level = x.mean((-3, -2, -1), keepdim=True)
    return (x - level) * (c + a.contrast) + level


def _crop(x: Tensor, u: Tensor, a: Augmentation) -> Tensor:
    """Shift by whole pixels on both axes; zeros move in."""
    height, width = x.shape[-2:]
    reach_y, reach_x = int(height * a.crop + 0.5), int(width * a.crop + 0.5)
    padded = F.pad(x, (reach_x, reach_x, reach_y, reach_y))
    dy = (u[..., 0] * (2 * reach_y + 1)).long()
    dx = (u[..., 1] * (2 * reach_x + 1)).long()
    rows = (dy[..., None] + torch.arange(height, device=x.device))[:, :, None, :, None]
    columns = (dx[..., None] + torch.arange(width, device=x.device))[:, :, None, None, :]
    lead, shape = padded.shape[:3], padded.shape
    shifted = padded.gather(-2, rows.expand(*lead, height, shape[-1]))
    return shifted.gather(-1, columns.expand(*lead, height, width))


def _cutout(x: Tensor, u: Tensor, a: Augmentation) -> Tensor:
    """Blank a square whose centre lies anywhere in the image."""
    keep = []
    for axis, size in enumerate(x.shape[-2:]):
        side = int(size * a.cutout + 0.5)
        start = (u[..., axis] * (size + 1 - side % 2)).floor() - side // 2
        position = torch.arange(size, device=x.device)
        keep.append((position < start[..., None]) | (position >= start[..., None] + side))
    return x * (keep[0][:, :, None, :, None] | keep[1][:, :, None, None, :])


def _flip(x: Tensor, u: Tensor, a: Augmentation) -> Tensor:
    """Mirror left to right with the given probability."""
    return torch.where((u[..., 0] < a.flip)[..., None, None, None], x.flip(-1), x)


def _scale(x: Tensor, u: Tensor, a: Augmentation) -> Tensor:
    """Stretch each axis by its own factor."""
    factor = u[..., :2] * (a.scale - 1 / a.scale) + 1 / a.scale
    zero = torch.zeros_like(factor[..., 0])
    return _warp(x, torch.stack([factor[..., 0], zero, zero, zero, factor[..., 1], zero], -1))


def _rotate(x: Tensor, u: Tensor, a: Augmentation) -> Tensor:
    """Turn around the centre."""
    angle = (u[..., 0] - 0.5) * (2 * a.rotate * math.pi / 180)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return _warp(x, torch.stack([cos, -sin, zero, sin, cos, zero], -1))


def _warp(x: Tensor, theta: Tensor) -> Tensor:
    """Bilinear sampling under affine maps (L, m, 6); zeros outside.

    Corners are aligned: what the authors' torch 1.2 did by default. Images that share a map are sampled
    as channels of one image.
    """
    images, maps = x.flatten(1, 2) if theta.shape[1] == 1 else x.flatten(0, 1), theta.reshape(-1, 2, 3)
    grid = F.affine_grid(maps, list(images.shape), align_corners=True)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=True).reshape(x.shape)


OPS: dict[str, Callable[[Tensor, Tensor, Augmentation], Tensor]] = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}
