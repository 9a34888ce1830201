"""Tables of accuracies, of searches for options, and of the comparison of protocols."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations, product
from pathlib import Path

from benchmarks import passes
from benchmarks.accuracy.cells import Cell, cells
from benchmarks.record import Record, hardware
from condensekit.stats import paired_interval
from condensekit.tables import markdown, signed

PUBLISHED = json.loads((Path(__file__).resolve().parent / "published.json").read_text())
AGAINST = {cell.stem: cell.against for scale in ("cpu", "gpu") for cell in cells(scale)}
COLUMNS = (
    *("ipc", "set", "recipe", "steps", "s per set", *passes.COLUMNS, "bytes", "images packed in one", "accuracy %"),
    *("above random, 95 % interval", "above another row, 95 % interval", "sets x networks", "published %"),
)


def accuracy(records: list[Record]) -> Iterator[str]:
    """A table for each scale, data set, protocol and study, sorted by ipc and then by accuracy."""
    found, known = [r for r in records if "cell" in r], passes.counted(records)
    for scale, data, protocol, study in sorted({_table_of(r) for r in found}):
        mine = [r for r in found if _table_of(r) == (scale, data, protocol, study)]
        rows = [(r, row) for r in mine for row in r["rows"]]
        rows.sort(key=lambda pair: (pair[0]["cell"]["ipc"] or 10**9, pair[1]["accuracy_mean"]))
        title = f"{data}, {scale} scale" + f", {study}" * bool(study)
        yield f"**{title}**: protocol {protocol}; {hardware(mine)}."
        yield ""
        yield markdown(COLUMNS, [_accuracy_row(record, row, found, known) for record, row in rows])
        yield ""
        yield from _effects(mine)
    yield from _sources(found)


def _table_of(record: Record) -> tuple[str, str, str, str]:
    cell = record["cell"]
    return cell["scale"], cell["data"], record["protocol"]["name"], cell["study"]


def _accuracy_row(
    record: Record, row: Record, found: list[Record], known: Mapping[str, passes.Told]
) -> tuple[str, ...]:
    cell = record["cell"]
    other = "" if row["network"] == "ConvNet" else f", {row['network']}"
    seconds = [s for s in record.get("condensation_s", []) if s is not None]
    against = AGAINST.get(Cell(**cell).stem, "")
    difference = _difference(record, row, found, against)
    return (
        str(cell["ipc"] or "all"),
        cell["name"] + other,
        cell["recipe"] or "-",
        str(cell["steps"] or "-"),
        f"{sum(seconds) / len(seconds):.0f}" if seconds else "-",
        *passes.texts(record.get("work") or [known.get(passes.of_cell(cell))]),
        f"{row['nbytes']:,}",
        str(record["factor"] ** 2),
        _mean(row),
        _difference(record, row, found, "random"),
        f"{difference} ({against})" if difference != "-" else "-",
        f"{row['sets']} x {row['networks']}",
        ", ".join(_published(cell["data"], cell["ipc"], cell["name"])) or "-",
    )


def _difference(record: Record, row: Record, found: list[Record], label: str) -> str:
    """Paired difference to the cell with this label in the same study, or else in the main table; "-": no such cell."""
    if _label(record) == label:
        return "-"
    same = [r for r in found if _label(r) == label and _terms(r) == _terms(record)]
    same.sort(key=lambda r: r["cell"]["study"] != record["cell"]["study"])
    theirs = (x for r in same for x in r["rows"] if x["network"] == row["network"])
    return next((_interval(row["accuracies"], other["accuracies"]) for other in theirs), "-")


def _label(record: Record) -> str:
    return "-".join(str(record["cell"][key]) for key in ("name", "steps") if record["cell"][key])


def _terms(record: Record) -> tuple[str, str, int | None, str]:
    cell = record["cell"]
    return cell["scale"], cell["data"], cell["ipc"], record["protocol"]["name"]


def _interval(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> str:
    mean, interval, unit = paired_interval(ours, theirs)
    return f"{signed(mean, interval)} over {unit}s"


def _effects(mine: list[Record]) -> Iterator[str]:
    """Effect of each option in the factorial study, over pairs of rows that differ in this option only.

    The learning rate does not count as an option, because it depends on the others.
    """
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
    for entry in PUBLISHED["accuracy_percent"]:
        if (entry["data"], entry["ipc"], entry["set"]) == (data, ipc, name):
            spread = f" ± {entry['std']}" if entry["std"] is not None else ""
            yield f"{entry['value']}{spread} ({entry['source']})"


def _sources(found: list[Record]) -> Iterator[str]:
    sets = {r["cell"]["data"] for r in found}
    used = {entry["source"] for entry in PUBLISHED["accuracy_percent"] if entry["data"] in sets}
    for name in sorted(used):
        yield f"- *{name}*: {PUBLISHED['sources'][name]}."


def protocols(records: list[Record]) -> Iterator[str]:
    """Tables of the comparison of protocols, with their rank correlations."""
    for record in (r for r in records if "rank_correlation" in r):
        judged = record["protocols"]
        yield f"{record['settings']['data']}, ipc {record['settings']['ipc']}; {hardware([record])}:"
        yield ""
        columns = ("set", *(f"accuracy % under {name}" for name in judged), "sets x networks")
        pairs = zip(*(p["rows"] for p in judged.values()), strict=True)
        yield markdown(columns, [(r[0]["set"], *map(_mean, r), f"{r[0]['sets']} x {r[0]['networks']}") for r in pairs])
        yield ""
        found = record["rank_correlation"]
        yield f"Spearman's correlation: {found['kinds']:.2f} of the means, {found['sets']:.2f} of single sets."
        yield ""


def search(records: list[Record]) -> Iterator[str]:
    """A table for each search for options, the best recipe first."""
    columns = ("recipe", "steps", "held-out accuracy %", "network", "sets x networks", "train steps")
    for record in (r for r in records if "search" in r):
        tried = sorted(record["search"], key=lambda row: -(row["accuracy_mean"] or 0))
        yield f"{record['settings']['data']}, ipc {record['settings']['ipc']}; {hardware([record])}:"
        yield ""
        yield markdown(columns, [(row["recipe"], row["steps"], *_found(row)) for row in tried])
        yield ""


def _found(row: Record) -> tuple[object, ...]:
    """Cells of a row with the accuracy of a recipe and the settings of its trainings."""
    if row["accuracy_mean"] is None:
        return "diverged", "-", "-", "-"
    return _mean(row), row["network"], f"{row['sets']} x {row['networks']}", row["train_steps"]


def _mean(row: Record) -> str:
    return f"{100 * row['accuracy_mean']:.1f} ± {100 * row['accuracy_std']:.1f}"
