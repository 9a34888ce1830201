"""Cells of the accuracy benchmark: one measurement of ``run.py`` for each row of a table, in order of importance."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar

START = "init=kmeans init.candidates=1000"
RECIPES = {
    "dm": "dm batch_real=64",
    "dm-packed": "dm batch_real=64 factor=2",
    "dm-kmeans": f"dm batch_real=64 {START}",
    "m3d": "m3d batch_real=64",
    "m3d-kmeans": f"m3d batch_real=64 {START}",
    "m3d-unpacked": f"m3d batch_real=64 factor=1 {START}",
    "m3d-narrow": f"m3d batch_real=64 {START} encoder_network=ConvNet-w32",
    "dm-narrow": f"dm batch_real=64 factor=2 lr=5 {START} encoder_network=ConvNet-w32",
    "jpeg-dm": f"dm batch_real=64 lr=20 {START} encoder_network=ConvNet-w32",
    "trained": f"dm batch_real=64 factor=2 {START} encoder=trained encoder.count=2 encoder.steps=60 calibration=1",
    "krr": "krr",
    "dsa": "dsa batch_real=64",
    "dc": "dc batch_real=64",
}
SECONDS_60 = {
    "dm-packed": 48,
    "m3d": 48,
    "m3d-kmeans": 38,
    "dm-kmeans": 78,
    "m3d-unpacked": 78,
    "m3d-narrow": 192,
    "dm-narrow": 192,
    "jpeg-dm": 100,
    "trained": 14,
    "dm": 96,
    "krr": 149,
    "dsa": 4,
    "dc": 4,
}  # steps in 60 s on two idle cores, at 10 images per class (benchmarks/speed/pace.py)
SECONDS_300 = {
    "cifar10": {"m3d-narrow": 1136, "dm-narrow": 1136},
    "fashionmnist": {"m3d-unpacked": 474, "dm-kmeans": 474},
}  # steps in 300 s of the two best recipes after 60 s, by data set
IPC1_SECONDS_60 = {"dm-packed": 118, "dm-kmeans": 108, "m3d-kmeans": 95}  # steps in 60 s at 1 image per class
IPC1_SECONDS_300 = {"m3d-narrow": 1800}  # steps in 300 s of the recipe that was slightly the best on held-out images
CODED = {"jpeg-dm": 90}  # JPEG images per class in the bytes of 10 uncoded images; jpeg-random has about as many
SELECTED = ("packed-random", "packed-kmeans", "kmeans", "herding", "jpeg-random", "avif-random", "avif-kmeans")
STARTS = {
    "jpeg-dm": "jpeg-random",
    "dm-packed": "packed-random",
    "m3d": "packed-random",
    "dm-kmeans": "kmeans",
    "m3d-unpacked": "kmeans",
    "m3d-kmeans": "packed-kmeans",
    "m3d-narrow": "packed-kmeans",
    "dm-narrow": "packed-kmeans",
    "trained": "packed-kmeans",
}  # selection with the first images of a recipe, or with real images stored in the same way: its control
TIMED = {
    "fashionmnist": tuple(name for name in RECIPES if not name.endswith("-narrow") and name not in CODED),
    "cifar10": ("jpeg-dm", "m3d-narrow", "m3d-kmeans", "dm-narrow", "dm-kmeans"),
}  # recipes of the tables at equal time, by data set
DANCE = (
    "dm lr=0.01 per_image=true space=pixel factor=2 augment=color,crop,cutout init=kmeans "
    "encoder=trained encoder.count=20 calibration=1"
)  # options of the authors' code, with shorter trainings of the encoders
NARROW = "encoder_network=ConvNet-w32"
EQUAL_TERMS_LR = {"linear": 0.1, "gaussian": 1, "moments-3": 0.03}  # best of at least three rates, packed or not
PARTS = {
    "": "",
    "-init": " init=importance-krr",
    "-init-kmeans": " init=importance-kmeans",
    "-sampling": " sampling=importance sampling.weights=none",
    "-both": " init=importance-krr sampling=importance sampling.weights=none",
    "-unbiased": " sampling=importance sampling.weights=unbiased",
}  # options of provable subset selection, by suffix of the name
OTHERS = {"dsa": 20, "dc": 20, "krr": 50}
FULL_LENGTH = {"dm": 20_000, "m3d": 10_000}
OTHER_PARTS = {
    "": "",
    "-init": PARTS["-init"],
    "-init-kmeans": PARTS["-init-kmeans"],
    "-unbiased": PARTS["-unbiased"],
    "-init-unbiased": PARTS["-init"] + PARTS["-unbiased"],
}
OPTIONS_OF = f"m3d batch_real=64 factor=1 {NARROW}"
OPTIONS = {
    "": "",
    "-kmeans-batches": " sampling=kmeans sampling.clusters=64 sampling.refresh=20",
    "-nested": " nested=true",
    "-trained": " encoder=trained encoder.count=2 encoder.steps=60",
    "-calibrated": " encoder=trained encoder.count=2 encoder.steps=60 calibration=1",
}
TRAINED = "encoder=trained encoder.epochs=20"
WAYS = {
    "line": "",
    "end": " encoder.interpolate=false",
    "step": " calibration_step=true",
}  # options of the study of calibration: summed between the ends, at the last end, and in a step of its own
TRANSFER = ("ConvNet-w64", "ResNet18-w16", "ConvNet-w64-batch")


@dataclass(frozen=True)
class Cell:
    """One row of a table: sets, and the networks that are trained on each set.

    Args:
        scale: ``cpu`` or ``gpu``: the table to which the cell belongs.
        data: Name of the data set.
        ipc: Images per class; None: all images.
        name: Name in the table; without a recipe the name of a selection (with ``packed-`` for 2 x 2 packing), or
            ``full`` for all images.
        sets: Number of condensed or selected sets, with seeds 0, 1, ...
        recipe: Recipe of condensation, as :meth:`condensekit.Recipe.parse` reads it; empty: there is no condensation.
        steps: Number of matching steps.
        networks: Number of networks trained on each set.
        study: Name of the separate table of a study; empty: the table of all methods.
        protocol: Name of the training protocol.
        network: Names of the networks that are trained.
        against: Label of a second cell for comparison, in addition to random images: the first images of the recipe,
            or the same recipe without the studied option.
        equal_steps: Whether trainings on packed sets have the same number of steps as on other sets.
        condensed: Images per class that are condensed; trainings use the first ``ipc`` of them. None: ``ipc``.
        coded: Whether trainings use all condensed images, stored after condensing in the bytes of ``ipc`` plain images.
        store: The storage of coded images.
        train_steps: Gradient steps of each training; None: as the protocol says.
        precision: Precision of condensation; empty: as the command line says.
    """

    kind: ClassVar[str] = "cell"
    scale: str
    data: str
    ipc: int | None
    name: str
    sets: int = 3
    recipe: str = ""
    steps: int = 0
    networks: int = 3
    study: str = ""
    protocol: str = "short"
    network: tuple[str, ...] = ("ConvNet",)
    against: str = ""
    equal_steps: bool = True
    condensed: int | None = None
    coded: bool = False
    precision: str = ""
    store: str = "jpeg"
    train_steps: int | None = None

    @property
    def label(self) -> str:
        """Name of the cell among the cells of the same data set and ipc."""
        return f"{self.name}-{self.steps}" if self.steps else self.name

    @property
    def stem(self) -> str:
        """Name of the cell's file, without suffix."""
        size = "all" if self.ipc is None else f"ipc{self.ipc}"
        short = {"cpu": "short", "gpu": "dc"}[self.scale]
        parts = [self.scale, self.data, size, self.label, self.study, self.protocol * (self.protocol != short)]
        return "-".join(filter(None, parts))

    @property
    def lock(self) -> str:
        """Name of what one process at a time makes."""
        return self.run if self.recipe else self.stem

    @property
    def run(self) -> str:
        """Name of the folder of its runs; cells with the same recipe share the folder, also in different studies."""
        how = (self.recipe + self.precision).encode()
        return f"{self.data}-ipc{self.condensed or self.ipc}-{self.steps}-{zlib.crc32(how):08x}"


