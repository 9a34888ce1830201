"""Selection interface: the choice of real images, the set it gives, and the checks of its result."""

from __future__ import annotations

import dataclasses
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
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
from condensekit.sets.condensed import CondensedSet, Formation
from condensekit.sets.packing import pack

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Chosen:
    """What a selection returns.

    Args:
        indices: (K * ipc,) int64 source indices, grouped by class in the order of ``data.classes``; within
            a class all different, unless the selection draws with replacement.
        weights: (K * ipc,) float32, or None where all count the same: the sum of w f(x) over the chosen images
            of a class estimates, without bias, the sum of f(x) over the whole class.
        pixels: (K * ipc, C, H, W) uint8 that stand for the images, where coding has changed them.
        coded: (K * ipc,) int64 bytes that each takes in that coding.
    """

    indices: Tensor
    weights: Tensor | None = None
    pixels: Tensor | None = None
    coded: Tensor | None = None


class Start(ABC):
    """Where the images of a condensation start."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What tables call it."""

    @abstractmethod
    def check(self, data: ClassImages, ipc: int, factor: int) -> None:
        """Refuse what :meth:`first` could not make, before anything is spent; see there.

        Raises:
            ConfigError: A start that makes no sense.
            DataError: A class with too few images.
        """

    def with_embedding(self, embedding: Embedding) -> Start:
        """The same start, an untrained network's embedding replaced by this one; itself where it has none."""
        return self

    @abstractmethod
    def first(self, data: ClassImages, ipc: int, factor: int, draw: Draw, compute: Compute) -> Tensor:
        """The first images.

        Args:
            data: The real images.
            ipc: Stored images of each class.
            factor: Packing: each stored image holds ``factor**2`` shrunk ones.
            draw: Randomness.
            compute: Runs networks.

        Returns:
            (K, ipc, C, H, W) float32, normalised.
        """


@dataclass(frozen=True)
class Noise(Start):
    """Initial images of independent standard normal values, in normalised space."""

    name: str = "noise"

    def check(self, data: ClassImages, ipc: int, factor: int) -> None:
        """Nothing: noise fits every class."""

    def first(self, data: ClassImages, ipc: int, factor: int, draw: Draw, compute: Compute) -> Tensor:
        """See :meth:`Start.first`; a stored image is noise as a whole, whatever the factor."""
        return self.images(data, ipc, draw)

    def images(self, data: ClassImages, ipc: int, draw: Draw) -> Tensor:
        """(K, ipc, C, H, W) float32."""
        shape = data.spec.shape
        values = draw.normal("noise", torch.tensor(data.classes), ipc * math.prod(shape))
        return values.reshape(len(data.classes), ipc, *shape)


class Selection(Start):
    """A choice of ``ipc`` images of each class: a pure function of its arguments.

    Attributes:
        name: What tables call it.
        codes: Whether its images are stored as they are coded, and so are no start of a condensation.
        embedding: Where it measures distances; None for nowhere.
        candidates: Images of each class that it looks at; 0 for all.
    """

    codes: ClassVar[bool] = False
    embedding: Embedding | None = None
    candidates: int = 0

    @abstractmethod
    def __call__(self, data: ClassImages, ipc: int, draw: Draw, compute: Compute) -> Chosen:
        """Choose; all randomness comes from ``draw``. Raises DataError for a class smaller than ``ipc``."""

    def with_embedding(self, embedding: Embedding) -> Selection:
        """The same selection, an untrained network's embedding replaced by this one; itself where it has none."""
        if self.embedding is None or not self.embedding.untrained:
            return self
        return dataclasses.replace(self, embedding=embedding)  # type: ignore[type-var]

    def check(self, data: ClassImages, ipc: int, factor: int) -> None:
        """See :meth:`Start.check`."""
        require(not self.codes, coded_start(self.name))
        check_sizes(data, ipc, factor)
        self.check_candidates(ipc * factor**2)

    def check_candidates(self, each: int) -> None:
        """Raise ConfigError where fewer images of each class are looked at than the ``each`` that are to be chosen."""
        require(
            not 0 < self.candidates < each,
            f"{each} images per class cannot be chosen among {self.candidates} candidates: raise candidates, or 0: all",
        )

    def first(self, data: ClassImages, ipc: int, factor: int, draw: Draw, compute: Compute) -> Tensor:
        """See :meth:`Start.first`: the chosen images, packed."""
        chosen = self(data, ipc * factor**2, draw, compute)
        check_start(chosen, self.name, data, ipc * factor**2)
        if len(chosen.indices.unique()) < len(chosen.indices):
            log.warning("%s chose images twice: synthetic images that start alike may stay alike", self.name)
        packed = pack(data.gather(chosen.indices), factor)
        return packed.reshape(len(data.classes), ipc, *data.spec.shape)


