"""Augmentation: differentiable operations on images, with explicit random parameters.

Siamese augmentation has one set of parameters for each class, for its real and its synthetic images (Zhao
and Bilen, Dataset Condensation with Differentiable Siamese Augmentation, ICML 2021). In training, each
image has its own parameters. The operation is chosen on the CPU, which never waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from condensekit.data.images import ImageSpec
from condensekit.errors import ConfigError, DataError, instance, quoted, refuse, unknown, within
from condensekit.rng import Draw

NUMBERS = 3  # uniform numbers in each set of parameters; no operation needs more


@dataclass(frozen=True, eq=False)
class AugmentParams:
    """The operation and its parameters for each class (row) of a batch.

    Args:
        ops: (L,) the operation of each row.
        uniforms: (L, m, 3) float64 in [0, 1), on the CPU: m = 1 if the images of a row share them, else a
            set for each image. :class:`Augmentation` maps them to its ranges.
    """

    ops: tuple[str, ...]
    uniforms: Tensor

    def rows(self, index: slice | Sequence[int]) -> AugmentParams:
        """The parameters of the rows at ``index``."""
        kept = range(len(self.ops))[index] if isinstance(index, slice) else index
        return AugmentParams(tuple(self.ops[i] for i in kept), self.uniforms[list(kept)])


@dataclass(frozen=True)
class Augmentation:
    """Operations and their ranges; ONE operation is drawn for each row and call.

    The defaults are the authors' strategy ``color_crop_cutout_flip_scale_rotate``; for digits, leave out
    ``flip``. Pixels from outside the image are 0.

    >>> from condensekit import Augmentation
    >>> Augmentation(ops=("crop", "flip")).without("flip").ops
    ('crop',)

    Args:
        ops: Names of operations: ``color``, ``crop``, ``cutout``, ``flip``, ``scale``, ``rotate``; at least one.
        brightness: A number is added, uniform in +- brightness / 2.
        saturation: The difference to the grey image is multiplied by a number in [0, saturation].
        contrast: The difference to the mean of the image is multiplied by a number in [contrast, contrast + 1].
        crop: Largest shift in each direction, as a share of the size, at most 0.49; shifts are whole pixels.
        cutout: Side of the blanked square, as a share of the size; its middle may lie anywhere.
        flip: Probability of a horizontal flip.
        scale: Each axis is zoomed separately, with a sampling step uniform in [1 / scale, scale].
        rotate: The angle in degrees is uniform in +- rotate.
        space: ``normalised``: work on normalised images; ``pixel``: work on pixels, and normalise again.
        spec: Mean and std, for ``space="pixel"``.

    Raises:
        ConfigError: An unknown operation or space, no operation, a value out of range, a missing spec.
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
    space: str = "normalised"
    spec: ImageSpec | None = None

    def __post_init__(self) -> None:
        _check_ops(self.ops)
        if not isinstance(self.space, str) or self.space not in ("normalised", "pixel"):
            raise unknown("space", self.space, ("normalised", "pixel"))
        refuse(None if self.spec is None else instance("spec", self.spec, ImageSpec, "the spec of the images"))
        limits = {
            "brightness": (0.0, np.inf),
            "saturation": (0.0, np.inf),
            "contrast": (0.0, np.inf),
            "crop": (0.0, 0.49),
            "cutout": (0.0, 1.0),
            "flip": (0.0, 1.0),
            "scale": (1.0, np.inf),
            "rotate": (0.0, 180.0),
        }
        refuse(
            None if self.ops else "an augmentation needs at least one operation: pass None for no augmentation",
            'space="pixel" needs the spec, for its mean and std' if self.space == "pixel" and not self.spec else None,
            *(within(name, getattr(self, name), low, high) for name, (low, high) in limits.items()),
        )

    def without(self, *ops: str) -> Augmentation:
        """The same augmentation without some operations: ``Augmentation().without("flip")``."""
        _check_ops(ops)
        return replace(self, ops=tuple(op for op in self.ops if op not in ops))

    def on(self, spec: ImageSpec) -> Augmentation | None:
        """The augmentation for data with this spec: without ``flip`` if a mirrored image may show another class."""
        if spec.flippable or "flip" not in self.ops:
            return self
        return None if self.ops == ("flip",) else self.without("flip")

    def draw(self, draw: Draw, labels: Sequence[int], role: str = "augment", n: int | None = None) -> AugmentParams:
        """Draw parameters, one row for each label; a row does not depend on the other labels.

        Args:
            draw: The random numbers of the step.
            labels: (L,) class labels.
            role: Name of the purpose of the parameters.
            n: None: one set for all images of a row (siamese). Else the number of images of a row, each with a set.
        """
        keys = torch.tensor(list(labels), dtype=torch.int64)
        chosen = draw.integers(f"{role}/op", keys, 1, len(self.ops))[:, 0].tolist()
        uniforms = [draw.uniform(f"{role}/{i}", keys, n or 1) for i in range(NUMBERS)]
        return AugmentParams(tuple(self.ops[i] for i in chosen), torch.stack(uniforms, dim=-1).double())

    def apply(self, images: Tensor, params: AugmentParams) -> Tensor:
        """Apply to each row its operation.

        Args:
            images: (L, n, C, H, W) float, normalised, on any device.
            params: Parameters of L rows, with one set for a row or n sets.

        Returns:
            (L, n, C, H, W), differentiable with respect to ``images``.

        Raises:
            DataError: Images and parameters of different sizes.
        """
        if images.ndim != 5 or len(images) != len(params.ops) or params.uniforms.shape[1] not in (1, images.shape[1]):
            raise DataError(
                f"parameters are for {tuple(params.uniforms.shape[:2])} rows and images (1: shared by the row), "
                f"got images of shape {tuple(images.shape)}: expected (L, n, C, H, W)"
            )
        if self.space == "normalised" or self.spec is None:
            return self._apply(images, params)
        mean, std = (value.to(images.dtype) for value in self.spec.constants(images.device))
        return (self._apply(images * std + mean, params) - mean) / std

    def apply_batch(self, images_NCHW: Tensor, draw: Draw, role: str = "augment") -> Tensor:  # noqa: N803
        """Augment (N, C, H, W) images for training: one operation, with parameters for each image."""
        return self.apply(images_NCHW[None], self.draw(draw, [0], role, n=len(images_NCHW)))[0]

    def _apply(self, images: Tensor, params: AugmentParams) -> Tensor:
        """Apply each operation once, to all rows that have it; a GPU takes as long to start many operations as few."""
        if len(set(params.ops)) == 1:
            return OPS[params.ops[0]](images, params.uniforms, self)
        if images.device.type == "cuda":
            return self._at_once(images, params)
        rows = list(images.unbind(0))
        for op in dict.fromkeys(params.ops):
            index = [i for i, other in enumerate(params.ops) if other == op]
            done = OPS[op](torch.stack([rows[i] for i in index]), params.uniforms[index], self)
            for i, row in zip(index, done.unbind(0), strict=True):
                rows[i] = row
        return torch.stack(rows)

    def _at_once(self, images: Tensor, params: AugmentParams) -> Tensor:
        """Apply all operations to all rows together, with numbers that leave a row without the operation as it is.

        Rows that are cropped or flipped are sampled as well. The numbers are made on the host, and copied at once.
        """
        (height, width), sets = images.shape[-2:], params.uniforms.shape[:2]
        matrix = torch.eye(2, 3, dtype=torch.float64).repeat(*sets, 1, 1)
        box = torch.zeros(*sets, 2, 2, dtype=torch.float64)  # its first pixel and its end, for each axis
        colour = torch.eye(1, 4, dtype=torch.float64).repeat(*sets, 1)
        for op in set(params.ops):
            rows = [i for i, other in enumerate(params.ops) if other == op]
            uniforms = params.uniforms[rows]
            if op == "color":
                b, s, c = _colour_numbers(uniforms, self)
                colour[rows] = torch.stack([c * s, c * (1 - s), 1 - c, b], -1)
            elif op == "cutout":
                ends = [torch.stack(_box(uniforms, axis, images, self), -1) for axis in (0, 1)]
                box[rows] = torch.stack(ends, -2).double()
            elif op == "crop":
                y, x = (_moves(uniforms, axis, images, self).double() for axis in (0, 1))
                matrix[..., 2][rows] = torch.stack([2 * x / width, 2 * y / height], -1)
            elif op == "flip":
                matrix[..., 0, 0][rows] = torch.where(uniforms[..., 0] < self.flip, -1.0, 1.0).double()
            else:
                matrix[..., :2][rows] = (_zoom if op == "scale" else _turn)(uniforms, images, self)
        numbers = torch.cat([matrix.flatten(2), box.flatten(2), colour], -1).to(images.dtype)
        theta, box, colour = numbers.to(images.device, non_blocking=True).split([6, 4, 4], -1)
        images = _sampled(images, theta.reshape(-1, 2, 3))
        y, x = (
            (pixel >= box[..., 2 * axis, None]) & (pixel < box[..., 2 * axis + 1, None])
            for axis, pixel in enumerate(torch.arange(size, device=images.device) for size in (height, width))
        )
        images = images * ~(y[..., :, None] & x[..., None, :])[:, :, None]
        grey = images.mean(2, keepdim=True)
        own, of_grey, of_mean, shift = colour[:, :, None, None, None].unbind(-1)
        coloured: Tensor = images * own + (grey * of_grey + (grey.mean((3, 4), keepdim=True) * of_mean + shift))
        return coloured