def cells(scale: str) -> Iterator[Cell]:
    """All cells of a scale."""
    yield from _cpu() if scale == "cpu" else _gpu()


def _cpu() -> Iterator[Cell]:
    for data, ipc, sets in (("cifar10", 10, 3), ("digits", 1, 10), ("fashionmnist", 10, 3), ("fashionmnist", 1, 3)):
        yield Cell("cpu", data, ipc, "random", sets)
        yield Cell("cpu", data, ipc, "dm", sets, "dm batch_real=64", 300)
    yield Cell("cpu", "fashionmnist", 10, "dm-kmeans", 3, "dm batch_real=64 init=kmeans", 300, against="dm-300")
    yield from _equal_time()
    yield from _outer_loops()
    yield from _equal_terms()
    yield from _importance()
    yield from _options()
    yield from _transfer()
    yield from _equal_epochs()
    yield from _precision()
    yield from _calibration()
    yield from _bits()
    for name in ("kmeans", "herding", "kcenter"):
        yield Cell("cpu", "digits", 1, name, 10)
    yield Cell("cpu", "digits", None, "full", 1)
    for data, ipc in (("cifar10", 1), ("mnist", 10)):
        yield Cell("cpu", data, ipc, "random")
        yield Cell("cpu", data, ipc, "dm", 3, "dm batch_real=64", 300)


