"""Memories of a study by name: condensed, real, mixed, and Avalanche's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from condensekit import catalog
from condensekit.catalog.recipes import PARTS, SHORT
from condensekit.compute import Machine
from condensekit.data.images import ClassImages
from condensekit.errors import refuse, whole
from condensekit.methods.recipe import Recipe
from condensekit.replay.memory.base import Filler
from condensekit.replay.memory.names import DOWNSCALED, Named, read

FROM_SCRATCH, ER, ER_ACE, DER = "from-scratch", "er", "er-ace", "der++"
REGIMES = (FROM_SCRATCH, ER, ER_ACE, DER)
EQUAL_BYTES = "random-equal-bytes"  # short for "random equal_bytes=true"
SAME = {
    EQUAL_BYTES: "random",
    f"{DOWNSCALED}-1": "random",
    DOWNSCALED: "packed-random",
    f"{DOWNSCALED}-2": "packed-random",
}
"""Memories whose images are those of another memory wherever they are equally many: one run counts for both."""
FIXED = ("method", "formation", "factor", "storage", "nested")  # of a recipe: decided by a memory's name, or by the run
SHARED = ("encoder_network", "augment")  # options that may stay unused: they tell a whole run how


@dataclass(frozen=True)
class Stock:
    """A memory, or a whole strategy, of Avalanche's own.

    Args:
        regimes: Where it can be used.
        control: Whether it keeps real images and is otherwise used as all others are.
        note: What else differs; tables show it.
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
    "gdumb": Stock(
        note="a copy of one initial network (kept, not in the bytes) on the memory alone: the steps and images in a "
        "step of er"
    ),
    "icarl": Stock(
        note="its memory joins the stream, in batches of new images' size; classifies by the nearest mean; a copy of "
        "the network, which teaches the next one, is kept beside the images and not in the bytes"
    ),
    "naive": Stock(note="no memory: a lower bound; fewer images in a step"),
    "cumulative": Stock(note="all images so far: an upper bound; more steps, fewer images in each"),
    "joint": Stock((FROM_SCRATCH, ER), note="all images at once: an upper bound; more steps, fewer images in each"),
}
UNBOUNDED = ("naive", "cumulative", "joint")  # of AVALANCHE: they keep no images, or all


