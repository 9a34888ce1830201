"""Sets of rankers: small sets on which candidates are trained, made once and stored with their cost."""

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
from condensekit.compute import Compute, Machine, Spent
from condensekit.data.images import ClassImages
from condensekit.driver import CondenseResult, Saving, Status, condense
from condensekit.errors import CondensekitError, ConfigError
from condensekit.methods.recipe import Recipe
from condensekit.nas.names import START
from condensekit.nas.trials.time_budget import OutOfTimeError
from condensekit.progress import SILENT, Progress, duration
from condensekit.rng import Draw
from condensekit.runs.budget import Seconds
from condensekit.runs.code import code_of
from condensekit.runs.describe import describe
from condensekit.runs.files import read_json
from condensekit.runs.folder import RunDir
from condensekit.runs.kept import kept
from condensekit.selection.base import Selection, selected_set
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import Formation

REAL_HALF = "kmeans"  # selection of the real images in a set that is half condensed


class _Recipe(TypedDict):
    """What ``made.json`` says of the way in which a set was made."""

    recipe: dict[str, Any]


class _Kept(TypedDict):
    """What ``made.json`` holds beside it."""

    cost: Preparation | None
    diverged: str | None


class DivergedError(CondensekitError):
    """A condensation gave values that are not finite: its ranker has failed, other rankers continue."""


@dataclass(frozen=True)
class Preparation:
    """Cost of a ranker before its first candidate.

    Args:
        seconds: Wall time in seconds.
        images: Number of images that passed through networks.
        flops: FLOPs of these networks, counted while they ran; a backward pass counts as two forward passes. The
            number is the same on every machine, so that "equal cost" is reproducible.
    """

    seconds: float = 0.0
    images: int = 0
    flops: int = 0

    def __add__(self, other: Preparation) -> Preparation:
        return Preparation(self.seconds + other.seconds, self.images + other.images, self.flops + other.flops)

    @classmethod
    def of(cls, result: CondenseResult) -> Preparation:
        """Cost of a condensation, including the work before a kill."""
        told, work = result.set.provenance, result.work.values()
        seconds = told["preparation_s"] + told["elapsed_s"]
        return cls(seconds, *(sum(int(part[unit]) for part in work) for unit in ("images", "flops")))


class UnfinishedError(OutOfTimeError):
    """The time ended when a set was made in part.

    Args:
        message: The text.
        cost: What the set has cost so far, in this process and before.
        needed_s: Seconds that the whole condensation needs, as estimated from its steps so far; None: unknown.
    """

    def __init__(self, message: str, cost: Preparation, needed_s: float | None = None) -> None:
        super().__init__(message)
        self.cost, self.needed_s = cost, needed_s

    @classmethod
    def after(cls, done: int, steps: int, name: str, cost: Preparation, steps_s: float) -> UnfinishedError:
        """The error after ``done`` of ``steps`` steps, which took ``steps_s`` of the seconds in ``cost``."""
        needed_s = cost.seconds + steps_s / done * (steps - done) if done else None
        needs = f", all of them need about {duration(needed_s)}" if needed_s else ""
        return cls(f"the budget ended after step {done} of {steps} of condensing with {name}{needs}", cost, needed_s)


Made = tuple[CondensedSet, Preparation]


