"""Cells of the continual benchmark: one measurement of ``run.py`` for each row of a table, in order of importance."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any, ClassVar

from condensekit.replay.study.memories import DER, EQUAL_BYTES, ER, ER_ACE, FROM_SCRATCH, SAME, memory

MEMORIES = ("random", "dm", "m3d", EQUAL_BYTES, "packed-random", "kmeans", "herding")
REPLAYED = ("random", "dm", "hybrid", "avalanche-herding", "herding", "kmeans", "packed-random")
CODED = {
    "fashionmnist": ("jpeg-random", "jpeg-kmeans-2", "jpeg-dm-2"),
    **dict.fromkeys(("cifar10", "cifar100"), ("jpeg-random", "jpeg-kmeans-9", "jpeg-dm-9")),
}
"""JPEG memories with about the same number of images: random real images, chosen real images, condensed images."""
COLOUR = (*REPLAYED, *CODED["cifar10"])
TELLING = (*reversed(CODED["cifar10"]), "hybrid", "avalanche-herding", "dm", "random")
"""Memories of ``COLOUR`` in the additional tables."""
BOUNDS = ("class-balanced", "naive", "cumulative")
STOCK = (
    *BOUNDS,
    *("experience-balanced", "reservoir", "closest-to-mean", "gdumb", "icarl", "avalanche-er-ace", "avalanche-der++"),
)
PRIMARY: dict[str | tuple[str, str], tuple[str, str]] = {
    FROM_SCRATCH: ("m3d", "packed-random"),
    (FROM_SCRATCH, "fashionmnist"): ("dm", "jpeg-random"),
    (FROM_SCRATCH, "cifar10"): ("jpeg-dm-9", "jpeg-random"),
    (FROM_SCRATCH, "digits"): ("dm", EQUAL_BYTES),
    ER: ("hybrid", "avalanche-herding"),
    **dict.fromkeys((ER_ACE, DER), ("hybrid", "herding")),
}
"""Primary contrast by regime, or by regime and data set: named before its cells are measured, and not corrected for
other contrasts. From scratch, the real memory has the best random images at the same bytes when all classes come at
once. In incremental regimes, its real images are chosen by the features of the learner, as in iCaRL."""
START = ("init=kmeans",)
"""Options of all condensed memories: the best start in a held-out search on all classes of Fashion-MNIST."""
MANY = {"jpeg-dm-9": ("lr=20",)}
"""Further options of memories of many images: a larger step size, because each image has a small share in the mean."""
BY_LEARNER = ("init=herding",)
"""Options of memories that are condensed with the learner, whose features also herd the first images."""
RATES = {"herding": 0.03}
"""Learning rate of the learner by memory; 0.1 with all other memories."""
TUNED: dict[tuple[str, str, str, str], dict[str, Any]] = {
    (ER, "cifar10", "ConvNet-w32", name): {
        "lr": RATES.get(name, 0.1),
        **({"options": BY_LEARNER + MANY.get(name, ())} if memory(name).learnt else {}),
    }
    for name in (*COLOUR, *BOUNDS)
}
"""Best options of a search by ``--tune``, by regime, data set, network and memory, such as ``(ER, "cifar10",
"ConvNet-w32", "herding"): {"lr": 0.1}``. A search reads no test images and has other class orders than the reported
cells. A cell with other options is another cell."""
TUNED_AT = 10
"""Images per class of these searches; tables with other numbers use the same options, and say so."""


@dataclass(frozen=True)
class Cell:
    """One memory under one protocol.

    Args:
        scale: ``cpu`` or ``gpu``: the table to which the cell belongs.
        data: Name of the data set.
        experiences: Number of experiences of the stream.
        ipc: Stored images of each class.
        regime: Regime in which the memory is used.
        network: Name of the network, or of the learner.
        memory: Name of the memory.
        orders: Number of class orders.
        first_order: Number of the first class order.
        networks: Number of networks trained on each memory.
        protocol: Name of the training protocol from scratch.
        train_epochs: Epochs of a training from scratch; None: those of the protocol.
        steps: Matching steps of each condensation.
        batch_real: Real images of each class in a matching step.
        options: Further options ``NAME=VALUE`` of the recipe.
        epochs: Passes of the learner over each experience.
        lr: Learning rate of the learner.
        batch_mem: Replayed images in each step of the learner, in addition to 32 new images.
        distillation: Weight of the distillation term of the learner, the same for all memories of a table.
        fine_tune: Steps of the learner on the memory only after each experience, the same for all memories of a table.
        tuning: Whether held-out training images judge; False: the test images.
        changed: Names of the options that differ from the list.
    """

    kind: ClassVar[str] = "continual"
    scale: str
    data: str
    experiences: int
    ipc: int
    regime: str
    network: str
    memory: str
    orders: int = 6
    first_order: int = 0
    networks: int = 1
    protocol: str = "short"
    train_epochs: int | None = None
    steps: int = 100
    batch_real: int = 64
    options: tuple[str, ...] = ()
    epochs: int = 1
    lr: float = 0.03
    batch_mem: int = 32
    distillation: float = 0.0
    fine_tune: int = 0
    tuning: bool = False
    changed: tuple[str, ...] = ()

    @property
    def encoder(self) -> str:
        """Name of the encoder network if the learner is not the encoder: the learner's, unless it has batch norm."""
        return "ConvNet-w32" if self.network.startswith("ResNet18") else self.network

    @property
    def group(self) -> str:
        """Text that is equal for all cells that are compared with each other."""
        terms = [f"distil{self.distillation:g}"] * bool(self.distillation)
        terms += [f"tune{self.fine_tune}"] * bool(self.fine_tune)
        place = f"{self.scale}-{self.data}-{self.experiences}x{self.ipc}"
        return "-".join([place, self.regime, self.network, *terms])

    @property
    def stem(self) -> str:
        """Name of the cell's file, without suffix, with the options that differ from the list."""
        what = "tuning" if self.tuning else "continual"
        others = [f"{name}{_text(getattr(self, name))}" for name in self.changed]
        return "-".join([what, self.group, self.memory, *others])

    @property
    def folder(self) -> str:
        """Name of its run folder, with all settings that decide a result but the number of orders, which can grow."""
        name = SAME.get(self.memory, self.memory)
        rest = {key: value for key, value in asdict(self).items() if key not in ("memory", "orders", "changed")}
        digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
        return f"{self.group}-{name}-{digest[:8]}"

    @property
    def lock(self) -> str:
        """Name of what one process at a time makes."""
        return self.folder

    def varied(self, options: dict[str, Any]) -> Cell:
        """The cell with other options, which become part of its name; in a search all given options do so."""
        other = [name for name, value in options.items() if self.tuning or value != getattr(self, name)]
        return replace(self, **options, changed=tuple(sorted({*self.changed, *other})))


