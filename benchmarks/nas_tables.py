"""Write the rankers' table of ``benchmarks/README.md`` from the cells in ``benchmarks/results/nas``.

    python benchmarks/nas_tables.py           # rewrites what stands between the markers, and truth tables as CSV
    python benchmarks/nas_tables.py --check   # exit 1 if that would change the file

Cells of a task and sample are put together here: combinations of rankers, paired differences, the truth's own noise.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from nas_cells import FREE, PUBLISHED, Cell

from condensekit.errors import DataError
from condensekit.nas.combine import additive, rank_sum
from condensekit.nas.proxies import PASSES
from condensekit.nas.ranking import placed, retest, spearman, strata
from condensekit.nas.report import AMONG, FEW, Ground, Scores, Spent, differences, ranking_rows, regret_text
from condensekit.nas.resampling import rank_correlation
from condensekit.nas.trials import key
from condensekit.rng import Draw

HERE = Path(__file__).resolve().parent
CHANCE = 20.0  # percent, twice chance for ten classes: networks below it have learnt nothing
TOLD, SPLITS, AGAIN = 10, 100, 20  # truths that the additive model is told, random choices of them, resamples of each
SCORES = ("accuracy", "cross-entropy", "margin", "tse")
PRIMARY = "accuracy"  # what a trained ranker's plain name stands for, in sums and differences as well
SUMS = (
    ("synflow", "jacov"),
    ("published-synflow", "published-jacov"),
    ("dm", "synflow", "jacov"),
    ("random", "synflow", "jacov"),
    ("dm", "params"),
)
CONTRASTS = (
    ("dm", "random"),
    ("dm", "random-equal"),
    ("dm", "early-stop"),
    ("dm", "kmeans"),
    ("dm", "packed-random"),
    ("dm+synflow+jacov", "synflow+jacov"),
    ("random+synflow+jacov", "synflow+jacov"),
    ("dm+synflow+jacov", "random+synflow+jacov"),
)
STRATA = ("norm", "pooling", "depth")  # labels in whose values the ranking is shown apart
Record = dict[str, Any]


class Sheet:
    """All cells of one task, sample, set seed and choice of options, with one truth.

    Args:
        records: The cells, one for each ranker.
        seed: Of the sets.
        changes: Options of the trained rankers that are not the usual ones, as text.

    Raises:
        DataError: Two cells of one ranker.
    """

    def __init__(self, records: Sequence[Record], seed: int = 0, changes: str = "") -> None:
        self.cells: dict[str, Record] = {}
        for found in records:
            name = found["nas"]["ranker"]
            if name in self.cells:
                both = " and ".join(Cell(**r["nas"]).stem for r in (self.cells[name], found))
                raise DataError(f"two cells of {name} for one table, {both}: leave one of their files in the folder")
            self.cells[name] = found
        self.seed, self.changes = seed, changes
        self.task, self.sample = (records[0]["nas"][name] for name in ("task", "sample"))
        self.truths = sorted(name for name in self.cells if name.startswith("truth-"))
        first = next(iter(self.cells.values()))
        self.trials = {key(t["architecture"]): t for t in first["trials"]}
        self.scores: dict[str, Scores] = {}
        self.spent: dict[str, Spent] = {}
        for name in (n for n in self.cells if n not in self.truths):
            self._add(name)
        for parts in SUMS:
            self._add_sum(parts)

    def _add(self, name: str) -> None:
        """One ranker, by accuracy where it trains, and by each other score."""
        record = self.cells[name]
        trials = record["trials"]
        kinds = [kind for kind in SCORES if any(kind in t["scores"] for t in trials)] or [""]
        for kind in kinds:
            label = name if kind in ("", PRIMARY) else f"{name} [{kind}]"
            found = {key(t["architecture"]): t["scores"].get(kind, t["score"]) for t in trials}
            self.scores[label] = {k: None if t["score"] is None else found[k] for k, t in _keyed(trials)}
            passed = sum(t["image_steps"] * t["flops"] for t in trials)
            made = record["preparation"]
            self.spent[label] = Spent(made["seconds"], record["trials_s"], made["flops"] + PASSES * passed)

    def _add_sum(self, parts: Sequence[str]) -> None:
        if not all(part in self.scores for part in parts):
            return
        keys = list(self.trials)
        values = rank_sum(*([self.scores[part].get(k) for k in keys] for part in parts))
        name = "+".join(parts)
        self.scores[name] = dict(zip(keys, values.tolist(), strict=True))
        spent = [self.spent[part] for part in parts]
        self.spent[name] = Spent(*(sum(getattr(s, n) for s in spent) for n in ("preparation_s", "trials_s", "flops")))

    @property
    def title(self) -> str:
        """What tells this sheet from others."""
        parts = [self.task, f"sample {self.sample}", f"set seed {self.seed}", self.changes.strip("-")]
        if self.truths:
            parts.append("truth of {:,} images x {} epochs".format(*self.budget))
        return ", ".join(filter(None, parts))

    @property
    def budget(self) -> tuple[int, int]:
        """Images and epochs of a training for the truth; there must be one."""
        recipe = self.cells[self.truths[0]]["recipe"]
        return recipe["images"], recipe["protocol"]["epochs"]

    def ground(self, least: float = 0.0) -> Ground:
        """The truth of the sample, of those architectures whose truth is at least so many percent."""
        values = {k: t["truth"] for k, t in self.trials.items()}
        if self.truths:
            tables = [dict(_keyed(self.cells[name]["trials"])) for name in self.truths]
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
        """A model of main effects that is told a few truths, on the others, and what a ranker is ahead of it there.

        Returns:
            The model's correlation, mean over random choices of the truths it is told; and [value, lo, hi] of the
            ranker's correlation less the model's, on the same architectures: the mean over the choices, and an
            interval over choices and bootstraps of the architectures left. None for too few architectures.
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
            rows = np.vstack([np.arange(len(asked)), picks])  # the first is the sample itself
            theirs = rank_correlation(guess[rows], truth[asked][rows])
            found = rank_correlation(scores[asked][rows], truth[asked][rows]) - theirs
            whole.append(theirs[0])
            ahead.append(found[0])
            spread += found[1:][np.isfinite(found[1:])].tolist()
        lo, hi = np.percentile(spread, (2.5, 97.5))
        return float(np.mean(whole)), [float(np.mean(ahead)), float(lo), float(hi)]


