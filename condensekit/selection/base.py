"""Selection interface: the choice of real images, the set made of them, and checks of the choice."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from condensekit.compute import Compute
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, DataError, refuse, require, whole
from condensekit.rng import Draw
from condensekit.runs.describe import describe
from condensekit.selection.embeddings import Embedding
from condensekit.selection.number import usual_number
from condensekit.sets.codes import Code
from condensekit.sets.coding import plain_bytes
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import Formation
from condensekit.sets.packing import pack

log = logging.getLogger(__name__)
TIMED = 64  # images that are embedded to know how long all would take


@dataclass(frozen=True, eq=False)
class Chosen:
    """The result of a selection.

    Args:
        indices: (M,) int64 source indices, grouped by class in the order of ``data.classes``: ``ipc`` of each class,
            or all of a smaller class. Within a class they are different, unless the selection draws with replacement.
        weights: (M,) float32: the sum of w f(x) over the chosen images of a class is an unbiased estimate
            of the sum of f(x) over the whole class. None: equal weights.
        codes: The M images as JPEG; None: the images are not coded.
    """

    indices: Tensor
    weights: Tensor | None = None
    codes: Sequence[Code] | None = None


Choice = Callable[[ClassImages, int, Draw, Compute], Chosen]
"""A function in place of a :class:`Selection`: (data, ipc, draw, compute) -> Chosen."""


class Start(ABC):
    """The first images of a condensation: a selection of real images, or noise."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name in tables."""

    @abstractmethod
    def check(self, data: ClassImages, ipc: int, factor: int) -> None:
        """Raise an error if :meth:`first` cannot make the images, before any work is done.

        Raises:
            ConfigError: The selection cannot be a start.
            DataError: No class has enough images.
        """

    def with_embedding(self, embedding: Embedding) -> Start:
        """The same start with this embedding instead of that of an untrained network; itself if it has no network."""
        return self

    def within(self, seconds: float, data: ClassImages, each: int, draw: Draw, compute: Compute) -> ClassImages:
        """The images among which ``each`` of each class are chosen in about ``seconds``: by default all."""
        return data

    @abstractmethod
    def first(self, data: ClassImages, ipc: int, factor: int, draw: Draw, compute: Compute) -> Tensor:
        """Make the first images.

        Args:
            data: The real images.
            ipc: Stored images of each class.
            factor: Packing: each stored image holds ``factor**2`` smaller images.
            draw: Random numbers.
            compute: Runs networks.

        Returns:
            (K, ipc, C, H, W) float32, normalised. Of a class that takes fewer images (see :func:`stored_each`), only
            its first ones are used.
        """


@dataclass(frozen=True)
class Noise(Start):
    """First images of independent standard normal values, in normalised space.

    >>> import condensekit as ck
    >>> ck.recipes.dm(init=ck.Noise()) == ck.Recipe.parse("dm init=noise")
    True
    """

    name: str = "noise"

    def check(self, data: ClassImages, ipc: int, factor: int) -> None:
        """See :meth:`Start.check`; a class takes what it has, also where its images start from noise."""
        check_sizes(data, ipc, factor)

    def first(self, data: ClassImages, ipc: int, factor: int, draw: Draw, compute: Compute) -> Tensor:
        """See :meth:`Start.first`; the factor does not matter."""
        return self.images(data, ipc, draw)

    def images(self, data: ClassImages, ipc: int, draw: Draw) -> Tensor:
        """(K, ipc, C, H, W) float32."""
        shape = data.spec.shape
        values = draw.normal("noise", torch.tensor(data.classes), ipc * math.prod(shape))
        return values.reshape(len(data.classes), ipc, *shape)


