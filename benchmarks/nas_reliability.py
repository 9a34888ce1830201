"""Which scores of a short training can be relied on: how well two trainings agree, and what they say of the truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from nas_cells import Cell
from nas_sheets import Record, Sheet, keyed, kind, sheets

from condensekit.catalog import SCORES
from condensekit.nas.ranking import placed, spearman

Curves = dict[str, list[dict[int, dict[str, Any]]]]


def reliability(records: Sequence[Record]) -> Iterator[str]:
    """A row for each cell of several trainings and each step at which they were tested."""
    yield (
        "Each score at each test: rho between two trainings of other seeds / rho of one with the truth / of their mean "
        "with it. A test before the end is one at a high learning rate: a shorter training would do better."
    )
    yield ""
    yield f"| cell | step | {' | '.join(SCORES)} |"
    yield "|---|---|" + "---|" * len(SCORES)
    for sheet in sheets(records):
        for record in (r for r in sheet.cells.values() if kind(r) == "trained" and r["options"]["seeds"] > 1):
            curves = _curves(record)
            for step in sorted({step for seeds in curves.values() for step in seeds[0]}):
                yield f"| {Cell(**record['nas']).stem} | {step} | {' | '.join(_shown(sheet, curves, step))} |"
    yield ""


def _curves(record: Record) -> Curves:
    """By key of an architecture, the tests of each of its trainings by step; not those of failed ones."""
    found: Curves = {}
    for name, trial in keyed(record["trials"]):
        seeds: list[dict[int, dict[str, Any]]] = []
        for entry in trial["curve"]:
            if not seeds or entry["step"] in seeds[-1]:
                seeds.append({})
            seeds[-1][entry["step"]] = entry
        if trial["score"] is not None and len(seeds) == record["options"]["seeds"]:
            found[name] = seeds
    return found


def _shown(sheet: Sheet, curves: Curves, step: int) -> Iterator[str]:
    ground = sheet.ground()
    keys = [k for k in ground.keys if k in curves and all(step in seed for seed in curves[k])]
    truth = ground.truth.mean(1)[[ground.keys.index(k) for k in keys]]
    for score in SCORES:
        values = np.array([[seed[step][score] for seed in curves[k]] for k in keys]).T
        between = [spearman(a, placed(b)) for a, b in combinations(values, 2)]
        single = [spearman(one, truth) for one in values]
        both = [spearman(values.mean(0), truth)] if len(keys) else []
        yield " / ".join(_mean(found) for found in (between, single, both))


def _mean(found: Sequence[float | None]) -> str:
    good = [rho for rho in found if rho is not None]
    return f"{np.mean(good):.2f}" if good else ""