def _equal_time() -> Iterator[Cell]:
    """All methods after one minute, the two best after five minutes, and selections, which have no steps."""
    for data, names in TIMED.items():
        for name in SELECTED:
            yield Cell("cpu", data, 10, name, networks=1)
        for name in names:
            yield _timed(data, 10, name, SECONDS_60[name])
    for data, best in SECONDS_300.items():
        for name, steps in best.items():
            yield _timed(data, 10, name, steps)
    for name in ("packed-random", "packed-kmeans", "kmeans"):
        yield Cell("cpu", "fashionmnist", 1, name)
    for name, steps in (*IPC1_SECONDS_60.items(), *IPC1_SECONDS_300.items()):
        yield Cell("cpu", "fashionmnist", 1, name, 3, RECIPES[name], steps, against=STARTS[name])


def _transfer() -> Iterator[Cell]:
    """Condensed sets and selections, on which networks of other architectures than the encoder are trained."""
    for name in ("random", "kmeans", "packed-kmeans"):
        yield Cell("cpu", "cifar10", 10, name, networks=1, study="transfer", network=TRANSFER)
    for name in TIMED["cifar10"]:
        yield _timed("cifar10", 10, name, SECONDS_60[name], "transfer", TRANSFER)


def _equal_epochs() -> Iterator[Cell]:
    """Packed sets with as many training epochs as unpacked sets, which need more gradient steps."""
    packed = {"cifar10": ("m3d-narrow", "dm-narrow"), "fashionmnist": ("m3d-kmeans", "dm-packed")}
    for data, names in packed.items():
        for name in ("packed-random", "packed-kmeans"):
            yield Cell("cpu", data, 10, name, networks=1, study="equal-epochs", equal_steps=False)
        for name in names:
            yield replace(_timed(data, 10, name, SECONDS_60[name], "equal-epochs"), equal_steps=False)
    longest = _timed("cifar10", 10, "m3d-narrow", SECONDS_300["cifar10"]["m3d-narrow"], "equal-epochs")
    yield replace(longest, equal_steps=False)


def _timed(
    data: str, ipc: int, name: str, steps: int, study: str = "", network: tuple[str, ...] = ("ConvNet",)
) -> Cell:
    """A cell of the tables at equal time."""
    start = STARTS.get(name, "")
    timed = Cell("cpu", data, ipc, name, 3, RECIPES[name], steps, 1, study, "short", network, start)
    return replace(timed, condensed=CODED[name], coded=True) if name in CODED else timed


