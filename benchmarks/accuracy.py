"""How well networks do that were trained from scratch on condensed, selected and all images.

    python benchmarks/accuracy.py --scale cpu --data-root PATH
    python benchmarks/tables.py

One JSON file for each cell (data set, images per class, method or selection) under ``benchmarks/results/``. A
cell that is there is skipped, so the script can be stopped and started again; the cells that matter most come
first. Runs of condensation are kept under ``--runs`` and resumed. Whole test sets, last iterates.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cells import Cell, cells
from record import write

from condensekit import catalog, datasets
from condensekit.compute import Compute, make_plan
from condensekit.condense import Saving, Status, condense
from condensekit.condensed import CondensedSet
from condensekit.errors import CondensekitError
from condensekit.evaluate import Candidate, TrainProtocol, evaluate
from condensekit.images import ClassImages
from condensekit.recipe import Recipe
from condensekit.rng import Draw
from condensekit.selection import selected_set

HERE = Path(__file__).resolve().parent


def protocol_of(cell: Cell, train: ClassImages) -> TrainProtocol:
    """The cell's, with the data's augmentation; packed images are trained on for as many steps as others."""
    protocol = catalog.protocol(cell.protocol, cell.data)
    return replace(protocol, steps=protocol.steps_on(cell.ipc * len(train.classes))) if cell.ipc else protocol


def make_set(cell: Cell, seed: int, train: ClassImages, compute: Compute, args: argparse.Namespace) -> CondensedSet:
    """Set number ``seed`` of a cell that has an ipc."""
    assert cell.ipc is not None
    if not cell.recipe:
        selection, formation = catalog.baseline(cell.name)
        return selected_set(train, selection, cell.ipc, Draw(seed), compute, formation)
    method, arguments = replace(Recipe.parse(cell.recipe), precision=args.precision).build(cell.data)
    result = condense(
        train,
        method,
        ipc=cell.ipc,
        iterations=cell.iterations,
        seed=seed,
        device=args.device,
        saving=Saving(args.runs / cell.run / f"seed-{seed}", resume=True),
        **arguments,
    )
    if result.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    if result.status is Status.DIVERGED:
        raise RuntimeError(f"{cell.stem} seed {seed}: {result.message}")
    return result.set


def run_cell(cell: Cell, train: ClassImages, test: ClassImages, args: argparse.Namespace) -> dict[str, Any]:
    """Make the cell's sets, train networks on them, and describe everything that led to the figure."""
    start = time.perf_counter()
    with Compute(make_plan(train.spec.shape[1:], device=args.device)) as compute:
        made = (train,) if cell.ipc is None else None
        sets = made or tuple(make_set(cell, seed, train, compute, args) for seed in range(cell.sets))
        made_s = time.perf_counter() - start
        evaluation = evaluate(
            [Candidate(cell.name, sets, cell.ipc)],
            test,
            networks=cell.networks,
            architectures=[catalog.network(name) for name in cell.architectures],
            protocol=protocol_of(cell, train),
            seed=0,
            compute=compute,
            baseline=None,
        )
    return {
        "cell": asdict(cell),
        "seeds": list(range(cell.sets)),
        "precision": args.precision,
        "making_s": made_s,
        "factor": 1 if isinstance(sets[0], ClassImages) else sets[0].formation.factor,
        "wall_s": time.perf_counter() - start,
        "command": f"python benchmarks/accuracy.py --scale {cell.scale}",
        **evaluation.to_json(),
    }


def main() -> None:
    """Run the cells that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=("cpu", "gpu"), required=True, help="short runs, or published lengths")
    parser.add_argument("--data-root", type=Path, help="folder of the data sets (default: $CONDENSEKIT_DATA)")
    parser.add_argument("--trust-local-copy", action="store_true", help="read local copies whose checksum differs")
    parser.add_argument("--download", action="store_true", help="fetch data sets that are missing")
    parser.add_argument("--only", default="", help="run only cells whose name contains this")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="fp32", help="of condensation: fp32, mixed or bf16")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--runs", type=Path, default=HERE.parent / "runs" / "benchmarks", help="folder of the runs")
    parser.add_argument("--list", action="store_true", help="list the cells and stop")
    args = parser.parse_args()

    @functools.lru_cache(maxsize=1)
    def load(name: str) -> tuple[ClassImages, ClassImages]:
        return datasets.load(name, root=args.data_root, download=args.download, trust_local_copy=args.trust_local_copy)

    for cell in cells(args.scale):
        path = args.results / f"{cell.stem}.json"
        if args.only not in cell.stem:
            continue
        if args.list or path.exists():
            print(f"{cell.stem}: {'done' if path.exists() else 'missing'}", flush=True)
            continue
        record = run_cell(cell, *load(cell.data), args)
        write(path, record)
        print(f"{cell.stem}: {record['rows'][0]['accuracy_mean']:.4f} in {record['wall_s']:.0f} s", flush=True)


if __name__ == "__main__":
    try:
        main()
    except CondensekitError as error:
        sys.exit(f"Error: {error}")