def _keyed(trials: Sequence[Record]) -> list[tuple[str, Record]]:
    return [(key(t["architecture"]), t) for t in trials]


def sheets(records: Sequence[Record]) -> Iterator[Sheet]:
    """Cells that belong together: those without a set stand beside every set, and each truth has sheets of its own."""
    for task, sample in sorted({(r["nas"]["task"], r["nas"]["sample"]) for r in records}):
        mine = [r for r in records if (r["nas"]["task"], r["nas"]["sample"]) == (task, sample)]
        free, trained, truths = ([r for r in mine if _kind(r) == kind] for kind in ("free", "trained", "truth"))
        choices = sorted({(r["nas"]["set_seed"], r["nas"]["changes"]) for r in trained}) or [(0, "")]
        for told, (seed, changes) in product(sorted({r["nas"]["changes"] for r in truths}) or [""], choices):
            alike = [r for r in trained if (r["nas"]["set_seed"], r["nas"]["changes"]) == (seed, changes)]
            sheet = Sheet([*free, *alike, *(r for r in truths if r["nas"]["changes"] == told)], seed, changes)
            if sheet.truths or any(t["truth"] for t in sheet.trials.values()):
                yield sheet


def _kind(record: Record) -> str:
    if record["nas"]["ranker"].startswith("truth-"):
        return "truth"
    return "trained" if record["recipe"] else "free"


def nas(records: Sequence[Record]) -> Iterator[str]:
    """A table of rankers and one of differences for each sheet, and what differs between sets."""
    yield from _tuning(records)
    every = list(sheets(records))
    for sheet in every:
        ground = sheet.ground()
        yield f"**{sheet.title}**: {len(ground.keys)} architectures; {_recipes(sheet)}{_machine(sheet)}."
        yield ""
        yield from _truth(sheet, ground)
        yield from _table(sheet, ground)
        yield from _published(sheet)
        yield from _differences(sheet, ground)
        if sheet.truths:
            yield from _strata(sheet, ground)
            yield from _without_chance(sheet)
    yield from _between_sets(every)


def _tuning(records: Sequence[Record]) -> Iterator[str]:
    """Whether options were chosen, and on what."""
    if not records:
        return
    tuned = sorted({r["nas"]["task"] for r in records if r["nas"]["sample"] == "tune"})
    other = [Cell(**r["nas"]).stem for r in records if r["nas"]["sample"] != "tune" and r["nas"]["changes"]]
    if tuned:
        yield (
            f"Options were looked at on the sample `tune` alone ({', '.join(tuned)}; its tables stand below), which "
            "shares no architecture with the others."
        )
    if other:
        yield (
            "These cells of samples that are reported on have other options than those set down beforehand: "
            f"{', '.join(f'`{stem}`' for stem in other)}."
        )
    if not tuned and not other:
        yield "No option was tuned: every figure is of the recipe that was set down beforehand."
    yield ""