def _equal_terms() -> Iterator[Cell]:
    """Discrepancies of one, three and all moments, packed or not, networks kept or not, each with its tuned lr."""
    for (discrepancy, lr), factor, keep in product(EQUAL_TERMS_LR.items(), (1, 2), (1, 5)):
        recipe = f"m3d batch_real=64 discrepancy={discrepancy} factor={factor} keep={keep} lr={lr} {NARROW}"
        name = f"{discrepancy}-f{factor}-k{keep}"
        yield _narrow(10, name, 5, recipe, 100, "equal-terms", "packed-random" if factor == 2 else "random")
    for name in ("random", "packed-random"):
        yield _narrow(10, name, 5, study="equal-terms")


def _outer_loops() -> Iterator[Cell]:
    """Gradient matching with 20 outer loops, which is compared with a random selection."""
    for ipc, name in product((1, 10), ("dsa", "dc")):
        yield _narrow(ipc, name, 3, f"{name} batch_real=64 init=random {NARROW}", 20 * ipc, "outer-loops")


def _importance() -> Iterator[Cell]:
    """Provable subset selection for the first images, for the batches, for both and for neither, at several lengths."""
    for ipc in (1, 10):
        for name in ("random", "importance-krr", "importance-kmeans"):  # selections without steps
            yield _narrow(ipc, name, 5, study="importance")
        for steps, method, (part, options) in product((50, 300), ("dm", "m3d"), PARTS.items()):
            recipe = f"{method} batch_real=32 factor=1{options} {NARROW}"
            against = f"{method}-{steps}" if part else "random"
            yield _narrow(ipc, method + part, 5, recipe, steps, "importance", against)
    for (method, steps), (part, options) in product(OTHERS.items(), OTHER_PARTS.items()):
        start = "" if part.startswith("-init") else " init=random"
        recipe = f"{method} batch_real=32 factor=1{start}{options} {NARROW}"
        against = f"{method}-{steps}" if part else "random"
        yield _narrow(1, method + part, 5, recipe, steps, "importance", against)


def _options() -> Iterator[Cell]:
    """M3D with one further option at a time, and real images coded as JPEG."""
    for name in ("random", "jpeg-random"):
        yield _narrow(10, name, 5, study="options")
    for name, options in OPTIONS.items():
        yield _narrow(10, f"m3d{name}", 5, OPTIONS_OF + options, 100, "options", "m3d-100" if name else "random")
    yield _narrow(5, "m3d", 5, OPTIONS_OF, 100, "options")
    nested = _narrow(5, "m3d-nested-prefix", 5, OPTIONS_OF + OPTIONS["-nested"], 100, "options", "m3d-100")
    yield replace(nested, condensed=10)


def _precision() -> Iterator[Cell]:
    """Real images embedded in bfloat16, compared with float32 over ten sets from the same seeds."""
    for data in ("cifar10", "fashionmnist"):
        one = Cell("cpu", data, 10, "random", 10, study="precision", network=("ConvNet-w32",))
        yield one
        dm = replace(one, name="dm", recipe=f"dm batch_real=64 {NARROW}", steps=300, against="random", precision="fp32")
        yield dm
        yield replace(dm, name="dm-mixed", against="dm-300", precision="mixed")


def _calibration() -> Iterator[Cell]:
    """M3D with trained encoders: between the ends of their trainings or at the last one, and weights of calibration."""
    one = Cell("cpu", "cifar10", 10, "random", 5, networks=1, study="calibration", network=("ConvNet-w32",))
    for name in ("random", "packed-random", "packed-kmeans"):
        yield replace(one, name=name)
    yield replace(one, name="kept", recipe=f"{RECIPES['m3d-narrow']}", steps=400, against="packed-kmeans")
    for weight, (name, way) in product((0, 0.1, 0.3, 1), WAYS.items()):
        if weight or "calibration_step" not in way:
            recipe = f"{RECIPES['m3d-narrow']} {TRAINED} calibration={weight}{way}"
            yield replace(one, name=f"{name}-{weight}", recipe=recipe, steps=400, against="kept-400")


