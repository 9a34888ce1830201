"""The table from names to memories: condensed, real, mixed, and those that parts of Avalanche keep by themselves."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from condensekit import catalog
from condensekit.condensed import Formation
from condensekit.errors import ConfigError, refuse, unknown
from condensekit.images import ClassImages
from condensekit.methods import Condenser, DistributionMatching
from condensekit.recipe import Recipe
from condensekit.replay.filler import Condensing, Filler, Filling, Selecting, bytes_each, coded, eight_bit
from condensekit.replay.hybrid import Hybrid, SoftLabelled
from condensekit.selection import Random

FROM_SCRATCH, ER, ER_ACE, DER = "from-scratch", "er", "er-ace", "der++"
REGIMES = (FROM_SCRATCH, ER, ER_ACE, DER)
EQUAL_BYTES = "random-equal-bytes"
SOFT = "random-soft"
DOWNSCALED = "downscaled"
HYBRID = "hybrid"
UNPACKED = "unpacked-"  # before a method that packs its images: one in each stored one


@dataclass(frozen=True)
class Stock:
    """A memory, or a whole strategy, of Avalanche's own.

    Args:
        regimes: Where it can be used.
        control: Whether it is a memory of real images under the terms of all others, but for what it keeps.
        note: What differs otherwise; tables show it.
    """

    regimes: tuple[str, ...] = (ER,)
    control: bool = False
    note: str = ""


ALONE = "Avalanche's strategy as it is: replays nothing while its memory is smaller than a batch of it; no augmentation"
AVALANCHE: dict[str, Stock] = {
    "class-balanced": Stock((ER, ER_ACE), control=True),
    "experience-balanced": Stock((ER, ER_ACE), control=True),
    "reservoir": Stock((ER, ER_ACE), control=True),
    "avalanche-herding": Stock(control=True),
    "closest-to-mean": Stock(control=True),
    "avalanche-er-ace": Stock(note=f"{ALONE} of replayed images; for equal terms see class-balanced in er-ace"),
    "avalanche-der++": Stock(note=f"{ALONE} of replayed images; for equal terms see random in der++"),
    "gdumb": Stock(note="a copy of one initial network on the memory alone: the steps and images in a step of er"),
    "icarl": Stock(note="its memory joins the stream, in batches of new images' size; classifies by the nearest mean"),
    "naive": Stock(note="no memory: a lower bound; fewer images in a step"),
    "cumulative": Stock(note="all images so far: an upper bound; more steps, fewer images in each"),
    "joint": Stock((FROM_SCRATCH, ER), note="all images at once: an upper bound; more steps, fewer images in each"),
}


@dataclass(frozen=True)
class MemoryKind:
    """What is replayed.

    Args:
        name: What tables call it.
        filler: Makes the images of a class; None where a part of Avalanche keeps its own, or all are kept.
        how: How the filler is run, but for seed, device and folders.
        learnt: Whether the images are synthetic; the largest such memory of a run decides what equal bytes are.
        equal_bytes: Whether as many images are kept as the run's bytes have room for, and not as many as asked for.
        regimes: Where it can be used.
    """

    name: str
    filler: Filler | None = None
    how: Filling = field(default_factory=Filling)
    learnt: bool = False
    equal_bytes: bool = False
    regimes: tuple[str, ...] = REGIMES

    @property
    def control(self) -> bool:
        """Whether real images are kept under the terms of all others, to compare condensed ones with."""
        return AVALANCHE[self.name].control if self.filler is None else not self.learnt

    @property
    def note(self) -> str:
        """What is not equal to the others, if anything; tables show it."""
        return AVALANCHE[self.name].note if self.filler is None else ""

    def bytes_each(self, data: ClassImages) -> int:
        """What a stored image takes, with its label; 0 for a memory of Avalanche's own."""
        return 0 if self.filler is None else bytes_each(self.filler, data.spec, self.how.formation, eight_bit(data))

    def images(self, per_class: int, data: ClassImages, room: int) -> int:
        """Stored images of each class: ``per_class``, or as many as ``room`` bytes hold, at least one."""
        return max(1, room // self.bytes_each(data)) if self.equal_bytes else per_class


@dataclass(frozen=True)
class Making:
    """How the condensed memories of a run are made, whatever their method.

    Args:
        iterations: Matching steps.
        batch_real: Real images of each class in a step; None for the method's own.
        encoder_network: What embeds; None for the method's own.
        storage: How values are stored: ``uint8``, ``float16`` or ``float32``.
        precision: How networks run.
        settings: ``NAME=VALUE`` options of every method that has them.
    """

    iterations: int = 1000
    batch_real: int | None = None
    encoder_network: str | None = None
    storage: str = "uint8"
    precision: str = "fp32"
    settings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        refuse(None if self.iterations >= 1 else f"iterations must be at least 1, got {self.iterations}")


def memory(name: str, making: Making = Making(), data: str = "") -> MemoryKind:
    """The memory called ``name``.

    Args:
        name: A method or a selection of the catalog (``dm``, ``m3d``, ``herding``, ...); ``packed-`` before it stores
            four images in one, ``unpacked-`` before a method that does so by itself stores each alone;
            ``random-equal-bytes``; ``random-soft``; ``downscaled`` (four images in the bytes of one, which is
            ``packed-random``) or ``downscaled-N`` (N x N in one); ``hybrid``, or ``hybrid-METHOD-PERCENT`` for
            another method than dm and share of synthetic images than 50; a name of :data:`AVALANCHE`.
        making: How condensed ones are made.
        data: Name of the data set, for the augmentation.

    Raises:
        ConfigError: An unknown name, or options that make no sense.
    """
    if name in AVALANCHE:
        return MemoryKind(name, regimes=AVALANCHE[name].regimes)
    stored = Filling(formation=Formation(dtype="uint8"))  # real images are pixels of 8 bits
    if name == EQUAL_BYTES:
        return MemoryKind(name, Selecting(Random()), stored, equal_bytes=True)
    if name == SOFT:
        return MemoryKind(name, SoftLabelled(Selecting(Random())), stored, regimes=(FROM_SCRATCH,))
    if name.partition("-")[0] == DOWNSCALED:
        side = name.removeprefix(DOWNSCALED).removeprefix("-") or "2"
        refuse(None if side.isdigit() else f"{name!r}: expected downscaled-N with a whole number N")
        return MemoryKind(name, Selecting(Random()), _packed(stored, int(side)))
    if name.partition("-")[0] == HYBRID:
        mixed, share = _hybrid(name)
        condenser, how = _condensing(mixed, making, data)
        return MemoryKind(name, Hybrid(condenser, share), how, learnt=True)
    method, factor = _stored(name)
    if method in catalog.METHODS or ":" in method:
        condenser, how = _condensing(method, making, data, factor)
        return MemoryKind(name, Condensing(condenser), how, learnt=True)
    if name.removeprefix(catalog.PACKED) not in catalog.SELECTIONS:
        special = [EQUAL_BYTES, SOFT, DOWNSCALED, HYBRID]
        raise unknown("memory", name, [*catalog.METHODS, *catalog.SELECTIONS, *special, *AVALANCHE])
    selection, formation = catalog.baseline(name)
    if coded(selection):
        return MemoryKind(name, Selecting(selection), replace(stored, formation=Formation()), equal_bytes=True)
    return MemoryKind(name, Selecting(selection), _packed(stored, formation.factor))


def embeds_with_learner(found: MemoryKind) -> bool:
    """Whether the memory's networks can be the learner's own: those of distribution matching."""
    return isinstance(getattr(found.filler, "method", None), DistributionMatching)


def _packed(how: Filling, factor: int) -> Filling:
    return replace(how, formation=replace(how.formation, factor=factor))


def _stored(name: str) -> tuple[str, int | None]:
    """``packed-dm`` -> (``dm``, 2); ``unpacked-m3d`` -> (``m3d``, 1); None for the method's own factor."""
    for prefix, factor in ((catalog.PACKED, 2), (UNPACKED, 1)):
        if name.startswith(prefix):
            return name.removeprefix(prefix), factor
    return name, None


def _hybrid(name: str) -> tuple[str, float]:
    """``hybrid-m3d-25`` -> (``m3d``, 0.25)."""
    parts = name.split("-")[1:]
    method = parts.pop(0) if parts and not parts[0].isdigit() else "dm"
    percent = parts.pop(0) if parts else "50"
    if parts or not percent.isdigit():
        raise ConfigError(f"{name!r}: expected hybrid, hybrid-METHOD, hybrid-PERCENT or hybrid-METHOD-PERCENT")
    return method, int(percent) / 100


def _condensing(name: str, making: Making, data: str, factor: int | None = None) -> tuple[Condenser, Filling]:
    """A method as its preset runs it, with the run's options where it has them."""
    known = catalog.options_of(catalog.method(name))
    recipe = Recipe(
        method=name,
        settings=tuple(text for text in making.settings if text.split("=")[0] in known),
        batch_real=making.batch_real if "batch_real" in known else None,
        network=making.encoder_network,
        factor=factor,
        storage=making.storage,
        precision=making.precision,
    )
    method, options = recipe.build(data)
    given: dict[str, Any] = {key: value for key, value in options.items() if key != "nested"}
    return method, Filling(iterations=making.iterations, **given)
