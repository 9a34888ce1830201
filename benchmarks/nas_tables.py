"""Write the rankers' table of ``benchmarks/README.md`` from the cells in ``benchmarks/results/nas``.

    python benchmarks/nas_tables.py           # rewrites what stands between the markers, and truth tables as CSV
    python benchmarks/nas_tables.py --check   # exit 1 if that would change the file

Cells of a task and sample are put together here: combinations of rankers, paired differences, the truth's own noise.
``--score`` says what a trained ranker's plain name stands for, and ``--reliability`` prints which of the scores can be
relied on, from cells of several ``--seeds`` and ``--checks``: both are chosen on the samples to tune on, and then set
down in ``nas_sheets.PRIMARY``.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from nas_cells import CONDENSED, FREE, PLAIN, PUBLISHED, Cell
from nas_regret import DRAWS, regrets
from nas_reliability import reliability
from nas_sheets import PRIMARY, TOLD, Record, Sheet, kind, sheets

from condensekit.catalog import SCORES
from condensekit.nas.ranking import placed, retest, spearman, strata
from condensekit.nas.report import AMONG, FEW, Ground, Spent, differences, ranking_rows, regret_text

HERE = Path(__file__).resolve().parent
CHANCE = 20.0  # percent, twice chance for ten classes: networks below it have learnt nothing
CONTRASTS = (
    (CONDENSED, "random"),
    (CONDENSED, "random@250"),
    (CONDENSED, PLAIN),
    (CONDENSED, "random-equal"),
    (CONDENSED, "early-stop"),
    (CONDENSED, "dm"),
    (CONDENSED, "kmeans"),
    (CONDENSED, "packed-random"),
    (f"{CONDENSED}+synflow+jacov", "synflow+jacov"),
    ("random+synflow+jacov", "synflow+jacov"),
    (f"{CONDENSED}+synflow+jacov", "random+synflow+jacov"),
)
STRATA = ("norm", "pooling", "depth")  # labels in whose values the ranking is shown apart


def nas(records: Sequence[Record], score: str = PRIMARY) -> Iterator[str]:
    """A table of rankers and one of differences for each sheet, and what differs between sets."""
    yield from _tuning(records)
    every = list(sheets(records, score))
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
    yield from _regrets(every)
    yield from _between_sets(every)


def _tuning(records: Sequence[Record]) -> Iterator[str]:
    """Where it stands how options were chosen, and which cells have others."""
    if not records:
        return
    tuned = sorted({r["nas"]["task"] for r in records if r["nas"]["sample"].startswith("tune")})
    reported = [r for r in records if not r["nas"]["sample"].startswith("tune")]
    other = [Cell(**r["nas"]).stem for r in reported if r["nas"]["changes"]]
    yield "How options were chosen stands in the search log of REPRODUCIBILITY.md."
    if tuned:
        yield (
            f"Tables of the samples to tune on ({', '.join(tuned)}) stand below; these samples share no architecture "
            "with the others."
        )
    if other:
        yield (
            "These cells of samples that are reported on have other options than the usual ones: "
            f"{', '.join(f'`{stem}`' for stem in other)}."
        )
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
    if sheet.failed:
        yield f"{sheet.failed} of {len(sheet.trials)} are not ranked: a full training of theirs failed."
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
        "validation accuracy after 12 epochs of the whole network. All regrets here are "
        "against validation truth."
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
        for name in (CONDENSED, "random"):
            if name in sheet.scores and label in ground.strata:
                keys, truth = ground.rows(sheet.scores[name])
                parts = strata([sheet.scores[name][k] for k in keys], truth, [ground.strata[label][k] for k in keys])
                listed = ", ".join(f"{value} {_figure(rho)} ({n})" for value, (rho, n) in sorted(parts.items()))
                yield f"- rho of {name} inside each {label} (networks): {listed}."
    yield ""


def _regrets(every: Sequence[Sheet]) -> Iterator[str]:
    """What is lost by a ranker's first among random candidates, from the cells of both samples of NAS-Bench-201."""
    for whole in (s for s in every if (s.task, s.sample) == ("nb201", "all")):
        tops = [s for s in every if s.sample.startswith("top-") and s.changes == whole.changes]
        if not tops:
            continue
        top = max(tops, key=lambda s: len(s.trials))
        found = regrets(whole, top)
        where = ", ".join(filter(None, ("nb201", whole.changes.strip("-"))))
        yield (
            f"**Regret@1 among {AMONG} random cells** ({where}): points of validation truth lost by taking a ranker's "
            f"first. Means over {DRAWS:,} draws: about half of each comes from the better half of all cells (those of "
            f"`{top.sample}` and of `all`), the rest from the worse half (those of `all`); intervals resample the "
            "cells. Against test truth, which these are not, figures are quoted as 4.7 (at random), .65 (parameters), "
            ".53 (synflow + jacov) and .10 (12 epochs): compare with the rows of the same rankers here."
        )
        yield ""
        yield "| ranker | regret@1 | 95 % interval |"
        yield "|---|---|---|"
        for name, (mean, lo, hi) in sorted(found.items(), key=lambda item: item[1][0]):
            yield f"| {name} | {mean:.2f} | [{lo:.2f}, {hi:.2f}] |"
        yield ""