@dataclass(frozen=True)
class MemoryKind:
    """What is replayed.

    Args:
        name: What tables call it.
        filler: Makes the images of a class; None where a part of Avalanche keeps its own, or all are kept.
        equal_bytes: Whether as many images are kept as the run's bytes have room for, and not as many as asked for.
        options: Names of the options of :class:`Making` that it has.
        own_encoder: Whether its embedding networks were asked for: a learner's do not take their place.

    Raises:
        ConfigError: No filler, and a name that Avalanche has no memory or strategy of.
    """

    name: str
    filler: Filler | None = None
    equal_bytes: bool = False
    options: tuple[str, ...] = ()
    own_encoder: bool = False

    def __post_init__(self) -> None:
        refuse(
            f"memory {self.name!r} has no filler and is not one of Avalanche's own ({', '.join(AVALANCHE)}): "
            "give filler=Condensing(recipe), Selecting(selection) or a Filler of your own"
            if self.filler is None and self.name not in AVALANCHE
            else None
        )

    @property
    def learnt(self) -> bool:
        """Whether images are synthetic; the largest such memory of a run decides what equal bytes are."""
        return self.filler is not None and self.filler.recipe is not None

    @property
    def regimes(self) -> tuple[str, ...]:
        """Where it can be used."""
        if self.filler is None:
            return AVALANCHE[self.name].regimes
        return (FROM_SCRATCH,) if self.filler.soft else REGIMES

    @property
    def embeds_with_learner(self) -> bool:
        """Whether the networks that condense its images can be, and may be, the learner's own."""
        recipe = self.filler.recipe if self.filler else None
        return recipe is not None and recipe.method.features_only and not self.own_encoder

    @property
    def control(self) -> bool:
        """Whether it keeps real images, with which condensed images are compared on equal terms."""
        return AVALANCHE[self.name].control if self.filler is None else not self.learnt

    @property
    def note(self) -> str:
        """What is not equal to the others, if anything; tables show it."""
        return AVALANCHE[self.name].note if self.filler is None else ""

    @property
    def packed(self) -> int:
        """Images in each stored one."""
        return 1 if self.filler is None else self.filler.formation.factor**2

    def bytes_each(self, data: ClassImages) -> int:
        """What a stored image takes, with its label; 0 for a memory of Avalanche's own."""
        return 0 if self.filler is None else self.filler.bytes_each(data.spec, data.whole_bytes)

    def images(self, ipc: int, data: ClassImages, room: int) -> int:
        """Stored images of each class: ``ipc``, or as many as ``room`` bytes hold, at least one."""
        return max(1, room // self.bytes_each(data)) if self.equal_bytes else ipc


@dataclass(frozen=True)
class Making:
    """How the condensed memories of a run are made, whatever their method.

    Args:
        steps: Matching steps of each condensation.
        options: Of every recipe that has them, as :func:`condensekit.catalog.recipe` takes them (``{"lr": 3, "init":
            "kmeans", "init.candidates": 1000}``). What a memory's name says goes before. ``encoder_network`` also
            measures the features by which real images are chosen.
        storage: How values are stored: ``uint8``, ``float16`` or ``float32``. Real images always take 8 bits.
        machine: Where networks run, and how exactly they condense; they are trained in ``fp32``.

    Raises:
        ConfigError: No step.
    """

    steps: int = 1000
    options: Mapping[str, Any] = field(default_factory=dict)
    storage: str = "uint8"
    machine: Machine = Machine()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        refuse(whole("steps", self.steps, 1))


def memory(name: str, making: Making = Making()) -> MemoryKind:
    """The memory called ``name``.

    >>> memory("hybrid-m3d-25").filler.share
    0.25

    Args:
        name: A recipe, a selection or another filler, see :mod:`condensekit.replay.memory.names`; with
            ``equal_bytes=true`` as many images as the run's bytes have room for (``random-equal-bytes``); or a name of
            :data:`AVALANCHE`.
        making: How condensed memories are made.

    Raises:
        ConfigError: An unknown name, or options that make no sense.
    """
    if name in AVALANCHE:
        return MemoryKind(name)
    named = read("random equal_bytes=true" if name == EQUAL_BYTES else name, (*AVALANCHE, EQUAL_BYTES))
    written = dict(named.options)
    equal_bytes = catalog.convert("equal_bytes", written.pop("equal_bytes", False), bool)
    named = dataclasses.replace(named, options=written)
    known = _known(named)
    usual = {option: value for option, value in making.options.items() if _option(option) in known}
    filler = named.filler(usual)
    if "storage" not in written:
        filler = filler.with_storage(making.storage if named.condenses else "uint8")
    own_encoder = any(_option(option) == "encoder" for option in (*usual, *written))
    return MemoryKind(name, filler, equal_bytes or filler.codes, known if named.condenses else (), own_encoder)


def refuse_unused(making: Making, kinds: Sequence[MemoryKind]) -> None:
    """Raise ConfigError for options that no memory has.

    Args:
        making: With the options.
        kinds: All memories of the run.
    """
    names = [kind.name for kind in kinds if kind.options]
    known = sorted({name for kind in kinds for name in kind.options})
    who = f"none of {', '.join(names)} has this option. Known: {', '.join(known)}" if names else "nothing is condensed"
    unused = [name for name in making.options if _option(name) not in (*known, *SHARED)]
    refuse(*(f"option {name}={making.options[name]}: {who}" for name in unused))


def _known(named: Named) -> tuple[str, ...]:
    """Names of the options of a run that a memory has; options of parts count as the part."""
    if not named.condenses:
        return ("encoder_network",)
    published = catalog.PUBLISHED.get(named.method)
    unfit = published.unfit if published else {}
    fields = (entry.name for entry in dataclasses.fields(Recipe))
    method = catalog.options_of((published.recipe if published else catalog.recipe(named.method)).method)
    return tuple(sorted({*method, *fields, *SHORT} - {*unfit, *FIXED}))


def _option(name: str) -> str:
    """``init.candidates`` -> ``init``; any other option as it is."""
    part = name.partition(".")[0]
    return part if part in PARTS else name