def cells(scale: str) -> Iterator[Cell]:
    """All cells of a scale, the most important first, with their tuned options."""
    for cell in _gpu() if scale == "gpu" else _cpu():
        start = START + MANY.get(cell.memory, ()) if memory(cell.memory).learnt else ()
        found = TUNED.get((cell.regime, cell.data, cell.network, cell.memory), {})
        yield replace(cell, **{"options": start, **found})


def primary(regime: str, data: str) -> tuple[str, str]:
    """Primary contrast of a table: names of a condensed memory and a real memory."""
    return PRIMARY.get((regime, data)) or PRIMARY[regime]


def _cpu() -> Iterator[Cell]:
    yield from _from_scratch("fashionmnist")
    yield from _digits()
    replayed = Cell("cpu", "cifar10", 5, 10, ER, "ConvNet-w32", "random")
    for name in (*COLOUR, *BOUNDS):
        yield replace(replayed, memory=name)
    yield from _from_scratch("cifar10")
    besides: tuple[dict[str, Any], ...] = ({"fine_tune": 100}, {"ipc": 5}, {"ipc": 20})
    for beside, name in product(besides, TELLING):
        yield replace(replayed, **beside, memory=name)
    for ipc, name in product((10, 5, 20), TELLING):
        yield replace(replayed, network="ResNet18-w8", ipc=ipc, memory=name)
    for name in ("packed-dm", "hybrid"):
        yield Cell("cpu", "fashionmnist", 5, 10, FROM_SCRATCH, "ConvNet-w32", name)


def _from_scratch(data: str) -> Iterator[Cell]:
    for name in (*MEMORIES, "unpacked-m3d", *CODED[data]):
        yield Cell("cpu", data, 5, 10, FROM_SCRATCH, "ConvNet-w32", name)
    for name in ("dm", "random"):  # equal results with one and five experiences show that no later class leaks
        yield Cell("cpu", data, 1, 10, FROM_SCRATCH, "ConvNet-w32", name)


def _digits() -> Iterator[Cell]:
    for name in (*MEMORIES, "unpacked-m3d", "hybrid", "random-soft"):
        yield Cell("cpu", "digits", 5, 3, FROM_SCRATCH, "ConvNet", name)
    for name in ("dm", "random"):
        yield Cell("cpu", "digits", 1, 3, FROM_SCRATCH, "ConvNet", name)
    for name in (*REPLAYED, "m3d", *STOCK):
        yield Cell("cpu", "digits", 5, 3, ER, "ConvNet", name, epochs=5)
    for regime, name in product((ER_ACE, DER), ("random", "dm", "hybrid", "herding")):
        yield Cell("cpu", "digits", 5, 3, regime, "ConvNet", name, epochs=5)


def _gpu() -> Iterator[Cell]:
    """DM's protocol on CIFAR-100, then incremental learning, with and without distillation."""
    long: dict[str, Any] = {"orders": 5, "networks": 3, "protocol": "dc", "steps": 20_000, "batch_real": 256}
    for experiences, name in product((10, 5), (*MEMORIES, *CODED["cifar100"])):
        yield Cell("gpu", "cifar100", experiences, 20, FROM_SCRATCH, "ConvNet", name, **long)
    once = {**long, "orders": 10, "networks": 1, "epochs": 20}
    for distillation, name in product((1.0, 0.0), COLOUR):
        yield Cell("gpu", "cifar100", 10, 20, ER, "ConvNet", name, **once, distillation=distillation)


def _text(value: Any) -> str:
    """A value as part of a file name."""
    if isinstance(value, tuple):
        return "-".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
