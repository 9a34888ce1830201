"""Names of fillers: the texts by which a user names a memory, and the filler that each text gives.

A text is ``NAME key=value ...``. NAME is a recipe (``m3d lr=3``), a selection (``kmeans candidates=1000 factor=2``),
``hybrid`` (``hybrid method=m3d percent=25``), ``jpeg`` (``jpeg method=dm times=9``) or ``soft`` (``soft
method=random``); the last three also take the options of the method. Short forms: ``hybrid-m3d-25``, ``jpeg-dm-9``,
``random-soft``, ``packed-NAME`` (factor=2), ``unpacked-METHOD`` (factor=1), ``downscaled-N`` (``random factor=N``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from condensekit import catalog
from condensekit.errors import ConfigError, refuse, require, unknown, within
from condensekit.methods.base import Condenser
from condensekit.methods.recipe import Recipe
from condensekit.replay.memory.base import Filler
from condensekit.replay.memory.fillers import Condensing, Selecting
from condensekit.replay.memory.hybrid import Hybrid, SoftLabelled
from condensekit.replay.memory.jpeg import Coded
from condensekit.selection.embeddings import RandomEmbedding
from condensekit.selection.jpeg_random import JpegRandom
from condensekit.sets.formation import Formation

HYBRID, JPEG, SOFT = "hybrid", "jpeg", "soft"  # names of fillers that change the images of a method
DOWNSCALED = "downscaled"  # name of packed random images
EQUAL_BYTES = "random-equal-bytes"  # short form of "random equal_bytes=true", of a study
OF_AVALANCHE = (
    *("class-balanced", "experience-balanced", "reservoir", "avalanche-herding", "closest-to-mean"),
    *("avalanche-er-ace", "avalanche-der++", "gdumb", "icarl", "naive", "cumulative", "joint"),
)
"""Names of the study that are no fillers: Avalanche's own."""
UNPACKED = "unpacked-"  # prefix of a method that packs by default: factor 1


@dataclass(frozen=True)
class Named:
    """Parts of the text that names a memory.

    Args:
        text: The whole text.
        kind: :data:`HYBRID`, :data:`JPEG` or :data:`SOFT`; empty: the images of the method are not changed.
        method: Name of a recipe or a selection.
        options: Options of the kind and of the method.
    """

    text: str
    kind: str
    method: str
    options: Mapping[str, Any]

    @property
    def condenses(self) -> bool:
        """Whether the method is a recipe; False: it is a selection."""
        return not _is_selection(self.method)

    def filler(self, usual: Mapping[str, Any] | None = None) -> Filler:
        """Make the filler that the text names.

        Args:
            usual: Options that are used if the text does not give them.

        Raises:
            ConfigError: Wrong options.
        """
        options = {**(usual or {}), **self.options}
        if self.kind == HYBRID:
            require(self.condenses, f"{self.text!r}: a hybrid condenses, and {self.method} chooses real images")
            percent = float(catalog.convert("percent", options.pop("percent", 50), float))
            refuse(within(f"percent of {self.text!r}", percent, 0, 100))
            return Hybrid(catalog.recipe(self.method, **options), percent / 100)
        times = catalog.convert("times", options.pop("times", 4), int) if self.kind == JPEG else 1
        images = Condensing(catalog.recipe(self.method, **options)) if self.condenses else self._selecting(options)
        if self.kind == JPEG:
            return Coded(images, times)
        return SoftLabelled(images) if self.kind == SOFT else images

    def _selecting(self, options: dict[str, Any]) -> Filler:
        """A filler of real images; ``factor``, ``storage`` and ``encoder_network`` mean the same as in a recipe."""
        factor = catalog.convert("factor", options.pop("factor", 1), int)
        formation = Formation(factor, options.pop("storage", "float32"))
        network = options.pop("encoder_network", None)
        selection = catalog.selection(self.method, **options)
        if network is not None:
            selection = selection.with_embedding(RandomEmbedding(catalog.as_network(network, "encoder_network")))
        return Selecting(selection, formation)


