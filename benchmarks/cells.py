"""What benchmarks/accuracy.py measures: one cell for each row of a table, the most important first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

START = "init=kmeans init.candidates=1000"
TRAINED = f"dm batch_real=64 factor=2 {START} encoder=trained encoder.count=2 encoder.steps=60 calibration=1"
MINUTE = {
    "dm-packed": ("dm batch_real=64 factor=2", 48),
    "m3d": ("m3d batch_real=64", 48),
    "m3d-kmeans": (f"m3d batch_real=64 {START}", 38),
    "dm-kmeans": (f"dm batch_real=64 {START}", 78),
    "trained": (TRAINED, 14),
    "dm": ("dm batch_real=64", 96),
    "moments": ("dm batch_real=64 discrepancy=moments-3", 96),
    "krr": ("krr", 149),
    "dsa": ("dsa batch_real=64", 4),
    "dc": ("dc batch_real=64", 4),
}  # at CPU scale and 10 images per class: what a minute on two quiet cores allows (benchmarks/pace.py)
BEST = ("m3d-kmeans", "m3d", "dm-packed", "trained")
NARROW = "network=ConvNet-w32"
EQUAL_TERMS_LR = {("linear", 1): 1, ("linear", 2): 1, ("gaussian", 1): 1, ("gaussian", 2): 1}
PARTS = {
    "": "",
    "-init": " init=importance-kmeans",
    "-sampling": " sampling=importance",
    "-both": " init=importance-kmeans sampling=importance",
}  # of provable subset selection
TRANSFER = ("ConvNet-w64", "ResNet18-w16", "ConvNet-w64-batch")


@dataclass(frozen=True)
class Cell:
    """One row of a table: what is trained on, and how often.

    Args:
        scale: ``cpu`` or ``gpu``: which table.
        data: Name of the data set.
        ipc: Images per class; None for all images.
        name: What the table calls it; a selection's own name (``packed-`` before it for two by two images
            in one) or ``full`` where there is no recipe.
        sets: Condensed or selected sets, with seeds 0, 1, ...
        recipe: How it is condensed, as :meth:`condensekit.recipe.Recipe.parse` reads it.
        iterations: Matching steps.
        networks: Trained on each set.
        study: The question of a table of its own; none for the table of all methods.
        protocol: How networks are trained.
        architectures: Of the trained networks.
    """

    scale: str
    data: str
    ipc: int | None
    name: str
    sets: int = 3
    recipe: str = ""
    iterations: int = 0
    networks: int = 3
    study: str = ""
    protocol: str = "short"
    architectures: tuple[str, ...] = ("ConvNet",)

    @property
    def run(self) -> str:
        """What its runs are called: cells of several studies may share them."""
        size = "all" if self.ipc is None else f"ipc{self.ipc}"
        length = f"-{self.iterations}" if self.iterations else ""
        return f"{self.scale}-{self.data}-{size}-{self.name}{length}"

    @property
    def stem(self) -> str:
        """The cell's file name, without suffix."""
        short = {"cpu": "short", "gpu": "dc"}[self.scale]
        return "-".join(filter(None, [self.run, self.study, self.protocol * (self.protocol != short)]))


def cells(scale: str) -> Iterator[Cell]:
    """All cells of a scale."""
    yield from _cpu() if scale == "cpu" else _gpu()


def _cpu() -> Iterator[Cell]:
    first = [("cifar10", 10, 3), ("digits", 1, 10), ("fashionmnist", 10, 3)]
    for data, ipc, sets in first:
        yield Cell("cpu", data, ipc, "random", sets)
        yield Cell("cpu", data, ipc, "dm", sets, "dm batch_real=64", 300)
    yield Cell("cpu", "fashionmnist", 10, "dm-kmeans", 3, "dm batch_real=64 init=kmeans", 300)
    for name in ("packed-random", "packed-kmeans", "kmeans", "herding"):
        yield Cell("cpu", "fashionmnist", 10, name, networks=1)
    for name, (recipe, steps) in MINUTE.items():
        yield Cell("cpu", "fashionmnist", 10, name, recipe=recipe, iterations=steps, networks=1)
    for name in ("packed-random", "packed-kmeans", "kmeans", "herding"):
        yield Cell("cpu", "cifar10", 10, name, networks=1)
    for name in BEST:
        recipe, steps = MINUTE[name]
        yield Cell("cpu", "cifar10", 10, name, recipe=recipe, iterations=steps, networks=1)
    yield from _outer_loops()
    yield from _equal_terms()
    yield from _importance()
    for name in ("random", "kmeans", "packed-kmeans"):
        yield Cell("cpu", "cifar10", 10, name, networks=1, study="transfer", architectures=TRANSFER)
    for name in BEST:
        recipe, steps = MINUTE[name]
        yield Cell("cpu", "cifar10", 10, name, 3, recipe, steps, 1, "transfer", architectures=TRANSFER)
    for name in ("kmeans", "herding", "kcenter"):
        yield Cell("cpu", "digits", 1, name, 10)
    yield Cell("cpu", "digits", None, "full", 1)
    for data, ipc in (("cifar10", 1), ("fashionmnist", 1), ("mnist", 10)):
        yield Cell("cpu", data, ipc, "random")
        yield Cell("cpu", data, ipc, "dm", 3, "dm batch_real=64", 300)


