"""Tables of speed, pace, memory and continual-learning loops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from benchmarks import passes
from benchmarks.record import Record, hardware
from condensekit.tables import markdown


def speed(records: list[Record]) -> Iterator[str]:
    """Table of one step compared with the public code, from all files of ``run.py``."""
    columns = (
        *("machine", "allocator", "classes", "real batch", "ipc", "precision", "compiled", "reference s", "ours s"),
        *("times faster (min, median, max)", "of the limit", "gradient error", "of the median image"),
    )
    rows = [
        (
            hardware([record]),
            "tuned" if record["settings"].get("allocator") else "usual",
            record["settings"]["classes"],
            record["settings"]["real_batch"],
            row["ipc"],
            row["precision"],
            "yes" if record["settings"]["compiled"] else "no",
            f"{row['reference_s']:.4f}",
            f"{row['ours_s']:.4f}",
            f"{row['ratio_min']:.2f}, **{row['ratio_median']:.2f}**, {row['ratio_max']:.2f}",
            f"{row['share_of_limit']:.0%} of {row['limit_ratio']:.1f}" if row.get("limit_ratio") else "",
            f"{row['gradient_rel_error']:.1e}",
            f"{row['gradient_rel_error_median']:.1e}" if "gradient_rel_error_median" in row else "",
        )
        for record, row in _rows(records, "ratio_median")
    ]
    yield from _table(columns, rows)


def epoch(records: list[Record]) -> Iterator[str]:
    """Table of a training epoch compared with the public code, from all files of ``epoch.py``."""
    columns = ("machine", "ipc", "precision", "compiled", "reference s", "ours s", "times faster (min, median, max)")
    rows = [
        (
            hardware([record]),
            row["ipc"],
            row["precision"],
            "yes" if record["settings"]["compiled"] else "no",
            f"{row['reference_epoch_s']:.3f}",
            f"{row['ours_epoch_s']:.3f}",
            f"{row['epoch_ratio_min']:.2f}, **{row['epoch_ratio_median']:.2f}**, {row['epoch_ratio_max']:.2f}",
        )
        for record, row in _rows(records, "epoch_ratio_median")
    ]
    yield from _table(columns, rows)


def memory(records: list[Record]) -> Iterator[str]:
    """Table of peak memory, from all files of ``memory.py``."""
    rows = [
        (
            hardware([record]),
            record["settings"]["images"],
            record["settings"]["ipc"],
            row["case"],
            f"{row['imports_mib']:.0f}",
            f"{row['above_import_mib']:.0f}",
        )
        for record, row in _rows(records, "case")
    ]
    yield from _table(("machine", "images", "ipc", "case", "imports alone, MiB", "above them, MiB"), rows)


def stages(records: list[Record]) -> Iterator[str]:
    """Table of the stages of a step, from all files of ``stages.py``."""
    columns = ("machine", "recipe", "ipc", "precision", "stage", "s", "share of the step", "convolutions alone, s")
    rows = [
        (
            hardware([record]),
            row["recipe"],
            row["ipc"],
            row["precision"],
            row["stage"],
            f"{row['stage_s']:.4f}",
            f"{row['share']:.0%}",
            f"{row['limit_s']:.4f}" if row["limit_s"] else "",
        )
        for record, row in _rows(records, "stage_s")
    ]
    yield from _table(columns, rows)


def growth(records: list[Record]) -> Iterator[str]:
    """Table of the growth of a step, from all files of ``growth.py``."""
    columns = ("machine", "compiled", "what", "value", "s per step", "of the first", "from a straight line")
    rows = [
        (
            hardware([record]),
            "yes" if record["settings"]["compiled"] else "no",
            row["name"],
            row["value"],
            f"{row['growth_s']:.4f}",
            f"{row['times']:.2f}",
            f"{row['error']:+.0%}",
        )
        for record, row in _rows(records, "growth_s")
    ]
    yield from _table(columns, rows)


def ranks(records: list[Record]) -> Iterator[str]:
    """Table of the speed of ranks, from all files of ``ranks.py``."""
    columns = ("machine", "recipe", "ipc", "ranks", "one s", "ranks s", "times faster (min, median, max)", "equal bits")
    rows = [
        (
            hardware([record]),
            record["settings"]["recipe"],
            record["settings"]["ipc"],
            record["settings"]["ranks"],
            f"{median(pair['one_s'] for pair in record['pairs']):.3f}",
            f"{median(pair['several_s'] for pair in record['pairs']):.3f}",
            f"{record['ratio_min']:.2f}, **{record['ratio_median']:.2f}**, {record['ratio_max']:.2f}",
            "yes" if all(pair["equal_bits"] for pair in record["pairs"]) else "no",
        )
        for record in records
        if "ranks" in record.get("settings", {}) and "pairs" in record
    ]
    yield from _table(columns, rows)


def mapped(records: list[Record]) -> Iterator[str]:
    """Table of peak memory with a memory map, from all files of ``mapped.py``."""
    columns = ("machine", "images", "map, MiB", "part", "resident above imports, MiB", "anonymous above imports, MiB")
    rows = [
        (
            hardware([record]),
            f"{record['settings']['images']} x 3 x {record['settings']['size']} x {record['settings']['size']}",
            record["map_bytes"] >> 20,
            row["part"],
            f"{row['resident_above_mib']:.0f}",
            f"{row['anonymous_above_mib']:.0f}",
        )
        for record in records
        if "map_bytes" in record
        for row in record["rows"][1:]
    ]
    yield from _table(columns, rows)


def pace(records: list[Record]) -> Iterator[str]:
    """Tables of the pace of recipes, from all files of ``pace.py``."""
    columns = (
        *("recipe", "s before the first step", "s per step", "steps in 60 s"),
        *(f"{unit} in 60 s" for unit in passes.COLUMNS),
        "steps in 300 s",
    )
    known = passes.counted(records)
    for record in (r for r in records if "pace" in r):
        yield f"{record['settings']['data']}, ipc {record['settings']['ipc']}; {hardware([record])}:"
        yield ""
        yield markdown(
            columns,
            [
                (
                    row["recipe"],
                    f"{row['preparation_s']:.1f}",
                    f"{row['step_s']:.2f}",
                    row["steps_in_60_s"],
                    *passes.texts([row.get("work") or known.get(passes.of_pace(row, record["settings"]))]),
                    row["steps_in_300_s"],
                )
                for row in record["pace"]
            ],
        )
        yield ""


def loop(records: list[Record]) -> Iterator[str]:
    """Tables of the time of loops compared with plain PyTorch, from all files of ``loop.py``."""
    columns = ("loop", "microseconds per step", "ratio", "of the fastest rounds", "with reading")
    ratios = ("ratio", "best_ratio", "whole_ratio")
    for record in (r for r in records if "loops" in r):
        yield (
            f"{record['samples']:,} images in an experience, {record['epochs']} epochs, batches of {record['batch']}, "
            f"with replay as many of {record['memory']} stored images more, {record['rounds']} rounds; "
            f"{hardware([record])}:"
        )
        yield ""
        yield markdown(
            columns,
            [
                (name, f"{row['us_per_step']:.1f}", *(f"{row[key]:.2f}" for key in ratios))
                for name, row in record["loops"].items()
            ],
        )
        yield ""


def _rows(records: list[Record], name: str) -> Iterator[tuple[Record, Record]]:
    """Each row that has the entry ``name``, after its record."""
    return ((record, row) for record in records for row in record.get("rows", []) if name in row)


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """The table, unless it has no row."""
    if rows:
        yield markdown(columns, rows)
