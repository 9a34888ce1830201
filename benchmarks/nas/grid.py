"""Benchmark on the whole grid of 720 ConvNets on CIFAR-10, for a GPU: the truth and the scores of all networks.

    python benchmarks/nas/grid.py --data-root PATH              # all cells, truth first
    python benchmarks/nas/grid.py --data-root PATH --limit 12   # measures the time of a network
    python benchmarks/tables.py nas                             # the table, and the truths as CSV

The script does not need NNI: it lists the grid itself and trains networks by the same code as a search. Several
``--workers`` share the GPU, because a small network uses a small part of it. The truth is a training with one seed on
``--images`` training images for ``--epochs`` epochs; unusual values are part of the file name. Each finished network is
stored under ``--runs`` at once, so that the script can be stopped, also by ``--minutes``, and started again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shlex
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED as FIRST
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.nas.cells import (
    CONDENSED,
    FREE,
    FULL,
    FULL_IMAGES,
    OPTIONS,
    Cell,
    Training,
    changed,
    check,
    named,
    record,
    shares,
    suffix,
)
from benchmarks.record import RESULTS, RUNS, Record, data_parser, start, write
from condensekit.compute import Machine
from condensekit.data import datasets
from condensekit.data.images import ClassImages
from condensekit.errors import CondensekitError
from condensekit.nas.engines.failures import reason
from condensekit.nas.names import COUNTS
from condensekit.nas.rankers import zero_cost
from condensekit.nas.rankers.batch_norm import real_images
from condensekit.nas.rankers.sets import Maker, Preparation
from condensekit.nas.rankers.trained import OnSet
from condensekit.nas.rankers.training import ProxyData, ProxyProtocol, train_candidate
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.trials.log import FAILED, FINISHED, Trial, TrialLog
from condensekit.networks.convnet import ConvNet
from condensekit.networks.cost import count
from condensekit.rng import Draw, isolated
from condensekit.runs.describe import describe

GRID = {
    "width": (32, 64, 128, 256),
    "depth": (1, 2, 3, 4),
    "activation": ("sigmoid", "relu", "leakyrelu"),
    "norm": ("none", "batch", "layer", "instance", "group"),
    "pooling": ("none", "max", "avg"),
}
TRUTH = "truth-0"
SETS = (CONDENSED, "random", "kmeans", "packed-random")  # rankers that train networks on a set
SEED = 1_000  # seed of full trainings, which differs from the seeds of rankers

_DATA: ProxyData | None = None  # images of a worker process


def architectures() -> list[Architecture]:
    """All 720 architectures in random order, so that each part of the list is a random sample."""
    every = [dict(zip(GRID, values, strict=True)) for values in product(*GRID.values())]
    return [every[i] for i in Draw(0).permutation("grid", len(every)).tolist()]


def _load(data: ProxyData) -> None:
    global _DATA
    _DATA = data
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    """End this worker process when the script ends."""
    parent.join()
    os._exit(1)


def _train(
    architecture: Architecture,
    ranker: str,
    protocol: ProxyProtocol,
    seed: int,
    last: int,
    machine: Machine,
    how: dict[str, Any],
) -> Trial:
    """Train one network in a worker process; an error makes its trial fail."""
    assert _DATA is not None
    begun, shape, classes = time.perf_counter(), _DATA.test.spec.shape, len(_DATA.test.classes)
    network = ConvNet(**architecture)
    try:
        result = train_candidate(
            lambda: network.new(shape, classes, Draw(seed)),
            _DATA,
            protocol,
            seed=seed,
            last=last,
            checks=0,
            machine=machine,
        )
    except Exception as error:
        if "CUDA error" in str(error):  # after a CUDA error all further trainings of the process would fail
            traceback.print_exc()
            os._exit(1)
        took = time.perf_counter() - begun
        return Trial(ranker, architecture, None, FAILED, {}, took, 0, seed, reason(error), recipe=how)
    value, status = (None, FAILED) if result.problem else (result.scores["accuracy"], FINISHED)
    return Trial(
        ranker, architecture, value, status, result.scores, result.seconds, result.image_steps, seed, result.problem,
        recipe=how,
    )  # fmt: skip


def trained(
    cell: Cell,
    networks: Sequence[Architecture],
    data: ProxyData,
    protocol: ProxyProtocol,
    seed: int,
    last: int,
    log: TrialLog,
    args: argparse.Namespace,
) -> None:
    """Train the networks that the log lacks, several at the same time, until the time is over.

    If a process dies, each of the networks that were running is trained once more alone, to find the cause.
    """
    how = describe({"protocol": protocol, "seed": seed, "last": last, **data.fingerprints()})
    log.check(cell.ranker, "", how)
    machine = Machine(args.device)
    train = partial(_train, ranker=cell.ranker, protocol=protocol, seed=seed, last=last, machine=machine, how=how)
    left = deque(a for a in networks if log.get(cell.ranker, a) is None)
    while left and time.monotonic() < args.end:
        for suspect in side_by_side(train, left, data, log, args):
            for broke in side_by_side(train, deque([suspect]), data, log, args):
                why = "its process died twice, the second time in a training alone"
                log.append(Trial(cell.ranker, broke, None, FAILED, seed=seed, reason=why, recipe=how))


def side_by_side(
    train: Callable[[Architecture], Trial],
    left: deque[Architecture],
    data: ProxyData,
    log: TrialLog,
    args: argparse.Namespace,
) -> list[Architecture]:
    """Train the networks ``left`` in new processes, until all are trained, the time is over, or a process dies.

    Returns:
        The networks that were running when a process died; all others that were taken from ``left`` are in the log.
    """
    broke: list[Architecture] = []
    running: dict[Future[Trial], Architecture] = {}
    with ProcessPoolExecutor(args.workers, multiprocessing.get_context("spawn"), _load, (data,)) as pool:
        _start(pool)
        try:
            while not broke:
                while left and len(running) < args.workers and time.monotonic() < args.end:
                    future = pool.submit(train, left[0])
                    running[future] = left.popleft()
                if not running:
                    break
                broke += _noted(wait(running, return_when=FIRST).done, running, log)
        except BrokenProcessPool:
            pass  # a process died before the next network was submitted
        finally:
            broke += _noted(wait(running).done, running, log)
    return broke


def _start(pool: ProcessPoolExecutor) -> None:
    """Raise CondensekitError if the processes cannot start, which is not a failure of a network."""
    try:
        pool.submit(int).result()
    except BrokenProcessPool as error:
        raise CondensekitError(
            "a process ended before its first training: see its message above; if memory is short, use fewer --workers"
        ) from error


def _noted(
    done: Iterable[Future[Trial]], running: dict[Future[Trial], Architecture], log: TrialLog
) -> list[Architecture]:
    """Append results to the log; returns the networks of a dead process, and raises any other error at the end."""
    broke = []
    for future in sorted(done, key=lambda one: one.exception() is not None):
        architecture = running.pop(future)
        try:
            log.append(future.result())
        except BrokenProcessPool:
            broke.append(architecture)
    return broke


def counted(cell: Cell, train: ClassImages, log: TrialLog, args: argparse.Namespace) -> None:
    """Compute the scores of a ranker without training, in this process, on the CPU."""
    batch = zero_cost.batch(train, Draw(0))
    for architecture in listed(args):
        if log.get(cell.ranker, architecture) is not None or time.monotonic() >= args.end:
            continue
        start, draw = time.perf_counter(), Draw(0)
        module = ConvNet(**architecture).new(train.spec.shape, len(train.classes), draw)
        if cell.ranker in COUNTS:
            found: float | None = getattr(count(module, train.spec.shape), cell.ranker)
        else:
            with isolated(draw.key("weights")):
                found = zero_cost.score(cell.ranker, module, batch, draw.key("zero-cost"))
        status, scores = (FAILED, {}) if found is None else (FINISHED, {cell.ranker: float(found)})
        took, steps = time.perf_counter() - start, zero_cost.image_steps(cell.ranker, len(batch))
        log.append(Trial(cell.ranker, architecture, found, status, scores, took, steps))


def listed(args: argparse.Namespace) -> list[Architecture]:
    """Those to rank."""
    return architectures()[: args.limit]


def run_cell(cell: Cell, recipe: Training, args: argparse.Namespace, command: str) -> Record | None:
    """Run one ranker on the whole grid; returns its record, or None if the time ended before."""
    start = time.perf_counter()
    train, test = datasets.load("cifar10", root=args.data_root, trust_local_copy=args.trust_local_copy)
    rest, held = train.split(recipe.held / len(train), Draw(0))
    folder = args.runs / f"grid{cell.changes}"
    logs = [TrialLog(folder / f"{cell.ranker}{f'-first{args.limit}' if args.limit else ''}.jsonl")]
    used, costs, tested = asdict(recipe), [Preparation()], held
    on: dict[str, int] = {}
    if cell.ranker in FREE:
        used = {}
        counted(cell, rest, logs[0], args)
    elif cell.full:
        each = args.images // len(train.classes)
        part = rest.subset(rest.draw_indices(rest.classes, each, Draw(0), role="full").flatten())
        protocol = replace(FULL, epochs=args.epochs)
        used, tested = {"images": len(part), "protocol": describe(protocol)}, test
        data = ProxyData(part.compact(), test.compact())
        trained(cell, listed(args), data, protocol, SEED, 1, logs[0], args)
    else:
        on_set = named(cell.ranker, recipe)
        assert isinstance(on_set, OnSet)
        costs, logs = [], []
        for seed, networks in enumerate(shares(listed(args), recipe.sets)):
            if time.monotonic() >= args.end:
                break
            maker = Maker(rest, recipe.steps, OPTIONS, seed, folder / f"set{seed}", Machine(args.device))
            chosen, cost = on_set.make(maker, recipe.ipc)
            logs.append(TrialLog(folder / f"set{seed}" / f"{cell.ranker}.jsonl"))
            data = ProxyData(chosen, held.compact(), real_images(rest, recipe.recalibrate))
            trained(cell, networks, data, recipe.protocol(), seed, recipe.last, logs[-1], args)
            on |= dict.fromkeys(map(key, networks), seed)
            costs.append(cost)
    found = [trial for a in listed(args) for log in logs if (trial := log.get(cell.ranker, a))]
    if len(found) < len(listed(args)):
        return None
    shape = train.spec.shape
    sizes = {key(a): count(ConvNet(**a).new(shape, 10, Draw(0)), shape) for a in listed(args)}
    space = "ConvNet grid of 720"
    return record(
        cell,
        found,
        recipe=used or None,
        options=decides(cell.ranker, recipe, args),
        shared=len(architectures()),
        space={"trained": space, "real": space},
        held=len(tested),
        data={"images": len(rest), "shape": shape},
        preparation={name: fmean(asdict(cost)[name] for cost in costs) for name in asdict(costs[0])},
        about={
            k: {"group": k, "params": size.params, "flops": size.flops, "truth": None, "set": on.get(k)}
            for k, size in sizes.items()
        },
        wall_s=time.perf_counter() - start,
        workers=args.workers,
        command=command,
    )


def decides(name: str, recipe: Training, args: argparse.Namespace) -> dict[str, Any]:
    """Settings that decide the scores of the ranker ``name``, other than its name and seeds."""
    if name in FREE:
        return {}
    if name == TRUTH:
        return {"images": args.images, "protocol": describe(replace(FULL, epochs=args.epochs))}
    return asdict(recipe)


def cells(rankers: list[str], proxy: str, truth: str) -> Iterator[Cell]:
    """Cells of the rankers, in their order; ``proxy`` and ``truth`` are the unusual options in their file names."""
    for name in rankers:
        yield Cell("grid", "all", name, {**dict.fromkeys(FREE, ""), TRUTH: truth}.get(name, proxy))


def main() -> None:
    """Run the missing cells."""
    parser = data_parser(__doc__)
    parser.add_argument("--rankers", default=",".join((TRUTH, *FREE, *SETS)), help="comma-separated list")
    parser.add_argument(
        "--sets", type=int, default=Training().sets, help="sets of each kind; a network is trained on one set"
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, default=4, help="networks trained at the same time on the GPU")
    parser.add_argument("--images", type=int, default=FULL_IMAGES, help="training images of a full training")
    parser.add_argument("--epochs", type=int, default=FULL.epochs, help="epochs of a full training")
    parser.add_argument("--ipc", type=int, default=Training().ipc)
    parser.add_argument(
        "--train-steps", type=int, default=Training().train_steps, help="gradient steps of a network on a set"
    )
    parser.add_argument("--condense", default=Training().condense, help="recipe of the ranker condensed")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="time after which no network is started")
    parser.add_argument("--limit", type=int, help="number of networks; their results go under --runs")
    parser.add_argument("--results", type=Path, default=RESULTS / "nas")
    parser.add_argument("--runs", type=Path, default=RUNS / "nas", help="folder of the runs")
    args = parser.parse_args()
    args.end = time.monotonic() + 60 * args.minutes

    recipe = Training(ipc=args.ipc, train_steps=args.train_steps, condense=args.condense, sets=args.sets)
    usual = {**asdict(Training()), "images": FULL_IMAGES, "epochs": FULL.epochs}
    usual = {name: usual[name] for name in ("ipc", "train_steps", "condense", "sets", "images", "epochs")}
    new = changed({name: getattr(args, name) for name in usual}, usual)
    proxy, truth = (
        suffix({name: new[name] for name in names if name in new})
        for names in (("ipc", "train_steps", "condense", "sets"), ("images", "epochs"))
    )
    results = args.runs / f"first{args.limit}" if args.limit else args.results
    for cell in cells(args.rankers.split(","), proxy, truth):
        path = results / f"{cell.stem}.json"
        if path.exists():
            check(path, decides(cell.ranker, recipe, args))
        if path.exists() or time.monotonic() >= args.end:
            continue
        options = "".join(f" --{k.replace('_', '-')} {shlex.quote(str(value))}" for k, value in new.items())
        short = f" --limit {args.limit}" if args.limit else ""
        one = f"--rankers {cell.ranker} --device {args.device} --workers {args.workers}"
        found = run_cell(cell, recipe, args, f"python benchmarks/nas/grid.py {one}{options}{short}")
        if found is None:
            print(f"{cell.stem}: some networks are missing", flush=True)
            continue
        write(path, found)
        print(f"{cell.stem}: {found['trials_s']:.0f} s of trials in {found['wall_s']:.0f} s", flush=True)


if __name__ == "__main__":
    start(main)
