"""Condensed set: synthetic or selected images, their storage form and their provenance."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from condensekit.compute import usual_modes
from condensekit.data.arrays import check_places, check_tensors, listed
from condensekit.data.spec import ImageSpec
from condensekit.errors import CondensekitError, DataError, choice, instance, printable, refuse, require, whole
from condensekit.runs.files import failure, load_tensors, save_tensors, stream_of
from condensekit.sets.checks import check_fields, check_shape, check_values, merged
from condensekit.sets.codecs import CODECS, JPEG
from condensekit.sets.codes import Code, divided, joined
from condensekit.sets.coding import check_room, coded, restored
from condensekit.sets.formation import STORAGES, Formation, check_storable, decode_values, encode
from condensekit.sets.grid import Pixels, png_grid
from condensekit.sets.packing import unpack
from condensekit.sets.paths import a_path, own, with_ending

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

    from condensekit.html.strips import Strip

SET = "condensed set"  # the kind that the manifest of a set's file names
TENSORS = ("images", "labels", "ranges", "soft_labels", "coded")  # fields of a set that are tensors


@dataclass(frozen=True, eq=False)
class CondensedSet:
    """A small set of labelled images in its storage form.

    >>> import condensekit as ck
    >>> train, test = ck.load("digits")
    >>> chosen = ck.select(train, "random", ipc=2)
    >>> images, labels = chosen.decode()
    >>> tuple(images.shape), chosen.nbytes, chosen.stored_as("uint8").nbytes
    ((20, 1, 8, 8), 5280, 1600)

    Args:
        images: (M, C, H, W) in the formation's dtype. Normalised values; for uint8, codes in 0..255. For a formation
            that is ``coded``, (B,) uint8 bytes of all images, see :func:`condensekit.sets.codes.joined`; then they are
            decoded when asked for.
        labels: (M,) int64.
        spec: Shape, normalisation and class names.
        formation: Packing factor and storage dtype.
        ranges: (M, C, 2) float32 lo and hi of each image and channel; with uint8, and with pictures if the images are
            no pixels.
        soft_labels: (M * f * f, K) float32 probabilities over ``spec.classes``, or None.
        provenance: How the set was made: method, options, seed, data fingerprint, versions, wall time. JSON.
        coded: (M,) int64 size of each image in bytes. With a coded formation, the sizes of the images in ``images``,
            where the first image of a class counts what they share; with another dtype, sizes that count in ``nbytes``
            instead of the tensors. None: the tensors count.
    """

    images: Tensor
    labels: Tensor
    spec: ImageSpec
    formation: Formation = field(default_factory=Formation)
    ranges: Tensor | None = None
    soft_labels: Tensor | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    coded: Tensor | None = None

    def __post_init__(self) -> None:
        held = {name: getattr(self, name) for name in TENSORS}
        check_tensors(**{name: v for name, v in held.items() if v is not None or name in ("images", "labels")})
        refuse(instance("spec", self.spec, ImageSpec, "the spec of the images"))
        refuse(instance("formation", self.formation, Formation, "Formation()"))
        check_fields(held, self.spec, self.formation)

    @classmethod
    def from_images(
        cls,
        images: Tensor,
        labels: Tensor,
        spec: ImageSpec,
        *,
        formation: Formation | None = None,
        soft_labels: Tensor | None = None,
        provenance: Mapping[str, Any] | None = None,
        coded: Tensor | None = None,
    ) -> CondensedSet:
        """Store normalised float images (M, C, H, W) in ``formation``.

        Images in a coded formation are ordered by class, and pictures have the codec's usual quality.

        Raises:
            DataError: Shapes or types that do not fit; a value that is not finite, or too large for float16.
        """
        formation = Formation() if formation is None else formation
        check_tensors(images=images, labels=labels)
        refuse(instance("spec", spec, ImageSpec, "the spec of the images"))
        refuse(instance("formation", formation, Formation, "Formation()"))
        check_shape(images, spec)
        if labels.is_floating_point() or labels.ndim != 1:
            raise DataError(f"labels must be (M,) integers, got shape {tuple(labels.shape)}, {labels.dtype}")
        images = images.detach().to("cpu", torch.float32).contiguous()
        labels = labels.detach().to("cpu", torch.int64)
        if formation.coded:
            plain = replace(formation, dtype="float32")
            made = cls(images, labels, spec, plain, None, soft_labels, dict(provenance or {}))
            return made.stored_as(formation.dtype)
        stored, ranges = encode(images, formation.dtype)
        return cls(stored, labels, spec, formation, ranges, soft_labels, dict(provenance or {}), coded)

    @classmethod
    def from_codes(
        cls,
        codes: Sequence[Code],
        labels: Tensor,
        spec: ImageSpec,
        *,
        formation: Formation = Formation(dtype=JPEG),  # noqa: B008 - frozen
        ranges: Tensor | None = None,
        soft_labels: Tensor | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> CondensedSet:
        """Store M codes of the formation's codec; ``labels`` (M,) are grouped by class.

        ``ranges``, only for pictures if the images of ``spec`` are no pixels: the values of the pixels 0 and 255.
        """
        stored, sizes = joined(codes, labels, formation.codec)
        return cls(stored, labels, spec, formation, ranges, soft_labels, dict(provenance or {}), sizes)

    def codes(self) -> list[Code]:
        """The codes of the images of a set in a coded formation.

        Raises:
            DataError: The stored bytes are no codes.
        """
        assert self.coded is not None
        return divided(self.images, self.coded, self.formation.codec, self.spec.shape)

    def __len__(self) -> int:
        """The number of stored images (M), before unpacking."""
        return len(self.labels)

    @property
    def name(self) -> str:
        """The recipe or selection that made the set; ``set`` if it is not recorded."""
        config = _record(self.provenance.get("config"))
        found = config.get("name") or self.provenance.get("name") or _record(config.get("method")).get("name")
        return str(found or self.provenance.get("selection") or "set")

    def __repr__(self) -> str:
        stored = "" if self.formation.dtype == "float32" else f" of {self.formation.dtype}"
        decoded = "" if self.formation.factor == 1 else f", decoded to {len(self) * self.formation.factor**2}"
        return (
            f"CondensedSet({len(self)} images of {self.spec.shape}{decoded}, {len(self.classes)} classes, "
            f"{self.per_class} per class, {self.nbytes:,} bytes{stored}: {printable(self.name)})"
        )

    def _repr_html_(self) -> str:
        from condensekit.html import standalone

        return standalone(self.grid(f" Made by {self.name}."))

    def strips(self) -> list[Strip]:
        """A row for each class, with the images that a page or a figure shows; see :func:`html.strips.by_class`."""
        from condensekit.html.strips import by_class, excerpt

        each = self.formation.factor**2
        places = torch.tensor(excerpt(self.labels.repeat_interleave(each).tolist()))
        images, labels = self.decode(places)
        counts = {label: each * count for label, count in zip(self.classes, self.counts, strict=True)}
        return by_class(self.pixel_spec.to_pixels(images).numpy(), labels.tolist(), counts, self.spec.class_names)

    def grid(
        self, note: str = "", before: tuple[str, Sequence[Sequence[Pixels]]] | None = None, budget: int | None = None
    ) -> Markup:
        """The images as a piece of a page; the caption tells their bytes. See :func:`condensekit.html.strips.grid`."""
        from condensekit.html import numbers, strips

        stored = f" as {self.formation.dtype}" if self.formation.coded else ""
        told = f"; stored in {numbers.size(self.nbytes)}{stored}.{note}"
        return strips.grid(self.strips(), self.spec.shape, told, before, budget or strips.BUDGET)

    def show(self) -> Figure:
        """The first images of each class, with its name, as a matplotlib figure.

        Raises:
            ConfigError: The images have neither 1 nor 3 channels.
        """
        from condensekit.figures.images import images

        return images(self.strips(), self.spec.shape, repr(self))

    @property
    def classes(self) -> tuple[int, ...]:
        """The labels present, ascending."""
        return tuple(torch.unique(self.labels).tolist())

    @property
    def counts(self) -> tuple[int, ...]:
        """Stored images of each class, in the order of :attr:`classes`."""
        return tuple(torch.unique(self.labels, return_counts=True)[1].tolist())

    @property
    def ipc(self) -> int:
        """Stored images per class; the largest number if classes differ."""
        return max(self.counts)

    @property
    def per_class(self) -> str:
        """The number of stored images per class as a text: ``10``, or ``at most 10`` if a class has fewer."""
        return str(self.ipc) if min(self.counts) == self.ipc else f"at most {self.ipc}"

    @property
    def nbytes(self) -> int:
        """All stored bytes: images and ranges (or the sizes in ``coded``), labels and soft labels."""
        return int(self.sizes().sum())

    def sizes(self) -> Tensor:
        """(M,) int64 bytes of each stored image with its ranges, label and soft labels; their sum is :attr:`nbytes`."""
        each = self.labels.element_size()
        if self.soft_labels is not None:
            each += self.soft_labels.numel() * self.soft_labels.element_size() // len(self)
        if self.coded is None:
            each += self.images[0].numel() * self.images.element_size()
        if self.ranges is not None and (self.coded is None or self.formation.coded):
            each += self.ranges[0].numel() * self.ranges.element_size()
        found = torch.full((len(self),), each, dtype=torch.int64)
        return found if self.coded is None else found + self.coded

    @property
    def value_range(self) -> tuple[float, float]:
        """The least and the greatest value of the images."""
        low, high = self._values().aminmax()
        return float(low), float(high)

    @property
    def pixel_spec(self) -> ImageSpec:
        """The spec whose mean and std turn the images into pixels in [0, 1], and pixels into images.

        It is ``spec`` itself, unless the images are no pixels: then :attr:`value_range` becomes [0, 1].
        """
        return self.spec if self.spec.pixels else self.spec.between(self.value_range)

    @usual_modes()
    def decode(self, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Decode training images.

        Args:
            rows: (R,) int64 places of decoded images, in 0 to M * f * f - 1; None: all of them, R = M * f * f.

        Returns:
            (R, C, H, W) normalised float32 images, and their (R,) int64 labels.
        """
        f2 = self.formation.factor**2
        if rows is None:
            return unpack(self._values(), self.formation.factor), self.labels.repeat_interleave(f2)
        check_places("rows", rows)
        stored = rows // f2
        unpacked = unpack(self._values(stored), self.formation.factor)
        return unpacked[torch.arange(len(rows)) * f2 + rows % f2], self.labels[stored]

    def _values(self, rows: Tensor | None = None) -> Tensor:
        """(R, C, H, W) normalised float32 stored images at ``rows`` (R,), before unpacking; None: all of them."""
        ranges = self.ranges if self.ranges is None or rows is None else self.ranges[rows]
        if not self.formation.coded:
            return decode_values(self.images if rows is None else self.images[rows], ranges)
        codes = self.codes()
        wanted = codes if rows is None else [codes[row] for row in rows.tolist()]
        return restored(self.formation.codec.decode(wanted, self.spec.shape), self.spec, ranges)

    @property
    def training_images(self) -> Tensor:
        """The images of :meth:`decode`."""
        return self.decode()[0]

    @property
    def source_images(self) -> int | None:
        """How many real images the set stands for; None where nobody wrote it down."""
        found = self.provenance.get("images")
        return int(found) if isinstance(found, int) else None

    def targets(self) -> Tensor:
        """The targets of training: the soft labels if the set has them, else int64 labels (M * f * f,)."""
        return self.labels.repeat_interleave(self.formation.factor**2) if self.soft_labels is None else self.soft_labels

    def with_soft_labels(self, probabilities: Tensor, classes: Sequence[int]) -> CondensedSet:
        """The same images with soft labels, which are stored in float32 and count in ``nbytes``.

        Args:
            probabilities: (M * f * f, len(classes)) of each decoded image.
            classes: The label of each column, ascending; classes of the spec that are missing here get 0.

        Raises:
            DataError: Classes that the spec does not name, or another number of rows.
        """
        check_tensors(probabilities=probabilities)
        classes = listed(classes)
        unnamed = sorted(set(classes) - set(self.spec.classes))
        if unnamed:
            raise DataError(f"no soft labels for class {unnamed[0]}: the set's spec names {list(self.spec.classes)}")
        soft = torch.zeros(len(probabilities), len(self.spec.classes))
        soft[:, [self.spec.classes.index(label) for label in classes]] = probabilities.detach().float().cpu()
        return replace(self, soft_labels=soft)

    def stored_as(
        self, dtype: str, *, room: int | None = None, quality: int | Sequence[int] | None = None
    ) -> CondensedSet:
        """The same set in another storage; the set itself if it is stored so already and neither is given.

        Without codes, tensors count in ``nbytes``, and not ``coded``. Codes are ordered by class. Pictures hold 8-bit
        pixels: values are clamped to pixels, or mapped to pixels if they are none, see :attr:`pixel_spec`. Packed
        images are coded packed. The entry ``storage`` of the provenance tells room, quality and range.

        Args:
            dtype: A name of :class:`Formation`.
            room: Bytes for each class, with labels and soft labels: pictures get the highest quality at which they fit.
            quality: Quality of pictures, 1 to 100 (JPEG: 95), of all classes or of each; None: the usual one.

        Raises:
            ConfigError: An unknown storage, one that this Pillow lacks, or images that do not fit into ``room``.
            DataError: A value that is not finite, or too large for ``dtype``.
        """
        refuse(choice("storage", dtype, STORAGES), None if room is None else whole("room", room, 1))
        if dtype == self.formation.dtype and room is None and quality is None:
            return self
        formation, codec = replace(self.formation, dtype=dtype), CODECS.get(dtype)
        refuse(formation.misfit(self.spec.shape))
        if codec is None:
            require(quality is None, f"{dtype} has no quality, got quality={quality}: leave it out")
            stored, ranges = encode(self._values(), dtype)
            made = replace(self, images=stored, ranges=ranges, formation=formation, coded=None)
            check_room(made.sizes(), made.labels, made.spec, dtype, room)
            return made
        plain = self.stored_as("float32").take(torch.argsort(self.labels, stable=True))
        check_storable(plain.images, dtype)
        soft = 0 if self.soft_labels is None else self.soft_labels.nbytes // len(self)
        codes, ranges, told = coded(plain.images, plain.labels, self.spec, codec, room, quality, soft)
        stored, sizes = joined(codes, plain.labels, codec)
        made = replace(plain, images=stored, coded=sizes, ranges=ranges, formation=formation)
        return replace(made, provenance={**self.provenance, "storage": told})

    def select(self, labels: Sequence[int]) -> CondensedSet:
        """The images of the classes in ``labels``; spec and stored values do not change.

        Raises:
            DataError: A label the set does not hold.
        """
        labels = listed(labels)
        missing = sorted(set(labels) - set(self.classes))
        if missing:
            raise DataError(f"no images of class {missing[0]}; classes here: {list(self.classes)}")
        return self.take(torch.isin(self.labels, torch.tensor(labels)).nonzero()[:, 0])

    def take(self, rows: Tensor) -> CondensedSet:
        """The stored images at ``rows`` (R,) int64, in that order."""
        check_places("rows", rows)
        f2 = self.formation.factor**2
        soft = self.soft_labels
        if soft is not None:
            soft = soft.reshape(len(self), f2, soft.shape[1])[rows].flatten(0, 1)
        labels, ranges = self.labels[rows], None if self.ranges is None else self.ranges[rows]
        coded = None if self.coded is None else self.coded[rows]
        if self.formation.coded:
            codes = self.codes()
            images, coded = joined([codes[row] for row in rows.tolist()], labels, self.formation.codec)
        else:
            images = self.images[rows]
        return replace(self, images=images, labels=labels, ranges=ranges, soft_labels=soft, coded=coded)

    def merge(self, other: CondensedSet) -> CondensedSet:
        """The images of both sets, ordered by label; stored values do not change.

        Raises:
            DataError: Specs, formations or class names that differ, or soft labels that do not match.
        """
        refuse(instance("other", other, CondensedSet, "a set"))
        held = [{name for name in TENSORS if getattr(one, name) is not None} for one in (self, other)]
        spec = merged((self.spec, other.spec), (self.formation, other.formation), held)
        joined = CondensedSet(
            torch.cat([self.images, other.images]),
            torch.cat([self.labels, other.labels]),
            spec,
            self.formation,
            _join(self.ranges, other.ranges),
            _join(self.soft_labels, other.soft_labels),
            {"merged": [dict(self.provenance), dict(other.provenance)]},
            _join(self.coded, other.coded),
        )
        return joined.take(torch.argsort(joined.labels, stable=True))

    def as_dataset(self) -> torch.utils.data.TensorDataset:
        """A torch data set of (normalised float32 image, target) pairs, with ``targets`` as torchvision has it."""
        images, labels = self.decode()
        dataset = torch.utils.data.TensorDataset(images, self.targets())
        dataset.targets = labels.tolist()  # type: ignore[attr-defined]
        return dataset

    def pixels(self) -> tuple[list[Pixels], list[int]]:
        """Decoded images as uint8 pixels by :attr:`pixel_spec`, (H, W) if grey and (H, W, 3) if coloured, and labels.

        Raises:
            ConfigError: The images have neither 1 nor 3 channels.
        """
        channels = self.spec.shape[0]
        require(channels in (1, 3), f"a PNG needs images of 1 or 3 channels, these have {channels}")
        from condensekit.html.strips import as_pixels

        images, labels = self.decode()
        return as_pixels(self.pixel_spec.to_pixels(images).numpy()), labels.tolist()

    def picture(self, per_class: int = 10) -> bytes:
        """A PNG picture with a row for each class and at most ``per_class`` images in each row.

        Raises:
            ConfigError: The images have neither 1 nor 3 channels.
        """
        refuse(whole("per_class", per_class, 1))
        return png_grid(*self.pixels(), per_class)

    def to_state(self) -> dict[str, Any]:
        """The set as tensors and JSON values, by name; :meth:`from_state` is the inverse."""
        return {
            **{name: getattr(self, name) for name in TENSORS if getattr(self, name) is not None},
            "spec": self.spec.to_json(),
            "formation": {"factor": int(self.formation.factor), "dtype": self.formation.dtype},
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> CondensedSet:
        """The set of :meth:`to_state`.

        Raises:
            DataError: The values are not those of a condensed set.
        """
        try:
            tensors = {name: state[name] for name in TENSORS if state.get(name) is not None}
            spec, formation = ImageSpec.from_json(state["spec"]), Formation(**state["formation"])
            refuse(*(whole("a size of the shape", size, 1) for size in spec.shape))
            require(isinstance(state["provenance"], Mapping), "its provenance is no dictionary")
            made = cls(**tensors, spec=spec, formation=formation, provenance=state["provenance"])
            check_values(tensors, spec, formation, made.codes() if formation.coded else ())
        except (CondensekitError, AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"it holds no valid condensed set ({error})") from error
        return made

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write one file, atomically.

        Args:
            path: The file; a name without ending gets ``.safetensors``. ``/dev/stdout`` is written to as a stream.
            overwrite: Whether an existing file is replaced.

        Returns:
            The path of the file.

        Raises:
            ConfigError: The file exists, and ``overwrite`` is off.
            StoreError: It cannot be written; the text names path and stage.
        """
        path = a_path(path)
        if stream_of(path) is None:
            path = with_ending(path)
            free = overwrite or not os.path.lexists(path)
            require(free, f"{path} exists: pass overwrite=True to replace it, or choose another name")
        manifest = self.to_state()
        tensors = {name: manifest.pop(name) for name in TENSORS if name in manifest}
        save_tensors(path, tensors, manifest, SET)
        return path

    @classmethod
    def load(cls, path: str | Path) -> CondensedSet:
        """Read a file of :meth:`save`; ``.safetensors`` may be left out.

        Raises:
            ConfigError: A file of another code.
            DataError: There is no such file.
            StoreError: It cannot be used.
        """
        path = own(a_path(path))
        path = path if os.path.lexists(path) or not os.path.lexists(with_ending(path)) else with_ending(path)
        tensors, manifest = load_tensors(path, SET)
        try:
            return cls.from_state({**manifest, **tensors})
        except DataError as error:
            raise failure(path, "read", error) from error


def _record(found: object) -> Mapping[str, Any]:
    """An entry of a provenance that should be a dictionary; an empty one if it is none."""
    return found if isinstance(found, Mapping) else {}


def _join(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else torch.cat([a, b])
