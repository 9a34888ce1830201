"""Sets of rankers: small sets that candidates are trained on, made once and kept with what they cost."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from condensekit import catalog
from condensekit.compute import Compute, Machine
from condensekit.data.images import ClassImages
from condensekit.driver import CondenseResult, Saving, Status, condense
from condensekit.errors import CondensekitError, ConfigError
from condensekit.methods.recipe import Recipe
from condensekit.nas.names import START
from condensekit.nas.trials.time_budget import OutOfTimeError
from condensekit.progress import SILENT, Progress
from condensekit.rng import Draw
from condensekit.runs.describe import describe
from condensekit.runs.files import read_json
from condensekit.runs.kept import kept
from condensekit.selection.base import Selection, selected_set
from condensekit.sets.condensed import CondensedSet, Formation

REAL_HALF = "kmeans"  # the selection of the half that is real


class _Recipe(TypedDict):
    """What ``made.json`` says of the way in which a set was made."""

    recipe: dict[str, Any]


class _Kept(TypedDict):
    """What ``made.json`` holds beside it."""

    cost: Preparation | None
    diverged: str | None


class DivergedError(CondensekitError):
    """A condensation gave values that are not finite: its ranker has failed, others go on."""


@dataclass(frozen=True)
class Preparation:
    """What a ranker costs before it sees its first candidate.

    Args:
        seconds: Wall time.
        images: Images put through networks.
        flops: Operations of these networks, counted as they ran; a backward pass counts as two forward passes. They
            are equal on every machine, so that "equal cost" is reproducible.
    """

    seconds: float = 0.0
    images: int = 0
    flops: int = 0

    def __add__(self, other: Preparation) -> Preparation:
        return Preparation(self.seconds + other.seconds, self.images + other.images, self.flops + other.flops)

    @classmethod
    def of(cls, result: CondenseResult) -> Preparation:
        """The cost of a condensation, what was done before a kill included."""
        told, work = result.set.provenance, result.work.values()
        seconds = told["preparation_s"] + told["elapsed_s"]
        return cls(seconds, *(sum(int(part[unit]) for part in work) for unit in ("images", "flops")))


Made = tuple[CondensedSet, Preparation]


@dataclass(frozen=True, eq=False)
class Maker:
    """Makes sets from one data set.

    Args:
        train: Real images, without the images that candidates are tested on.
        steps: Matching steps of a condensation.
        options: Options of every recipe that is given as text, see :func:`condensekit.catalog.recipes.recipe`; those
            in the text itself come first.
        seed: Of all sets.
        folder: Where sets are kept, one folder for each; None keeps nothing.
        machine: Where networks run, candidates included.
        progress: Told about each matching step.
        stop: Asked whether the time is over: before a set is made, and after each matching step.
    """

    train: ClassImages
    steps: int = 300
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    folder: Path | None = None
    machine: Machine = Machine()  # noqa: RUF009 - frozen
    progress: Progress = SILENT
    stop: Callable[[], bool] = lambda: False

    def recipe(self, given: str | Recipe) -> Recipe:
        """A recipe as it is used on these images. Raises ConfigError for options that make no sense."""
        if isinstance(given, str):
            name, own = catalog.named(given, "recipe")
            given = catalog.recipe(name, **{**self.options, **own})
        return given.on(self.train.spec)

    def condensed(self, recipe: str | Recipe, ipc: int) -> Made:
        """A condensed set; a killed condensation goes on where it stopped.

        Raises:
            DivergedError: The condensation diverged.
            OutOfTimeError: It was stopped, or had no time to start.
            KeyboardInterrupt: It was interrupted; SIGTERM does what it would have done.
        """
        used, name = self.recipe(recipe), _name(recipe)

        def make(folder: Path | None) -> Made:
            result = condense(
                self.train,
                used,
                ipc=ipc,
                steps=self.steps,
                seed=self.seed,
                machine=self.machine,
                saving=Saving(folder, resume=True) if folder else None,
                stop=self.stop,
                progress=self.progress,
            )
            if result.signum is not None:
                signal.raise_signal(result.signum)  # it has left a checkpoint: now let it act
                raise KeyboardInterrupt
            if result.status is Status.INTERRUPTED:
                raise OutOfTimeError(f"condensing with {name}: the budget ended; {result.message}")
            if result.status is Status.DIVERGED:
                raise DivergedError(f"condensing with {name}: {result.message}")
            return result.set, Preparation.of(result)

        return self._kept(f"{name}-{ipc}", {**describe(used), "ipc": ipc, "steps": self.steps}, make)

    def selected(self, selection: str, ipc: int, formation: Formation | None = None) -> Made:
        """A set of real images by a selection of the catalog, ``packed-`` before its name allowed."""
        chosen_by, usual = catalog.baseline(selection)
        return self._chosen(selection, chosen_by, formation or usual, ipc)

    def start(self, recipe: str | Recipe, ipc: int) -> Made:
        """The real images that a condensation starts from, packed as it packs them: the control for what it adds."""
        return self._chosen(f"{START}{_name(recipe)}", *self.first(recipe), ipc)

    def first(self, recipe: str | Recipe) -> tuple[Selection, Formation]:
        """How a condensation chooses and packs its first images. Raises ConfigError where it starts from noise."""
        used = self.recipe(recipe)
        if not isinstance(used.init, Selection):
            text = f"{START}{_name(recipe)}: a condensation from noise starts from no images; give another init"
            raise ConfigError(text)
        return used.init, used.formation

    def _chosen(self, name: str, selection: Selection, formation: Formation, ipc: int) -> Made:
        def make(folder: Path | None) -> Made:
            start = time.perf_counter()
            with Compute(self.machine, self.train.spec.shape[1:]) as compute:
                made = selected_set(self.train, selection, ipc, Draw(self.seed), compute, formation)
                spent = compute.spent
            return made, Preparation(time.perf_counter() - start, spent.images, spent.flops)

        how = {"selection": describe(selection), "formation": describe(formation), "ipc": ipc}
        return self._kept(f"{name}-{ipc}-{formation.factor}", how, make)

    def half(self, recipe: str | Recipe, ipc: int) -> Made:
        """Half of the images of each class, at least 2, condensed; the other half real, nearest to k-means centres."""
        made, first = self.condensed(recipe, ipc // 2)
        real, second = self.selected(REAL_HALF, ipc - ipc // 2, made.formation)
        return made.merge(real), first + second

    def _kept(self, name: str, how: Mapping[str, Any], make: Callable[[Path | None], Made]) -> Made:
        """What ``make`` gives, or gave before in the same way; ``made.json`` is written last and says which way.

        A condensation that diverged is not tried again.
        """
        if self.folder is None:
            return self._in_time(name, make, None)
        folder = self.folder / re.sub(r"[^\w.+-]", "-", name)
        _refuse_version_1(folder / "made.json")

        def made() -> dict[str, Any]:
            try:
                images, cost = self._in_time(name, make, folder / "run")
            except DivergedError as error:
                return {"cost": None, "diverged": str(error)}
            images.save(folder / "proxy.safetensors", overwrite=True)
            return {"cost": asdict(cost), "diverged": None}

        where = {"seed": self.seed, "machine": self.machine.identity, "data": self.train.fingerprint()}
        found = kept(folder / "made.json", {**how, **where}, made, "a set", kind=_Kept)
        if found["diverged"]:
            raise DivergedError(found["diverged"])
        return CondensedSet.load(folder / "proxy.safetensors"), Preparation(**found["cost"])

    def _in_time(self, name: str, make: Callable[[Path | None], Made], folder: Path | None) -> Made:
        if self.stop():
            raise OutOfTimeError(f"the budget ended before {name} was made")
        return make(folder)


def _name(recipe: str | Recipe) -> str:
    return recipe if isinstance(recipe, str) else catalog.name_of(recipe)


def _refuse_version_1(file: Path) -> None:
    """Raise ConfigError where a set was made by condensekit 0.1, which estimated its cost."""
    if os.path.lexists(file) and "machine" not in read_json(file, _Recipe)["recipe"]:
        raise ConfigError(
            f"{file.parent} holds a set of condensekit 0.1, whose cost was estimated and not counted: finish with that "
            "version, or use another folder"
        )
