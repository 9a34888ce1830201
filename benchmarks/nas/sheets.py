"""Sheets: the cells of one task and sample together, with scores, sums of ranks, costs and the truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from statistics import fmean, variance

import numpy as np

from benchmarks.nas.cells import CONDENSED, FULL_IMAGES, HELD, ITS_START, Cell
from benchmarks.passes import UNITS
from benchmarks.record import Record
from condensekit.compute import Spent
from condensekit.errors import DataError
from condensekit.nas.names import SCORES
from condensekit.nas.spaces.architecture import key
from condensekit.nas.study.bootstrap import rank_correlation
from condensekit.nas.study.combinations import additive, rank_sum
from condensekit.nas.study.ranking import placed, spearman
from condensekit.nas.study.report import Ground, RankerCost, Scores
from condensekit.networks.cost import PASSES, Shape
from condensekit.rng import Draw
from condensekit.runs.kept import refuse_other

TOLD, SPLITS, AGAIN = 10, 100, 20  # truths to which the additive model is fitted, random choices of truths, resamples
PRIMARY = "cross-entropy"  # score of trained rankers under their plain names, also in sums and differences
SUMS = (
    ("synflow", "jacov"),
    ("published-synflow", "published-jacov"),
    (CONDENSED, "synflow", "jacov"),
    ("random", "synflow", "jacov"),
    (CONDENSED, "params"),
)


MADE = (CONDENSED, ITS_START)  # rankers whose preparation puts images through networks


@dataclass(frozen=True)
class Data:
    """Training images of a task, from which sets are made.

    Args:
        name: Name of the data set.
        images: Number of training images.
        shape: (C, H, W) of each.
    """

    name: str
    images: int
    shape: Shape


OLD_DATA = {
    "nb201": Data("cifar10", 50_000 - HELD, (3, 32, 32)),
    "convnet": Data("fashionmnist", FULL_IMAGES, (1, 28, 28)),
}
"""Data of records that do not tell them, by task."""


class Sheet:
    """All cells of one task, sample and choice of options, with one truth.

    Args:
        records: Records of the cells, one for each ranker.
        changes: Unusual options of the trained rankers, as text.
        score: Score of trained rankers under their plain names.

    Raises:
        DataError: Two cells of one ranker, or cells with different architectures.
        ConfigError: Cells with different options.
    """

    def __init__(self, records: Sequence[Record], changes: str = "", score: str = PRIMARY) -> None:
        _check(records)
        self.changes, self.score = changes, score
        self.cells: dict[str, Record] = {r["nas"]["ranker"]: r for r in records}
        self.task, self.sample = (records[0]["nas"][name] for name in ("task", "sample"))
        self.truths = sorted(name for name in self.cells if name.startswith("truth-"))
        self.trials = dict(keyed(records[0]["trials"]))
        trained = next((r for r in records if kind(r) == "trained"), None)
        self.sets = {name: trial["set"] for name, trial in keyed(trained["trials"])} if trained else {}
        self.scores: dict[str, Scores] = {}
        self.spent: dict[str, RankerCost] = {}
        for name in (n for n in self.cells if n not in self.truths):
            self._add(name)
        for parts in SUMS:
            self._add_sum(parts)

    def _add(self, name: str) -> None:
        """Add the scores and the cost of a ranker; a trained ranker has several scores."""
        record = self.cells[name]
        trials = record["trials"]
        kinds = [kind for kind in SCORES if any(kind in t["scores"] for t in trials)] or [""]
        for kind in kinds:
            label = name if kind in ("", self.score) else f"{name} [{kind}]"
            found = {k: None if t["score"] is None else t["scores"].get(kind, t["score"]) for k, t in keyed(trials)}
            self.scores[label] = self._levelled(found) if self.trained(name) else found
            passed = sum(t["image_steps"] * t["flops"] for t in trials)
            made, part = record["preparation"], len(trials) / record["shared"]
            flops = round(part * made["flops"]) + PASSES * passed
            shown = sum(t["image_steps"] for t in trials)
            images = round(part * made.get("images", 0)) + shown
            work = Spent(images, flops).passes(*self.size)
            self.spent[label] = RankerCost(made["seconds"], record["trials_s"], flops, shown, work=work)

    def _levelled(self, scores: Scores) -> Scores:
        """Scores minus the effect of their set, because all networks are better on some sets than on others.

        The effect of a set is its mean score minus the mean of all sets, shrunk by the part of the variance between
        sets that comes from different candidates (the James-Stein estimate): equal sets have no effect.
        """
        groups: dict[int, list[float]] = {}
        for name, value in scores.items():
            if value is not None:
                groups.setdefault(self.sets[name], []).append(value)
        if min(map(len, groups.values()), default=0) < 2 or len(groups) < 2:
            return scores
        means = {seed: fmean(values) for seed, values in groups.items()}
        chance = fmean(variance(values) / len(values) for values in groups.values())
        between = variance(means.values())
        kept = max(0.0, 1 - chance / between) if between else 0.0
        level = {seed: kept * (mean - fmean(means.values())) for seed, mean in means.items()}
        return {k: None if value is None else value - level[self.sets[k]] for k, value in scores.items()}

    def _add_sum(self, parts: Sequence[str]) -> None:
        if not all(part in self.scores for part in parts):
            return
        name = "+".join(parts)
        self.scores[name] = self.summed(parts)
        spent = [self.spent[part] for part in parts]
        sums = (sum(getattr(s, n) for s in spent) for n in ("preparation_s", "trials_s", "flops", "image_steps"))
        work = {unit: sum(s.work[unit] or 0 for s in spent) for unit in UNITS}
        self.spent[name] = replace(RankerCost(*sums), work=work)

    def summed(self, parts: Sequence[str]) -> Scores:
        """Sum of the ranks of several scores."""
        values = rank_sum(*([self.scores[part].get(k) for k in self.trials] for part in parts))
        return dict(zip(self.trials, values.tolist(), strict=True))

    @property
    def title(self) -> str:
        """Title with everything that distinguishes this sheet from others."""
        parts = [self.task, f"sample {self.sample}", self.changes.strip("-")]
        if self.truths:
            parts.append("truth of {:,} images x {} epochs".format(*self.budget))
        return ", ".join(filter(None, parts))

    @property
    def size(self) -> tuple[int, Shape]:
        """Number of training images, and the shape of each."""
        told = next(iter(self.cells.values())).get("data") or asdict(OLD_DATA[self.task])
        return told["images"], tuple(told["shape"])

    @property
    def budget(self) -> tuple[int, int]:
        """Images and epochs of a full training; needs a truth from full training."""
        recipe = self.cells[self.truths[0]]["recipe"]
        return recipe["images"], recipe["protocol"]["epochs"]

    @property
    def failed(self) -> int:
        """Number of architectures without a truth because a full training failed; they are not ranked."""
        trained = [t for name in self.truths for t in keyed(self.cells[name]["trials"])]
        return len({name for name, trial in trained if trial["score"] is None})

    def trained(self, name: str) -> bool:
        """Whether the ranker trains candidates."""
        return name in self.cells and kind(self.cells[name]) == "trained"

    def each_set(self) -> list[Sheet]:
        """A sheet for the candidates of each set, in the order of seeds."""
        found = []
        for seed in sorted(set(self.sets.values())):
            mine = {k for k, its in self.sets.items() if its == seed}
            parts = [{**r, "trials": [t for k, t in keyed(r["trials"]) if k in mine]} for r in self.cells.values()]
            found.append(Sheet(parts, self.changes, self.score))
        return found

    def correlations(self) -> dict[str, float]:
        """Spearman's correlation of each ranker with the truth; rankers with an undefined correlation are left out."""
        found = {name: self.rho(scores) for name, scores in self.scores.items()}
        return {name: rho for name, rho in found.items() if rho is not None}

    def rho(self, scores: Scores) -> float | None:
        """Spearman's correlation of scores with the truth; None: undefined."""
        ground = self.ground()
        keys, truth = ground.rows(scores)
        return spearman([scores[k] for k in keys], truth)

    def ground(self, least: float = 0.0) -> Ground:
        """Truths and further data of the architectures whose truth is at least ``least`` percent."""
        values = {k: t["truth"] for k, t in self.trials.items()}
        if self.truths:
            tables = [dict(keyed(self.cells[name]["trials"])) for name in self.truths]
            values = {
                k: [100 * table[k]["scores"]["accuracy"] for table in tables]
                for k in self.trials
                if all(k in table and table[k]["score"] is not None for table in tables)
            }
        kept = [k for k, v in values.items() if v and np.mean(v) >= least]
        labels = next(iter(self.trials.values()))["architecture"] if self.truths else {}
        return Ground(
            tuple(kept),
            np.array([values[k] for k in kept], dtype=float).reshape(len(kept), -1),
            {k: self.trials[k]["group"] for k in kept},
            {k: self.trials[k]["params"] for k in kept},
            {label: {k: str(self.trials[k]["architecture"][label]) for k in kept} for label in labels},
        )

    def additive(self, ground: Ground, ranker: str) -> tuple[float, list[float]] | None:
        """Compare a ranker with a model of main effects that is fitted to a few truths, on the other architectures.

        Returns:
            The correlation of the model, mean over random choices of the fitted truths; and [value, lo, hi] of the
            correlation of the ranker minus that of the model on the same architectures. The value is the mean over the
            choices, the interval is over choices and bootstraps. None: there are too few architectures.
        """
        keys, truth = list(ground.keys), ground.truth.mean(1)
        if len(keys) < 2 * TOLD or not self.truths:
            return None
        architectures = [self.trials[k]["architecture"] for k in keys]
        scores = placed([self.scores[ranker].get(k) for k in keys])
        whole, ahead, spread = [], [], []
        for split in range(SPLITS):
            order = Draw(split).permutation("told", len(keys)).tolist()
            told, asked = order[:TOLD], order[TOLD:]
            guess = additive([architectures[i] for i in told], truth[told], [architectures[i] for i in asked])
            picks = np.random.default_rng(Draw(split).key("bootstrap")).integers(0, len(asked), (AGAIN, len(asked)))
            rows = np.vstack([np.arange(len(asked)), picks])  # the first row is the sample itself
            theirs = rank_correlation(guess[rows], truth[asked][rows])
            found = rank_correlation(scores[asked][rows], truth[asked][rows]) - theirs
            whole.append(theirs[0])
            ahead.append(found[0])
            spread += found[1:][np.isfinite(found[1:])].tolist()
        lo, hi = np.percentile(spread, (2.5, 97.5))
        return float(np.mean(whole)), [float(np.mean(ahead)), float(lo), float(hi)]


