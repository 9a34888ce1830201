"""Accuracy of networks that are trained from scratch on condensed, selected and all images.

    python benchmarks/accuracy/run.py --scale cpu --data-root PATH
    python benchmarks/tables.py

The script writes one JSON file for each cell (data set, images per class, method or selection) under
``benchmarks/results/``. It skips cells with a file, so that it can be stopped and started again. The most important
cells come first. The processes of torchrun, or several that are started side by side, share the cells. Condensations
are stored under ``--runs`` and resumed. Accuracies are those of the whole test set after the last training step.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

import condensekit as ck
from benchmarks import passes
from benchmarks.accuracy.cells import Cell, cells
from benchmarks.record import Record, cell_parser, fill, start
from condensekit import catalog
from condensekit.compute import Compute, Machine
from condensekit.data.images import ClassImages
from condensekit.driver import Saving, Status
from condensekit.rng import Draw
from condensekit.selection.base import selected_set
from condensekit.sets.coding import plain_bytes
from condensekit.sets.condensed import CondensedSet
from condensekit.training.evaluation import Candidate, evaluate


def make_set(cell: Cell, seed: int, train: ClassImages, args: argparse.Namespace) -> CondensedSet:
    """Make the set with this seed, for a cell with an ipc."""
    assert cell.ipc is not None
    if not cell.recipe:
        return selected(train, cell.name, cell.ipc, seed, Machine(args.device))
    result = ck.condense(
        train,
        cell.recipe,
        ipc=cell.condensed or cell.ipc,
        steps=cell.steps,
        seed=seed,
        machine=Machine(args.device, cell.precision or args.precision),
        saving=Saving(args.runs / cell.run / f"seed-{seed}", resume=True),
    )
    if result.signum is not None:
        raise KeyboardInterrupt
    if result.status is Status.DIVERGED:
        raise RuntimeError(f"{cell.stem} seed {seed}: {result.message}")
    if cell.coded:
        return result.set.stored_as(cell.store, room=plain_bytes(train.spec.shape, cell.ipc))
    if result.set.formation.coded:  # learnt through its storage
        return result.set
    rows = torch.arange(len(result.set)).reshape(len(result.set.classes), -1)
    return result.set.take(rows[:, : cell.ipc].flatten())


def selected(train: ClassImages, name: str, ipc: int, seed: int, machine: Machine) -> CondensedSet:
    """Real images, with the work of their selection in the provenance."""
    chosen_by, formation = catalog.names.baseline(name)
    with Compute(machine, (train.spec.shape[1], train.spec.shape[2])) as compute:
        room = plain_bytes(train.spec.shape, ipc) if formation.coded else None
        made = selected_set(train, chosen_by, None if room else ipc, Draw(seed), compute, formation, room, name)
        work = passes.told({"preparation": compute.spent}, train)
    return replace(made, provenance={**made.provenance, "work": work})


def run_cell(cell: Cell, train: ClassImages, test: ClassImages, args: argparse.Namespace) -> Record:
    """Make the sets of a cell, train networks on them, and return the record with all settings and results."""
    start = time.perf_counter()
    train, test = (data.to(Machine(args.device).resolved().device) for data in (train, test))
    sets: tuple[CondensedSet | ClassImages, ...] = (train,)
    if cell.ipc is not None:
        sets = tuple(make_set(cell, seed, train, args) for seed in range(cell.sets))
    made_s = time.perf_counter() - start
    with Compute(Machine(args.device), (train.spec.shape[1], train.spec.shape[2])) as compute:
        evaluation = evaluate(
            [Candidate(cell.name, sets, cell.ipc)],
            test,
            network=[catalog.network(name) for name in cell.network],
            networks=cell.networks,
            protocol=replace(catalog.protocol(cell.protocol), steps=cell.train_steps),
            compute=compute,
            reference=None,
            equal_steps=cell.equal_steps,
        )
    return {
        "cell": asdict(cell),
        "seeds": list(range(cell.sets)),
        "precision": cell.precision or args.precision,
        "making_s": made_s,
        "condensation_s": [_condensation_s(item) for item in sets],
        "work": [item.provenance["work"] for item in sets if isinstance(item, CondensedSet)],
        "factor": 1 if isinstance(sets[0], ClassImages) else sets[0].formation.factor,
        "wall_s": time.perf_counter() - start,
        "command": f"python benchmarks/accuracy/run.py --scale {cell.scale}",
        **evaluation.to_json(),
    }


def _condensation_s(item: CondensedSet | ClassImages) -> float | None:
    """Seconds of a condensation, with preparation and before resumes; None: the set is not condensed."""
    how = {} if isinstance(item, ClassImages) else item.provenance
    return how["preparation_s"] + how["elapsed_s"] if "elapsed_s" in how else None


def main() -> None:
    """Run the missing cells."""
    args = cell_parser(__doc__, "benchmarks").parse_args()
    fill(cells(args.scale), args, run_cell, lambda record: record["rows"][0]["accuracy_mean"])


if __name__ == "__main__":
    start(main, shared=True)
