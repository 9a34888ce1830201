"""Memories of a study by name: condensed, real and mixed memories, and Avalanche's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from condensekit import catalog
from condensekit.catalog.recipes import PARTS, SHORT
from condensekit.compute import Machine
from condensekit.data.images import ClassImages
from condensekit.errors import choice, instance, refuse, require, whole
from condensekit.methods.recipe import Recipe
from condensekit.replay.memory.base import Filler, usual_steps
from condensekit.replay.memory.names import DOWNSCALED, Named, read
from condensekit.replay.memory.names import EQUAL_BYTES as EQUAL_BYTES
from condensekit.sets.formation import DTYPES

FROM_SCRATCH, ER, ER_ACE, DER = "from-scratch", "er", "er-ace", "der++"
REGIMES = (FROM_SCRATCH, ER, ER_ACE, DER)
SAME = {
    EQUAL_BYTES: "random",
    f"{DOWNSCALED}-1": "random",
    DOWNSCALED: "packed-random",
    f"{DOWNSCALED}-2": "packed-random",
}
"""Names of memories, and another name for the same images: with equal numbers of images both share one run."""
FIXED = ("method", "formation", "factor", "storage", "nested")  # options of a recipe that the name or the run decides
SHARED = ("encoder_network", "augment")  # options of a whole run, which may stay unused


@dataclass(frozen=True)
class Stock:
    """Properties of one of Avalanche's own memories or strategies.

    Args:
        regimes: Regimes in which it can be used.
        control: Whether it keeps real images and is used in the same way as the other memories.
        note: Further differences from the other memories, which tables show.
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
UNBOUNDED = ("naive", "cumulative", "joint")  # names of AVALANCHE that keep no image or all images