@dataclass(frozen=True)
class Function(Selection):
    """A selection from a function of ``(data, ipc, draw, compute)`` that returns :class:`Chosen`.

    Args:
        choose: The function, or any object that can be called so.
    """

    choose: Callable[[ClassImages, int, Draw, Compute], Chosen]

    @property
    def name(self) -> str:
        """The function's own name."""
        named = getattr(self.choose, "name", None) or getattr(self.choose, "__name__", None)  # anything callable
        return str(named or type(self.choose).__name__)

    def __call__(self, data: ClassImages, ipc: int, draw: Draw, compute: Compute) -> Chosen:
        """See :class:`Selection`."""
        return self.choose(data, ipc, draw, compute)


def selected_set(
    data: ClassImages,
    selection: Selection,
    ipc: int,
    draw: Draw,
    compute: Compute,
    formation: Formation = Formation(),  # noqa: B008 - frozen
) -> CondensedSet:
    """The chosen images as a set that trains, saves and exports like a condensed one.

    Args:
        data: Where to choose from.
        selection: How.
        ipc: Stored images per class, at least 1.
        draw: Randomness; a set with seed s is ``Draw(s)``.
        compute: Runs the embedding network.
        formation: How the images are stored; with a factor f, f * f times as many are chosen, shrunk and packed.

    Raises:
        ConfigError: An ``ipc`` below 1, a factor that does not divide the image size, or that a coding rules out.
        DataError: A class with too few images.
    """
    refuse(formation.misfit(data.spec.shape))
    check_sizes(data, ipc, formation.factor)
    chosen = selection(data, ipc * formation.factor**2, draw, compute)
    check_kind(chosen, selection.name)
    if chosen.pixels is not None and formation != Formation():
        raise ConfigError(f"{selection.name} images are stored as they are coded: leave out factor and storage")
    indices = chosen.indices
    images = data.gather(indices) if chosen.pixels is None else data.spec.normalise(chosen.pixels)
    provenance = {
        "selection": selection.name,
        "options": describe(selection),
        "ipc": int(ipc),
        "seed": int(draw.seed),
        "indices": indices.tolist(),
        "data": data.fingerprint(),
        "source": data.source,
        "images": len(data),
    }
    return CondensedSet.from_images(
        pack(images, formation.factor),
        data.labels[indices][:: formation.factor**2],
        data.spec,
        formation=formation,
        coded=chosen.coded,
        provenance=provenance,
    )


def check_sizes(data: ClassImages, ipc: int, factor: int = 1) -> None:
    """Raise ConfigError for an ``ipc`` below 1, DataError for a class with fewer than ``ipc * factor**2`` images."""
    refuse(whole("ipc", ipc, 1))
    for label in data.classes:
        if data.count(label) < ipc * factor**2:
            packed = "" if factor == 1 else f" with factor={factor}, which takes {ipc * factor**2}"
            raise DataError(
                f"class {data.spec.name_of(label)} has {data.count(label)} images but ipc={ipc}{packed}: "
                "lower ipc, or start a condensation from noise"
            )


def check_kind(chosen: object, name: str) -> None:
    """Raise ConfigError unless what the selection of that name returned is a :class:`Chosen`."""
    require(isinstance(chosen, Chosen), f"{name} returned a {type(chosen).__name__}, expected a Chosen")


def check_start(chosen: Chosen, name: str, data: ClassImages, each: int) -> None:
    """Raise ConfigError unless a selection chose what a condensation can start from.

    Args:
        chosen: What it returned.
        name: The selection's.
        data: Where it chose from.
        each: Images of each class it was asked for.
    """
    check_kind(chosen, name)
    refuse(None if chosen.pixels is None else coded_start(name))
    indices, wanted = chosen.indices, torch.tensor(data.classes).repeat_interleave(each)
    asked = f"expected ({len(wanted)},) source indices, {each} of each class in the order of data.classes"
    if indices.shape != wanted.shape or indices.is_floating_point():
        raise ConfigError(f"{name} chose {tuple(indices.shape)} {indices.dtype}, {asked}")
    strange = indices[~torch.isin(indices, data.order)]
    refuse(f"{name} chose image {int(strange[0])}, which is not among the data: {asked}" if len(strange) else None)
    wrong = (data.labels[indices] != wanted).nonzero()[:, 0]
    if len(wrong):
        place = int(wrong[0])
        found, label = data.spec.name_of(int(data.labels[indices[place]])), data.spec.name_of(int(wanted[place]))
        raise ConfigError(f"place {place} of what {name} chose is of class {found}, not of class {label}: {asked}")


def coded_start(name: str) -> str:
    """Why the coded images of the selection of that name are no start."""
    return f"{name} images count as they are coded, which ends when they move: start from uncoded ones, say Random()"
