"""The searches of one contest, one after the other, through one engine and one fork server."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from nni.nas.evaluator import Evaluator

from condensekit.errors import DataError
from condensekit.nas.engines.client import WarmServer
from condensekit.nas.rankers.sets import DivergedError, Preparation
from condensekit.nas.rankers.trained import at_equal_cost
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.study.full_training import FullTraining
from condensekit.nas.study.truth import Truth, from_trials
from condensekit.nas.trials.driver import Portal, search
from condensekit.nas.trials.log import Trial, TrialLog
from condensekit.nas.trials.settings import Running
from condensekit.nas.trials.strategies import FixedList
from condensekit.nas.trials.time_budget import OutOfTimeError, TimeBudget

if TYPE_CHECKING:
    from condensekit.nas.study.contest import Contest


class Races:
    """The searches of one contest: one for each ranker, one for each repeat of the truth.

    Args:
        contest: What to do.
        running: How.
        budget: For everything, running.
    """

    def __init__(self, contest: Contest, running: Running, budget: TimeBudget) -> None:
        self.contest, self.running, self.budget = contest, running, budget
        folder = running.folder
        self.log = TrialLog(folder / "trials.jsonl" if folder else None)
        self.truths = TrialLog(folder / "truth.jsonl" if folder else None)
        self.found: dict[str, list[Trial]] = {}
        self.prepared: dict[str, Preparation] = {}
        self.unmade: dict[str, str] = {}  # why a ranker has no set to train on
        self.stack = ExitStack()
        self.server: WarmServer | None = None

    def __enter__(self) -> Races:
        if self.running.engine != "sequential":
            self.server = self.stack.enter_context(WarmServer())  # one for all searches
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def score(self) -> None:
        """Every single ranker's trials; none of one that has no set to train on."""
        contest = self.contest
        maker = replace(contest.setting.maker, stop=self.budget.spent)
        for one in contest.singles():
            setting = replace(contest.setting, maker=maker)
            if at_equal_cost(one):
                share = contest.ledger.share(self.prepared, contest.some(), contest.trials)
                setting = replace(setting, extra=share)
            try:
                evaluator, self.prepared[one.name] = one.prepare(setting)
            except (DivergedError, DataError, OutOfTimeError) as error:
                self.unmade[one.name] = str(error)
                self.found[one.name], self.prepared[one.name] = [], Preparation()
                continue
            wanted = contest.ranked
            if wanted is not None and one.name in contest.fitting:
                wanted = [*wanted, *contest.extra]
            self.found[one.name] = self._search(one.name, evaluator, wanted, self.log)

    def truth(self) -> Truth | None:
        """Read, or measured now: one seed after the other, so that a stop leaves whole repeats."""
        wanted = self.contest.wanted
        if not isinstance(wanted, FullTraining):
            return wanted
        asked = [*self.contest.scored(self.found).values(), *self.contest.extra]
        runs = [
            self._search(f"full-{seed}", wanted.evaluator(seed), asked, self.truths) for seed in range(wanted.seeds)
        ]
        names = {key(architecture) for architecture in asked}
        whole = [run for run in runs if names <= {key(trial.architecture) for trial in run}]
        return from_trials("full training", self.contest.space, whole or [run for run in runs[:1] if run])

    def _search(
        self, name: str, evaluator: Evaluator, wanted: Sequence[Architecture] | None, log: TrialLog
    ) -> list[Trial]:
        """One search, within what is left of the budget."""
        contest, running = self.contest, self.running
        if self.budget.spent():
            return log.trials(name) if wanted is None else [t for a in wanted if (t := log.get(name, a))]
        total = contest.trials if wanted is None else len(wanted)
        with running.progress.stage(name, total) as stage:
            return search(
                contest.space,
                evaluator,
                contest.strategy if wanted is None else FixedList(wanted),
                trials=total,
                engine=running.engine,
                workers=running.workers,
                seed=contest.seed,
                budget_s=self.budget,
                trial_limit_s=running.trial_limit_s,
                log=log,
                ranker=name,
                portal=self._portal(name),
                server=self.server,
                on_trial=lambda trial: stage.advance(),
            )

    def _portal(self, name: str) -> Portal | None:
        """Where NNI's training service keeps the files of one search."""
        folder = self.running.folder
        if self.running.engine != "nni" or folder is None:
            return None
        return Portal(folder / "nni" / re.sub(r"[^\w.+-]", "-", name), self.running.port)
