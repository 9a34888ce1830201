"""The table from names to memories: condensed, real, mixed, and those that parts of Avalanche keep by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from condensekit import catalog
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, refuse, unknown
from condensekit.methods import Condenser, DistributionMatching
from condensekit.recipe import PARTS, Recipe
from condensekit.replay.memory.fillers import Condensing, Filler, Filling, Selecting, bytes_each, coded, eight_bit
from condensekit.replay.memory.hybrid import Hybrid, SoftLabelled
from condensekit.replay.memory.jpeg import Coded
from condensekit.selection.classic import Random
from condensekit.selection.embeddings import RandomEmbedding
from condensekit.sets.condensed import Formation

FROM_SCRATCH, ER, ER_ACE, DER = "from-scratch", "er", "er-ace", "der++"
REGIMES = (FROM_SCRATCH, ER, ER_ACE, DER)
EQUAL_BYTES = "random-equal-bytes"
SOFT = "random-soft"
DOWNSCALED = "downscaled"
HYBRID = "hybrid"
JPEG = "jpeg-"  # before a method or a selection: more of its images in the same bytes, coded
UNPACKED = "unpacked-"  # before a method that packs its images: one in each stored one
SAME = {
    EQUAL_BYTES: "random",
    f"{DOWNSCALED}-1": "random",
    DOWNSCALED: "packed-random",
    f"{DOWNSCALED}-2": "packed-random",
}
"""Memories whose images are those of another one wherever they are equally many: one run counts for both."""
RECIPE = {"init": "init", "sampling": "sampling", "encoder": "encoder", "keep": "encoder", "augment": "augment"}
"""What a setting may name beside a method's own options, and the part of :attr:`Preset.unfit` that rules it out."""


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
UNBOUNDED = ("naive", "cumulative", "joint")  # of these, those that keep no images of each class but none or all


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
        options: Names of the settings of :class:`Making` that it has.
        own_encoder: Whether its embedding networks were asked for: a learner's do not take their place.

    Raises:
        ConfigError: No filler, and a name that Avalanche has no memory or strategy of.
    """

    name: str
    filler: Filler | None = None
    how: Filling = field(default_factory=Filling)
    learnt: bool = False
    equal_bytes: bool = False
    regimes: tuple[str, ...] = REGIMES
    options: tuple[str, ...] = ()
    own_encoder: bool = False

    def __post_init__(self) -> None:
        refuse(
            f"memory {self.name!r} has no filler and is none of Avalanche's own ({', '.join(AVALANCHE)}): "
            "give filler=Selecting(...), Condensing(...) or an object with fill(data, ipc, how)"
            if self.filler is None and self.name not in AVALANCHE
            else None
        )

    @property
    def embeds_with_learner(self) -> bool:
        """Whether the networks that condense its images can be, and may be, the learner's own."""
        return not self.own_encoder and isinstance(getattr(self.filler, "method", None), DistributionMatching)

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
        encoder_network: What embeds, for condensed images and for chosen ones; None for the method's own.
        storage: How values are stored: ``uint8``, ``float16`` or ``float32``.
        precision: How networks run.
        settings: ``NAME=VALUE`` options of every method that has them, and of how it is run: ``init``, ``sampling``,
            ``encoder``, ``keep``, ``augment``, and with a dot what a part of these has: ``init.candidates=1000``.
            They go before the options above.

    Raises:
        ConfigError: No iteration, or a setting that is not written so.
    """

    iterations: int = 1000
    batch_real: int | None = None
    encoder_network: str | None = None
    storage: str = "uint8"
    precision: str = "fp32"
    settings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        refuse(
            None if self.iterations >= 1 else f"iterations must be at least 1, got {self.iterations}",
            *(
                f"--set takes NAME=VALUE such as lr=3, got {text!r}"
                for text in self.settings
                if not text.partition("=")[0] or "=" not in text
            ),
        )


def memory(name: str, making: Making = Making(), data: str = "") -> MemoryKind:
    """The memory called ``name``.

    Args:
        name: A method or a selection of the catalog (``dm``, ``m3d``, ``herding``, ...); ``packed-`` before it stores
            four images in one, ``unpacked-`` before a method that does so by itself stores each alone;
            ``random-equal-bytes``; ``random-soft``; ``downscaled`` (four images in the bytes of one, which is
            ``packed-random``) or ``downscaled-N`` (N x N in one); ``hybrid``, or ``hybrid-METHOD-PERCENT`` for
            another method than dm and share of synthetic images than 50; ``jpeg-METHOD-TIMES``, TIMES condensed or
            chosen images in the bytes of one, coded; a name of :data:`AVALANCHE`.
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
        refuse(
            None
            if side.isdecimal() and int(side)
            else f"{name!r}: expected downscaled-N with a whole number N of at least 1, such as downscaled-4"
        )
        return MemoryKind(name, Selecting(Random()), _packed(stored, int(side)))
    if name.partition("-")[0] == HYBRID:
        mixed, share = _hybrid(name)
        return _condensed(name, mixed, making, data, share=share)
    method, stored_as = _stored(name)
    if method in catalog.METHODS or ":" in method:
        return _condensed(name, method, making, data, **stored_as)
    times = stored_as.get("times")
    chosen, bare = (name, name.removeprefix(catalog.PACKED)) if times is None else (method, method)
    if bare not in catalog.SELECTIONS:
        special = [EQUAL_BYTES, SOFT, DOWNSCALED, HYBRID]
        raise unknown("memory", name, [*catalog.METHODS, *catalog.SELECTIONS, *special, *AVALANCHE])
    selection, formation = catalog.baseline(chosen)
    if making.encoder_network is not None and isinstance(getattr(selection, "embedding", None), RandomEmbedding):
        embedding = RandomEmbedding(catalog.network(making.encoder_network))
        selection = replace(selection, embedding=embedding)  # type: ignore[type-var]
    if times is not None or coded(selection):
        made = Selecting(selection) if times is None else Coded(selection, times)
        return MemoryKind(name, made, replace(stored, formation=Formation()), equal_bytes=True)
    return MemoryKind(name, Selecting(selection), _packed(stored, formation.factor))