def _equal_terms() -> Iterator[Cell]:
    """Mean against all moments, packed or not, with networks kept or not: all else alike, each with its tuned lr."""
    for discrepancy, factor, keep in product(("linear", "gaussian"), (1, 2), (1, 5)):
        lr = EQUAL_TERMS_LR[discrepancy, factor]
        recipe = f"m3d batch_real=64 discrepancy={discrepancy} factor={factor} keep={keep} lr={lr} {NARROW}"
        name = f"{discrepancy}-f{factor}-k{keep}"
        yield _narrow(10, name, 5, recipe, 100, "equal-terms")
    for name in ("random", "packed-random"):
        yield _narrow(10, name, 5, study="equal-terms")


def _outer_loops() -> Iterator[Cell]:
    """What 20 outer loops of gradient matching gain over a random choice."""
    for ipc, name in product((1, 10), ("dsa", "dc")):
        yield _narrow(ipc, name, 3, f"{name} batch_real=64 init=random {NARROW}", 20 * ipc, "outer-loops")


def _importance() -> Iterator[Cell]:
    """Provable subset selection in the start, in the batches, in both or in neither, at several lengths."""
    for ipc in (1, 10):
        for name in ("random", "importance-kmeans"):  # what no step gives
            yield _narrow(ipc, name, 5, study="importance")
        for iterations, method, (part, options) in product((50, 300), ("dm", "m3d"), PARTS.items()):
            recipe = f"{method} batch_real=32 factor=1{options} {NARROW}"
            yield _narrow(ipc, method + part, 5, recipe, iterations, "importance")


def _narrow(ipc: int, name: str, sets: int, recipe: str = "", iterations: int = 0, study: str = "") -> Cell:
    """A cell of a study on Fashion-MNIST with networks of a quarter of the width, for a tenth of the cost."""
    return Cell("cpu", "fashionmnist", ipc, name, sets, recipe, iterations, 1, study, architectures=("ConvNet-w32",))


def _gpu() -> Iterator[Cell]:
    first = [("cifar10", 10), ("cifar10", 50), ("cifar100", 10)]
    for data, ipc in first:
        yield Cell("gpu", data, ipc, "random", protocol="dc")
        yield Cell("gpu", data, ipc, "dm", 3, "dm", 20_000, protocol="dc")
    for data, ipc in first:
        for name in ("random", "packed-random", "packed-kmeans"):
            yield Cell("gpu", data, ipc, name, protocol="idc")
        yield Cell("gpu", data, ipc, "m3d", 3, "m3d", 10_000, protocol="idc")
        trained = "dm factor=2 init=kmeans encoder=trained calibration=1 lr=0.1"
        yield Cell("gpu", data, ipc, "trained", 3, trained, 10_000, protocol="idc")
    for data, ipc in first:
        for name in ("kmeans", "herding", "kcenter"):
            yield Cell("gpu", data, ipc, name, protocol="dc")
    for data, ipc in (("fashionmnist", 10), ("cifar10", 1), ("fashionmnist", 50), ("cifar100", 1)):
        yield Cell("gpu", data, ipc, "random", protocol="dc")
        yield Cell("gpu", data, ipc, "dm", 3, "dm", 20_000, protocol="dc")
    for data, ipc in (("cifar10", 10), ("fashionmnist", 10)):
        yield Cell("gpu", data, ipc, "dsa", 3, "dsa", 10_000, protocol="dc")
        yield Cell("gpu", data, ipc, "dc", 3, "dc", 10_000, protocol="dc")
    for data in ("cifar10", "fashionmnist", "cifar100"):
        yield Cell("gpu", data, None, "full", 1, protocol="dc")
