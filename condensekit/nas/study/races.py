"""Races: the searches of one contest, run one after the other with one engine and one fork server."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from nni.nas.evaluator import Evaluator
from nni.nas.nn.pytorch import ModelSpace

from condensekit.errors import DataError
from condensekit.nas.engines.client import WarmServer, serving
from condensekit.nas.rankers.base import Ranker, Setting
from condensekit.nas.rankers.sets import DivergedError, Preparation, UnfinishedError
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.study.full_training import FullTraining
from condensekit.nas.study.notes import Late
from condensekit.nas.study.truth import Truth, from_trials
from condensekit.nas.trials.driver import Portal, search
from condensekit.nas.trials.log import Trial, TrialLog
from condensekit.nas.trials.settings import Running
from condensekit.nas.trials.strategies import FixedList
from condensekit.nas.trials.time_budget import OutOfTimeError, TimeBudget


class Races:
    """Searches of one contest: one search for each ranker, and one for each training seed of the truth.

    Attributes:
        found: Trials of each ranker, by name.
        prepared: Preparation of each ranker, by name.
        unmade: Reason why a ranker has no set, by name.
        late: Rankers that scored no candidate because the time was over.
        fault: Function that tells why a candidate cannot be trained, which is then a failed trial; empty: it is run.

    Args:
        space: Space of the architectures.
        strategy: Name of the strategy of a search without a list of architectures.
        trials: Number of architectures of a search without a list.
        seed: Seed of the strategy.
        running: How trials are run.
        budget: Running time budget of all searches.
        server: Fork server that all searches share, which is not ended; None: a new one, if the engine needs one.
    """

    def __init__(
        self,
        space: ModelSpace,
        strategy: str,
        trials: int,
        seed: int,
        running: Running,
        budget: TimeBudget,
        server: WarmServer | None = None,
    ) -> None:
        self.space, self.strategy, self.trials, self.seed = space, strategy, trials, seed
        self.running, self.budget = running, budget
        folder = running.folder
        self.log = TrialLog(folder / "trials.jsonl" if folder else None)
        self.truths = TrialLog(folder / "truth.jsonl" if folder else None)
        self.found: dict[str, list[Trial]] = {}
        self.prepared: dict[str, Preparation] = {}
        self.unmade: dict[str, str] = {}
        self.late: list[Late] = []
        self.fault: Callable[[Architecture], str] = lambda architecture: ""
        self.stack = ExitStack()
        self.server = server

    def __enter__(self) -> Races:
        if self.server is None:
            self.server = self.stack.enter_context(serving(self.running.engine))
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def score(
        self,
        rankers: Sequence[tuple[Ranker, Sequence[Architecture] | None]],
        setting: Setting,
        share: Callable[[Mapping[str, Preparation]], float],
    ) -> None:
        """Run the search of each ranker. A ranker whose set cannot be made has no trials.

        Args:
            rankers: Rankers, each with its list of architectures; None: the strategy proposes architectures.
            setting: Setting that the rankers share.
            share: Function that turns preparations into image-steps of each candidate, for rankers at equal cost.
        """
        setting = replace(setting, maker=replace(setting.maker, stop=self.budget.spent))
        each = "" if self.trials is None else f", {self.trials} trials each"
        self.running.progress.tell(f"{len(rankers)} rankers{each}, at most {self.running.workers} at a time")
        for number, (one, wanted) in enumerate(rankers, 1):
            try:
                theirs = replace(setting, extra=share(self.prepared)) if one.at_equal_cost else setting
                evaluator, self.prepared[one.name] = one.prepare(theirs)
            except OutOfTimeError as error:
                known = error if isinstance(error, UnfinishedError) else None
                self.late.append(Late(one.name, str(error), known.needed_s if known else None))
                self.found[one.name], self.prepared[one.name] = [], known.cost if known else Preparation()
                continue
            except (DivergedError, DataError) as error:
                self.unmade[one.name] = str(error)
                self.found[one.name], self.prepared[one.name] = [], Preparation()
                continue
            title, limit_s = f"ranker {number} of {len(rankers)}: {one.name}", self.running.trial_limit_s
            self.found[one.name] = self._search(one.name, evaluator, wanted, self.log, limit_s, title)
            if not self.found[one.name] and self.budget.spent():
                self.late.append(Late(one.name, "the budget ended before its first trial"))

    def measure(self, full: FullTraining, asked: Sequence[Architecture], limit_s: float | None) -> Truth:
        """Measure the truth of architectures, one seed after the other, so that a stop leaves complete repeats.

        Args:
            full: Settings of the trainings.
            asked: The architectures.
            limit_s: Largest time of a training in seconds; None: no limit.
        """
        seeds = range(full.seeds)
        runs = [
            self._search(f"full-{n}", full.evaluator(n), asked, self.truths, limit_s, f"truth {n + 1} of {full.seeds}")
            for n in seeds
        ]
        names = {key(architecture) for architecture in asked}
        whole = [run for run in runs if names <= {key(trial.architecture) for trial in run}]
        return from_trials("full training", self.space, whole or [run for run in runs[:1] if run])

    def _search(
        self,
        name: str,
        evaluator: Evaluator,
        wanted: Sequence[Architecture] | None,
        log: TrialLog,
        limit_s: float | None,
        title: str,
    ) -> list[Trial]:
        """Run one search in the remaining budget; without a remaining budget, return the trials of the log."""
        running = self.running
        if self.budget.spent():
            return log.trials(name) if wanted is None else [t for a in wanted if (t := log.get(name, a))]
        total = self.trials if wanted is None else len(wanted)
        with running.progress.stage(title, total) as stage:
            return search(
                self.space,
                evaluator,
                self.strategy if wanted is None else FixedList(wanted),
                trials=total,
                engine=running.engine,
                workers=running.workers,
                seed=self.seed,
                budget_s=self.budget,
                trial_limit_s=limit_s,
                log=log,
                ranker=name,
                portal=self._portal(name),
                server=self.server,
                on_trial=lambda trial: stage.advance(1, {} if trial.score is None else {"score": trial.score}),
                fault=self.fault,
            )

    def _portal(self, name: str) -> Portal | None:
        """Settings of NNI's training service for one search; None: another engine is used."""
        folder = self.running.folder
        if self.running.engine != "nni" or folder is None:
            return None
        return Portal(folder / "nni" / re.sub(r"[^\w.+-]", "-", name), self.running.port)