def _bits() -> Iterator[Cell]:
    """Images in the bytes of ten plain ones: real, and condensed, which are stored afterwards or learnt through it."""
    one = Cell("cpu", "cifar10", 10, "random", 5, networks=1, study="bits", network=("ConvNet-w32",), train_steps=1500)
    for name in ("random", "kmeans", "jpeg-random", "avif-random", "avif-kmeans"):
        yield replace(one, name=name)
    room = 10 * (3 * 32 * 32 + 8)  # bytes of ten plain images with their labels
    for count in (160, 320):
        recipe = f"m3d factor=1 batch_real=64 {START} {NARROW} {TRAINED} calibration=0.1"
        after = replace(one, name=f"avif-m3d-{count}", recipe=recipe, steps=400, condensed=count, against="avif-kmeans")
        yield replace(after, coded=True, store="avif-mosaic")
        through = f"{recipe} through=avif-mosaic through.room={room}"
        yield replace(after, name=f"through-m3d-{count}", recipe=through, against=f"{after.name}-400")


def _narrow(
    ipc: int, name: str, sets: int, recipe: str = "", steps: int = 0, study: str = "", against: str = ""
) -> Cell:
    """A cell of a study on Fashion-MNIST with networks of a quarter of the usual width and a tenth of the cost."""
    return Cell("cpu", "fashionmnist", ipc, name, sets, recipe, steps, 1, study, "short", ("ConvNet-w32",), against)


def _gpu() -> Iterator[Cell]:
    first = [("cifar10", 10), ("cifar10", 50), ("cifar100", 10)]
    for data, ipc in first:
        yield Cell("gpu", data, ipc, "random", protocol="dc")
        yield Cell("gpu", data, ipc, "dm", 3, "dm", 20_000, protocol="dc")
    for data, ipc in first:
        for name in ("random", "packed-random", "packed-kmeans"):
            yield Cell("gpu", data, ipc, name, protocol="idc")
        yield Cell("gpu", data, ipc, "m3d", 3, "m3d", 10_000, protocol="idc")
        yield Cell("gpu", data, ipc, "trained", 3, DANCE, 10_000, protocol="idc", against="packed-kmeans")
    for data, ipc in first:
        for name in ("kmeans", "herding", "kcenter"):
            yield Cell("gpu", data, ipc, name, protocol="dc")
    for data, ipc in (("fashionmnist", 10), ("cifar10", 1), ("fashionmnist", 50), ("cifar100", 1)):
        yield Cell("gpu", data, ipc, "random", protocol="dc")
        yield Cell("gpu", data, ipc, "dm", 3, "dm", 20_000, protocol="dc")
    for data, ipc in (("cifar10", 10), ("fashionmnist", 10)):
        yield Cell("gpu", data, ipc, "dsa", 3, "dsa", 10_000, protocol="dc")
        yield Cell("gpu", data, ipc, "dc", 3, "dc", 10_000, protocol="dc")
    yield from _importance_at_full_length()
    for data in ("cifar10", "fashionmnist", "cifar100"):
        yield Cell("gpu", data, None, "full", 1, protocol="dc")


def _importance_at_full_length() -> Iterator[Cell]:
    """Provable subset selection with the authors' number of steps, after which the first images matter less."""
    for ipc in (1, 10):
        yield Cell("gpu", "fashionmnist", ipc, "random", 5, networks=1, study="importance", protocol="dc")
        for (method, steps), (part, options) in product(FULL_LENGTH.items(), OTHER_PARTS.items()):
            start = "" if part.startswith("-init") else " init=random"
            against = f"{method}-{steps}" if part else "random"
            yield Cell(
                *("gpu", "fashionmnist", ipc, method + part, 5, f"{method} factor=1{start}{options}", steps, 1),
                *("importance", "dc", ("ConvNet",), against),
            )
