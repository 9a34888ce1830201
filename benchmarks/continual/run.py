"""Condensed memories and memories of real images in class-incremental learning.

    python benchmarks/continual/run.py --scale cpu --data-root PATH
    python benchmarks/continual/run.py --scale cpu --data-root PATH --tune --only 5x10-er-ConvNet-w32 --memory herding \
        --lr 0.01 0.03 0.1 --batch-mem 32 64
    python benchmarks/tables.py

The script writes one JSON file for each cell of ``cells.py`` (data set, experiences, images per class, regime, network,
memory) under ``benchmarks/results/``. It skips cells with a file, so that it can be stopped and started again. Finished
orders, experiences and condensations of a cell are stored under ``--runs``. The most important cells come first. The
processes of torchrun, or several that are started side by side, share the cells. Cells from scratch do not need
Avalanche.

No option is chosen by test accuracy: orders 0, 1, ... are reported. With ``--tune``, a tenth of the training images is
held out before the condensation and judges, on two orders from 100; the files are called ``tuning-...``. The best
options go into ``TUNED``, for condensed and real memories. Options that differ from the list are in the name of the
file: tables show these cells separately, without contrasts.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from benchmarks.accuracy.tuning import HELD_OUT
from benchmarks.continual.cells import Cell, cells, primary
from benchmarks.record import Record, cell_parser, fill, start
from condensekit import catalog
from condensekit.compute import Machine
from condensekit.data.images import ClassImages
from condensekit.replay.study.memories import Making, memory
from condensekit.replay.study.protocol import Online, Settings
from condensekit.replay.study.runner import run_protocol
from condensekit.rng import Draw

OPTIONS = {
    "orders": (int, "class orders"),
    "first_order": (int, "number of the first class order"),
    "train_epochs": (int, "epochs of each training from scratch"),
    "steps": (int, "matching steps of each condensation"),
    "epochs": (int, "passes of the learner over an experience"),
    "lr": (float, "learning rate of the learner"),
    "batch_mem": (int, "replayed images in each step of the learner"),
    "distillation": (float, "weight of the learner's distillation term"),
    "fine_tune": (int, "steps of the learner on the memory only, after each experience"),
}  # type and help text of each option of a cell


def run_cell(cell: Cell, train: ClassImages, test: ClassImages, args: argparse.Namespace) -> Record:
    """Run the study of one memory, and return the record with all settings and results."""
    if cell.tuning:
        train, test = train.split(HELD_OUT, Draw(0))
    protocol = catalog.protocol(cell.protocol)
    settings = Settings(
        experiences=cell.experiences,
        ipc=cell.ipc,
        orders=cell.orders,
        first_order=cell.first_order,
        networks=cell.networks,
        network=catalog.network(cell.network),
        protocol=protocol if cell.train_epochs is None else replace(protocol, epochs=cell.train_epochs),
        online=Online(
            epochs=cell.epochs,
            lr=cell.lr,
            batch=32,
            batch_mem=cell.batch_mem,
            distillation=cell.distillation,
            fine_tune=cell.fine_tune,
        ),
    )
    making = Making(cell.steps, recipe_options(cell), machine=Machine(args.device, args.precision))
    start = time.perf_counter()
    with peak_memory() as peak:
        result = run_protocol(
            train,
            test,
            memories=[cell.memory],
            regimes=[cell.regime],
            settings=settings,
            making=making,
            out=args.runs / cell.folder,
            resume=True,
            room=room(cell, train),
        )
    place = f"{cell.regime}/{cell.memory}"
    return {
        "continual": asdict(cell),
        "primary": primary(cell.regime, cell.data),
        "row": next(asdict(row) for row in result.rows if f"{row.regime}/{row.memory}" == place),
        "accuracy_by_experience": result.accuracy_by_experience[place],
        "settings": result.settings,
        "making": result.making,
        "wall_s": time.perf_counter() - start,
        "peak_mib": peak,
        "command": command(cell, args),
    }


def recipe_options(cell: Cell) -> dict[str, Any]:
    """Options of the recipes of a cell; memories of real images have ``encoder_network`` only."""
    own = dict(option.split("=", 1) for option in cell.options)
    condensing = {"batch_real": cell.batch_real, **own} if memory(cell.memory).learnt else {}
    return {"encoder_network": cell.encoder, **condensing}


def room(cell: Cell, train: ClassImages) -> int:
    """Bytes of each class of the largest condensed memory in the cell's table."""
    kinds = [memory(other.memory) for other in cells(cell.scale) if other.group == cell.group]
    kinds = [kind for kind in kinds if kind.learnt] or [memory("dm")]
    return cell.ipc * max(kind.bytes_each(train) for kind in kinds)


def command(cell: Cell, args: argparse.Namespace) -> str:
    """Command that repeats the cell."""
    words = [
        "python benchmarks/continual/run.py",
        f"--scale {cell.scale}",
        f"--only {cell.group}-",
        f"--memory {cell.memory}",
    ]
    words += ["--tune"] * cell.tuning
    words += [f"--{name.replace('_', '-')} {getattr(cell, name)}" for name in OPTIONS if name in cell.changed]
    words += [f"--set {option}" for option in cell.options if "options" in cell.changed]
    plain = {"device": "auto", "precision": "fp32"}
    return " ".join([*words, *(f"--{k} {getattr(args, k)}" for k, v in plain.items() if getattr(args, k) != v)])


@contextlib.contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """Context whose value has, at its end, the peaks in MiB: ``rss``, the resident set, and ``device``, of a GPU."""
    found: dict[str, float] = {}
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: reset the peak
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    yield found
    with contextlib.suppress(OSError):
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        found["rss"] = int(lines["VmHWM"].split()[0]) / 1024
    if torch.cuda.is_available():
        found["device"] = torch.cuda.max_memory_allocated() / 2**20


def asked(args: argparse.Namespace) -> Iterator[Cell]:
    """The cells of the scale, each with every combination of the given options."""
    given: dict[str, list[Any]] = {name: getattr(args, name) for name in OPTIONS if getattr(args, name)}
    if args.options:
        given["options"] = [tuple(args.options)]
    for cell in cells(args.scale):
        if args.memory and cell.memory not in args.memory:
            continue
        own = replace(cell, tuning=True, orders=2, first_order=100, networks=1) if args.tune else cell
        for values in product(*given.values()):
            yield own.varied(dict(zip(given, values, strict=True)))


def main() -> None:
    """Run the missing cells."""
    parser = cell_parser(__doc__, "continual")
    parser.add_argument("--memory", nargs="+", help="only these memories")
    parser.add_argument("--tune", action="store_true", help="judge by held-out training images, on other orders")
    for name, (kind, text) in OPTIONS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, nargs="+", help=f"{text}; one or more values")
    parser.add_argument(
        "--set", dest="options", action="append", help="option NAME=VALUE of the recipe (with --memory)"
    )
    args = parser.parse_args()
    fill(asked(args), args, run_cell, lambda record: record["row"]["final_accuracy_mean"])


if __name__ == "__main__":
    start(main, shared=True)
