"""Class images: real images in memory, decoded once and grouped by class."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from condensekit.data.arrays import Values, as_nchw, as_numbers, as_tensor, blocks, check_layout, settled
from condensekit.data.labels import as_labels
from condensekit.errors import DataError, finite, instance, refuse, unknown, whole
from condensekit.rng import Draw

KEPT = "values that are no pixels in 0..1 are kept as they are, as normalised already"  # note
EXACT = 0.01  # largest distance of a value from an 8-bit pixel
HASHED_WHOLE = 1 << 30  # bytes; of a larger data set, only 4,096 images are hashed


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
        mean = torch.tensor(self.mean, dtype=torch.float32, device=device)
        std = torch.tensor(self.std, dtype=torch.float32, device=device)
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


class ClassImages:
    """Real images grouped by class: the input of every condensation, selection, training and test.

    >>> import condensekit as ck
    >>> train, test = ck.load("digits")
    >>> len(train), train.classes[:3], train.count(0), tuple(train.gather(train.order[:2]).shape)
    (1438, (0, 1, 2), 142, (2, 1, 8, 8))

    Args:
        images: (N, C, H, W) pixels, uint8 in 0..255 or float32 in [0, 1]; or float32 images that are normalised already
            (then ``spec`` has mean 0 and std 1). In memory or memory-mapped, on any device.
        labels: (N,) integers; they may have gaps and be negative.
        spec: Shape, normalisation and class names. Float images with values outside [0, 1] get ``pixels=False``.
        source: The arguments of :func:`condensekit.load` that read the images, as JSON values; None if unknown.
        notes: What a reader did that its user should know: one short clause for each, such as "3 files left out".

    Raises:
        DataError: Sizes, types or values that do not fit; the text says what was given and what is expected.

    Indices always refer to the order of ``images``. A subset (:meth:`select`, :meth:`split`) shares the
    images, and lists only some of them.

    ``held_out`` are the validation images of a source that has training, validation and test images; they are for
    tuning and are never condensed. None for other sources, and for subsets.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        spec: ImageSpec,
        source: Mapping[str, Any] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        images = images.detach()
        _check_arrays(images, labels, spec)
        labels, _ = as_labels(labels)
        self.images = images
        self.labels = labels
        self.spec = spec if images.dtype == torch.uint8 else _of_floats(images, spec)
        self.source = source
        self.notes = (*notes, *([] if self.spec.pixels else [KEPT]))
        self.held_out: ClassImages | None = None
        self._group(torch.arange(len(labels)))

    def _group(self, indices: Tensor) -> None:
        listed = self.labels[indices]
        self.order = indices[torch.argsort(listed, stable=True)]
        values, counts = torch.unique(listed, return_counts=True)
        self.classes: tuple[int, ...] = tuple(values.tolist())
        self.offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        self._row = {label: row for row, label in enumerate(self.classes)}

    @classmethod
    def from_arrays(
        cls,
        images: Any,
        labels: Any,
        *,
        mean: ArrayLike | None = None,
        std: ArrayLike | None = None,
        class_names: Mapping[int, str] | None = None,
        flippable: bool = True,
        layout: str | None = None,
    ) -> ClassImages:
        """Make class images from arrays; the normalisation is computed if it is not given.

        >>> data = ClassImages.from_arrays(np.zeros((2, 8, 8, 3)), ["dog", "cat"])
        >>> data.spec.shape, data.images.dtype, data.spec.class_names
        ((3, 8, 8), torch.uint8, {0: 'cat', 1: 'dog'})

        Args:
            images: (N, C, H, W), (N, H, W, C) or (N, H, W) array or tensor: integers in 0..255, True and False, floats
                in [0, 1] or whole floats in 0..255. Other floats are taken as normalised already.
            labels: See :func:`condensekit.data.labels.as_labels`.
            mean: Per-channel mean of the pixels in [0, 1]; None: computed. Mean 0 and std 1 keep floats as they are.
            std: Per-channel standard deviation of the pixels; None: computed.
            class_names: Class name by label; None: the label as text.
            flippable: See :class:`ImageSpec`.
            layout: ``NCHW`` or ``NHWC``; None: see :func:`condensekit.data.arrays.as_nchw`.

        Raises:
            DataError: Images or labels that cannot be used; the text says why, and names the image.
            ConfigError: An unknown layout.
        """
        check_layout(layout)
        numbers, names = as_labels(labels)
        tensor = as_numbers(as_nchw(as_tensor(images), layout))
        if len(tensor) == 0:
            raise DataError("the set is empty: expected at least one image")
        wanted = {"mean": mean, "std": std}
        given = {name: tuple(np.ravel(value).tolist()) for name, value in wanted.items() if value is not None}
        as_is = len(given) == 2 and not any(given["mean"]) and set(given["std"]) == {1}
        values = Values().see(tensor)
        tensor, pixels = (tensor, values.pixels) if as_is else settled(tensor, values)
        spec = spec_of(tensor, numbers, class_names or names, flippable, pixels)
        if given:  # the constructor refuses a mean and std of images that are no pixels
            shown = {"mean": spec.mean, "std": spec.std} | given
            spec = replace(spec, mean=shown["mean"], std=shown["std"], pixels=pixels or not as_is)
        return cls(tensor, numbers, spec)

    def __len__(self) -> int:
        return len(self.order)

    @property
    def whole_bytes(self) -> bool:
        """Whether the images are uint8 pixels, which can be given any normalisation."""
        return self.images.dtype == torch.uint8

    def __repr__(self) -> str:
        return f"ClassImages({len(self)} images of {self.spec.shape}, {len(self.classes)} classes, {self.images.dtype})"

    def count(self, label: int) -> int:
        """The number of images of a class."""
        row = self._rows([label])[0]
        return int(self.offsets[row + 1] - self.offsets[row])

    def indices_of(self, label: int) -> Tensor:
        """The source indices of one class: (n,) int64, ascending."""
        row = self._rows([label])[0]
        return self.order[self.offsets[row] : self.offsets[row + 1]]

    def _rows(self, labels: Sequence[int]) -> list[int]:
        missing = [label for label in labels if label not in self._row]
        if missing:
            names = ", ".join(self.spec.name_of(label) for label in missing)
            raise DataError(f"no images of class {names}; classes here: {list(self.classes)}")
        return [self._row[label] for label in labels]

    def gather(self, indices: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """Images at source ``indices`` (any shape S): (S..., C, H, W) float32, normalised, on ``device``."""
        flat = indices.reshape(-1)
        chosen = self.images[flat.to(self.images.device)].to(device, non_blocking=True)
        if self.spec.pixels:
            chosen = self.spec.normalise(chosen)
        return chosen.reshape(*indices.shape, *self.spec.shape)

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest value of the images, which are as they are stored."""
        low, high = self.images.aminmax()
        return float(low), float(high)

    def draw_indices(self, labels: Sequence[int], n: int, draw: Draw, role: str = "real") -> Tensor:
        """Draw ``n`` images of each class uniformly: (L, n) int64 source indices, in time O(L * n).

        No image is drawn twice before every image of its class is drawn once. The draw is stratified: the
        class is rotated by a random offset and cut into ``n`` runs, and one image is drawn from each run.
        Each image is equally likely, and no permutation of the class is needed.
        """
        rows = torch.tensor(self._rows(labels), dtype=torch.int64)
        keys = torch.tensor(list(labels), dtype=torch.int64)
        sizes = (self.offsets[rows + 1] - self.offsets[rows])[:, None]
        position = torch.arange(n, dtype=torch.int64)[None]
        left = n % sizes  # images still to draw after the whole passes over the class
        in_pass = position < n - left
        rank = torch.where(in_pass, torch.zeros_like(left), position - (n - left))
        runs = left.clamp(min=1)
        start, stop = rank * sizes // runs, (rank + 1) * sizes // runs
        inside = draw.integers(role, keys, n, (stop - start).clamp(min=1))
        turn = draw.integers(role + "/turn", keys, 1, sizes)
        local = torch.where(in_pass, position % sizes, (start + inside + turn) % sizes)
        return self.order[self.offsets[rows][:, None] + local]

    def sample(
        self, labels: Sequence[int], n: int, draw: Draw, device: torch.device | str = "cpu", role: str = "real"
    ) -> Tensor:
        """The images at :meth:`draw_indices`: (L, n, C, H, W) float32, normalised."""
        return self.gather(self.draw_indices(labels, n, draw, role), device)

    def select(self, labels: Sequence[int]) -> ClassImages:
        """The images of the classes in ``labels``; source indices do not change."""
        rows = self._rows(labels)
        parts = [self.order[self.offsets[r] : self.offsets[r + 1]] for r in sorted(set(rows))]
        return self._narrow(torch.cat(parts) if parts else self.order[:0])

    def subset(self, indices: Tensor) -> ClassImages:
        """The images at source ``indices``; source indices do not change."""
        return self._narrow(torch.sort(indices.reshape(-1)).values)

    def at(self, rows: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """The listed images at ``rows`` (R,) int64 of ``order``, (R, C, H, W) normalised float32, on ``device``."""
        return self.gather(self.order[rows], device)

    def compact(self) -> ClassImages:
        """A copy of the n listed images, without the other images of their array; source indices become 0 to n - 1."""
        order = self.order.sort().values
        return ClassImages(self.images[order.to(self.images.device)], self.labels[order], self.spec)

    # What training reads alike of real images and of a condensed set.

    ipc: ClassVar[None] = None  # a whole data set has no number of images per class
    soft_labels: ClassVar[None] = None

    @property
    def training_images(self) -> ClassImages:
        """Themselves: real images are normalised batch by batch."""
        return self

    @property
    def source_images(self) -> int:
        """How many real images they are."""
        return len(self)

    @property
    def nbytes(self) -> int:
        """Bytes of the listed pixels and labels."""
        return len(self) * (self.images[0].numel() * self.images.element_size() + self.labels.element_size())

    def targets(self) -> Tensor:
        """(n,) int64 labels of the listed images, in the order of ``order``."""
        return self.labels[self.order]

    def with_spec(self, **changes: Any) -> ClassImages:
        """The same images with changed fields of their :class:`ImageSpec`, for example ``flippable=False``.

        Raises:
            ConfigError: An unknown field.
        """
        fields = [entry.name for entry in dataclasses.fields(ImageSpec)]
        for name in changes:
            if name not in fields:
                raise unknown("field of an ImageSpec", name, fields)
        changed = self._narrow(self.order.sort().values)
        changed.spec = replace(self.spec, **changes)
        changed.held_out = self.held_out and self.held_out.with_spec(**changes)
        return changed

    def split(self, fraction: float, seed: int | Draw = 0) -> tuple[ClassImages, ClassImages]:
        """Hold out a random ``fraction`` in (0, 1) of each class; returns (rest, held out).

        At least one image of each class is held out and at least one is left: a class of one image is not held out.

        >>> from condensekit.testing import shapes
        >>> rest, held = shapes(per_class=10).split(0.2, seed=0)
        >>> len(rest), len(held)
        (37, 9)

        Args:
            fraction: The part that is held out.
            seed: Seed of the random numbers, or a :class:`~condensekit.rng.Draw`.

        Raises:
            DataError: A fraction out of range, or no class with two images.
        """
        if not finite(fraction) or not 0 < fraction < 1:
            raise DataError(f"the held-out fraction must lie between 0 and 1, got {fraction!r}")
        refuse(None if isinstance(seed, Draw) else whole("seed", seed))
        draw = seed if isinstance(seed, Draw) else Draw(seed)
        rest, held = [], []
        for label in self.classes:
            indices = self.indices_of(label)
            shuffled = indices[draw.permutation(f"split/{label}", len(indices))]
            cut = min(max(1, round(fraction * len(indices))), len(indices) - 1)
            held.append(shuffled[:cut])
            rest.append(shuffled[cut:])
        if not sum(map(len, held)):
            raise DataError("no class has 2 images, so none can be held out: add images")
        return self.subset(torch.cat(rest)), self.subset(torch.cat(held))

    def _narrow(self, indices: Tensor) -> ClassImages:
        part = object.__new__(ClassImages)
        part.images, part.labels, part.spec = self.images, self.labels, self.spec
        part.source, part.notes, part.held_out = self.source, self.notes, None
        part._group(indices)
        return part

    def to(self, device: torch.device | str) -> ClassImages:
        """The same images, moved to ``device``; uint8 images stay uint8."""
        moved = self._narrow(torch.sort(self.order).values)
        moved.images = self.images.to(device)
        moved.held_out = self.held_out and self.held_out.to(device)
        return moved

    def fingerprint(self) -> str:
        """The sha256 of shape, normalisation, labels, listed indices and pixels, which identifies the data.

        Of more than 1 GiB of pixels, only 4,096 evenly spaced images are hashed.
        """
        digest = hashlib.sha256(repr((tuple(self.images.shape), self.spec.mean, self.spec.std)).encode())
        digest.update(self.labels.numpy().tobytes())
        digest.update(self.order.numpy().tobytes())
        pixels = self.images
        if pixels.numel() * pixels.element_size() > HASHED_WHOLE:
            pixels = pixels[torch.linspace(0, len(pixels) - 1, 4096, dtype=torch.float64).long()]
        for block in torch.split(pixels, 4096):
            digest.update(block.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def spec_of(
    images: Tensor, labels: Tensor, names: Mapping[int, str] | None, flippable: bool = True, pixels: bool = True
) -> ImageSpec:
    """The spec of (N, C, H, W) images with their own normalisation; a class without a name has its label as name."""
    channels, height, width = images.shape[1:]
    named = {label: (names or {}).get(label, str(label)) for label in torch.unique(labels).tolist()}
    return ImageSpec((channels, height, width), *normalisation(images, pixels), named, flippable, pixels)


def normalisation(images: Tensor, pixels: bool = True) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std for the :class:`ImageSpec` of images: those of the pixels, else 0 and 1."""
    return channel_statistics(images) if pixels else ((0.0,) * images.shape[1], (1.0,) * images.shape[1])


def channel_statistics(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of (N, C, H, W) pixels, in units of [0, 1].

    Args:
        pixels: uint8 in 0..255 or float32 in [0, 1].
    """
    found = (_statistics_of_bytes if pixels.dtype == torch.uint8 else _statistics_of_floats)(pixels)
    mean, std = (values.tolist() for values in found)
    return tuple(mean), tuple(s if s > 0 else 1.0 for s in std)


def _statistics_of_bytes(pixels: Tensor) -> tuple[Tensor, Tensor]:
    channels = pixels.shape[1]
    counts = torch.zeros(channels, 256, dtype=torch.float64)
    for block in blocks(pixels):
        for channel in range(channels):
            counts[channel] += torch.bincount(block[:, channel].reshape(-1).cpu().long(), minlength=256)
    values = torch.arange(256, dtype=torch.float64) / 255
    share = counts / counts.sum(1, keepdim=True)
    mean = (share * values).sum(1)
    return mean, ((share * (values - mean[:, None]) ** 2).sum(1)).sqrt()


def _statistics_of_floats(pixels: Tensor) -> tuple[Tensor, Tensor]:
    count = pixels.numel() // pixels.shape[1]
    mean, square = torch.zeros(2, pixels.shape[1], dtype=torch.float64)
    for block in blocks(pixels):
        mean += block.cpu().double().sum((0, 2, 3)) / count
    for block in blocks(pixels):
        square += (block.cpu().double() - mean[:, None, None]).square().sum((0, 2, 3)) / count
    return mean, square.sqrt()


def _check_arrays(images: Tensor, labels: Tensor, spec: ImageSpec) -> None:
    if images.ndim != 4 or tuple(images.shape[1:]) != spec.shape:
        raise DataError(f"images must be (N, {', '.join(map(str, spec.shape))}), got shape {tuple(images.shape)}")
    if images.dtype not in (torch.uint8, torch.float32):
        raise DataError(
            f"images must be uint8 or float32, got {images.dtype}: ClassImages.from_arrays converts other types"
        )
    if len(images) == 0:
        raise DataError("the set is empty: expected at least one image")
    if labels.ndim != 1 or len(labels) != len(images):
        raise DataError(f"expected {len(images)} labels, one for each image, got shape {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(f"labels must be integers, got {labels.dtype}")


def _of_floats(images: Tensor, spec: ImageSpec) -> ImageSpec:
    """The spec of float32 images, which says whether they are pixels.

    Raises:
        DataError: Values that are not finite, that look like pixels in 0..255, or that the mean and std do not fit.
    """
    values = Values().see(images)
    neutral = not any(spec.mean) and set(spec.std) == {1}
    if values.pixels if spec.pixels else neutral:
        return spec
    if not neutral:
        raise DataError(
            f"mean {spec.mean} and std {spec.std} belong to pixels in [0, 1], and the float32 images have values in "
            f"{values.low:.4g}..{values.high:.4g}: pass pixels, or mean 0 and std 1 if they are normalised"
        )
    values.check()
    return replace(spec, pixels=False)
