"""Fillers of synthetic images and of real images, and the sets of single classes that they make."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import MutableMapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from condensekit.compute import Spent
from condensekit.data.images import ClassImages, ImageSpec
from condensekit.driver import Status, condense
from condensekit.errors import DataError, choice, instance, refuse, require
from condensekit.methods.recipe import Recipe
from condensekit.networks.base import Network
from condensekit.replay.memory.base import DivergedError, Filler, Interrupted, Job
from condensekit.replay.memory.content import SECONDS, WORK
from condensekit.rng import Draw
from condensekit.runs.describe import describe
from condensekit.selection.base import Selection, selected_set, stored_each
from condensekit.selection.jpeg_random import JpegRandom
from condensekit.sets.coding import LABEL
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import DTYPES, Formation

TIMES = ("elapsed_s", "preparation_s")  # keys of seconds in the provenance of a condensed set


@dataclass(frozen=True)
class Condensing(Filler):
    """Filler of synthetic images.

    Args:
        recipe: How to condense.

    Raises:
        ConfigError: ``recipe`` is not a recipe.
    """

    recipe: Recipe = None  # type: ignore[assignment]  # a default hides the property of the base class

    def __post_init__(self) -> None:
        refuse(instance("recipe", self.recipe, Recipe, "recipes.m3d() or Recipe(DistributionMatching())"))
        refuse(choice("storage of a memory", self.recipe.formation.dtype, DTYPES))
        object.__setattr__(self, "recipe", self.recipe.replace(formation=Formation(*self._stored)))

    @property
    def _stored(self) -> tuple[int, str]:
        """Packing and dtype, whatever the size of the images: the memory counts its bytes before it sees one."""
        return self.recipe.formation.factor, self.recipe.formation.dtype

    @property
    def name(self) -> str:
        """Name of the method."""
        return self.recipe.method.name

    @property
    def formation(self) -> Formation:
        """Formation of the recipe."""
        return self.recipe.formation

    @property
    def soft(self) -> bool:
        """See :class:`Filler`."""
        return self.recipe.soft_labels or self.recipe.method.gives_soft_labels

    @property
    def networks(self) -> Sequence[Network]:
        """See :class:`Filler`."""
        return (self.recipe.encoder.network,)

    def with_storage(self, dtype: str) -> Filler:
        """See :class:`Filler`."""
        return self.with_recipe(self.recipe.replace(formation=replace(self.formation, dtype=dtype)))

    def with_recipe(self, recipe: Recipe) -> Filler:
        """See :class:`Filler`."""
        return replace(self, recipe=recipe)

    def fill(self, data: ClassImages, ipc: int, job: Job) -> CondensedSet:
        """See :class:`Filler`.

        Raises:
            ConfigError: The recipe does not fit the data.
            DivergedError: The values were not finite twice in a row.
            Interrupted: A signal ended the condensation.
        """
        steps = job.on(data).steps
        told = f"memory: {self.name}, {len(data.classes)} classes, {len(data)} images to {ipc} each, {steps} steps"
        with job.progress.stage(told, 1) as stage:
            result = condense(
                data,
                self.recipe if ipc > 1 else self.recipe.replace(nested=False),
                ipc=ipc,
                steps=steps,
                seed=job.seed,
                machine=job.machine,
                saving=job.saving,
                progress=job.progress,
            )
            stage.advance()
        if result.signum is not None:
            what = result.message.partition(": continue")[0]
            saved = (
                "run the same again with the same out= to go on"
                if job.saving
                else "nothing was saved, for want of out="
            )
            raise Interrupted(f"memory: {what}", result.signum, saved)
        if result.status is Status.DIVERGED:
            raise DivergedError(f"filling the memory with {self.name}: {result.message}")
        require(
            result.set.formation == self.formation,
            f"filling the memory with {self.name}: {result.message}; lower the method's lr, or use storage='float32'",
        )
        return result.set


@dataclass(frozen=True)
class Selecting(Filler):
    """Filler of real images.

    Args:
        selection: The selection that chooses the images.
        formation: Packing factor and dtype of the stored images; coded images are stored as JPEG.

    Raises:
        ConfigError: ``selection`` is not a selection, or coded images with a factor above 1.
    """

    selection: Selection
    formation: Formation = Formation()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        refuse(
            instance("selection", self.selection, Selection, "Random() or catalog.selection('kmeans')"),
            instance("formation", self.formation, Formation, "Formation(factor=2)"),
        )
        refuse(
            choice("storage of a memory", self.formation.dtype, DTYPES),
            f"{self.selection.name} images are stored as JPEG and cannot be packed: leave out "
            f"factor={self.formation.factor}"
            if self.codes and self.formation.factor > 1
            else None,
        )

    @property
    def name(self) -> str:
        """Name of the selection."""
        return self.selection.name

    @property
    def codes(self) -> bool:
        """See :class:`Filler`."""
        return self.selection.codes

    @property
    def networks(self) -> Sequence[Network]:
        """See :class:`Filler`."""
        embedding = self.selection.embedding
        return () if embedding is None or embedding.network is None else (embedding.network,)

    def with_storage(self, dtype: str) -> Filler:
        """See :class:`Filler`."""
        return self if self.codes else super().with_storage(dtype)

    def bytes_each(self, spec: ImageSpec, pixels: bool) -> int:
        """See :class:`Filler`; 8-bit pixels stored as uint8 have no ranges."""
        if pixels and self.formation.dtype == "uint8":
            return math.prod(spec.shape) + LABEL
        return super().bytes_each(spec, pixels)

    def least(self, data: ClassImages, seeds: Sequence[int]) -> tuple[int, int]:
        """See :class:`Filler`."""
        if isinstance(self.selection, JpegRandom):  # the only selection whose images have different sizes
            return max(self.selection.least(data, Draw(seed)) for seed in seeds)
        return super().least(data, seeds)

    def fill(self, data: ClassImages, ipc: int, job: Job) -> CondensedSet:
        """See :class:`Filler`."""
        with job.compute(data) as compute:
            made = selected_set(data, self.selection, ipc, Draw(job.seed), compute, self.formation)
            made = with_work(made, "selection", compute.spent)
        if self.codes and job.room:
            made = _within(made, job.room)
        if self.formation.dtype != "uint8" or not data.whole_bytes:
            return made
        return replace(made, coded=torch.full((len(made),), math.prod(data.spec.shape)))  # without ranges


def _within(made: CondensedSet, room: int) -> CondensedSet:
    """The first images of each class that fit into ``room`` bytes, at least one."""
    sizes, rows = made.sizes(), []
    for label in made.classes:
        mine = (made.labels == label).nonzero()[:, 0]
        fits = sizes[mine].cumsum(0) <= room
        rows.append(mine[: max(1, int(fits.sum()))])
    return made.take(torch.cat(rows))


def with_work(made: CondensedSet, part: str, spent: Spent) -> CondensedSet:
    """The same set; the entry ``work`` of its provenance also says the images and FLOPs of ``part``."""
    work: dict[str, Any] = {**made.provenance.get("work", {}), part: asdict(spent)}
    return replace(made, provenance={**made.provenance, "work": work})


def filled(
    filler: Filler, data: ClassImages, ipc: int, job: Job, cache: MutableMapping[str, CondensedSet] | None = None
) -> dict[int, CondensedSet]:
    """Make one set for each class of ``data``.

    Args:
        filler: The filler that makes the sets.
        data: The real images.
        ipc: Number of stored images of each class; a class with fewer images stores fewer, see
            :func:`condensekit.selection.base.stored_each`.
        job: Seed, steps, machine and run folder.
        cache: Sets of single classes. A set in the cache is used again; a new set is put into the cache if its
            classes can be condensed separately. The key contains everything that decides the set, also the pixels. If
            only some classes are in the cache, as after a kill between two files, the others are condensed in a run
            folder of their own.

    Returns:
        One set for each class, by label. The entries ``SECONDS`` and ``WORK`` of its provenance are its part of the
        time and work of all classes made together. They include preparation, other runs and the time before a kill.

    Raises:
        DataError: The filler returned other classes, or images of another shape or normalisation.
    """
    factor, job = filler.formation.factor, job.on(data)
    ipc = max(stored_each(data, ipc, factor).values())
    keys = {} if cache is None else {label: _key(filler, data, label, ipc, job) for label in data.classes}
    known = {label: cache[key] for label, key in keys.items() if cache is not None and key in cache}
    left = [label for label in data.classes if label not in known]
    if not left:
        return known
    if max(stored_each(data.select(left), ipc, factor).values()) < ipc:  # what is left is small: it needs the others
        known, left = {}, list(data.classes)
    start = time.perf_counter()
    made = filler.fill(data.select(left) if known else data, ipc, _saved_apart(job, left) if known else job)
    seconds = max(time.perf_counter() - start, sum(float(made.provenance.get(name, 0)) for name in TIMES)) / len(left)
    here, there = data.spec, made.spec
    if made.classes != tuple(left) or not here.alike(there):
        raise DataError(
            f"{filler.name} made classes {list(made.classes)} of {there.shape}, mean {there.mean}, std {there.std}; "
            f"asked for {left} of {here.shape}, mean {here.mean}, std {here.std}"
        )
    done = made.provenance.get("work", {}).values()
    work = {unit: sum(part[unit] for part in done) // len(left) for unit in ("images", "flops")}
    parts = {label: made.select([label]) for label in left}
    added = {SECONDS: seconds, WORK: work}
    parts = {k: replace(part, provenance={**part.provenance, **added}) for k, part in parts.items()}
    if cache is not None and made.provenance.get("separable"):
        cache.update({keys[label]: part for label, part in parts.items()})
    return known | parts


def _saved_apart(job: Job, left: Sequence[int]) -> Job:
    """The same job with a run folder named after the classes: the usual folder may hold a run of more classes."""
    if job.saving is None:
        return job
    name = f"{job.saving.out.name}-left-{hashlib.sha256(str(left).encode()).hexdigest()[:8]}"
    return replace(job, saving=replace(job.saving, out=job.saving.out.with_name(name)))


def _key(filler: Filler, data: ClassImages, label: int, ipc: int, job: Job) -> str:
    pixels = data.images[data.indices_of(label)]
    only = ClassImages(pixels, torch.full((len(pixels),), label), data.spec)
    how: list[object] = [job.seed, job.steps, job.machine.identity, data.spec.flippable]
    how += [job.room] if job.room else []
    if filler.recipe and filler.recipe.method.bounded and not data.spec.pixels:
        how += [*data.ends]  # of all classes
    record = [describe(filler), label, ipc, how, only.fingerprint()]
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