def refuse_unused(making: Making, kinds: Sequence[MemoryKind]) -> None:
    """Raise ConfigError for settings that no memory has.

    Args:
        making: With the settings.
        kinds: All memories of the run.
    """
    names = [kind.name for kind in kinds if kind.options]
    known = sorted({name for kind in kinds for name in kind.options})
    who = f"none of {', '.join(names)} has this option. Known: {', '.join(known)}" if names else "nothing is condensed"
    refuse(*(f"--set {text}: {who}" for text in making.settings if _option(text) not in known))


def _option(setting: str) -> str:
    """``lr=3`` -> ``lr``; ``init.candidates=1000`` -> ``init``."""
    name = setting.partition("=")[0]
    part, dot, _ = name.partition(".")
    return part if dot and part in PARTS else name


def _packed(how: Filling, factor: int) -> Filling:
    return replace(how, formation=replace(how.formation, factor=factor))


def _stored(name: str) -> tuple[str, dict[str, int]]:
    """``packed-dm`` -> ``dm``, factor 2; ``unpacked-m3d`` -> ``m3d``, factor 1; ``jpeg-dm-8`` -> ``dm``, times 8."""
    for prefix, factor in ((catalog.PACKED, 2), (UNPACKED, 1)):
        if name.startswith(prefix):
            return name.removeprefix(prefix), {"factor": factor}
    if not name.startswith(JPEG) or name in catalog.SELECTIONS:
        return name, {}
    method, _, times = name.removeprefix(JPEG).rpartition("-")
    if not method or not times.isdecimal() or not int(times):
        raise ConfigError(
            f"{name!r}: expected jpeg-random, or jpeg-METHOD-TIMES such as jpeg-dm-4: four images in the bytes of one"
        )
    return method, {"times": int(times)}


def _hybrid(name: str) -> tuple[str, float]:
    """``hybrid-m3d-25`` -> (``m3d``, 0.25)."""
    parts = name.split("-")[1:]
    method = parts.pop(0) if parts and not parts[0].isdecimal() else "dm"
    percent = parts.pop(0) if parts else "50"
    if parts or not percent.isdecimal():
        raise ConfigError(
            f"{name!r}: expected hybrid, hybrid-METHOD, hybrid-PERCENT or hybrid-METHOD-PERCENT, such as hybrid-m3d-25"
        )
    return method, int(percent) / 100


def _mixed(method: Condenser, share: float, making: Making) -> Hybrid:
    """Synthetic images and real ones chosen given them, by what embeds."""
    if making.encoder_network is None:
        return Hybrid(method, share)
    return Hybrid(method, share, catalog.network(making.encoder_network))


def _condensed(
    name: str,
    method: str,
    making: Making,
    data: str,
    *,
    factor: int | None = None,
    share: float | None = None,
    times: int | None = None,
) -> MemoryKind:
    """A method as its preset runs it, with the run's options where it has them.

    ``share`` is that of a hybrid, ``times`` the number of coded images in the bytes of one.
    """
    preset = catalog.preset(method)
    own = [option for option in catalog.options_of(preset.method) if option not in preset.unfit]
    known = (*own, *(option for option, part in RECIPE.items() if part not in preset.unfit))
    given = {
        "batch_real": making.batch_real if "batch_real" in own else None,
        "network": making.encoder_network,
        "factor": factor,
        "storage": making.storage if times is None else "float32",  # coded by itself
        "precision": making.precision,
    }
    settings = [text for text in making.settings if _option(text) in known]
    named = {text.partition("=")[0] for text in settings}
    given = {option: value for option, value in given.items() if value is not None and option not in named}
    words = [method, *(f"{option}={value}" for option, value in given.items()), *settings]
    condenser, options = Recipe.parse(" ".join(words)).build(data)
    found: dict[str, Any] = {key: value for key, value in options.items() if key != "nested"}
    soft = getattr(condenser, "labels", "") == "soft"
    made: Filler = Condensing(condenser)
    if share is not None:
        made = _mixed(condenser, share, making)
    if times is not None:
        made = Coded(condenser, times)
    return MemoryKind(
        name,
        made,
        Filling(iterations=making.iterations, **found),
        learnt=True,
        equal_bytes=times is not None,
        regimes=(FROM_SCRATCH,) if soft else REGIMES,
        options=known,
        own_encoder="encoder" in map(_option, settings),
    )