def _truth(sheet: Sheet, ground: Ground) -> Iterator[str]:
    """How a truth measured here was measured, and how far it can be relied on."""
    if not sheet.truths:
        return
    cell = sheet.cells[sheet.truths[0]]
    images, epochs = sheet.budget
    how = cell["recipe"]["protocol"]
    yield (
        f"The truth is the accuracy on {cell['held']:,} test images after {epochs} epochs on {images:,} images in "
        f"batches of {how['batch']}, learning rate {how['lr']:g} ({how['schedule']}): the mean of {len(sheet.truths)} "
        "trainings."
    )
    if (noise := retest(ground.truth)).single is not None:
        yield (
            f"Two trainings agree to {noise.single:.2f}, in the top half to {_figure(noise.single_top)}; a ranker "
            f"without error would reach {noise.ceiling:.2f}; two accuracies differ if they are {noise.noise:.1f} "
            "points apart."
        )
    yield ""


def _published(sheet: Sheet) -> Iterator[str]:
    """What the rows from tables are, and how ours compare with them."""
    if not any(name in PUBLISHED for name in sheet.scores):
        return
    yield (
        "Rows called `published-` rank the same cells by columns of tables: zero-cost scores of other code, and the "
        "validation accuracy after 12 epochs of the whole network. The regrets often quoted, 4.7 (at random), .65 "
        "(parameters), .53 (synflow + jacov) and .10 (12 epochs), are against test truth; all regrets here are against "
        "validation truth."
    )
    found = [(name, sheet.scores.get(f"published-{name}")) for name in FREE if name in sheet.scores]
    agree = [
        (name, spearman([sheet.scores[name].get(k) for k in theirs], placed(list(theirs.values()))))
        for name, theirs in found
        if theirs
    ]
    if agree:
        yield f"Ours rank them as those columns do, by rho: {', '.join(f'{n} {_figure(rho)}' for n, rho in agree)}."
    yield ""


def _strata(sheet: Sheet, ground: Ground) -> Iterator[str]:
    """The correlation among networks that share a norm, a pooling or a depth."""
    for label in STRATA:
        for name in ("dm", "random"):
            if name in sheet.scores and label in ground.strata:
                keys, truth = ground.rows(sheet.scores[name])
                parts = strata([sheet.scores[name][k] for k in keys], truth, [ground.strata[label][k] for k in keys])
                listed = ", ".join(f"{value} {_figure(rho)} ({n})" for value, (rho, n) in sorted(parts.items()))
                yield f"- rho of {name} inside each {label} (networks): {listed}."
    yield ""