def read(text: str, others: Iterable[str] = ()) -> Named:
    """Read the text that names a memory.

    Args:
        text: ``NAME key=value ...``, see the module.
        others: Further names for the list of known names in an error.

    Raises:
        ConfigError: An unknown name, or an incomplete short form.
    """
    name, written = catalog.named(text, "memory")
    kind, method, short = _long(name)
    options: dict[str, Any] = {**short, **written}
    if kind:
        method = options.pop("method", method)
    known = method in catalog.PUBLISHED or ":" in method or _is_selection(method) or _is_plugin("methods", method)
    if not known or (name.startswith(UNPACKED) and _is_selection(method)):
        special = [HYBRID, DOWNSCALED, "random-soft"]
        raise unknown("memory", text, [*catalog.PUBLISHED, *catalog.SELECTIONS, *special, *others])
    return Named(text, kind, method, options)


def as_filler(given: Any) -> Filler:
    """Make a filler from a text, a recipe, a bare method, a selection or a filler.

    >>> as_filler("hybrid-m3d-25").name
    'hybrid-m3d-25'

    Raises:
        ConfigError: Another object, or a text with an unknown name.
    """
    if isinstance(given, Filler):
        return given
    if isinstance(given, str):
        if given in (EQUAL_BYTES, *OF_AVALANCHE):
            here = (
                "give both memories" if given == EQUAL_BYTES else "take Avalanche's own class, or give a random memory"
            )
            raise ConfigError(f"{given} is a memory of `condensekit replay` only: here {here} the same Bytes(n)")
        return read(given).filler()
    if isinstance(given, Recipe | Condenser):
        return Condensing(catalog.as_recipe(given))
    if callable(given) and not isinstance(given, type):
        return Selecting(catalog.as_selection(given, "recipe"))
    got = f"the class {given.__name__}: pass {given.__name__}()" if isinstance(given, type) else f"{given!r:.60}"
    raise ConfigError(f'recipe must be a text ("m3d lr=3"), a recipe, a method, a selection or a Filler, got {got}')


def _long(name: str) -> tuple[str, str, dict[str, Any]]:
    """Kind, method and options of a name, which may be a short form; see the module."""
    parts = name.split("-")
    if name == "random-soft":
        return SOFT, "random", {}
    if name in (JPEG, SOFT):
        return name, "", {}
    if parts[0] == HYBRID:
        return HYBRID, *_hybrid(name, parts[1:])
    if parts[0] == DOWNSCALED:
        side = name.removeprefix(DOWNSCALED).removeprefix("-") or "2"
        require(
            side.isdecimal() and int(side) > 0,
            f"{name!r}: expected downscaled-N with a whole number N of at least 1, such as downscaled-4",
        )
        return "", "random", {"factor": int(side)}
    for prefix, factor in ((catalog.PACKED, 2), (UNPACKED, 1)):
        if name.startswith(prefix):
            return "", name.removeprefix(prefix), {"factor": factor}
    if parts[0] == JPEG and name != JpegRandom.name:
        method, _, times = name.removeprefix(f"{JPEG}-").rpartition("-")
        require(
            bool(method) and times.isdecimal() and int(times) > 0,
            f"{name!r}: expected jpeg-random, or jpeg-METHOD-TIMES, such as jpeg-dm-4: four JPEG images in the bytes "
            "of one uncoded image",
        )
        return JPEG, method, {"times": int(times)}
    return "", name, {}


def _hybrid(name: str, parts: list[str]) -> tuple[str, dict[str, Any]]:
    """Method and options of ``hybrid``, ``hybrid-METHOD``, ``hybrid-PERCENT`` or ``hybrid-METHOD-PERCENT``."""
    method = parts.pop(0) if parts and not parts[0].isdecimal() else "dm"
    percent = parts.pop(0) if parts else None
    require(
        not parts and (percent is None or percent.isdecimal()),
        f"{name!r}: expected hybrid, hybrid-METHOD, hybrid-PERCENT or hybrid-METHOD-PERCENT, such as hybrid-m3d-25",
    )
    return method, {} if percent is None else {"percent": int(percent)}


def _is_selection(name: str) -> bool:
    return name in catalog.SELECTIONS or _is_plugin("selections", name)


def _is_plugin(group: str, name: str) -> bool:
    """Whether an installed package declares an entry point of this name."""
    return any(point.name == name for point in entry_points(group=f"condensekit.{group}"))
