"""Contest of rankers on the same architectures, engine and log; each ranker gets a row of results."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from nni.nas.nn.pytorch import ModelSpace

from condensekit.errors import Problems, instance, quoted, refuse, several, unknown, whole
from condensekit.nas.engines.client import WarmServer
from condensekit.nas.names import LISTED, STRATEGIES
from condensekit.nas.rankers.base import Combination, Ranker, Setting
from condensekit.nas.rankers.trained import Condensed, Started
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.spaces.distinct import by_key, distinct, listed, others
from condensekit.nas.spaces.equivalence import Identify, canonical, groups, identified_by, unlike
from condensekit.nas.spaces.spaces import check_architecture, check_choices, check_space, choices, sample_architectures
from condensekit.nas.study.candidates import Candidates
from condensekit.nas.study.combinations import combined, shared_by
from condensekit.nas.study.costs import Ledger
from condensekit.nas.study.full_training import FullTraining
from condensekit.nas.study.notes import left_out, merged, shortfall, too_few
from condensekit.nas.study.races import Races
from condensekit.nas.study.ranking import MIN_CANDIDATES
from condensekit.nas.study.report import Ground, RankerCost, Scores, ranking_rows
from condensekit.nas.study.result import SearchResult
from condensekit.nas.study.truth import Truth
from condensekit.nas.trials.log import Trial
from condensekit.nas.trials.settings import Running
from condensekit.nas.trials.strategies import check_population, check_searchable, population
from condensekit.ranks import launched

USUAL_FITTED = 10  # usual number of architectures to which a regression is fitted
MAX_STRATA = 8  # largest number of choices of a label that is a stratum by default
TYPICAL_SAMPLE = 20  # number of architectures whose mean cost represents the architectures of a search


class Contest:
    """Comparison of rankers on architectures of a space, with a truth; :meth:`run` runs it.

    >>> import condensekit as ck
    >>> from condensekit.nas import Contest, Maker, ProxyProtocol, Running, Setting, ranker, space
    >>> train, test = ck.load("digits")
    >>> train, held = train.split(0.2, seed=0)
    >>> setting = Setting(Maker(train), held, ProxyProtocol(steps=5, augmentation=None), ipc=2)
    >>> rankers = [ranker("random"), ranker("params")]
    >>> contest = Contest(space("convnet-small", (1, 8, 8), 10), rankers, setting, trials=3)
    >>> found = contest.run(Running(engine="sequential"))
    >>> [row.ranker for row in found.rows]
    ['random', 'params']

    Args:
        space: Space of the architectures.
        rankers: Rankers, see :func:`condensekit.nas.rankers.by_name.ranker`. The best architecture is the choice of the
            first ranker that scored an architecture.
        setting: Setting that the rankers share.
        strategy: ``random`` or ``grid``: all rankers score one list, which depends on the seed. ``evolution`` or
            ``tpe``: each ranker has its own search.
        trials: Number of architectures. No two of them are the same network, and in a ``random`` list no two of them
            are known to compute the same; see :mod:`condensekit.nas.spaces.equivalence`.
        architectures: The list of architectures, instead of ``strategy`` and ``trials``. If several are known to
            compute the same, one of them counts.
        truth: A truth, the settings of full trainings that measure it, or None: there is no truth.
        seed: Seed of the list or of the searches.
        groups: Name of the group of an architecture, by its key, for the bootstrap: architectures of a group compute
            the same. Without an entry :func:`condensekit.nas.spaces.equivalence.groups` decides.
        strata: Labels of the space; the rank correlation is reported separately for each choice of these labels. None:
            the labels with 2 to 8 choices.
        fitted: Number of further architectures to which a regression is fitted, at least three; they are not ranked.
        identify: Function that builds architectures to find which of them are the same network; None: they are built in
            this process. :func:`condensekit.nas.study.networks.identifying` makes a function that uses workers.

    Raises:
        ConfigError: An unknown strategy, a strategy that cannot search the space, no ranker, a repeated ranker,
            combinations with a strategy without a common list, a regression without a truth, a stratum that is not a
            label, a space with too few architectures, or fewer than three candidates to compare with a truth.
        DataError: An architecture that the truth or the space does not have.
    """

    def __init__(
        self,
        space: ModelSpace,
        rankers: Sequence[Ranker | Combination],
        setting: Setting,
        *,
        strategy: str = "random",
        trials: int = 48,
        architectures: Sequence[Architecture] | None = None,
        truth: Truth | FullTraining | None = None,
        seed: int = 0,
        groups: Mapping[str, str] | None = None,
        strata: Sequence[str] | None = None,
        fitted: int = USUAL_FITTED,
        identify: Identify | None = None,
    ) -> None:
        check_space(space)
        trials = trials if whole("trials", trials) else int(trials)
        refuse(
            several("rankers", rankers, '[ranker("dm"), ranker("params")]'),
            instance("setting", setting, Setting, "Setting(Maker(train), held)"),
            whole("seed", seed),
            whole("trials", trials, 1),
            None if architectures is None else several("architectures", architectures, "a list of dictionaries"),
            None if groups is None else instance("groups", groups, Mapping, "a name for each key"),
            None if strata is None else several("strata", strata, "labels of the space"),
        )
        odd = next((one for one in rankers if not isinstance(one, Ranker | Combination)), None)
        problem = f"a ranker must be one of ranker(name), got {quoted(odd)}: pass such as ranker('dm')"
        refuse(None if odd is None else problem)
        if architectures is None and (not isinstance(strategy, str) or strategy not in STRATEGIES):
            raise unknown("strategy", strategy, STRATEGIES)
        names = [r.name for r in rankers]
        mixed = [r for r in rankers if r.combines]
        told = [r for r in mixed if r.fitted]
        common = architectures is not None or strategy in LISTED
        labels = list(choices(space))
        foreign = [s for s in strata or () if s not in labels]
        refuse(
            None if names else "there is no ranker: name at least one ranker",
            *(f"ranker {name!r} is named twice" for name in dict.fromkeys(names) if names.count(name) > 1),
            f"{told[0].name!r} is fitted on truths: give a truth" if told and not truth else None,
            f"{mixed[0].name!r} combines scores of one list: use strategy random or grid"
            if mixed and not common
            else None,
            whole("fitted", fitted, MIN_CANDIDATES),
            *(f"stratum {s!r} is not a label of the space: use {', '.join(labels)}" for s in foreign),
        )
        check_choices(space)
        if identify is not None:
            identified_by(space, identify)
        self.space, self.rankers, self.setting, self.strategy = space, list(rankers), setting, strategy
        self.wanted, self.seed, self.groups = truth, seed, dict(groups or {})
        self.strata = _usual_strata(space) if strata is None else strata
        if architectures is not None:
            for architecture in architectures:
                check_architecture(space, architecture)
            ours: list[Architecture] | None = unlike(space, [canonical(space, a) for a in architectures])
        else:
            check_searchable(strategy, space)
            ours = listed(space, strategy, trials, seed)
        self.ranked = ours
        self.trials = trials if self.ranked is None else len(self.ranked)
        there = sample_architectures(space, min(trials, MIN_CANDIDATES), seed) if self.ranked is None else self.ranked
        asked = trials if architectures is None else self.trials
        refuse(too_few(len(there), asked) if truth is not None else None)
        short = self.ranked is not None and len(there) < asked
        self.notes = [f"the space has only {len(there)} different architectures, not {asked}"] * short
        self.extra = others(space, self.ranked, fitted, seed) if told and self.ranked is not None else []
        self.fitting = {part.name for one in told for part in one.parts}  # rankers that also score self.extra
        if isinstance(truth, Truth) and self.ranked is not None:
            truth.of(space, [*self.ranked, *self.extra])  # raises an error for missing truths
        problems = Problems()
        for one in self.singles():
            with problems:
                one.check(setting)
        problems.refuse()
        self.ledger = Ledger(space, setting.held.spec.shape, len(setting.maker.train))

    def check(self, running: Running) -> None:
        """Raise an error if the contest cannot be run in this way.

        Raises:
            ConfigError: An evolution whose population is not larger than the number of workers; several ranks.
        """
        refuse("a search runs in one process: start it without torchrun" if launched().several else None)
        if self.ranked is None and self.strategy == "evolution":
            check_population(population(self.trials), 1 if running.engine == "sequential" else running.workers)

    def run(self, running: Running = Running(), server: WarmServer | None = None) -> SearchResult:  # noqa: B008 - frozen
        """Run all rankers, measure the truth and compare the rankers.

        Args:
            running: How trials are run.
            server: A fork server that is used and not ended; None: the contest starts its own, if its engine needs one.

        Raises:
            ConfigError: See :meth:`check`; or no candidate of the space can be trained.
            CondensekitError: A set cannot be made, a search cannot start, or a file cannot be written.
        """
        refuse(instance("running", running, Running, "Running()"))
        self.check(running)
        lists = [(one, self._list(one)) for one in self.singles()]
        with (
            running.budget() as budget,
            Races(self.space, self.strategy, self.trials, self.seed, running, budget, server) as races,
        ):
            candidates = Candidates(self.space, self.setting, running, races.server, budget)
            self.ledger.counting = candidates.costs
            candidates.inspect([*self.some(), *self.extra])
            candidates.refuse(self.some())
            races.fault = candidates.fault
            races.score(lists, self.setting, lambda made: self.ledger.share(made, self.some(), self.trials))
            truth = self.wanted
            if isinstance(truth, FullTraining):
                asked = [*self.scored(races.found).values(), *self.extra]
                truth = races.measure(truth, asked, truth.limit_s(running.trial_limit_s, self.setting))
            return self._report(races, truth)

    def _list(self, one: Ranker) -> Sequence[Architecture] | None:
        """Architectures that a ranker scores, including those to which a regression is fitted; None: a search."""
        return [*self.ranked, *self.extra] if self.ranked and one.name in self.fitting else self.ranked

    def singles(self) -> list[Ranker]:
        """All rankers that score candidates without other rankers' scores, in the order in which they run.

        Free rankers come first, before the budget ends. Rankers at equal cost come last, because their cost depends on
        the other rankers.
        """
        parts = itertools.chain(*(r.parts for r in self.rankers))
        return sorted({r.name: r for r in parts}.values(), key=lambda one: (one.at_equal_cost, not one.free))

    def some(self) -> list[Architecture]:
        """The list of architectures; without a list, a few random architectures of the space."""
        return (
            self.ranked
            if self.ranked is not None
            else distinct(self.space, min(self.trials, TYPICAL_SAMPLE), self.seed)
        )

    def scored(self, found: Mapping[str, Sequence[Trial]]) -> dict[str, Architecture]:
        """The list of architectures by key; without a list, the architectures of all searches."""
        if self.ranked is not None:
            return by_key(self.ranked)
        return by_key(t.architecture for t in itertools.chain(*found.values()))

    def _report(self, races: Races, truth: Truth | None) -> SearchResult:
        """Make the result from the scores, costs and truth."""
        found, prepared = races.found, races.prepared
        known = [a for a in self.extra if truth is not None and truth.holds(self.space, a)]
        goal = truth.of(self.space, known).mean(1) if truth is not None and known else np.zeros(0)
        inside = None if self.ranked is None else set(by_key(self.ranked))
        mine = {n: [t for t in ts if inside is None or key(t.architecture) in inside] for n, ts in found.items()}
        ground = self._ground(self.scored(found), truth)
        condenses = any(isinstance(one, Condensed) and not isinstance(one, Started) for one in self.singles())
        late = {one.ranker: one.note(condenses) for one in races.late}
        notes = [
            *getattr(self.space, "notes", ()),
            *self.notes,
            *merged(self.space),
            *left_out(mine, races.unmade, late, self.trials),
        ]
        trials: list[Trial] = []
        scores: dict[str, Scores] = {}
        costs: dict[str, RankerCost] = {}
        for one in self.rankers:
            if one.combines:
                ours = combined(one, found, self.ranked or [], known, goal)
                if len(ours) < self.trials:
                    told = len(shared_by(one, found, known))
                    notes.append(shortfall(one, mine, len(ours), self.trials, told, len(self.extra)))
            else:
                ours = mine[one.name]
            trials += ours
            without = sum(key(t.architecture) not in ground.keys for t in ours)
            if truth is not None and without:
                notes.append(f"{one.name}: {without} of {len(ours)} have no truth and are not compared")
            scores[one.name] = {key(t.architecture): t.score for t in ours}
            costs[one.name] = self.ledger.spent(one, found, prepared, self.extra, truth)
        rows = ranking_rows(scores, costs, ground, _reference(self.rankers))
        values = {k: tuple(v) for k, v in zip(ground.keys, ground.truth.tolist(), strict=True)}
        scoring = [r.name for r in self.rankers if any(s is not None for s in scores[r.name].values())]
        best = self._best([t for t in trials if t.ranker == scoring[0]], values) if scoring else None
        if best is not None and best["ranker"] != self.rankers[0].name:
            notes.append(f"the best is that of {best['ranker']}, because {self.rankers[0].name} has no score")
        return SearchResult(best, tuple(trials), rows, _about(truth, ground), values, tuple(notes), tuple(races.late))

    def _ground(self, scored: Mapping[str, Architecture], truth: Truth | None) -> Ground:
        """Truths and further data on which rankers are compared."""
        held = {k: a for k, a in scored.items() if truth is not None and truth.holds(self.space, a)}
        if truth is None or not held:
            return Ground(seed=self.seed)
        architectures = list(held.values())
        seconds = truth.seconds(self.space, architectures)
        measurements = truth.of(self.space, architectures)
        costs = self.ledger.costs(architectures)
        return Ground(
            tuple(held),
            measurements,
            {**dict(zip(held, groups(self.space, architectures), strict=True)), **self.groups},
            {} if None in costs else {k: cost.params for k, cost in zip(held, costs, strict=True) if cost},
            {label: {k: str(a[label]) for k, a in held.items()} for label in self.strata},
            None if seconds is None else seconds / measurements.size,
            self.seed,
        )

    def _best(self, trials: Sequence[Trial], values: Mapping[str, tuple[float, ...]]) -> dict[str, Any] | None:
        """The architecture with the best score in these trials, of which the first counts; None: no score."""
        scored = {t.score: t for t in reversed(trials) if t.score is not None}
        if not scored:
            return None
        top = scored[max(scored)]
        cost = self.ledger.cost(top.architecture)
        return {
            "ranker": top.ranker,
            "architecture": top.architecture,
            "score": top.score,
            "params": cost and cost.params,
            "flops": cost and cost.flops,
            "truth": _mean(values.get(key(top.architecture))),
        }


def _usual_strata(space: ModelSpace) -> list[str]:
    """The labels with 2 to 8 choices."""
    sizes = {label: len(getattr(mutable, "values", ())) for label, mutable in space.simplify().items()}
    return [label for label, size in sizes.items() if 2 <= size <= MAX_STRATA]


def _reference(rankers: Sequence[Ranker | Combination]) -> str | None:
    """Name of the first ranker that trains on a random subset; None: there is no such ranker."""
    return next((r.name for r in rankers if re.match(r"random(@| |$)", r.name)), None)


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