def _between_sets(every: Sequence[Sheet]) -> Iterator[str]:
    """The correlation of each set of a kind: networks trained on one set are not independent."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for whole in every:
        ground = whole.ground()
        for seed, sheet in whole.each_set():
            mine = {}
            for name, scores in sheet.scores.items():
                keys, truth = ground.rows(scores)
                rho = spearman([scores[k] for k in keys], truth)
                if rho is not None and any(map(sheet.trained, name.split("+"))):
                    mine[name] = rho
            for other in ("random", "random-equal"):
                if CONDENSED in mine and other in mine:
                    mine[f"{CONDENSED} less {other}"] = mine[CONDENSED] - mine[other]
            for name, rho in mine.items():
                found.setdefault((whole.title, name), {})[seed] = rho
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
        "| ranker | sets | rho | 95 % interval | tau | rho, top half | recall of the best tenth "
        f"| regret@1 among {AMONG} | among {FEW} | 95 % interval | pairs "
        "| rho given params | TFLOP per candidate | s per candidate | preparation s | failed |"
    )
    yield "|" + "---|" * 16
    rows = ranking_rows(sheet.scores, sheet.spent, ground, None)
    for row in sorted(rows, key=lambda row: -(row["spearman"] or 0)):
        spent, n = sheet.spent[row["ranker"]], max(1, len(sheet.trials))
        figures = [
            row["ranker"],
            _sets(sheet, row["ranker"]),
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


def _sets(sheet: Sheet, name: str) -> str:
    """Over how many sets, or trainings, a score is averaged; nothing where nothing is trained."""
    several = {len(sheet.sets[part]) for part in name.partition(" [")[0].split("+") if sheet.trained(part)}
    return ", ".join(map(str, sorted(several)))


def _costs(name: str, spent: Spent, n: int) -> list[str]:
    """Operations, the preparation shared, and seconds; nothing for what is read from a table."""
    if set(name.split("+")) <= set(PUBLISHED):
        return ["", "", ""]
    return [f"{spent.flops / n / 1e12:.3f}", f"{spent.trials_s / n:.2f}", f"{spent.preparation_s:.0f}"]


def _interval(ends: Sequence[float] | None) -> str:
    return "" if ends is None else "[{:.2f}, {:.2f}]".format(*ends)


def _differences(sheet: Sheet, ground: Ground) -> Iterator[str]:
    found = [(a, b) for a, b in CONTRASTS if sheet.compared(a, b)]
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
        for name in (CONDENSED, "random"):
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
    trained = [r for r in sheet.cells.values() if kind(r) == "trained"]
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
    parser.add_argument("--score", choices=SCORES, default=PRIMARY, help="of trained rankers, for their plain names")
    parser.add_argument(
        "--reliability", action="store_true", help="print how far each score can be relied on, and stop"
    )
    parser.add_argument("--print", action="store_true", help="print the tables, change nothing")
    args = parser.parse_args()
    records = [json.loads(path.read_text()) for path in sorted(args.results.glob("*.json"))]
    records = [r for r in records if "nas" in r]
    if args.reliability:
        print("\n".join(reliability(records)))
        return
    body = "\n".join(nas(records, args.score)) or "No results yet."
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
