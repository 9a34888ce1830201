"""Tables of rankers: ranking quality, combinations of rankers, paired differences, and the noise of the truth.

    python benchmarks/nas/tables.py --score accuracy   # prints the tables with another score of trained rankers

The score is chosen on the ``tune`` samples and then written into ``PRIMARY`` of ``sheets.py``, which
``benchmarks/tables.py`` uses.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scipy import stats

from benchmarks.nas.cells import CONDENSED, FREE, PLAIN, PUBLISHED, Cell
from benchmarks.nas.regret import BAR, DRAWS, regrets
from benchmarks.nas.sheets import MADE, OLD_DATA, PRIMARY, TOLD, Sheet, kind, sheets
from benchmarks.passes import COLUMNS as UNIT_NAMES
from benchmarks.passes import UNITS, Told, counted, key, short
from benchmarks.record import RESULTS, Record, hardware, parser, read
from condensekit.nas.names import SCORES
from condensekit.nas.study.ranking import placed, retest, spearman, strata
from condensekit.nas.study.report import AMONG, AMONG_FEW, Ground, RankerCost, differences, ranking_rows
from condensekit.stats import interval
from condensekit.tables import markdown

CHANCE = 20.0  # percent, twice the accuracy of chance with ten classes; networks below it have not learnt
CONTRASTS = (
    (CONDENSED, "random"),
    (CONDENSED, "random@250"),
    (CONDENSED, PLAIN),
    (CONDENSED, "random-equal"),
    (CONDENSED, "early-stop"),
    (CONDENSED, "dm"),
    (CONDENSED, "kmeans"),
    (CONDENSED, "packed-random"),
    (f"{CONDENSED} [accuracy]", "random [accuracy]"),
    (f"{CONDENSED} [accuracy]", "random-equal [accuracy]"),
    (f"{CONDENSED}+synflow+jacov", "synflow+jacov"),
    ("random+synflow+jacov", "synflow+jacov"),
    (f"{CONDENSED}+synflow+jacov", "random+synflow+jacov"),
)
EACH = tuple(f"{unit} per candidate" for unit in UNIT_NAMES)
STRATA = ("norm", "pooling", "depth")  # labels for whose choices the ranking is shown separately


def nas(records: Sequence[Record], score: str = PRIMARY) -> Iterator[str]:
    """Tables of rankers and of differences for each sheet, and a short table for each ``tune`` sample."""
    cells = [_with_images(r, counted(records)) for r in records if "nas" in r]
    population = next((r["population"] for r in records if "population" in r), None)
    yield from _overhead(records)
    yield from _tuning(cells)
    found = list(sheets(cells, score))
    yield from _options([sheet for sheet in found if sheet.sample.startswith("tune")])
    every = [sheet for sheet in found if not sheet.sample.startswith("tune")]
    for sheet in every:
        ground = sheet.ground()
        by = f"trained ones scored by {sheet.score} unless another score stands in brackets; " if sheet.sets else ""
        where = hardware(sheet.cells.values())
        yield f"**{sheet.title}**: {len(ground.keys)} architectures; {by}{_recipes(sheet)}{where}."
        yield ""
        yield from _truth(sheet, ground)
        yield from _table(sheet, ground)
        yield from _published(sheet)
        yield from _differences(sheet, ground)
        yield from _sets(sheet)
        if sheet.truths:
            yield from _strata(sheet, ground)
            yield from _without_chance(sheet)
    yield from _regrets(every, population)


def _overhead(records: Sequence[Record]) -> Iterator[str]:
    """Table of the overhead of trials, from the file of ``overhead.py``."""
    found = next((r for r in records if "empty" in r), None)
    if found is None:
        return
    yield (
        f"**What a trial costs beside its own work** ({found['environment']['device']}; `python "
        "benchmarks/nas/overhead.py`): seconds to the first result, and between results from there on (with two "
        "workers half of what each takes). `nni-as-it-is` is NNI's training service without warm workers."
    )
    yield ""
    yield markdown(
        ("candidates", "engine", "workers", "trials", "to the first", "from one to the next", "in all"),
        [
            (
                f"of {row['seconds']:g} s" if row["seconds"] else "empty",
                *(row[name] for name in ("engine", "workers", "trials")),
                *(f"{row[name]:.3g}" for name in ("start_s", "per_trial_s", "wall_s")),
            )
            for part in ("empty", "short")
            for row in found.get(part, [])
        ],
    )
    yield ""
    for row in found.get("kill", []):
        yield (
            f"- {row['engine']}, killed (SIGKILL) after {row['finished_before']} of {row['trials']} trials and resumed:"
            f" {row['ran_after']} ran then, {row['repeated']} of the finished ones again, {row['left_behind']} "
            "processes were left behind."
        )
    yield ""


def _tuning(records: Sequence[Record]) -> Iterator[str]:
    """Text on how options were chosen, and on cells with unusual options."""
    if not records:
        return
    tuned = sorted({r["nas"]["task"] for r in records if r["nas"]["sample"].startswith("tune")})
    reported = [r for r in records if not r["nas"]["sample"].startswith("tune")]
    other = [Cell(**r["nas"]).stem for r in reported if r["nas"]["changes"]]
    yield "How options were chosen stands in the search log of REPRODUCIBILITY.md."
    if tuned:
        yield (
            f"Figures of the samples to tune on ({', '.join(tuned)}) come first; these samples share no computation "
            "with the others."
        )
    if other:
        yield (
            "These cells of samples that are reported on have other options than the usual ones: "
            f"{', '.join(f'`{stem}`' for stem in other)}."
        )
    yield ""


def _truth(sheet: Sheet, ground: Ground) -> Iterator[str]:
    """Text on how a truth was measured by full training, and on its reliability."""
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
    """Text on the rows from published tables, and on their agreement with our scores."""
    if not any(name in PUBLISHED for name in sheet.scores):
        return
    yield (
        "Rows called `published-` rank the same cells by columns of tables: zero-cost scores of other code, and the "
        "validation accuracy after 12 epochs of the whole network. The truth is one measurement of validation "
        "accuracy, by which the better half is chosen as well."
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
    """Lines with the correlation among networks of the same norm, pooling or depth."""
    for label in STRATA:
        for name in (CONDENSED, "random"):
            if name in sheet.scores and label in ground.strata:
                keys, truth = ground.rows(sheet.scores[name])
                parts = strata([sheet.scores[name][k] for k in keys], truth, [ground.strata[label][k] for k in keys])
                listed = ", ".join(f"{value} {_figure(rho)} ({n})" for value, (rho, n) in sorted(parts.items()))
                yield f"- rho of {name} inside each {label} (networks): {listed}."
    yield ""


def _regrets(every: Sequence[Sheet], population: Record | None) -> Iterator[str]:
    """Table of regrets among random candidates, from two samples of NAS-Bench-201."""
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
            f"cells, and those of differences to {BAR} resample both alike.{_exactly(population)}"
        )
        yield ""
        rows = [
            (
                name,
                f"{lost[0]:.2f}",
                _interval(lost[1:]),
                "" if ahead is None or name == BAR else f"{ahead[0]:+.2f} {_interval(ahead[1:])}",
            )
            for name, (lost, ahead) in sorted(found.items(), key=lambda item: item[1][0])
        ]
        yield markdown(("ranker", "regret@1", "95 % interval", f"less that of {BAR}"), rows)
        yield ""


def _exactly(population: Record | None) -> str:
    """Text on the regrets of published scores in the whole population."""
    if population is None:
        return ""
    listed = ", ".join(f"{name} {lost:.2f}" for name, lost in sorted(population["regret"].items(), key=lambda p: p[1]))
    return f" Over all draws from the {population['cells']:,} distinct computations: {listed}."


def _table(sheet: Sheet, ground: Ground) -> Iterator[str]:
    columns = (
        *("ranker", "rho", "95 % interval", "tau", "rho, best half of these", "recall of the best tenth"),
        *(f"regret@1 among {AMONG}", f"among {AMONG_FEW}", "95 % interval", "pairs", "rho given params"),
        *("TFLOP per candidate", *EACH, "s per candidate", "preparation s", "failed"),
    )
    rows = [
        (
            row.ranker,
            _figure(row.spearman),
            _interval(row.ci95),
            *map(_figure, (row.kendall, row.spearman_top, row.recall_top)),
            _regret(row.regret, row.n, AMONG),
            _regret(row.regret_25, row.n, AMONG_FEW),
            _interval(row.ci95_regret_25),
            *map(_figure, (row.pairs, row.partial)),
            *_costs(row.ranker, sheet.spent[row.ranker], max(1, len(sheet.trials))),
            row.failed,
        )
        for row in sorted(ranking_rows(sheet.scores, sheet.spent, ground, None), key=lambda row: -(row.spearman or 0))
    ]
    yield markdown(columns, rows)
    yield ""


def _regret(value: float | None, n: int, among: int) -> str:
    """A mean regret among so many of ``n`` candidates, marked if there is only one draw; empty: undefined."""
    return "" if value is None else f"{value:.2f}" + " (one draw)" * (n <= among)


def _costs(name: str, spent: RankerCost, n: int) -> list[str]:
    """Cells of a row with the work and seconds per candidate, and the preparation; empty for published scores."""
    if set(name.split("+")) <= set(PUBLISHED):
        return [""] * 5
    return [
        f"{(spent.flops or 0) / n / 1e12:.3f}",
        *_passes(spent, n),
        f"{spent.trials_s / n:.2f}",
        f"{spent.preparation_s:.0f}",
    ]


def _passes(spent: RankerCost, n: int) -> tuple[str, ...]:
    return tuple(short((spent.work[unit] or 0) / n) for unit in UNITS)


def _with_images(record: Record, known: Mapping[str, Told]) -> Record:
    """The record with the number of images of its preparation, which old records do not tell."""
    made, asked = record["preparation"], record["recipe"]
    if record["nas"]["ranker"] not in MADE or "images" in made:
        return record
    name = key(OLD_DATA[record["nas"]["task"]].name, asked["ipc"], asked["steps"], asked["condense"])
    parts = known.get(name, {})
    wanted = [part for part in parts if record["nas"]["ranker"] == CONDENSED or part == "preparation"]
    return {**record, "preparation": {**made, "images": sum(parts[part]["images"] for part in wanted)}}


def _interval(ends: Sequence[float] | None) -> str:
    return "" if ends is None else "[{:.2f}, {:.2f}]".format(*ends)


def _differences(sheet: Sheet, ground: Ground) -> Iterator[str]:
    found = _contrasts(sheet)
    if not found:
        return
    rows = [
        (
            f"{ours} less {theirs}",
            *(
                "" if d is None else "{:+.2f} [{:+.2f}, {:+.2f}]".format(*d)
                for d in differences(sheet.scores[ours], sheet.scores[theirs], ground)
            ),
        )
        for ours, theirs in found
    ]
    what = "difference of rho, for these sets: paired bootstrap over distinct cells"
    yield markdown((what, "all", "best half of these"), rows)
    yield ""


def _contrasts(sheet: Sheet) -> list[tuple[str, str]]:
    return [(a, b) for a, b in CONTRASTS if a in sheet.scores and b in sheet.scores]


def _sets(sheet: Sheet) -> Iterator[str]:
    """Table of the correlations for the candidates of each set, and of their differences; sets are the replicates."""
    each = [one.correlations() for one in sheet.each_set()]
    if len(each) < 2:
        return
    yield (
        f"Inside the candidates of each of the {len(each)} sets (means with 95 % t intervals over the sets; p: "
        "paired t test; REPRODUCIBILITY.md says which differences were named beforehand):"
    )
    yield ""
    names = [name for name in sheet.scores if "[" not in name and all(name in rhos for rhos in each)]
    rows = [_replicates(name, [rhos[name] for rhos in each], "") for name in names]
    for ours, theirs in _contrasts(sheet):
        if all(ours in rhos and theirs in rhos for rhos in each):
            values = [rhos[ours] - rhos[theirs] for rhos in each]
            p = stats.ttest_1samp(values, 0.0).pvalue
            rows.append(_replicates(f"{ours} less {theirs}", values, f"{p:.3f}"))
    yield markdown(("rho, or difference of rho", "of each set", "mean", "95 % interval", "p"), rows)
    yield ""


def _replicates(name: str, values: Sequence[float], p: str) -> tuple[str, ...]:
    return name, ", ".join(f"{v:+.2f}" for v in values), f"{fmean(values):+.2f}", _interval(interval(values)), p


def _options(tuned: Sequence[Sheet]) -> Iterator[str]:
    """Table of rho for all tried options, by each score, alone and in the sum with rankers without training."""
    for sample in dict.fromkeys((sheet.task, sheet.sample) for sheet in tuned):
        mine = [sheet for sheet in tuned if (sheet.task, sheet.sample) == sample]
        count = len(mine[0].ground().keys)
        yield (
            f"**{', '.join(sample)}, to tune on**: rho of {count} architectures by each score; in brackets that of the "
            f"sum of ranks with synflow and jacov, which have {_free(mine[0])} themselves."
        )
        yield ""
        rows = [
            (
                sheet.changes.strip("-") or "usual",
                name,
                *(_both(sheet, name, score) for score in SCORES),
                *_passes(sheet.spent[name], len(sheet.trials)),
                f"{sheet.spent[name].trials_s / len(sheet.trials):.1f}",
            )
            for sheet in mine
            for name in sheet.cells
            if sheet.trained(name)
        ]
        yield markdown(("options", "ranker", *SCORES, *EACH, "s per candidate"), rows)
        yield ""


def _free(sheet: Sheet) -> str:
    found = sheet.correlations()
    return ", ".join(f"{name} {found[name]:.2f}" for name in (*FREE, "synflow+jacov") if name in found)


def _both(sheet: Sheet, name: str, score: str) -> str:
    """Rho of a trained ranker by a score, and of its sum with synflow and jacov if the sheet has them."""
    parts = (name if score == sheet.score else f"{name} [{score}]", "synflow", "jacov")
    alone = _figure(sheet.rho(sheet.scores.get(parts[0], {})))
    return f"{alone} ({_figure(sheet.rho(sheet.summed(parts)))})" if set(parts) <= sheet.scores.keys() else alone


def _without_chance(sheet: Sheet) -> Iterator[str]:
    """Text on the correlations without networks that have not learnt."""
    whole, ground = sheet.ground(), sheet.ground(CHANCE)
    rows = ranking_rows(sheet.scores, sheet.spent, ground, None)
    best = sorted(rows, key=lambda row: -(row.spearman or 0))
    listed = ", ".join(f"{row.ranker} {_figure(row.spearman)}" for row in best if "[" not in row.ranker)
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
    """Text on the settings and the space of trained rankers; empty: no ranker trains candidates."""
    trained = [r for r in sheet.cells.values() if kind(r) == "trained"]
    recipes = {", ".join(f"{k.replace('_', ' ')} {v}" for k, v in r["recipe"].items()) for r in trained}
    spaces = {r["space"]["trained"] for r in trained}
    return "".join(f"{text}; " for text in (*sorted(recipes), *sorted(spaces)))


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def truth_csv(sheet: Sheet) -> str:
    """CSV table of the truths from full training, which ``condensekit search --truth`` reads."""
    ground = sheet.ground()
    labels = list(sheet.trials[ground.keys[0]]["architecture"])
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow([*labels, *(f"accuracy_{seed}" for seed in range(ground.truth.shape[1]))])
    for name, values in zip(ground.keys, ground.truth.tolist(), strict=True):
        architecture = sheet.trials[name]["architecture"]
        out.writerow([*(architecture[label] for label in labels), *(f"{v:.2f}" for v in values)])
    return text.getvalue()


def write_truths(records: Sequence[Record], folder: Path) -> None:
    """Write a CSV table for each truth from full training."""
    for sheet in sheets([r for r in records if "nas" in r]):
        if sheet.truths and sheet.sample == "all":
            images, epochs = sheet.budget
            (folder / f"{sheet.task}-truth-{images}x{epochs}.csv").write_text(truth_csv(sheet))


def main() -> None:
    """Print the tables."""
    options = parser(__doc__)
    options.add_argument("--results", type=Path, default=RESULTS)
    options.add_argument(
        "--score", choices=SCORES, default=PRIMARY, help="score of trained rankers under their plain names"
    )
    args = options.parse_args()
    print("\n".join(nas([read(path) for path in sorted(args.results.rglob("*.json"))], args.score)))


if __name__ == "__main__":
    main()