class Selection(Start):
    """A choice of ``ipc`` images of each class, or all of a smaller class; it depends only on its arguments.

    Attributes:
        name: Its name in tables.
        codes: Whether its images are coded as JPEG; such images cannot start a condensation.
        embedding: The space in which it measures distances; None: it measures no distances.
        candidates: Number of images of each class from which it chooses; 0: all images.
    """

    codes: ClassVar[bool] = False
    embedding: Embedding | None = None
    candidates: int = 0

    @abstractmethod
    def __call__(self, data: ClassImages, ipc: int, draw: Draw, compute: Compute) -> Chosen:
        """Choose images; random numbers come from ``draw``. Raises DataError if no class has ``ipc`` images."""

    def with_embedding(self, embedding: Embedding) -> Selection:
        """The same selection with this embedding instead of an untrained network's; itself if it has no network."""
        if self.embedding is None or not self.embedding.untrained:
            return self
        return dataclasses.replace(self, embedding=embedding)  # type: ignore[type-var]

    def check(self, data: ClassImages, ipc: int, factor: int) -> None:
        """See :meth:`Start.check`."""
        require(not self.codes, coded_start(self.name))
        check_sizes(data, ipc, factor)
        self.check_candidates(ipc * factor**2)

    def check_candidates(self, each: int) -> None:
        """Raise ConfigError if there are fewer candidates than ``each``, the images to choose of each class."""
        require(
            not 0 < self.candidates < each,
            f"{each} images per class cannot be chosen among {self.candidates} candidates: raise candidates, or use 0",
        )

    def within(self, seconds: float, data: ClassImages, each: int, draw: Draw, compute: Compute) -> ClassImages:
        """See :meth:`Start.within`; a batch is timed, and random images of each class are taken if all take longer."""
        if self.embedding is None or seconds == math.inf:
            return data
        embed, batch = self.embedding.prepare(data, draw, compute), data.order[:TIMED]
        embed(batch)  # the first call is slower
        start = time.perf_counter()
        embed(batch)
        rate = len(batch) / max(time.perf_counter() - start, 1e-9)
        most = max(each, int(seconds * rate / len(data.classes)))
        if max(min(self.candidates or data.count(label), data.count(label)) for label in data.classes) <= most:
            return data
        orders = ((k, draw.permutation(f"within/{k}", data.count(k))[:most]) for k in data.classes)
        return data.subset(torch.cat([data.indices_of(label)[order] for label, order in orders]))

    def first(self, data: ClassImages, ipc: int, factor: int, draw: Draw, compute: Compute) -> Tensor:
        """See :meth:`Start.first`: the chosen images, packed."""
        chosen = self(data, ipc * factor**2, draw, compute)
        check_start(chosen, self.name, data, ipc * factor**2)
        if len(chosen.indices.unique()) < len(chosen.indices):
            log.warning("%s chose images twice: synthetic images that start equal may stay equal", self.name)
        rows = chosen.indices[_whole_packs(data.labels[chosen.indices], factor)]
        packed, counts = pack(data.gather(rows), factor), list(stored_each(data, ipc, factor).values())
        repeated = [torch.arange(ipc) % n + sum(counts[:k]) for k, n in enumerate(counts)]
        return packed[torch.cat(repeated)].reshape(len(data.classes), ipc, *data.spec.shape)


@dataclass(frozen=True)
class Function(Selection):
    """A selection from a function of ``(data, ipc, draw, compute)`` that returns :class:`Chosen`.

    Args:
        choose: The function, or a callable object with the same arguments.
    """

    choose: Choice

    @property
    def name(self) -> str:
        """The name of the function."""
        named = getattr(self.choose, "name", None) or getattr(
            self.choose, "__name__", None
        )  # a callable object may have no __name__
        return str(named or type(self.choose).__name__)

    def __call__(self, data: ClassImages, ipc: int, draw: Draw, compute: Compute) -> Chosen:
        """See :class:`Selection`."""
        return self.choose(data, ipc, draw, compute)


def selected_set(
    data: ClassImages,
    selection: Selection,
    ipc: int | None,
    draw: Draw,
    compute: Compute,
    formation: Formation = Formation(),  # noqa: B008 - frozen
    room: int | None = None,
    name: str = "",
) -> CondensedSet:
    """Make a set of chosen images, which can be trained on, saved and exported like a condensed set.

    Args:
        data: The images to choose from.
        selection: How images are chosen.
        ipc: Stored images per class, at least 1; a smaller class takes what it has, see :func:`stored_each`. None: as
            many as ``room`` holds, see :func:`condensekit.selection.number.usual_number`.
        draw: Random numbers; for seed s, ``Draw(s)``.
        compute: Runs the embedding network.
        formation: How the images are stored; with a factor f, f * f times as many images are chosen and packed.
        room: Bytes for each class, with labels: pictures get the highest quality at which they fit. None: no limit.
        name: The name of the set in tables; empty: that of the selection.

    Raises:
        ConfigError: Neither ``ipc`` nor ``room``, or one below 1; images that do not fit into ``room``; a factor that
            does not divide the image size, or a factor for images that the selection codes.
        DataError: No class has enough images.
    """
    require(ipc is not None or room is not None, "give ipc=, the images of each class, or room=, the bytes of a class")
    refuse(
        None if ipc is None else whole("ipc", ipc, 1),
        None if room is None else whole("room", room, 1),
        f"{selection.name} images are stored as JPEG in the bytes of ipc= images: leave out room"
        if room is not None and selection.codes
        else None,
    )
    refuse(formation.misfit(data.spec.shape, (ipc or 1) * len(data.classes)))
    if ipc is None:
        assert room is not None
        ipc = usual_number(data, formation, int(room), draw)
    check_sizes(data, ipc, formation.factor)
    chosen = selection(data, ipc * formation.factor**2, draw, compute)
    check_kind(chosen, selection.name)
    if chosen.codes is not None and formation != Formation():
        raise ConfigError(f"{selection.name} images are stored as JPEG: leave out factor and storage")
    indices = chosen.indices[_whole_packs(data.labels[chosen.indices], formation.factor)]
    provenance = {
        **({"name": name} if name not in ("", selection.name) else {}),
        "selection": selection.name,
        "options": describe(selection),
        "ipc": int(ipc) if room is None else max(1, round(room / plain_bytes(data.spec.shape, 1))),
        **({} if room is None else {"room": int(room)}),
        "seed": int(draw.seed),
        "indices": indices.tolist(),
        "data": data.fingerprint(),
        "source": data.source,
        "images": len(data),
    }
    labels = data.labels[indices][:: formation.factor**2]
    if chosen.codes is not None:
        return CondensedSet.from_codes(chosen.codes, labels, data.spec, provenance=provenance)
    images, plain = pack(data.gather(indices), formation.factor), dataclasses.replace(formation, dtype="float32")
    if room is None:
        plain = formation
    made = CondensedSet.from_images(images, labels, data.spec, formation=plain, provenance=provenance)
    return made if room is None else made.stored_as(formation.dtype, room=room)


