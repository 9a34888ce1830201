"""Selections of real images: the interface, the set they give, and the checks of their results."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from condensekit.compute import Compute
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, DataError, refuse, whole
from condensekit.rng import Draw
from condensekit.runs.describe import describe
from condensekit.sets.condensed import CondensedSet, Formation
from condensekit.sets.packing import pack


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


class Selection(Protocol):
    """Chooses ``ipc`` images of each class: a pure function of its arguments."""

    @property
    def name(self) -> str:
        """What tables call it."""

    def __call__(self, data: ClassImages, ipc: int, draw: Draw, compute: Compute) -> Chosen:
        """Choose; all randomness comes from ``draw``. Raises DataError for a class smaller than ``ipc``."""


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


def check_start(chosen: Chosen, name: str, data: ClassImages, each: int) -> None:
    """Raise ConfigError unless a selection chose what a condensation can start from.

    Args:
        chosen: What it returned.
        name: The selection's.
        data: Where it chose from.
        each: Images of each class it was asked for.
    """
    if not isinstance(chosen, Chosen):
        raise ConfigError(f"{name} returned a {type(chosen).__name__}, expected a Chosen")
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


@dataclass(frozen=True)
class Noise:
    """Initial images of independent standard normal values, in normalised space."""

    name: str = "noise"

    def images(self, data: ClassImages, ipc: int, draw: Draw) -> Tensor:
        """(K, ipc, C, H, W) float32."""
        shape = data.spec.shape
        values = draw.normal("noise", torch.tensor(data.classes), ipc * math.prod(shape))
        return values.reshape(len(data.classes), ipc, *shape)
