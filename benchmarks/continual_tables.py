"""The tables of class-incremental learning that ``tables.py`` writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from condensekit.evaluate import paired_interval
from condensekit.replay.memories import EQUAL_BYTES, memory
from condensekit.replay.results import RANDOM, contrasts

TERMS = (
    *("scale", "data", "per_class", "regime", "network", "protocol", "train_epochs"),
    *("iterations", "batch_real", "epochs", "distillation", "fine_tune", "first_order", "networks"),
)  # what cells of one table share beside the number of steps
Record = dict[str, Any]


def continual(records: list[Record]) -> Iterator[str]:
    """One table for each protocol and network, random first, then by final accuracy; contrasts and leakage below it."""
    cells = [r for r in records if "continual" in r and not r["continual"]["tuning"]]
    for (terms, steps), mine in sorted(_grouped(cells).items(), key=str):
        if steps == 1:
            continue  # shown below the table of more steps
        rows = {r["row"]["memory"]: r["row"] for r in mine}
        cell = mine[0]["continual"]
        yield (
            f"**{cell['data']}, {steps} steps, {cell['per_class']} images per class, {cell['regime']}**: "
            f"{cell['network']}, {cell['scale']} scale, "
            f"{cell['iterations']} iterations of {cell['batch_real']} real images per class; {_machine(mine)}."
        )
        yield ""
        yield (
            "| memory | images | bytes | final accuracy % | average % | forgetting % | above random, 95 % interval "
            "| above random at equal bytes | orders x networks | options | steps | passes over the memory "
            "| condense s per experience | train s | peak MiB |"
        )
        yield "|" + "---|" * 15
        mine.sort(key=lambda r: (r["row"]["memory"] != RANDOM, r["row"]["final_accuracy_mean"]))
        for record in mine:
            yield _row(record, rows)
        yield ""
        yield from _contrasts(mine)
        yield from _leakage(rows, _grouped(cells).get((terms, 1), []), steps)
        yield from (f"- {name}: {row['note']}." for name, row in rows.items() if row["note"])
        yield ""


def tuning(records: list[Record]) -> Iterator[str]:
    """Every search for options, by table and memory, best first."""
    mine = [r for r in records if "continual" in r and r["continual"]["tuning"]]
    if not mine:
        return
    yield "| data, steps x images per class, regime, network | memory | options | held-out final accuracy % | orders |"
    yield "|---|---|---|---|---|"

    def place(record: Record) -> tuple[str, str]:
        cell = record["continual"]
        where = f"{cell['data']}, {cell['steps']} x {cell['per_class']}, {cell['regime']}, {cell['network']}"
        return where, cell["memory"]

    for record in sorted(mine, key=lambda r: (*place(r), -r["row"]["final_accuracy_mean"])):
        cell, row = record["continual"], record["row"]
        numbers = f"{cell['first_order']} to {cell['first_order'] + cell['orders'] - 1}"
        figures = (*place(record), _options(cell), f"{100 * row['final_accuracy_mean']:.1f}", numbers)
        yield f"| {' | '.join(figures)} |"
    yield ""


def experience(records: list[Record]) -> Iterator[str]:
    """What condensing one experience takes."""
    for record in (r for r in records if "experience" in r):
        asked = record["settings"]
        yield (
            f"{asked['classes']} classes of {asked['data']} to {asked['per_class']} images each, {asked['iterations']} "
            f"iterations of {asked['batch_real']} real images per class, {asked['network']}; {_machine([record])}:"
        )
        yield ""
        yield "| memory | images | bytes | s | peak MiB of the process |"
        yield "|---|---|---|---|---|"
        for row in record["experience"]:
            yield (
                f"| {row['memory']} | {row['images']:,} | {row['nbytes']:,} | {row['condense_s']:.1f} "
                f"| {_peak(row['peak_mib'])} |"
            )
        yield ""


def _grouped(cells: list[Record]) -> dict[tuple[tuple[Any, ...], int], list[Record]]:
    """Cells by the terms that they share and the number of steps."""
    found: dict[tuple[tuple[Any, ...], int], list[Record]] = {}
    for record in cells:
        cell = record["continual"]
        found.setdefault((tuple(cell[name] for name in TERMS), cell["steps"]), []).append(record)
    return found


def _row(record: Record, rows: dict[str, Record]) -> str:
    row, cell = record["row"], record["continual"]
    figures = (
        row["memory"],
        f"{row['images']:,}",
        f"{row['nbytes']:,}",
        f"{100 * row['final_accuracy_mean']:.1f} ± {100 * row['final_accuracy_std']:.1f}",
        *("-" if row[k] is None else f"{100 * row[k]:.1f}" for k in ("average_accuracy_mean", "forgetting_mean")),
        _above(row, rows.get(RANDOM)),
        _above(row, rows.get(EQUAL_BYTES)),
        f"{len(row['finals'])} x {len(row['finals'][0])}",
        _options(cell),
        f"{row['gradient_steps']:.0f}",
        "-" if row["memory_passes"] is None else f"{row['memory_passes']:.0f}",
        f"{row['condense_s_per_step']:.1f}",
        f"{row['train_s']:.0f}",
        _peak(record["peak_mib"]),
    )
    return f"| {' | '.join(figures)} |"


def _above(row: Record, other: Record | None) -> str:
    """The paired difference to another memory's row."""
    if other is None or other is row or len(other["finals"]) != len(row["finals"]):
        return "-"
    mean, interval, unit = paired_interval(row["finals"], other["finals"])
    return f"{_span(mean, interval)} over {unit}s"


def _contrasts(mine: list[Record]) -> Iterator[str]:
    """The contrast that was named beforehand, then the others."""
    orders = max(len(r["row"]["finals"]) for r in mine)
    finals = {r["row"]["memory"]: r["row"]["finals"] for r in mine if len(r["row"]["finals"]) == orders}
    learnt = [name for name in finals if memory(name).learnt]
    real = [name for name in finals if memory(name).control]
    first, second = mine[0]["primary"]
    for entry in contrasts(finals, learnt, real, (first, second)):
        p = entry["p"] if entry["primary"] else entry["p_holm"]
        yield (
            f"- {'**primary contrast**' if entry['primary'] else 'corrected by Holm'}: {entry['memory']} against "
            f"{entry['against']} {_span(entry['difference'], entry['ci95'])}{'' if p is None else f', p = {p:.2g}'}"
        )


def _leakage(rows: dict[str, Record], at_once: list[Record], steps: int) -> Iterator[str]:
    """Final accuracies of the same memories made in one step: from scratch, a surplus in more steps were leakage."""
    for record in at_once:
        row = rows.get(record["row"]["memory"])
        if row and len(row["finals"]) == len(record["row"]["finals"]):
            mean, interval, _ = paired_interval(row["finals"], record["row"]["finals"])
            yield f"- leakage test: {row['memory']} in {steps} steps less the same in one {_span(mean, interval)}"


def _span(mean: float, interval: Any) -> str:
    low, high = interval or (float("nan"), float("nan"))
    return f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _options(cell: Record) -> str:
    """What was, or can be, tuned for each memory."""
    learner = [] if cell["regime"] == "from-scratch" else [f"lr {cell['lr']:g}", f"memory batch {cell['batch_mem']}"]
    return ", ".join([*learner, *cell["options"]]) or "-"


def _peak(found: Record) -> str:
    return " + ".join(f"{value:.0f} ({kind})" for kind, value in found.items()) or "-"


def _machine(records: list[Record]) -> str:
    found = {f"{r['environment']['device']}, torch {r['environment']['torch']}" for r in records}
    return "; ".join(sorted(found))