def _between_sets(every: Sequence[Sheet]) -> Iterator[str]:
    """The correlation of each set of a kind: networks trained on one set are not independent."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for sheet in every:
        where = sheet.title.replace(f", set seed {sheet.seed}", "")
        ground = sheet.ground()
        mine = {}
        for name, scores in sheet.scores.items():
            keys, truth = ground.rows(scores)
            rho = spearman([scores[k] for k in keys], truth)
            if rho is not None and "[" not in name and not set(name.split("+")) <= {*FREE, *PUBLISHED}:
                mine[name] = rho
        for other in ("random", "random-equal"):
            if "dm" in mine and other in mine:
                mine[f"dm less {other}"] = mine["dm"] - mine[other]
        for name, rho in mine.items():
            found.setdefault((where, name), {})[sheet.seed] = rho
    several = {at: list(rhos.values()) for at, rhos in found.items() if len(rhos) > 1}
    if not several:
        return
    yield "**Between sets**: rho of each set of a kind, seeds 0, 1, ...; one set is one replicate."
    yield ""
    yield "| sample | ranker | rho of each set | mean |"
    yield "|---|---|---|---|"
    for (where, name), rhos in several.items():
        listed = ", ".join(f"{rho:+.2f}" for rho in rhos)
        yield f"| {where} | {name} | {listed} | {np.mean(rhos):+.2f} |"
    yield ""


def _table(sheet: Sheet, ground: Ground) -> Iterator[str]:
    yield (
        "| ranker | rho | 95 % interval | tau | rho, top half | recall of the best tenth "
        f"| regret@1 among {AMONG} | among {FEW} | 95 % interval | pairs "
        "| rho given params | TFLOP per candidate | s per candidate | preparation s | failed |"
    )
    yield "|" + "---|" * 15
    rows = ranking_rows(sheet.scores, sheet.spent, ground, None)
    for row in sorted(rows, key=lambda row: -(row["spearman"] or 0)):
        spent, n = sheet.spent[row["ranker"]], max(1, len(sheet.trials))
        figures = [
            row["ranker"],
            _figure(row["spearman"]),
            _interval(row["ci95"]),
            *(_figure(row[name]) for name in ("kendall", "spearman_top", "recall_top")),
            regret_text(row, "regret"),
            regret_text(row, "regret_25"),
            _interval(row["ci95_regret_25"]),
            *(_figure(row[name]) for name in ("pairs", "partial")),
            *_costs(row["ranker"], spent, n),
            str(row["failed"]),
        ]
        yield f"| {' | '.join(figures)} |"
    yield ""


def _costs(name: str, spent: Spent, n: int) -> list[str]:
    """Operations, the preparation shared, and seconds; nothing for what is read from a table."""
    if set(name.split("+")) <= set(PUBLISHED):
        return ["", "", ""]
    return [f"{spent.flops / n / 1e12:.3f}", f"{spent.trials_s / n:.2f}", f"{spent.preparation_s:.0f}"]


def _interval(ends: Sequence[float] | None) -> str:
    return "" if ends is None else "[{:.2f}, {:.2f}]".format(*ends)


def _differences(sheet: Sheet, ground: Ground) -> Iterator[str]:
    found = [(a, b) for a, b in CONTRASTS if a in sheet.scores and b in sheet.scores]
    if not found:
        return
    yield "| difference of rho, paired bootstrap over distinct architectures | all | top half |"
    yield "|---|---|---|"
    for ours, theirs in found:
        both = differences(sheet.scores[ours], sheet.scores[theirs], ground)
        shown = ["" if d is None else "{:+.2f} [{:+.2f}, {:+.2f}]".format(*d) for d in both]
        yield f"| {ours} less {theirs} | {' | '.join(shown)} |"
    yield ""


def _without_chance(sheet: Sheet) -> Iterator[str]:
    """What is left of the correlations when networks that learnt nothing are left out."""
    whole, ground = sheet.ground(), sheet.ground(CHANCE)
    rows = ranking_rows(sheet.scores, sheet.spent, ground, None)
    best = sorted(rows, key=lambda row: -(row["spearman"] or 0))
    listed = ", ".join(f"{row['ranker']} {_figure(row['spearman'])}" for row in best if "[" not in row["ranker"])
    yield f"Without networks below {CHANCE:.0f} % ({len(ground.keys)} left): {listed}."
    yield ""
    yield from _differences(sheet, ground)
    for text, part in (("", whole), (f", without networks below {CHANCE:.0f} %", ground)):
        for name in ("dm", "random"):
            found = sheet.additive(part, name) if name in sheet.scores else None
            if found is not None:
                ahead = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*found[1])
                yield (
                    f"- An additive model of the choices, told {TOLD} truths: {found[0]:.2f} on the others{text};"
                    f" {name} less it: {ahead}."
                )
    yield ""


def _recipes(sheet: Sheet) -> str:
    """How trained rankers train a candidate, and in which space; nothing where none does."""
    trained = [r for r in sheet.cells.values() if _kind(r) == "trained"]
    recipes = {", ".join(f"{k} {v}" for k, v in r["recipe"].items()) for r in trained}
    spaces = {r["space"]["trained"] for r in trained}
    return "".join(f"{text}; " for text in (*sorted(recipes), *sorted(spaces)))


def _machine(sheet: Sheet) -> str:
    found = {f"{r['environment']['device']}, torch {r['environment']['torch']}" for r in sheet.cells.values()}
    return "; ".join(sorted(found))


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def truth_csv(sheet: Sheet) -> str:
    """A table of the truths measured here, which ``condensekit search --truth`` reads."""
    ground = sheet.ground()
    labels = list(sheet.trials[ground.keys[0]]["architecture"])
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow([*labels, *(f"accuracy_{seed}" for seed in range(ground.truth.shape[1]))])
    for name, values in zip(ground.keys, ground.truth.tolist(), strict=True):
        architecture = sheet.trials[name]["architecture"]
        out.writerow([*(architecture[label] for label in labels), *(f"{v:.2f}" for v in values)])
    return text.getvalue()


def main() -> None:
    """Rewrite or check the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the tables are out of date")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "nas")
    parser.add_argument("--print", action="store_true", help="print the tables, change nothing")
    args = parser.parse_args()
    records = [json.loads(path.read_text()) for path in sorted(args.results.glob("*.json"))]
    records = [r for r in records if "nas" in r]
    body = "\n".join(nas(records)) or "No results yet."
    if args.print:
        print(body)
        return
    readme = HERE / "README.md"
    before = readme.read_text()
    text = re.sub(
        r"(<!-- nas: begin -->\n).*?(<!-- nas: end -->)",
        lambda found: f"{found[1]}\n{body.rstrip()}\n\n{found[2]}",
        before,
        flags=re.DOTALL,
    )
    if args.check:
        sys.exit(int(text != before))
    readme.write_text(text)
    for sheet in sheets(records):
        if sheet.truths and sheet.sample == "all":
            images, epochs = sheet.budget
            (args.results / f"{sheet.task}-truth-{images}x{epochs}.csv").write_text(truth_csv(sheet))


if __name__ == "__main__":
    main()