# Every operation: images (R, n, C, H, W), uniforms (R, m, 3) with m = 1 or n, ranges -> images.


def _like(values_Rm: Tensor, images: Tensor) -> Tensor:  # noqa: N803
    """Host values (R, m) as (R, m, 1, 1, 1) where the images are, in their precision."""
    return values_Rm.to(images.dtype).to(images.device, non_blocking=True)[:, :, None, None, None]


def _color(images: Tensor, uniforms: Tensor, ranges: Augmentation) -> Tensor:
    """Brightness, then saturation, then contrast, in one pass.

    With the grey image g and the mean m of x: after the shift b, s (x - g) + g, which keeps m + b, and
    c (. - m - b) + m + b, the result is c s x + c (1 - s) g + (1 - c) m + b.
    """
    b, s, c = (_like(values, images) for values in _colour_numbers(uniforms, ranges))
    grey = images.mean(2, keepdim=True)
    mean = grey.mean((3, 4), keepdim=True)
    return images * (c * s) + (grey * (c * (1 - s)) + (mean * (1 - c) + b))


def _colour_numbers(uniforms: Tensor, ranges: Augmentation) -> tuple[Tensor, Tensor, Tensor]:
    """Brightness, saturation and contrast (R, m)."""
    b, s, c = uniforms.unbind(-1)
    return (b - 0.5) * ranges.brightness, s * ranges.saturation, c + ranges.contrast