@dataclass(frozen=True)
class MemoryKind:
    """A memory of the study.

    Args:
        name: Name in tables.
        filler: The filler that makes the images; None: one of Avalanche's own memories or strategies.
        equal_bytes: Whether the memory stores as many images as fit into the run's bytes; False: ``ipc`` images of each
            class.
        options: Names of the options of :class:`Making` that the memory has.
        own_encoder: Whether the user chose the encoder, so that the learner does not become the encoder.

    Raises:
        ConfigError: There is no filler, and Avalanche has no memory or strategy of this name.
    """

    name: str
    filler: Filler | None = None
    equal_bytes: bool = False
    options: tuple[str, ...] = ()
    own_encoder: bool = False

    def __post_init__(self) -> None:
        require(
            self.filler is not None or self.name in AVALANCHE,
            f"memory {self.name!r} has no filler and is not one of Avalanche's own ({', '.join(AVALANCHE)}): "
            "give filler=Condensing(recipe), Selecting(selection) or a Filler of your own",
        )

    @property
    def learnt(self) -> bool:
        """Whether the images are synthetic; the largest synthetic memory of a run decides the run's equal bytes."""
        return self.filler is not None and self.filler.recipe is not None

    @property
    def regimes(self) -> tuple[str, ...]:
        """Regimes in which the memory can be used."""
        if self.filler is None:
            return AVALANCHE[self.name].regimes
        return (FROM_SCRATCH,) if self.filler.soft else REGIMES

    @property
    def embeds_with_learner(self) -> bool:
        """Whether the learner can and may be the encoder of the recipe."""
        recipe = self.filler.recipe if self.filler else None
        return recipe is not None and recipe.method.features_only and not self.own_encoder

    @property
    def control(self) -> bool:
        """Whether the memory keeps real images and is compared with condensed memories."""
        return AVALANCHE[self.name].control if self.filler is None else not self.learnt

    @property
    def note(self) -> str:
        """Differences from the other memories, which tables show; may be empty."""
        return AVALANCHE[self.name].note if self.filler is None else ""

    @property
    def packed(self) -> int:
        """Number of images packed into each stored image."""
        return 1 if self.filler is None else self.filler.formation.factor**2

    def bytes_each(self, data: ClassImages) -> int:
        """Bytes of a stored image with its label; 0 for Avalanche's own memories."""
        return 0 if self.filler is None else self.filler.bytes_each(data.spec, data.whole_bytes)

    def images(self, ipc: int, data: ClassImages, room: int) -> int:
        """Number of stored images of each class: ``ipc``, or as many as fit into ``room`` bytes, at least 1.

        Of coded images it is the number of uncoded images in whose bytes they are coded, rounded up: they fill
        ``room``, see :meth:`room`.
        """
        if not self.equal_bytes:
            return ipc
        each = self.bytes_each(data)
        return -(-room // each) if self.filler and self.filler.codes else max(1, room // each)

    def room(self, data: ClassImages, room: int) -> int | None:
        """Bytes of each class of coded images; None: those of whole uncoded images, or the images are not coded."""
        coded = self.filler is not None and self.filler.codes
        return room if coded and room % self.bytes_each(data) else None


@dataclass(frozen=True)
class Making:
    """Settings of all condensed memories of a run.

    >>> from condensekit.replay import Making
    >>> Making(steps=100, options={"batch_real": 32, "init": "kmeans"}).storage
    'uint8'

    Args:
        steps: Number of matching steps of each condensation; None: see :meth:`on`.
        options: Options of the recipes, as :func:`condensekit.catalog.recipe` takes them (``{"lr": 3, "init":
            "kmeans", "init.candidates": 1000}``). Each recipe takes the options that it has; options in the name of a
            memory come first. ``encoder_network`` also embeds the real images for selections.
        storage: Type of the stored values: ``uint8``, ``float16`` or ``float32``. Real images are always ``uint8``.
        machine: Device and workers of all networks, and precision of condensation; training has precision ``fp32``.

    Raises:
        ConfigError: ``steps`` is below 1, an unknown storage, or arguments of another type; the error lists all.
    """

    steps: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    storage: str = "uint8"
    machine: Machine = Machine()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        refuse(
            None if self.steps is None else whole("steps", self.steps, 1),
            instance("options", self.options, Mapping, '{"lr": 3}'),
            choice("storage", self.storage, DTYPES),
            instance("machine", self.machine, Machine, "Machine('cpu')"),
        )

    def on(self, data: ClassImages) -> Making:
        """The settings with a number of steps: if none is given, as many as a memory in a script, ``usual_steps``."""
        return self if self.steps else dataclasses.replace(self, steps=usual_steps(data))


def memory(name: str, making: Making = Making()) -> MemoryKind:
    """Make the memory with this name.

    >>> memory("hybrid-m3d-25").filler.share
    0.25

    Args:
        name: The text of a recipe, a selection or another filler, see :mod:`condensekit.replay.memory.names`, or a name
            of :data:`AVALANCHE`. With ``equal_bytes=true`` the memory stores as many images as fit into the run's bytes
            (``random-equal-bytes``).
        making: Settings of condensed memories.

    Raises:
        ConfigError: An unknown name, or wrong options.
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
    """Raise ConfigError for options of ``making`` that no memory has.

    Args:
        making: Settings of condensed memories, with the options.
        kinds: All memories of the run.
    """
    names = [kind.name for kind in kinds if kind.options]
    known = sorted({name for kind in kinds for name in kind.options})
    who = f"none of {', '.join(names)} has this option. Known: {', '.join(known)}" if names else "nothing is condensed"
    unused = [name for name in making.options if _option(name) not in (*known, *SHARED)]
    refuse(*(f"option {name}={making.options[name]}: {who}" for name in unused))


def _known(named: Named) -> tuple[str, ...]:
    """Names of the options of :class:`Making` that a memory has; an option of a part counts as the part."""
    if not named.condenses:
        return ("encoder_network",)
    published = catalog.PUBLISHED.get(named.method)
    unfit = published.unfit if published else {}
    fields = (entry.name for entry in dataclasses.fields(Recipe))
    method = catalog.options_of((published.recipe if published else catalog.recipe(named.method)).method)
    return tuple(sorted({*method, *fields, *SHORT} - {*unfit, *FIXED}))


def _option(name: str) -> str:
    """The part of an option such as ``init`` of ``init.candidates``; other options are returned unchanged."""
    part = name.partition(".")[0]
    return part if part in PARTS else name
