"""Write the tables of ``benchmarks/README.md`` from the JSON files in ``benchmarks/results/``.

    python benchmarks/tables.py           # rewrites what stands between the markers
    python benchmarks/tables.py --check   # exit 1 if that would change the file

Published values come from ``published.json``, which says where each was read.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import chain, combinations, product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cells import cells
from continual_tables import continual, experience, loop, tuning

from condensekit.training.evaluation import paired_interval

HERE = Path(__file__).resolve().parent
Record = dict[str, Any]
AGAINST = {cell.stem: cell.against for scale in ("cpu", "gpu") for cell in cells(scale)}


def accuracy(records: list[Record]) -> Iterator[str]:
    """One table for each scale, data set, protocol and study, by ipc and then by accuracy."""
    found = [r for r in records if "cell" in r]
    for scale, data, protocol, study in sorted({_table_of(r) for r in found}):
        mine = [r for r in found if _table_of(r) == (scale, data, protocol, study)]
        rows = [(r, row) for r in mine for row in r["rows"]]
        rows.sort(key=lambda pair: (pair[0]["cell"]["ipc"] or 10**9, pair[1]["accuracy_mean"]))
        title = f"{data}, {scale} scale" + f", {study}" * bool(study)
        yield f"**{title}**: protocol {protocol}; {_machine(mine)}."
        yield ""
        yield (
            "| ipc | set | recipe | iterations | s per set | bytes | images packed in one | accuracy % "
            "| above random, 95 % interval | above another row, 95 % interval | sets x networks | published % |"
        )
        yield "|" + "---|" * 12
        for record, row in rows:
            yield _accuracy_row(record, row, found)
        yield ""
        yield from _effects(mine)
    yield from _sources(found)


def _table_of(record: Record) -> tuple[str, str, str, str]:
    cell = record["cell"]
    return cell["scale"], cell["data"], record["protocol"]["name"], cell["study"]


def _accuracy_row(record: Record, row: Record, found: list[Record]) -> str:
    cell = record["cell"]
    other = "" if row["architecture"] == "ConvNet" else f", {row['architecture']}"
    seconds = [s for s in record.get("condensation_s", []) if s is not None]
    against = AGAINST.get(record["stem"], "")
    difference = _difference(record, row, found, against)
    figures = (
        str(cell["ipc"] or "all"),
        cell["name"] + other,
        cell["recipe"] or "-",
        str(cell["iterations"] or "-"),
        f"{sum(seconds) / len(seconds):.0f}" if seconds else "-",
        f"{row['nbytes']:,}",
        str(record["factor"] ** 2),
        f"{100 * row['accuracy_mean']:.1f} ± {100 * row['accuracy_std']:.1f}",
        _difference(record, row, found, "random"),
        f"{difference} ({against})" if difference != "-" else "-",
        f"{row['sets']} x {row['networks']}",
        ", ".join(_published(cell["data"], cell["ipc"], cell["name"])) or "-",
    )
    return f"| {' | '.join(figures)} |"


def _difference(record: Record, row: Record, found: list[Record], label: str) -> str:
    """The paired difference to the cell of that label, if another: of the same study, or else of the main table."""
    if _label(record) == label:
        return "-"
    same = [r for r in found if _label(r) == label and _terms(r) == _terms(record)]
    same.sort(key=lambda r: r["cell"]["study"] != record["cell"]["study"])
    theirs = (x for r in same for x in r["rows"] if x["architecture"] == row["architecture"])
    return next((_interval(row["accuracies"], other["accuracies"]) for other in theirs), "-")


def _label(record: Record) -> str:
    return "-".join(str(record["cell"][key]) for key in ("name", "iterations") if record["cell"][key])


def _terms(record: Record) -> tuple[str, str, int | None, str]:
    cell = record["cell"]
    return cell["scale"], cell["data"], cell["ipc"], record["protocol"]["name"]


def _interval(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> str:
    mean, interval, unit = paired_interval(ours, theirs)
    low, high = interval or (float("nan"), float("nan"))
    return f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] over {unit}s"


def _effects(mine: list[Record]) -> Iterator[str]:
    """What each option of a factorial study does, all others alike; its learning rates follow the other options."""
    study = [(_options(r), r) for r in mine if r["cell"]["study"] == "equal-terms" and r["cell"]["recipe"]]
    names = sorted({name for options, _ in study for name in options})
    for name in names:
        levels = sorted({options[name] for options, _ in study if name in options})
        for low, high in combinations(levels, 2):
            pairs = [
                (a["rows"][0]["accuracies"], b["rows"][0]["accuracies"])
                for (x, a), (y, b) in product(study, study)
                if x == {**y, name: x[name]} and (x[name], y[name]) == (high, low)
            ]
            ours, theirs = (
                [list(chain(*nets)) for nets in zip(*side, strict=True)] for side in zip(*pairs, strict=True)
            )
            yield f"- {name} {high} above {low}, mean of {len(pairs)} pairs of rows: {_interval(ours, theirs)}"
    if names:
        yield ""


def _options(record: Record) -> dict[str, str]:
    """The options of a recipe that a study varies."""
    options = (token.split("=") for token in record["cell"]["recipe"].split()[1:])
    return {name: value for name, value in options if name in ("discrepancy", "factor", "keep")}


def _published(data: str, ipc: int | None, name: str) -> Iterator[str]:
    for entry in json.loads((HERE / "published.json").read_text())["accuracy_percent"]:
        if (entry["data"], entry["ipc"], entry["set"]) == (data, ipc, name):
            spread = f" ± {entry['std']}" if entry["std"] is not None else ""
            yield f"{entry['value']}{spread} ({entry['source']})"


def _sources(found: list[Record]) -> Iterator[str]:
    published = json.loads((HERE / "published.json").read_text())
    sets = {r["cell"]["data"] for r in found}
    used = {entry["source"] for entry in published["accuracy_percent"] if entry["data"] in sets}
    for name in sorted(used):
        yield f"- *{name}*: {published['sources'][name]}."


def _machine(records: list[Record]) -> str:
    found = {f"{r['environment']['device']}, torch {r['environment']['torch']}" for r in records}
    return "; ".join(sorted(found))


def speed(records: list[Record]) -> Iterator[str]:
    """Every speed file's rows."""
    mine = [r for r in records if "rows" in r and "precision" in r["rows"][0]]
    if not mine:
        return
    yield (
        "| machine | classes | real batch | ipc | precision | compiled | reference s | ours s "
        "| times faster (min, median, max) | gradient error |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for record in mine:
        for row in record["rows"]:
            ratios = f"{row['ratio_min']:.2f}, **{row['ratio_median']:.2f}**, {row['ratio_max']:.2f}"
            yield (
                f"| {_machine([record])} | {record['settings']['classes']} | {record['settings']['real_batch']} "
                f"| {row['ipc']} | {row['precision']} | {'yes' if record['settings']['compiled'] else 'no'} "
                f"| {row['reference_s']:.4f} | {row['ours_s']:.4f} | {ratios} "
                f"| {row['gradient_rel_error']:.1e} |"
            )
    yield ""


def memory(records: list[Record]) -> Iterator[str]:
    """Every memory file's rows."""
    mine = [r for r in records if "rows" in r and "case" in r["rows"][0]]
    if not mine:
        return
    yield "| machine | images | ipc | case | imports alone, MiB | above them, MiB |"
    yield "|---|---|---|---|---|---|"
    for record in mine:
        for row in record["rows"]:
            yield (
                f"| {_machine([record])} | {record['settings']['images']} | {record['settings']['ipc']} "
                f"| {row['case']} | {row['imports_mib']:.0f} | {row['above_import_mib']:.0f} |"
            )
    yield ""


def protocols(records: list[Record]) -> Iterator[str]:
    """How alike two protocols rank sets."""
    for record in (r for r in records if "rank_correlation" in r):
        judged = record["protocols"]
        yield f"{record['settings']['data']}, ipc {record['settings']['ipc']}; {_machine([record])}:"
        yield ""
        yield f"| set | {' | '.join(f'accuracy % under {name}' for name in judged)} | sets x networks |"
        yield "|---|" + "---|" * (len(judged) + 1)
        for rows in zip(*(p["rows"] for p in judged.values()), strict=True):
            cells = [f"{100 * r['accuracy_mean']:.1f} ± {100 * r['accuracy_std']:.1f}" for r in rows]
            yield f"| {rows[0]['set']} | {' | '.join(cells)} | {rows[0]['sets']} x {rows[0]['networks']} |"
        yield ""
        found = record["rank_correlation"]
        yield f"Spearman's correlation: {found['kinds']:.2f} of the means, {found['sets']:.2f} of single sets."
        yield ""


def search(records: list[Record]) -> Iterator[str]:
    """Every search for options, best first."""
    for record in (r for r in records if "search" in r):
        tried = sorted(record["search"], key=lambda row: -(row["accuracy_mean"] or 0))
        settings = record["settings"]
        yield f"{settings['data']}, ipc {settings['ipc']}; {_machine([record])}:"
        yield ""
        yield "| recipe | iterations | held-out accuracy % | judged by | sets x networks | gradient steps |"
        yield "|---|---|---|---|---|---|"
        for row in tried:
            if row["accuracy_mean"] is None:
                yield f"| {row['recipe']} | {row['iterations']} | diverged | - | - | - |"
                continue
            yield (
                f"| {row['recipe']} | {row['iterations']} | {100 * row['accuracy_mean']:.1f} "
                f"± {100 * row['accuracy_std']:.1f} | {row['judge']} "
                f"| {row['sets']} x {row['networks']} | {row['steps']} |"
            )
        yield ""


def pace(records: list[Record]) -> Iterator[str]:
    """Seconds of each method."""
    for record in (r for r in records if "pace" in r):
        yield f"{record['settings']['data']}, ipc {record['settings']['ipc']}; {_machine([record])}:"
        yield ""
        yield "| recipe | s before the first step | s per step | steps in 60 s | steps in 300 s |"
        yield "|---|---|---|---|---|"
        for row in record["pace"]:
            yield (
                f"| {row['recipe']} | {row['preparation_s']:.1f} | {row['step_s']:.2f} "
                f"| {row['steps_in_60_s']} | {row['steps_in_300_s']} |"
            )
        yield ""


def main() -> None:
    """Rewrite or check the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the tables are out of date")
    args = parser.parse_args()
    paths = sorted((HERE / "results").glob("*.json"))
    records = [{**json.loads(path.read_text()), "stem": path.stem} for path in paths]
    readme = HERE / "README.md"
    text = before = readme.read_text()
    for table in (accuracy, continual, tuning, experience, search, pace, protocols, speed, loop, memory):
        name = table.__name__
        body = "\n".join(table(records)) or "No results yet."
        text = re.sub(
            rf"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)",
            lambda found, body=body: f"{found[1]}\n{body.rstrip()}\n\n{found[2]}",
            text,
            flags=re.DOTALL,
        )
    if args.check:
        sys.exit(int(text != before))
    readme.write_text(text)


if __name__ == "__main__":
    main()