def check_sizes(data: ClassImages, ipc: int, factor: int = 1) -> None:
    """Raise ConfigError for an ``ipc`` below 1, DataError if no class has ``ipc * factor**2`` images."""
    refuse(whole("ipc", ipc, 1))
    label = max(data.classes, key=data.count)
    if data.count(label) < ipc * factor**2:
        packed = "" if factor == 1 else f" with factor={factor}, which takes {ipc * factor**2}"
        unpacked = "" if factor == 1 else ", or use factor=1"
        raise DataError(
            f"the largest class {data.spec.name_of(label)} has {data.count(label)} images but ipc={ipc}{packed}: "
            f"lower ipc{unpacked}"
        )


def stored_each(data: ClassImages, ipc: int, factor: int = 1) -> dict[int, int]:
    """Stored images of each class, by label: ``ipc``, or what a smaller class has.

    A stored image packs ``factor**2`` real ones; what is left over is not used. A class that has fewer fills its one
    stored image with repeats.
    """
    return {label: max(1, min(ipc, data.count(label) // factor**2)) for label in data.classes}


def smaller_note(counts: Collection[int]) -> str | None:
    """The clause that says how many classes have fewer images than the others; None if no class does."""
    few = [count for count in counts if count < max(counts)]
    if not few:
        return None
    return f"{len(few)} of {len(counts)} classes have fewer images than {max(counts)}, the smallest {min(few)}"


def _whole_packs(labels: Tensor, factor: int) -> Tensor:
    """Rows of chosen images, grouped by their ``labels``, that are packed: multiples of ``factor**2`` of each class.

    Of a class with fewer images they are repeated.
    """
    rows, start = [], 0
    for count in torch.unique_consecutive(labels, return_counts=True)[1].tolist():
        taken = max(1, count // factor**2) * factor**2
        rows.append(start + torch.arange(taken) % count)
        start += count
    return torch.cat(rows)


def check_kind(chosen: object, name: str) -> None:
    """Raise ConfigError unless ``chosen``, the result of the selection called ``name``, is a :class:`Chosen`."""
    require(isinstance(chosen, Chosen), f"{name} returned a {type(chosen).__name__}, expected a Chosen")


def check_start(chosen: Chosen, name: str, data: ClassImages, each: int) -> None:
    """Raise ConfigError unless a condensation can start from the result of a selection.

    Args:
        chosen: The result.
        name: Name of the selection.
        data: The images that it chose from.
        each: Number of images of each class to choose; all of a smaller class.
    """
    check_kind(chosen, name)
    require(chosen.codes is None, coded_start(name))
    counts = torch.tensor([min(each, data.count(label)) for label in data.classes])
    indices, wanted = chosen.indices, torch.tensor(data.classes).repeat_interleave(counts)
    few = "" if int(counts.min()) == each else " (all of a smaller class)"
    asked = f"expected ({len(wanted)},) source indices, {each} of each class{few} in the order of data.classes"
    if indices.shape != wanted.shape or indices.is_floating_point():
        raise ConfigError(f"{name} chose {tuple(indices.shape)} {indices.dtype}, {asked}")
    strange = indices[~torch.isin(indices, data.order)]
    if len(strange):
        raise ConfigError(f"{name} chose image {int(strange[0])}, which is not among the data: {asked}")
    wrong = (data.labels[indices] != wanted).nonzero()[:, 0]
    if len(wrong):
        place = int(wrong[0])
        found, label = data.spec.name_of(int(data.labels[indices[place]])), data.spec.name_of(int(wanted[place]))
        raise ConfigError(f"image {place} that {name} chose is of class {found}, not of class {label}: {asked}")


def coded_start(name: str) -> str:
    """The error message for a start from a selection whose images are coded."""
    return f"{name} images are stored as JPEG, and a condensation changes them: use another start, such as Random()"
