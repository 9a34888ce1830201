"""One comparison of rankers: the same architectures, the same engine and log, the truth, and a row for each."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from nni.nas.evaluator import Evaluator
from nni.nas.nn.pytorch import ModelSpace

from condensekit.errors import refuse
from condensekit.images import ClassImages
from condensekit.nas.combine import combined
from condensekit.nas.evaluator import ProxyEvaluator
from condensekit.nas.listing import LISTED, by_key, distinct, listed, others
from condensekit.nas.proxies import Combination, EarlyStop, Ranker, Setting
from condensekit.nas.proxy_sets import Preparation
from condensekit.nas.report import Ground, Scores, Spent, ranking_rows
from condensekit.nas.search import Portal, search
from condensekit.nas.spending import Ledger
from condensekit.nas.strategies import FixedList
from condensekit.nas.training import ProxyData, ProxyProtocol
from condensekit.nas.trials import Architecture, Trial, TrialLog, key
from condensekit.nas.truth import Truth, canonical, from_trials
from condensekit.nas.warm import WarmServer
from condensekit.progress import SILENT, Progress

TRUTH_SEED = 1_000  # full trainings share no initial weights with a ranker's
FITTED = 10  # architectures whose truth a regression is told
SOME = 20  # architectures whose mean stands for what a search will ask for


@dataclass(frozen=True, eq=False)
class FullTraining:
    """How the truth is measured: every architecture trained on all of the data, and tested on test images.

    Args:
        train: All training images, those held out from the rankers included.
        test: Test images.
        protocol: The recipe.
        seeds: Trainings of each architecture; two or more tell how noisy the truth is.
        device: Where.
    """

    train: ClassImages
    test: ClassImages
    protocol: ProxyProtocol
    seeds: int = 1
    device: str = "cpu"

    def evaluator(self, seed: int) -> ProxyEvaluator:
        """Trains and tests one architecture once; only the last epoch counts."""
        data = ProxyData(self.train, self.test)
        return ProxyEvaluator(data, self.protocol, seed=TRUTH_SEED + seed, last=1, checks=0, device=self.device)


@dataclass(frozen=True)
class Running:
    """How trials are run, the same for every ranker.

    Args:
        engine: See :func:`condensekit.nas.search.search`; ``workers`` and ``trial_limit_s`` likewise.
        workers: See there.
        trial_limit_s: See there.
        folder: Trials go to ``trials.jsonl`` and truths to ``truth.jsonl`` in it, NNI's files to ``nni``. None: trials
            stay in memory, and there is no engine ``nni``.
        port: Of NNI's portal.
        budget_s: Seconds for everything; what is not done then is left out.
        progress: Told about each trial.
    """

    engine: str = "pool"
    workers: int = 2
    trial_limit_s: float | None = None
    folder: Path | None = None
    port: int = 8080
    budget_s: float | None = None
    progress: Progress = SILENT


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    Args:
        best: The first ranker's first: ``ranker``, ``architecture``, ``score``, ``params``, ``flops``, ``truth``.
        trials: Every ranker's trials, combinations included.
        rows: See :func:`condensekit.nas.report.ranking_rows`.
        truth: The truth's name, its repeats' agreement and its noise; None where there is none.
        values: The truth's measurements in percent by key of the architecture.
        notes: What the reader should know, a sentence each.
    """

    best: dict[str, Any] | None
    trials: tuple[Trial, ...]
    rows: list[dict[str, Any]]
    truth: dict[str, Any] | None
    values: Mapping[str, tuple[float, ...]]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What ``search.json`` holds."""
        shown = ("ranker", "architecture", "score", "cost_s", "status")
        trials = [
            {**{name: getattr(t, name) for name in shown}, "truth": _mean(self.values.get(key(t.architecture)))}
            for t in self.trials
        ]
        return {
            "best": self.best,
            "trials": trials,
            "ranking": self.rows,
            "truth": self.truth,
            "notes": list(self.notes),
        }


def compare(
    space: ModelSpace,
    rankers: Sequence[Ranker | Combination],
    setting: Setting,
    *,
    strategy: str = "random",
    trials: int = 48,
    architectures: Sequence[Architecture] | None = None,
    truth: Truth | FullTraining | None = None,
    seed: int = 0,
    running: Running = Running(),
    groups: Mapping[str, str] | None = None,
    strata: Sequence[str] = (),
    fitted: int = FITTED,
) -> Comparison:
    """Score architectures by several rankers and say how well each ranks them.

    Args:
        space: Where the architectures come from.
        rankers: See :func:`condensekit.nas.proxies.ranker`. The first one's choice is the best.
        setting: What the rankers share.
        strategy: ``random`` or ``grid``: one list from the seed, scored by all. ``evolution`` or ``tpe``: a search for
            each ranker.
        trials: Architectures; of a random list no two compute the same thing.
        architectures: The list itself, in place of ``strategy`` and ``trials``.
        truth: A table, how to measure it, or None.
        seed: Of the list or the search.
        running: How trials are run.
        groups: By key of an architecture: the name of all that compute the same thing, for the bootstrap.
        strata: Labels of the space, in whose values the ranking is reported apart.
        fitted: Architectures whose truth a regression is told; they are none of the ranked ones.

    Raises:
        ConfigError: No ranker, one twice, combinations with a strategy that has no common list, a regression without
            a truth, a space with too few architectures.
        DataError: Architectures that the truth lacks.
    """
    names = [r.name for r in rankers]
    mixed = [r.name for r in rankers if isinstance(r, Combination)]
    told = [r.name for r in rankers if isinstance(r, Combination) and r.fitted]
    common = architectures is not None or strategy in LISTED
    refuse(
        None if names else "no ranker: name at least one",
        *(f"ranker {name!r} is named twice" for name in dict.fromkeys(names) if names.count(name) > 1),
        f"{told[0]!r} is fitted on truths, and there are none: give a truth" if told and truth is None else None,
        f"{mixed[0]!r} combines scores of one list: use strategy random or grid" if mixed and not common else None,
    )
    given = None if architectures is None else [canonical(space, a) for a in architectures]
    ranked = given if given is not None else listed(space, strategy, trials, seed)
    extra = others(space, ranked, fitted, seed) if told and ranked is not None else []
    if isinstance(truth, Truth) and ranked is not None:
        truth.of(space, [*ranked, *extra])  # refuses what is missing before anything is spent
    count = trials if ranked is None else len(ranked)
    with ExitStack() as stack:  # one fork server for all searches
        server = None if running.engine == "sequential" else stack.enter_context(WarmServer())
        runner = _Runner(space, setting, strategy, count, seed, running, server)
        runner.score(rankers, ranked, extra)
        measured = runner.truth(truth, ranked, extra)
    return runner.report(rankers, ranked, extra, measured, groups or {}, strata)


class _Runner:
    """The steps of one comparison."""

    def __init__(
        self,
        space: ModelSpace,
        setting: Setting,
        strategy: str,
        trials: int,
        seed: int,
        running: Running,
        server: WarmServer | None,
    ) -> None:
        self.space, self.setting, self.strategy, self.seed, self.running = space, setting, strategy, seed, running
        self.trials, self.server = trials, server
        self.start = time.monotonic()
        folder = running.folder
        self.log = TrialLog(folder / "trials.jsonl" if folder else None)
        self.truths = TrialLog(folder / "truth.jsonl" if folder else None)
        self.ledger = Ledger(space, setting.held.spec.shape)
        self.found: dict[str, list[Trial]] = {}
        self.prepared: dict[str, Preparation] = {}

    def score(
        self,
        rankers: Sequence[Ranker | Combination],
        ranked: Sequence[Architecture] | None,
        extra: Sequence[Architecture],
    ) -> None:
        """Every single ranker's trials; rankers at equal cost come last, when it is known what that is."""
        parts = itertools.chain(*(r.parts if isinstance(r, Combination) else (r,) for r in rankers))
        singles = {r.name: r for r in parts}
        fitting = {p.name for r in rankers if isinstance(r, Combination) and r.fitted for p in r.parts}
        for one in sorted(singles.values(), key=_at_equal_cost):
            setting = self.setting
            if _at_equal_cost(one):
                some = ranked if ranked is not None else distinct(self.space, min(self.trials, SOME), self.seed)
                setting = replace(setting, extra=self.ledger.share(self.prepared, some, self.trials))
            evaluator, self.prepared[one.name] = one.prepare(setting)
            wanted = None if ranked is None else [*ranked, *(extra if one.name in fitting else [])]
            self.found[one.name] = self._search(one.name, evaluator, wanted, self.log)

    def truth(
        self, wanted: Truth | FullTraining | None, ranked: Sequence[Architecture] | None, extra: Sequence[Architecture]
    ) -> Truth | None:
        """Read, or measured now: one seed after the other, so that a stop leaves whole repeats."""
        if not isinstance(wanted, FullTraining):
            return wanted
        asked = list(self._scored(ranked).values()) + list(extra)
        runs = [
            self._search(f"full-{seed}", wanted.evaluator(seed), asked, self.truths) for seed in range(wanted.seeds)
        ]
        return from_trials("full training", self.space, [run for run in runs if run])

    def report(
        self,
        rankers: Sequence[Ranker | Combination],
        ranked: Sequence[Architecture] | None,
        extra: Sequence[Architecture],
        truth: Truth | None,
        groups: Mapping[str, str],
        strata: Sequence[str],
    ) -> Comparison:
        """Scores, costs and rows."""
        known = [a for a in extra if truth is not None and truth.holds(self.space, a)]
        goal = truth.of(self.space, known).mean(1) if truth is not None and known else np.zeros(0)
        inside = None if ranked is None else set(by_key(ranked))
        trials: list[Trial] = []
        scores: dict[str, Scores] = {}
        spent: dict[str, Spent] = {}
        for one in rankers:
            if isinstance(one, Combination):
                ours = combined(one, self.found, ranked or [], known, goal)
            else:
                ours = [t for t in self.found[one.name] if inside is None or key(t.architecture) in inside]
            trials += ours
            scores[one.name] = {key(t.architecture): t.score for t in ours}
            spent[one.name] = self.ledger.spent(one, self.found, self.prepared, known, truth)
        ground = self._ground(self._scored(ranked), truth, groups, strata)
        rows = ranking_rows(scores, spent, ground, _baseline(rankers))
        values = {k: tuple(v) for k, v in zip(ground.keys, ground.truth.tolist(), strict=True)}
        best = self._best([t for t in trials if t.ranker == rankers[0].name], values)
        return Comparison(best, tuple(trials), rows, _about(truth, ground), values, tuple(self._notes()))

    def _search(
        self, name: str, evaluator: Evaluator, wanted: Sequence[Architecture] | None, log: TrialLog
    ) -> list[Trial]:
        """One search, within what is left of the budget."""
        left = None
        if self.running.budget_s is not None:
            left = self.running.budget_s - (time.monotonic() - self.start)
            if left <= 0:
                return [t for a in wanted or [] if (t := log.get(name, a))]
        total = self.trials if wanted is None else len(wanted)
        with self.running.progress.stage(name, total) as stage:
            return search(
                self.space,
                evaluator,
                self.strategy if wanted is None else FixedList(wanted),
                trials=total,
                engine=self.running.engine,
                workers=self.running.workers,
                seed=self.seed,
                budget_s=left,
                trial_limit_s=self.running.trial_limit_s,
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

    def _scored(self, ranked: Sequence[Architecture] | None) -> dict[str, Architecture]:
        """The list, or what any of the searches asked for."""
        if ranked is not None:
            return by_key(ranked)
        return by_key(t.architecture for t in itertools.chain(*self.found.values()))

    def _ground(
        self,
        scored: Mapping[str, Architecture],
        truth: Truth | None,
        groups: Mapping[str, str],
        strata: Sequence[str],
    ) -> Ground:
        """What the rows need to know."""
        held = {k: a for k, a in scored.items() if truth is not None and truth.holds(self.space, a)}
        if truth is None or not held:
            return Ground(seed=self.seed)
        architectures = list(held.values())
        seconds = truth.seconds(self.space, architectures)
        measurements = truth.of(self.space, architectures)
        return Ground(
            tuple(held),
            measurements,
            {k: groups.get(k, key(canonical(self.space, a))) for k, a in held.items()},
            {k: self.ledger.cost(a).params for k, a in held.items()},
            {label: {k: str(a[label]) for k, a in held.items()} for label in strata},
            None if seconds is None else seconds / measurements.size,
            self.seed,
        )

    def _best(self, trials: Sequence[Trial], values: Mapping[str, tuple[float, ...]]) -> dict[str, Any] | None:
        """What a ranker with these trials would take."""
        scored = {t.score: t for t in reversed(trials) if t.score is not None}
        if not scored:
            return None
        top = scored[max(scored)]
        cost = self.ledger.cost(top.architecture)
        return {
            "ranker": top.ranker,
            "architecture": top.architecture,
            "score": top.score,
            "params": cost.params,
            "flops": cost.flops,
            "truth": _mean(values.get(key(top.architecture))),
        }

    def _notes(self) -> list[str]:
        """What was left out."""
        notes = list(getattr(self.space, "notes", ()))
        for name, ours in self.found.items():
            failed = sum(t.score is None for t in ours)
            notes += [f"{name}: {failed} of {len(ours)} trials failed and rank last"] * bool(failed)
            notes += [f"{name}: only {len(ours)} of {self.trials} architectures were scored"] * (
                len(ours) < self.trials
            )
        return notes


def _at_equal_cost(one: Ranker) -> bool:
    return isinstance(one, EarlyStop) and one.epochs is None


def _baseline(rankers: Sequence[Ranker | Combination]) -> str | None:
    """The random subset, where it is among the rankers."""
    return next((r.name for r in rankers if r.name.partition("@")[0] == "random"), None)


def _about(truth: Truth | None, ground: Ground) -> dict[str, Any] | None:
    if truth is None:
        return None
    found = ground.retest
    return {
        "name": truth.name,
        "architectures": len(ground.keys),
        "repeats": ground.truth.shape[1],
        "retest": found.single,
        "retest_top": found.single_top,
        "ceiling": found.ceiling,
        "noise": found.noise,
        "full_s": ground.full_s,
    }


def _mean(values: Sequence[float] | None) -> float | None:
    return None if not values else float(np.mean(values))
