"""The small sets that candidates are trained on: made once, kept in the run folder, with what making them cost."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from condensekit import catalog
from condensekit.compute import Compute, make_plan
from condensekit.data.images import ClassImages
from condensekit.driver import Saving, Status, condense
from condensekit.errors import CondensekitError, ConfigError
from condensekit.methods import Condenser
from condensekit.nas.names import START
from condensekit.nas.rankers.set_costs import choosing_flops, condensing_flops
from condensekit.nas.trials.time_budget import OutOfTimeError
from condensekit.progress import SILENT, Progress
from condensekit.recipe import Recipe
from condensekit.rng import Draw
from condensekit.runs.describe import describe
from condensekit.runs.files import read_json, write_json
from condensekit.runs.folder import changes
from condensekit.selection.base import Selection, selected_set
from condensekit.sets.condensed import CondensedSet, Formation

REAL = "kmeans"  # the selection of the real half


class DivergedError(CondensekitError):
    """A condensation that gave values that are not finite; its ranker has failed, others go on."""


@dataclass(frozen=True)
class Preparation:
    """What a ranker costs before it sees its first candidate.

    Args:
        seconds: Wall time.
        flops: Estimated floating-point operations of the networks involved: images times passes, a backward pass
            counted as two forward ones. Equal on every machine, so that "equal cost" is reproducible.
    """

    seconds: float = 0.0
    flops: float = 0.0


@dataclass(frozen=True, eq=False)
class Maker:
    """Makes sets from one data set.

    Args:
        train: Real images, without those that candidates are tested on.
        data: Name of the data set, for its augmentation.
        iterations: Matching steps of a condensation.
        recipe: How to condense, but for the method.
        seed: Of all sets.
        folder: Where sets are kept, one folder each; None keeps nothing.
        device: Where to condense.
        progress: Told about each matching step.
        stop: Asked whether the time is over: before a set is made, and after each matching step.
    """

    train: ClassImages
    data: str = ""
    iterations: int = 300
    recipe: Recipe = Recipe()  # noqa: RUF009 - frozen
    seed: int = 0
    folder: Path | None = None
    device: str = "auto"
    progress: Progress = SILENT
    stop: Callable[[], bool] = lambda: False

    def build(self, method: str) -> tuple[Condenser, dict[str, Any]]:
        """The method, and the other arguments of ``condense``. Raises ConfigError for options that make no sense."""
        return replace(self.recipe, method=method).build(self.data)

    def condensed(self, method: str, ipc: int) -> tuple[CondensedSet, Preparation]:
        """A set condensed by a method of the catalog; a killed condensation is taken up where it stopped.

        Raises:
            DivergedError: The condensation did.
            OutOfTimeError: It was stopped, or had no time to start.
            KeyboardInterrupt: It was interrupted; SIGTERM does what it would have done.
        """
        build = self.build(method)

        def make(folder: Path | None) -> tuple[CondensedSet, Preparation]:
            result = condense(
                self.train,
                build[0],
                ipc=ipc,
                iterations=self.iterations,
                seed=self.seed,
                device=self.device,
                saving=Saving(folder, resume=True) if folder else None,
                stop=self.stop,
                progress=self.progress,
                **build[1],
            )
            if result.status is Status.INTERRUPTED and result.signum is None:
                raise OutOfTimeError(f"condensing with {method}: the budget ended; {result.message}")
            if result.status is Status.INTERRUPTED:
                signal.raise_signal(result.signum or signal.SIGINT)  # it has left a checkpoint: now let it act
                raise KeyboardInterrupt
            if result.status is Status.DIVERGED:
                raise DivergedError(f"condensing with {method}: {result.message}")
            told = result.set.provenance
            seconds = told["preparation_s"] + told["elapsed_s"]  # those before a kill as well
            decoded = ipc * build[1]["formation"].factor ** 2
            flops = condensing_flops(*build, self.train, decoded, self.iterations)
            return result.set, Preparation(seconds, flops)

        how = {"method": build[0], **build[1], "ipc": ipc, "iterations": self.iterations}
        return self._kept(f"{method}-{ipc}", how, make)

    def selected(
        self, selection: str, ipc: int, formation: Formation | None = None
    ) -> tuple[CondensedSet, Preparation]:
        """A set of real images by a selection of the catalog, ``packed-`` before its name allowed."""
        chosen_by, usual = catalog.baseline(selection)
        return self._chosen(selection, chosen_by, ipc, formation or usual)

    def start(self, method: str, ipc: int) -> tuple[CondensedSet, Preparation]:
        """The real images that a condensation starts from, packed as it packs them: the control for what it adds."""
        how = self.build(method)[1]
        return self._chosen(f"{START}{method}", how["init"], ipc, how["formation"])

    def _chosen(
        self, name: str, selection: Selection, ipc: int, formation: Formation
    ) -> tuple[CondensedSet, Preparation]:
        def make(folder: Path | None) -> tuple[CondensedSet, Preparation]:
            start = time.perf_counter()
            with Compute(make_plan(self.train.spec.shape[1:], device=self.device)) as compute:
                made = selected_set(self.train, selection, ipc, Draw(self.seed), compute, formation)
            return made, Preparation(time.perf_counter() - start, choosing_flops(selection, self.train))

        how = {"selection": selection, "formation": formation, "ipc": ipc}
        return self._kept(f"{name}-{ipc}-{formation.factor}", how, make)

    def half(self, method: str, ipc: int) -> tuple[CondensedSet, Preparation]:
        """Half of the images of each class, at least 2, condensed; the other half real, nearest to k-means centres."""
        made, first = self.condensed(method, ipc // 2)
        real, second = self.selected(REAL, ipc - ipc // 2, made.formation)
        return made.merge(real), Preparation(first.seconds + second.seconds, first.flops + second.flops)

    def _kept(
        self, name: str, how: Mapping[str, Any], make: Callable[[Path | None], tuple[CondensedSet, Preparation]]
    ) -> tuple[CondensedSet, Preparation]:
        """What ``make`` gives, or gave before in the same way; ``made.json`` is written last and says which way.

        A condensation that diverged is not tried again.
        """
        if self.folder is None:
            return self._in_time(name, make, None)
        folder = self.folder / name.replace(":", "-")
        recipe = json.loads(json.dumps({**describe(how), "seed": self.seed, "data": self.train.fingerprint()}))
        if (folder / "made.json").is_file():
            record = read_json(folder / "made.json")
            if different := changes(record["recipe"], recipe):
                raise ConfigError(
                    f"{folder} holds a set made otherwise ({'; '.join(different)}): use the same, or another folder"
                )
            if record["diverged"]:
                raise DivergedError(record["diverged"])
            return CondensedSet.load(folder / "proxy.safetensors"), Preparation(**record["cost"])
        try:
            made, cost = self._in_time(name, make, folder / "run")
        except DivergedError as error:
            write_json(folder / "made.json", {"recipe": recipe, "cost": None, "diverged": str(error)})
            raise
        made.save(folder / "proxy.safetensors")
        write_json(folder / "made.json", {"recipe": recipe, "cost": asdict(cost), "diverged": None})
        return made, cost

    def _in_time(
        self, name: str, make: Callable[[Path | None], tuple[CondensedSet, Preparation]], folder: Path | None
    ) -> tuple[CondensedSet, Preparation]:
        if self.stop():
            raise OutOfTimeError(f"the budget ended before {name} was made")
        return make(folder)