@dataclass(frozen=True, eq=False)
class Maker:
    """Maker of the sets of rankers, from one data set.

    >>> import condensekit as ck
    >>> from condensekit.nas import Maker
    >>> train, test = ck.load("digits")
    >>> Maker(train, steps=50, options={"batch_real": 32}).recipe("dm").method.batch_real
    32

    Args:
        train: Real training images, without the images on which candidates are tested.
        steps: Number of matching steps of a condensation.
        options: Options of all recipes that are given as text, see :func:`condensekit.catalog.recipes.recipe`; options
            in the text come first.
        seed: Seed of all sets.
        folder: Folder with a folder for each stored set; None: sets are not stored.
        machine: Device, precision and workers of all networks, including candidates.
        progress: Progress display, updated after each matching step.
        stop: Function that returns whether the time is over; called before each set and after each matching step.
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
        """The recipe for these images, with the options of the maker. Raises ConfigError for wrong options."""
        if isinstance(given, str):
            name, own = catalog.named(given, "recipe")
            given = catalog.recipe(name, **{**self.options, **own})
        return given.on(self.train.spec)

    def condensed(self, recipe: str | Recipe, ipc: int) -> Made:
        """Make a condensed set with ``ipc`` images of each class; a killed condensation is resumed.

        Raises:
            DivergedError: The condensation diverged.
            OutOfTimeError: The time ended before or during the condensation.
            KeyboardInterrupt: Ctrl-C ended the condensation; another signal, such as SIGTERM, is raised again.
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
            if result.status is Status.INTERRUPTED and result.signum is None:
                told = result.set.provenance
                raise UnfinishedError.after(told["steps"], self.steps, name, Preparation.of(result), told["elapsed_s"])
            if result.signum is not None:
                signal.raise_signal(result.signum)  # the checkpoint is written: raise the signal again
                raise KeyboardInterrupt
            if result.status is Status.DIVERGED:
                raise DivergedError(f"condensing with {name}: {result.message}")
            return result.set, Preparation.of(result)

        return self._kept(f"{name}-{ipc}", {**describe(used), "ipc": ipc, "steps": self.steps, **_code(used)}, make)

    def selected(self, selection: str, ipc: int, formation: Formation | None = None) -> Made:
        """Make a set of real images by the name of a selection, which may have the prefix ``packed-``."""
        chosen_by, usual = catalog.baseline(selection)
        return self._chosen(selection, chosen_by, formation or usual, ipc)

    def start(self, recipe: str | Recipe, ipc: int) -> Made:
        """Make the set of real images from which a condensation starts, packed in the same way, as its control."""
        return self._chosen(f"{START}{_name(recipe)}", *self.first(recipe), ipc)

    def first(self, recipe: str | Recipe) -> tuple[Selection, Formation]:
        """Selection and formation of the first images of a condensation. Raises ConfigError for a start from noise."""
        used = self.recipe(recipe)
        if not isinstance(used.init, Selection):
            raise ConfigError(
                f"{START}{_name(recipe)}: a condensation from {used.init.name} starts without images of the data; give "
                "another init"
            )
        return used.init, used.formation

    def _chosen(self, name: str, selection: Selection, formation: Formation, ipc: int) -> Made:
        def make(folder: Path | None) -> Made:
            start = time.perf_counter()
            with Compute(self.machine, self.train.spec.shape[1:]) as compute:
                made = selected_set(self.train, selection, ipc, Draw(self.seed), compute, formation)
                spent = compute.spent
            return made, Preparation(time.perf_counter() - start, spent.images, spent.flops)

        how = {"selection": describe(selection), "formation": describe(formation), "ipc": ipc, **_code(selection)}
        return self._kept(f"{name}-{ipc}-{formation.factor}", how, make)

    def half(self, recipe: str | Recipe, ipc: int) -> Made:
        """Make a set of which half is condensed and half is real, chosen by k-means; ``ipc`` is at least 2."""
        made, first = self.condensed(recipe, ipc // 2)
        try:
            real, second = self.selected(REAL_HALF, ipc - ipc // 2, made.formation)
        except OutOfTimeError as error:
            raise UnfinishedError(str(error), first) from None
        return made.merge(real), first + second

    def _kept(self, name: str, how: Mapping[str, Any], make: Callable[[Path | None], Made]) -> Made:
        """Set and cost from ``make``, or from the folder if they were made in the same way before.

        ``made.json`` is written last and says how the set was made. A condensation that diverged is not repeated.
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
            raise self._begun(name, folder) or OutOfTimeError(f"the budget ended before {name} was made")
        return make(folder)

    def _begun(self, name: str, folder: Path | None) -> UnfinishedError | None:
        """The error for a condensation that an earlier process began; None: there is none."""
        if folder is None or not os.path.lexists(folder / "config.json"):
            return None
        checkpoint = RunDir.read(folder).latest_checkpoint()
        if checkpoint is None:
            return None
        done, _, told = checkpoint
        seconds, parts = Seconds.of(told), [Spent(**told["prepared_with"]), Spent(**told["spent"])]
        cost = Preparation(
            seconds.preparation + seconds.steps, sum(part.images for part in parts), sum(part.flops for part in parts)
        )
        return UnfinishedError.after(done, self.steps, name.rpartition("-")[0], cost, seconds.steps)


def _code(how: Recipe | Selection) -> dict[str, dict[str, str]]:
    """The entry ``code`` of a set, if it is made by code that is not installed."""
    return {"code": code} if (code := code_of(how)) else {}


def _name(recipe: str | Recipe) -> str:
    return recipe if isinstance(recipe, str) else catalog.name_of(recipe)


def _refuse_version_1(file: Path) -> None:
    """Raise ConfigError for a set of condensekit 0.1, which estimated the cost."""
    if os.path.lexists(file) and "machine" not in read_json(file, _Recipe)["recipe"]:
        raise ConfigError(
            f"{file.parent} holds a set of condensekit 0.1, whose cost was estimated and not counted: finish with that "
            "version, or use another folder"
        )