def keyed(trials: Sequence[Record]) -> list[tuple[str, Record]]:
    """Trials with their keys."""
    return [(key(t["architecture"]), t) for t in trials]


def _check(records: Sequence[Record]) -> None:
    """Raise an error for cells that do not belong to one sheet."""
    seen: dict[str, Record] = {}
    trained: dict[str, Record] = {}
    for found in records:
        name = found["nas"]["ranker"]
        if name in seen:
            both = f"{_stem(seen[name])} and {_stem(found)}"
            raise DataError(f"two cells of {name} for one table, {both}: leave one of their files in the folder")
        seen[name] = found
        if dict(keyed(found["trials"])).keys() != dict(keyed(records[0]["trials"])).keys():
            raise DataError(
                f"{_stem(records[0])} and {_stem(found)} hold scores of different architectures: move the older file "
                "away"
            )
        first = trained.setdefault(kind(found), found)
        both = f"{_stem(first)} and {_stem(found)} were made with other options"
        refuse_other(both, first["options"], found["options"], "move one away")


def _stem(found: Record) -> str:
    return Cell(**found["nas"]).stem


def sheets(records: Sequence[Record], score: str = PRIMARY) -> Iterator[Sheet]:
    """Sheets of all cells; all sheets of a sample have its rankers without training, and each truth has its sheets."""
    for task, sample in sorted({(r["nas"]["task"], r["nas"]["sample"]) for r in records}):
        mine = [r for r in records if (r["nas"]["task"], r["nas"]["sample"]) == (task, sample)]
        free, trained, truths = ([r for r in mine if kind(r) == wanted] for wanted in ("free", "trained", "truth"))
        choices = sorted({r["nas"]["changes"] for r in trained}) or [""]
        for told, changes in product(sorted({r["nas"]["changes"] for r in truths}) or [""], choices):
            alike = [r for r in trained if r["nas"]["changes"] == changes]
            sheet = Sheet([*free, *alike, *(r for r in truths if r["nas"]["changes"] == told)], changes, score)
            if sheet.truths or any(t["truth"] for t in sheet.trials.values()):
                yield sheet


def kind(record: Record) -> str:
    """Kind of a cell: ``truth``, ``trained`` or ``free``."""
    if record["nas"]["ranker"].startswith("truth-"):
        return "truth"
    return "trained" if record["recipe"] else "free"