def _crop(images: Tensor, uniforms: Tensor, ranges: Augmentation) -> Tensor:
    """Shift by whole pixels: pixel (y, x) comes from (y + dy, x + dx)."""
    shifts = [_moves(uniforms, axis, images, ranges) for axis in (0, 1)]
    if uniforms.shape[1] == 1:
        pairs = torch.cat(shifts, dim=1).tolist()
        return torch.stack([F.pad(row, (-x, x, -y, y)) for row, (y, x) in zip(images.unbind(0), pairs, strict=True)])
    for axis, shift in zip((-2, -1), shifts, strict=True):
        images = _shift(images, shift.to(images.device, non_blocking=True), axis)
    return images


def _moves(uniforms: Tensor, axis: int, images: Tensor, ranges: Augmentation) -> Tensor:
    """Shifts (R, m) int64 in pixels along y (``axis`` 0) or x."""
    most = int(images.shape[axis - 2] * ranges.crop + 0.5)
    return (uniforms[..., axis] * (2 * most + 1)).floor().long() - most


def _shift(images: Tensor, shift_Rn: Tensor, axis: int) -> Tensor:  # noqa: N803
    """Every image by its own number of pixels along one axis."""
    size = images.shape[axis]
    source = torch.arange(size, device=images.device) + shift_Rn[..., None]
    source = source[:, :, None, :, None] if axis == -2 else source[:, :, None, None, :]
    inside = (source >= 0) & (source < size)
    return images.gather(axis, source.clamp(0, size - 1).expand_as(images)) * inside


def _cutout(images: Tensor, uniforms: Tensor, ranges: Augmentation) -> Tensor:
    """Blank a box whose middle lies anywhere in the image."""
    boxes = []
    for axis in (0, 1):
        first, end = (v.to(images.device, non_blocking=True)[..., None] for v in _box(uniforms, axis, images, ranges))
        pixel = torch.arange(images.shape[axis - 2], device=images.device)
        boxes.append((pixel >= first) & (pixel < end))
    kept = ~(boxes[0][..., :, None] & boxes[1][..., None, :])
    return images * kept[:, :, None].to(images.dtype)


def _box(uniforms: Tensor, axis: int, images: Tensor, ranges: Augmentation) -> tuple[Tensor, Tensor]:
    """First pixel and end (R, m) int64 of the box along y (``axis`` 0) or x."""
    size = images.shape[axis - 2]
    side = int(size * ranges.cutout + 0.5)
    first = (uniforms[..., axis] * (size + 1 - side % 2)).floor().long() - side // 2
    return first, first + side


def _flip(images: Tensor, uniforms: Tensor, ranges: Augmentation) -> Tensor:
    """Mirror left and right."""
    flipped = uniforms[..., 0] < ranges.flip
    if uniforms.shape[1] == 1:
        pairs = zip(images.unbind(0), flipped[:, 0].tolist(), strict=True)
        return torch.stack([row.flip(-1) if yes else row for row, yes in pairs])
    there = flipped.to(images.device, non_blocking=True)
    return torch.where(there[:, :, None, None, None], images.flip(-1), images)


def _scale(images: Tensor, uniforms: Tensor, ranges: Augmentation) -> Tensor:
    """Zoom about the middle; a step above 1 shows the image smaller."""
    return _affine(images, _zoom(uniforms, images, ranges))


