"""Condensed memory against real images in class-incremental learning.

    python benchmarks/continual.py --scale cpu --data-root PATH
    python benchmarks/tables.py

One JSON file for each cell (data set, steps, images per class, regime, network, memory) under ``benchmarks/results/``.
A cell that is there is skipped, so the script can be stopped and started again; within a cell finished orders,
steps and condensations are kept under ``--runs``. The cells that matter most come first. From-scratch cells need no
Avalanche. Nothing here is chosen by test accuracy: orders 0, 1, ... are reported, options are searched on orders
from 100 (``--first-order 100 --results PATH``).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from record import cell_parser, fill

from condensekit import catalog
from condensekit.errors import CondensekitError
from condensekit.images import ClassImages
from condensekit.replay.memories import ER, FROM_SCRATCH, Making
from condensekit.replay.protocol import Online, Settings
from condensekit.replay.runner import run_protocol

HERE = Path(__file__).resolve().parent
MEMORIES = ("random", "dm", "m3d", "random-equal-bytes", "packed-random", "herding")
REPLAYED = ("random", "dm", "hybrid", "herding")


@dataclass(frozen=True)
class Cell:
    """One memory under one protocol.

    Args:
        scale: ``cpu`` or ``gpu``: which table.
        data: Name of the data set.
        steps: Experiences.
        per_class: Stored images of each class.
        regime: How the memory is used.
        network: What learns, and what embeds images while condensing from scratch.
        memory: What is replayed.
        orders: Class orders.
        networks: Networks on each memory.
        protocol: Training recipe from scratch.
        iterations: Matching steps of each condensation.
        batch_real: Real images of each class in one.
        epochs: Passes of a learner over each experience.
    """

    scale: str
    data: str
    steps: int
    per_class: int
    regime: str
    network: str
    memory: str
    orders: int = 6
    networks: int = 1
    protocol: str = "short"
    iterations: int = 300
    batch_real: int = 64
    epochs: int = 1

    @property
    def group(self) -> str:
        """What cells that are compared with each other share."""
        return f"{self.scale}-{self.data}-{self.steps}x{self.per_class}-{self.regime}-{self.network}"

    @property
    def stem(self) -> str:
        """The cell's file name, without suffix."""
        return f"continual-{self.group}-{self.memory}"


def cells(scale: str) -> Iterator[Cell]:
    """All cells of a scale, the most important first."""
    if scale == "gpu":
        yield from gpu_cells()
        return
    for data in ("fashionmnist", "cifar10"):
        for memory in MEMORIES:
            yield Cell(scale, data, 5, 10, FROM_SCRATCH, "ConvNet-w64", memory)
    for per_class, network, memory in product((10, 5, 20), ("ConvNet-w32", "ResNet18-w8"), REPLAYED):
        yield Cell(scale, "cifar10", 5, per_class, ER, network, memory)
    for memory in (*MEMORIES, "unpacked-m3d", "kmeans", "hybrid", "random-soft"):
        yield Cell(scale, "digits", 5, 3, FROM_SCRATCH, "ConvNet", memory)
    for memory in ("dm", "random"):  # equal finals show that no later class has leaked
        yield Cell(scale, "digits", 1, 3, FROM_SCRATCH, "ConvNet", memory)
    for memory in (*REPLAYED, "m3d", "class-balanced", "reservoir", "icarl", "naive", "cumulative"):
        yield Cell(scale, "digits", 5, 3, ER, "ConvNet", memory, epochs=5)
    for memory in ("packed-dm", "jpeg-random", "hybrid", "kmeans"):
        yield Cell(scale, "fashionmnist", 5, 10, FROM_SCRATCH, "ConvNet-w64", memory)


def gpu_cells() -> Iterator[Cell]:
    """DM's protocol on CIFAR-100, then a learner that goes on."""
    long = {"orders": 5, "networks": 3, "protocol": "dc", "iterations": 20_000, "batch_real": 256}
    for steps, memory in product((5, 10), MEMORIES):
        yield Cell("gpu", "cifar100", steps, 20, FROM_SCRATCH, "ConvNet", memory, **long)
    once = {**long, "orders": 10, "networks": 1, "epochs": 20}
    for memory in REPLAYED:
        yield Cell("gpu", "cifar100", 10, 20, ER, "ConvNet", memory, **once)


def run_cell(cell: Cell, train: ClassImages, test: ClassImages, args: argparse.Namespace) -> dict[str, Any]:
    """Run the memory, and describe everything that led to the figure."""
    protocol = catalog.protocol(cell.protocol, cell.data)
    settings = Settings(
        steps=cell.steps,
        per_class=cell.per_class,
        orders=args.orders or cell.orders,
        first_order=args.first_order,
        networks=cell.networks,
        network=catalog.network(cell.network),
        protocol=protocol if args.epochs is None else replace(protocol, epochs=args.epochs),
        online=Online(epochs=args.epochs or cell.epochs, lr=args.lr, batch=32, batch_mem=args.batch_mem),
    )
    making = Making(cell.iterations, cell.batch_real, cell.network, precision=args.precision)
    start = time.perf_counter()
    result = run_protocol(
        train,
        test,
        memories=[cell.memory],
        regimes=[cell.regime],
        settings=settings,
        making=making,
        data=cell.data,
        device=args.device,
        out=args.runs / cell.group,
        resume=True,
    )
    return {
        "continual": asdict(cell),
        "row": result["rows"][0],
        "accuracy_by_step": next(iter(result["accuracy_by_step"].values())),
        "settings": result["settings"],
        "making": result["making"],
        "wall_s": time.perf_counter() - start,
        "command": f"python benchmarks/continual.py --scale {cell.scale}",
    }


def main() -> None:
    """Run the cells that are missing."""
    parser = cell_parser(__doc__, "continual")
    parser.add_argument("--orders", type=int, help="fewer or more class orders than the cell says")
    parser.add_argument("--first-order", type=int, default=0, help="number of the first one")
    parser.add_argument("--epochs", type=int, help="other epochs than the cell says, of whatever it trains")
    parser.add_argument("--lr", type=float, default=0.03, help="learning rate of a learner that goes on")
    parser.add_argument("--batch-mem", type=int, default=32, help="replayed images in each of its steps")
    args = parser.parse_args()
    fill(cells(args.scale), args, run_cell, lambda record: record["row"]["final_accuracy_mean"])


if __name__ == "__main__":
    try:
        main()
    except CondensekitError as error:
        sys.exit(f"Error: {error}")
