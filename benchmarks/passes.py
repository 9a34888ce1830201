"""Passes: the work of networks in the rows of tables, from their records or from ``results/work.json``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from benchmarks.continual.cells import Cell
from benchmarks.continual.run import recipe_options
from benchmarks.record import Record
from condensekit.compute import Spent
from condensekit.data.images import ClassImages
from condensekit.replay.study.memories import FROM_SCRATCH

UNITS = ("passes", "w128_passes")
COLUMNS = ("passes", "w128 passes")
Told = Mapping[str, Mapping[str, float]]
"""Images, operations and passes of each part of a run, as in the provenance of a condensed set."""


def key(data: str, ipc: int, steps: int, what: str) -> str:
    """Name of a run in ``results/work.json``; ``what`` is its recipe, selection or memory, with its options."""
    return f"{data}, ipc {ipc}, {steps} steps: {what}" if steps else f"{data}, ipc {ipc}: {what}"


def of_cell(cell: Record) -> str:
    """Name of the run of a cell of the accuracy benchmark."""
    return key(cell["data"], cell.get("condensed") or cell["ipc"], cell["steps"], cell["recipe"] or cell["name"])


def of_pace(row: Record, asked: Record) -> str:
    """Name of the run of a minute in a row of ``speed/pace.py``."""
    return key(asked["data"], asked["ipc"], row["steps_in_60_s"], row["recipe"])


def memory_key(cell: Cell) -> str:
    """Name of the filling of a memory in a stream."""
    options = " ".join(f"{name}={value}" for name, value in recipe_options(cell).items())
    stream = f"{cell.experiences} experiences, {cell.regime}, {cell.network}"
    return key(cell.data, cell.ipc, cell.steps, f"{cell.memory} {options}, {stream}")


def first_experience(memory: str, asked: Mapping[str, Any]) -> Cell:
    """The cell whose memory ``experience.py`` fills in its first experience, with these settings."""
    names = ("data", "experiences", "ipc", "steps", "batch_real")
    terms = {name: asked[name] for name in names}
    return Cell("cpu", **terms, regime=FROM_SCRATCH, network=asked["encoder_network"], memory=memory)


def counted(records: Iterable[Record]) -> Mapping[str, Told]:
    """The work that was counted afterwards, by :func:`key`."""
    return next((record["counted"] for record in records if "counted" in record), {})


def told(parts: Mapping[str, Spent], data: ClassImages) -> dict[str, dict[str, float]]:
    """Work by part of a run as records hold it."""
    return {part: {**asdict(spent), **spent.passes(len(data), data.spec.shape)} for part, spent in parts.items()}


def texts(found: Sequence[Told | None]) -> tuple[str, ...]:
    """Cells of :data:`COLUMNS`: the mean of several sets; trained encoders, which sets share, are added with a plus."""
    known = [parts for parts in found if parts is not None]
    return tuple(_text(known, unit) for unit in UNITS) if known else ("-", "-")


def _text(found: Sequence[Told], unit: str) -> str:
    own = fmean(sum(told[unit] for part, told in parts.items() if part != "encoders") for parts in found)
    shared = fmean(parts["encoders"][unit] if "encoders" in parts else 0.0 for parts in found)
    return " + ".join([short(own), *([short(shared)] if shared else [])])


def short(value: float) -> str:
    """A number of passes with two or three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value < 10 else f"{value:.1f}"