def _zoom(uniforms: Tensor, images: Tensor, ranges: Augmentation) -> Tensor:
    """Matrices (R, m, 2, 2) for :func:`_affine`."""
    return torch.diag_embed(uniforms[..., :2] * (ranges.scale - 1 / ranges.scale) + 1 / ranges.scale)


def _rotate(images: Tensor, uniforms: Tensor, ranges: Augmentation) -> Tensor:
    """Turn about the middle; in pixels, so that images need not be square."""
    return _affine(images, _turn(uniforms, images, ranges))


def _turn(uniforms: Tensor, images: Tensor, ranges: Augmentation) -> Tensor:
    """Matrices (R, m, 2, 2) for :func:`_affine`."""
    angle = torch.deg2rad((uniforms[..., 0] * 2 - 1) * ranges.rotate)
    cos, sin, ratio = angle.cos(), angle.sin(), images.shape[-2] / images.shape[-1]
    matrix = torch.stack([cos, -sin * ratio, sin / ratio, cos], dim=-1)
    return matrix.reshape(*angle.shape, 2, 2)


def _affine(images: Tensor, matrix: Tensor) -> Tensor:
    """Bilinear sampling through matrices (R, m, 2, 2) in coordinates (x, y) of [-1, 1].

    The authors ran a torch whose default was ``align_corners=True``. About the middle both conventions take
    the same pixels (the size cancels); only False is defined for an image one pixel wide. Images that share
    a matrix are folded into channels, which samples them at one cost for the coordinates.
    """
    theta = F.pad(matrix.flatten(0, 1), (0, 1)).to(images.dtype)
    return _sampled(images, theta.to(images.device, non_blocking=True))


def _sampled(images: Tensor, theta: Tensor) -> Tensor:
    """Sampling through matrices (R * m, 2, 3) where the images are."""
    folded = images.reshape(len(theta), -1, *images.shape[-2:])
    grid = F.affine_grid(theta, list(folded.shape), align_corners=False)
    return F.grid_sample(folded, grid, align_corners=False).view_as(images)


OPS: dict[str, Callable[[Tensor, Tensor, Augmentation], Tensor]] = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}


def _check_ops(ops: Sequence[str]) -> None:
    if not isinstance(ops, list | tuple):
        raise ConfigError(f"ops must be a tuple of names, got {quoted(ops)}: pass such as ('color', 'crop')")
    for op in ops:
        if not isinstance(op, str) or op not in OPS:
            raise unknown("augmentation", op, OPS)


def cutmix_batch(
    images_NCHW: Tensor,  # noqa: N803
    draw: Draw,
    role: str = "cutmix",
    p: float = 0.5,
    beta: float = 1.0,
) -> tuple[Tensor, Tensor, float]:
    """CutMix (Yun et al., ICCV 2019) as in IDC's protocol: one box, filled from another image of the batch.

    Args:
        images_NCHW: (N, C, H, W) float.
        draw: The random numbers of the step.
        role: Name of the purpose of the random numbers.
        p: Probability that the batch is mixed.
        beta: The share outside the box is drawn from Beta(beta, beta).

    Returns:
        The images; ``permutation`` (N,) int64 on their device, the images that fill the boxes; and ``share``, the
        part of each image outside the box: loss = share * loss(targets) + (1 - share) * loss(targets[permutation]).
        A batch that is not mixed is returned unchanged, with share 1.

    Raises:
        ConfigError: p outside [0, 1], beta not positive.
    """
    if not 0 <= p <= 1 or not beta > 0:
        raise ConfigError(f"cutmix needs p in [0, 1] and beta above 0, got p={p}, beta={beta}")
    host = np.random.default_rng(draw.key(role))
    count, _, height, width = images_NCHW.shape
    if host.random() >= p:
        return images_NCHW, torch.arange(count, device=images_NCHW.device), 1.0
    side = (1 - host.beta(beta, beta)) ** 0.5
    top, bottom = _span(height, side, host)
    left, right = _span(width, side, host)
    permutation = torch.from_numpy(host.permutation(count)).to(images_NCHW.device, non_blocking=True)
    mixed = images_NCHW.clone()
    mixed[:, :, top:bottom, left:right] = images_NCHW[permutation, :, top:bottom, left:right]
    return mixed, permutation, 1 - (bottom - top) * (right - left) / (height * width)


def _span(size: int, share: float, host: np.random.Generator) -> tuple[int, int]:
    """The begin and the end of a box that covers ``share`` of ``size`` pixels; its middle may lie anywhere."""
    half, middle = int(size * share) // 2, int(host.integers(size))
    return max(0, middle - half), min(size, middle + half)
