"""Class images: real images in memory, decoded once and grouped by class."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Dataset

from condensekit.compute import Compute, device_misfit
from condensekit.data.arrays import (
    Values,
    as_nchw,
    as_numbers,
    as_tensor,
    blocks,
    check_layout,
    check_places,
    check_tensors,
    listed,
    settled,
)
from condensekit.data.labels import as_labels
from condensekit.data.spec import ImageSpec as ImageSpec
from condensekit.errors import DataError, finite, instance, quoted, refuse, unknown, whole
from condensekit.rng import Draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from condensekit.html.strips import Strip

KEPT = "values that are no pixels in 0..1 are kept as they are, as normalised already"  # note
HASHED_WHOLE = 1 << 30  # bytes; of a larger data set, only 4,096 images are hashed


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
        check_tensors(images=images, labels=labels)
        refuse(instance("spec", spec, ImageSpec, "the spec of the images, or use ClassImages.from_arrays"))
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
        refuse(
            None if class_names is None else instance("class_names", class_names, Mapping, "such as {0: 'cat'}"),
            instance("flippable", flippable, bool, "True or False"),
        )
        numbers, names = as_labels(labels)
        tensor = as_numbers(as_nchw(as_tensor(images), layout))
        if len(tensor) == 0:
            raise DataError("the set is empty: expected at least one image")
        wanted = {"mean": mean, "std": std}
        given = {name: _each_channel(name, value) for name, value in wanted.items() if value is not None}
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

    def _repr_html_(self) -> str:
        from condensekit.html import standalone
        from condensekit.html.strips import grid
        from condensekit.html.tables import facts

        told = {**self.spec.told(), "notes": "; ".join(self.notes) or None}
        return standalone(grid(self.strips(), self.spec.shape, ".") + facts(told))

    def strips(self) -> list[Strip]:
        """A row for each class, with the images that a page or a figure shows; see :func:`html.strips.by_class`."""
        from condensekit.html.strips import by_class, excerpt

        rows = torch.tensor(excerpt(self.targets().tolist()))
        spec = self.spec if self.spec.pixels else self.spec.between(self.ends)
        pixels = spec.to_pixels(self.at(rows).cpu())
        counts = {label: self.count(label) for label in self.classes}
        return by_class(pixels.numpy(), self.targets()[rows].tolist(), counts, self.spec.class_names)

    def show(self) -> Figure:
        """The first images of each class, with its name, as a matplotlib figure.

        Raises:
            ConfigError: The images have neither 1 nor 3 channels.
        """
        from condensekit.figures.images import images

        return images(self.strips(), self.spec.shape, repr(self))

    def count(self, label: int) -> int:
        """The number of images of a class."""
        refuse(whole("label", label))
        row = self._rows([label])[0]
        return int(self.offsets[row + 1] - self.offsets[row])

    def indices_of(self, label: int) -> Tensor:
        """The source indices of one class: (n,) int64, ascending."""
        refuse(whole("label", label))
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
        check_places("indices", indices)
        flat = indices.reshape(-1)
        chosen = self.images[flat.to(self.images.device, non_blocking=True)]
        if torch.device(device).type == "cuda" and chosen.device.type == "cpu":
            chosen = chosen.pin_memory()  # else the host would wait for the copy
        chosen = chosen.to(device, non_blocking=True)
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
        rows = self._rows(listed(labels))
        parts = [self.order[self.offsets[r] : self.offsets[r + 1]] for r in sorted(set(rows))]
        return self._narrow(torch.cat(parts) if parts else self.order[:0])

    def subset(self, indices: Tensor) -> ClassImages:
        """The images at source ``indices`` (n,) int64; source indices do not change."""
        check_places("indices", indices)
        return self._narrow(torch.sort(indices.reshape(-1)).values)

    def at(self, rows: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """The listed images at ``rows`` (R,) int64 of ``order``, (R, C, H, W) normalised float32, on ``device``."""
        check_places("rows", rows)
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

    def as_dataset(self) -> Items:
        """A torch data set of (normalised float32 image, label) pairs, with ``targets`` as torchvision has it."""
        return Items(self)

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
            raise DataError(f"the held-out fraction must lie between 0 and 1, got {fraction!r:.60}")
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
        if not self.spec.pixels:
            part.ends = self.ends  # of the array, which they share
        part._group(indices)
        return part

    def to(self, device: torch.device | str) -> ClassImages:
        """The same images, moved to ``device``; uint8 images stay uint8."""
        refuse(device_misfit(str(device)))
        moved = self._narrow(torch.sort(self.order).values)
        moved.images = self.images.to(device)
        moved.held_out = self.held_out and self.held_out.to(device)
        return moved

    def near(self, compute: Compute) -> ClassImages:
        """The same images, without ``held_out``, on the GPU of ``compute`` if they fit there; else as they are."""
        alone = self._narrow(torch.sort(self.order).values)
        return alone.to(compute.device) if compute.holds(self.images) else self

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


def _each_channel(name: str, value: Any) -> tuple[float, ...]:
    """Mean or std as a tuple."""
    try:
        plain = value if isinstance(value, list | tuple | np.ndarray | Tensor | Real) else None
        return tuple(np.ravel(np.asarray(plain, np.float64)).tolist())
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} must be a number for each channel, got {quoted(value)}: pass such as [0.5]") from error


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


class Items(Dataset[tuple[Tensor, int]]):
    """Images and labels one by one, for a ``DataLoader`` or for Avalanche; made by :meth:`ClassImages.as_dataset`.

    Args:
        data: The images; each is normalised when it is read.

    Attributes:
        targets: The labels.
    """

    def __init__(self, data: ClassImages) -> None:
        self.data = data
        self.targets: list[int] = data.targets().tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        """Image (C, H, W) and label."""
        return self.data.at(torch.tensor([range(len(self))[row]]))[0], self.targets[row]
