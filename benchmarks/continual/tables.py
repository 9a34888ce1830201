"""Tables of class-incremental learning."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from PIL import Image

from benchmarks import passes
from benchmarks.continual.cells import TUNED, TUNED_AT, Cell
from benchmarks.record import HERE, Record, hardware
from condensekit.replay.study.contrasts import RANDOM, contrasts
from condensekit.replay.study.memories import EQUAL_BYTES, FROM_SCRATCH, memory
from condensekit.replay.study.plot import plot
from condensekit.stats import paired_interval
from condensekit.tables import markdown, signed

PLOTS = HERE / "plots"
TERMS = (
    *("scale", "data", "ipc", "regime", "network", "protocol", "train_epochs"),
    *("steps", "batch_real", "epochs", "distillation", "fine_tune", "first_order", "networks"),
)  # settings that the cells of a table share, in addition to the number of experiences
PER_EXPERIENCE = tuple(f"{unit} per experience" for unit in passes.COLUMNS)
COLUMNS = (
    *("memory", "images", "packed in one", "bytes", "final accuracy %", "average %", "forgetting %"),
    *("above random, 95 % interval", "above random at equal bytes", "orders x networks", "options", "train steps"),
    *("passes over the memory", "condense s per experience", *PER_EXPERIENCE, "train s", "peak MiB"),
)


def continual(records: list[Record], plots: Path = PLOTS) -> Iterator[str]:
    """A table for each protocol and network, with its contrasts and leakage tests; random images come first.

    The other rows are sorted by final accuracy. Cells with other options than the list come in a second table, without
    contrasts.

    Args:
        records: All results; results of other scripts are ignored.
        plots: Folder with a plot for each table; a plot of the same values is not drawn again.
    """
    cells = [r for r in records if "continual" in r and not r["continual"]["tuning"]]
    listed = [r for r in cells if not r["continual"]["changed"]]
    main, known = _grouped(listed), passes.counted(records)
    for (terms, experiences), mine in sorted(_grouped(cells).items(), key=str):
        if experiences == 1:
            continue  # shown in the leakage tests below the table with more experiences
        cell = mine[0]["continual"]
        yield (
            f"**{cell['data']}, {experiences} experiences, {cell['ipc']} images per class, {_regime(cell)}**: "
            f"{cell['network']}, {cell['scale']} scale, "
            f"{cell['steps']} steps of {cell['batch_real']} real images per class{_tuned(cell)}; "
            f"{hardware(mine)}."
        )
        yield ""
        mine, tried = main.get((terms, experiences), []), [r for r in mine if r not in listed]
        rows = {r["row"]["memory"]: r["row"] for r in mine}
        if mine:
            yield _table(mine, rows, known)
            yield ""
            yield f"![Accuracy after each experience]({plots.name}/{_plotted(mine, plots)})"
            yield ""
            yield from _contrasts(mine)
            yield from _leakage(rows, main.get((terms, 1), []), experiences)
            yield from (f"- {name}: {row['note']}." for name, row in rows.items() if row["note"])
            yield ""
        if tried:
            yield "Exploratory, with other options than those of the list, and so without contrasts:"
            yield ""
            yield _table(tried, rows, known)
            yield ""


def tuning(records: list[Record]) -> Iterator[str]:
    """Table of all searches for options, by table and memory, the best options first."""
    mine = [r for r in records if "continual" in r and r["continual"]["tuning"]]
    if not mine:
        return

    def place(record: Record) -> tuple[str, str]:
        cell = record["continual"]
        where = f"{cell['data']}, {cell['experiences']} x {cell['ipc']}, {_regime(cell)}, {cell['network']}"
        return where, cell["memory"]

    rows = []
    for record in sorted(mine, key=lambda r: (*place(r), -r["row"]["final_accuracy_mean"])):
        cell, row = record["continual"], record["row"]
        numbers = f"{cell['first_order']} to {cell['first_order'] + cell['orders'] - 1}"
        rows.append((*place(record), _options(cell), f"{100 * row['final_accuracy_mean']:.1f}", numbers))
    where = "data, experiences x images per class, regime, network"
    yield markdown((where, "memory", "options", "held-out final accuracy %", "orders"), rows)


def experience(records: list[Record]) -> Iterator[str]:
    """Tables of the cost of one experience."""
    known = passes.counted(records)
    for record in (r for r in records if "experience" in r):
        asked = record["settings"]
        yield (
            f"{asked['classes']} classes of {asked['data']} to {asked['ipc']} images each, {asked['steps']} "
            f"steps of {asked['batch_real']} real images per class, {asked['encoder_network']}; {hardware([record])}:"
        )
        yield ""
        yield markdown(
            ("memory", "images", "bytes", "s", *passes.COLUMNS, "peak MiB of the process"),
            [
                (
                    row["memory"],
                    f"{row['images']:,}",
                    f"{row['nbytes']:,}",
                    f"{row['condense_s']:.1f}",
                    *_of_first(row, asked, known),
                    _peak(row["peak_mib"]),
                )
                for row in record["experience"]
            ],
        )
        yield ""


def streams(records: list[Record]) -> Iterator[str]:
    """Tables of the accuracy of former tasks, one for each kind of stream."""
    for record in (r for r in records if "streams" in r):
        asked, (train, test) = record["streams"], record["images"]
        found = {row["memory"]: [[value] for value in row["accuracies"]] for row in record["rows"]}
        means = {memory: 100 * fmean(row["accuracies"]) for memory, row in zip(found, record["rows"], strict=True)}
        best = max((memory for memory in found if memory.endswith("Buffer")), key=means.__getitem__)
        yield (
            f"**{asked['data']}, {asked['name']}**: {asked['tasks']} tasks, {asked['memory']} stored images, "
            f"{train:,} training images and {test:,} test images, {asked['epochs']} epochs, lr {asked['lr']:g}, "
            f"{asked['batch']} new and {asked['batch']} replayed images in a step, {len(asked['seeds'])} seeds, "
            f"{asked['steps']} steps of `{asked['dm']}`; {hardware([record])}."
        )
        yield ""
        rows = [
            (
                memory,
                f"{means[memory]:.1f} ± {100 * stdev(row['accuracies']):.1f}",
                *(
                    "-" if memory == other else signed(*paired_interval(found[memory], found[other])[:2])
                    for other in ("none", best)
                ),
                f"{row['cpu_s'] / len(asked['seeds']):.1f}",
            )
            for memory, row in zip(found, record["rows"], strict=True)
        ]
        above = [f"above {other}, 95 % interval" for other in ("none", best)]
        yield markdown(("memory", "accuracy of former tasks %", *above, "CPU s of a seed"), rows)
        yield ""


def _grouped(cells: list[Record]) -> dict[tuple[tuple[Any, ...], int], list[Record]]:
    """Cells by their common settings and the number of experiences."""
    found: dict[tuple[tuple[Any, ...], int], list[Record]] = {}
    for record in cells:
        cell = record["continual"]
        found.setdefault((tuple(cell[name] for name in TERMS), cell["experiences"]), []).append(record)
    return found


def _regime(cell: Record) -> str:
    """Name of the regime, with the distillation and fine-tuning of the table."""
    beside = [f"distillation {cell['distillation']:g}"] * bool(cell["distillation"])
    beside += [f"{cell['fine_tune']} steps on the memory after each experience"] * bool(cell["fine_tune"])
    return f"{cell['regime']} with {' and '.join(beside)}" if beside else cell["regime"]


def _tuned(cell: Record) -> str:
    """Text on the number of images at which the options were found; empty: the number of this cell."""
    found = any(key[:3] == (cell["regime"], cell["data"], cell["network"]) for key in TUNED)
    return f", options found at {TUNED_AT} images per class" if found and cell["ipc"] != TUNED_AT else ""


def _table(mine: list[Record], rows: dict[str, Record], known: Mapping[str, passes.Told]) -> str:
    """Table with a row for each record, and differences to the memories in ``rows``."""
    order = sorted(mine, key=lambda r: (r["row"]["memory"] != RANDOM, r["row"]["final_accuracy_mean"]))
    return markdown(COLUMNS, [_row(record, rows, known) for record in order])


def _plotted(mine: list[Record], folder: Path) -> str:
    """Name of the plot of a table, which is drawn again if its values have changed."""
    figures = {f"{r['row']['regime']}/{r['row']['memory']}": r["accuracy_by_experience"] for r in mine}
    digest = hashlib.sha256(json.dumps(figures, sort_keys=True).encode()).hexdigest()
    path = folder / f"continual-{Cell(**mine[0]['continual']).group}.png"
    if not path.exists() or _source(path) != digest:
        plot(figures, path, source=digest)
    return path.name


def _source(path: Path) -> str | None:
    """Entry ``Source`` in the metadata of a plot; None: there is no such entry."""
    with Image.open(path) as image:
        return image.info.get("Source")


def _row(record: Record, rows: dict[str, Record], known: Mapping[str, passes.Told]) -> tuple[str, ...]:
    row, cell = record["row"], record["continual"]
    return (
        row["memory"],
        f"{row['images']:,}",
        str(row["packed"]),
        f"{row['nbytes']:,}",
        f"{100 * row['final_accuracy_mean']:.1f} ± {100 * row['final_accuracy_std']:.1f}",
        *("-" if row[k] is None else f"{100 * row[k]:.1f}" for k in ("average_accuracy_mean", "forgetting_mean")),
        _above(row, rows.get(RANDOM)),
        _above(row, rows.get(EQUAL_BYTES)),
        f"{len(row['finals'])} x {len(row['finals'][0])}",
        _options(cell),
        f"{row['train_steps']:.0f}",
        "-" if row["memory_passes"] is None else f"{row['memory_passes']:.0f}",
        f"{row['condense_s_per_experience']:.1f}",
        *_passes(row.get("work") or known.get(passes.memory_key(Cell(**cell)), {}).get("filling"), cell["experiences"]),
        f"{row['train_s']:.0f}",
        _peak(record["peak_mib"]),
    )


def _passes(work: Mapping[str, float] | None, experiences: int) -> tuple[str, ...]:
    """Passes of the networks that fill a memory, in the mean of all experiences; "-": they were not counted."""
    if not work:
        return ("-",) * len(PER_EXPERIENCE)
    return tuple(passes.short(work[unit] / experiences) for unit in passes.UNITS)


def _of_first(row: Record, asked: Record, known: Mapping[str, passes.Told]) -> tuple[str, ...]:
    """Passes of the networks that fill a memory in the first experience."""
    if "work" in row:
        return _passes(row["work"], 1)
    stream = passes.first_experience(row["memory"], asked)
    return _passes(known.get(passes.memory_key(stream), {}).get("filling"), stream.experiences)


def _above(row: Record, other: Record | None) -> str:
    """Paired difference to the row of another memory; "-": it has no other orders or is missing."""
    if other is None or other is row or len(other["finals"]) != len(row["finals"]):
        return "-"
    mean, interval, unit = paired_interval(row["finals"], other["finals"])
    return f"{signed(mean, interval)} over {unit}s"


def _contrasts(mine: list[Record]) -> Iterator[str]:
    """Lines on the primary contrast, on the others, and on whether a condensed memory exceeds all real memories."""
    orders = max(len(r["row"]["finals"]) for r in mine)
    finals = {r["row"]["memory"]: r["row"]["finals"] for r in mine if len(r["row"]["finals"]) == orders}
    learnt = [name for name in finals if memory(name).learnt]
    real = [name for name in finals if memory(name).control]
    cell = mine[0]["continual"]
    found = list(contrasts(cell["regime"], finals, learnt, real, tuple(mine[0]["primary"])))
    for one in found:
        p = one.p if one.primary else one.p_holm
        yield (
            f"- {'**primary contrast**' if one.primary else 'corrected by Holm'}: {one.memory} against "
            f"{' and '.join([one.against, *one.same])} {signed(one.difference, one.ci95)}"
            f"{'' if p is None else f', p = {p:.2g}'}"
        )
    scratch = cell["regime"] == FROM_SCRATCH
    for name in learnt:
        bounds = {
            rival: one.ci95[0]
            for one in found
            if one.memory == name and one.ci95
            for rival in (one.against, *one.same)
            if RANDOM in rival or not scratch
        }
        if bounds:
            yield _verdict(name, bounds, "random" if scratch else "real")


def _verdict(name: str, bounds: dict[str, float], what: str) -> str:
    """Line that says whether the lower ends of all 95 % intervals are above 0; ``bounds`` has them by rival."""
    lowest = min(bounds, key=lambda rival: bounds[rival])
    left = [rival for rival, bound in bounds.items() if bound <= 0]
    found = f"**not** above {', '.join(left)}" if left else f"above every kind of {what} images"
    return f"- {name} is {found}: the lowest bound of the 95 % intervals is {100 * bounds[lowest]:+.1f} ({lowest})"


def _leakage(rows: dict[str, Record], at_once: list[Record], experiences: int) -> Iterator[str]:
    """Lines on leakage: the difference of final accuracies between several experiences and one experience."""
    for record in at_once:
        row = rows.get(record["row"]["memory"])
        if row is None or len(row["finals"]) != len(record["row"]["finals"]):
            continue
        if row["finals"] == record["row"]["finals"]:
            difference = f"nothing, to the last digit in all {len(row['finals'])} orders"
        else:
            mean, interval, _ = paired_interval(row["finals"], record["row"]["finals"])
            difference = signed(mean, interval)
        yield f"- leakage test: {row['memory']} in {experiences} experiences less the same in one: {difference}"


def _options(cell: Record) -> str:
    """Options of a cell that are tuned for each memory."""
    learner = [] if cell["regime"] == "from-scratch" else [f"lr {cell['lr']:g}", f"memory batch {cell['batch_mem']}"]
    return ", ".join([*learner, *cell["options"]]) or "-"


def _peak(found: Record) -> str:
    return " + ".join(f"{value:.0f} ({kind})" for kind, value in found.items()) or "-"
