"""The one table from names to configured objects: what the command line, run folders and benchmarks read.

A name is one of the tables below, an entry point that an installed package declares in the group
``condensekit.methods`` or ``condensekit.selections``, or ``module:object`` for something of your own: a
class, a function that makes the object, or the finished object itself.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from condensekit.augment import Augmentation
from condensekit.condense import Noise
from condensekit.errors import ConfigError, refuse, unknown
from condensekit.evaluate import DC, IDC, SHORT, TrainProtocol
from condensekit.methods import Condenser, DistributionMatching
from condensekit.networks import ACTIVATIONS, NORMS, POOLINGS, ConvNet, Network, ResNet18, TorchvisionNetwork
from condensekit.selection import Herding, KCenter, KMeans, Random, Selection

METHODS: dict[str, Callable[..., Condenser]] = {"dm": DistributionMatching}
SELECTIONS: dict[str, Callable[..., Selection]] = {
    "random": Random,
    "herding": Herding,
    "kmeans": KMeans,
    "kcenter": KCenter,
}
NETWORKS: dict[str, Callable[..., Network]] = {"ConvNet": ConvNet, "ResNet18": ResNet18}
PROTOCOLS: dict[str, TrainProtocol] = {"short": SHORT, "dc": DC, "idc": IDC}
UNFLIPPED = ("digits", "mnist")  # a mirrored digit is no digit

SIZES = {"d": "depth", "w": "width"}
WORDS = {
    **{name: ("norm", name) for name in NORMS if name != "none"},
    **{name: ("activation", name) for name in ACTIVATIONS},
    **{name: ("pooling", name) for name in POOLINGS if name != "none"},
    "nonorm": ("norm", "none"),
    "nopool": ("pooling", "none"),
}
PLAIN = (bool, int, float, str)  # types of options that can be written as text


def method(name: str, /, **options: Any) -> Condenser:
    """The method called ``name``.

    Args:
        name: A name of :data:`METHODS`, an entry point, or ``module:object``.
        options: Hyper-parameters that differ from the defaults; texts are converted to the option's type.

    Raises:
        ConfigError: An unknown name or option (with the nearest match), or values that make no sense; all of them.
    """
    found = _find("method", name, METHODS)
    if _makes(found) or isinstance(found, Condenser):
        found = _configure(f"option of method {name!r}", found, options)
    if not isinstance(found, Condenser):
        raise ConfigError(f"method {name!r} gives a {type(found).__name__}: expected a subclass of Condenser")
    return found


def selection(name: str) -> Selection:
    """The selection called ``name``: of :data:`SELECTIONS`, an entry point, or ``module:object``."""
    made: Selection = _configure("option", _find("selection", name, SELECTIONS), {})
    if not callable(made):
        raise ConfigError(f"selection {name!r} gives a {type(made).__name__}: expected (data, ipc, draw, compute)")
    return made


def initialiser(name: str) -> Selection | Noise:
    """Where a condensation starts: a selection of real images, or ``noise``."""
    if name in SELECTIONS or ":" in name:
        return selection(name)
    if name != "noise":
        raise unknown("initialiser", name, [*SELECTIONS, "noise"])
    return Noise()


def network(name: str) -> Network:
    """The architecture called ``name``, as its ``name`` property gives it.

    ``ConvNet`` and ``ResNet18`` take options: ``ConvNet-d4-w64-batch`` is 4 blocks of 64 channels with batch
    norm. Any other name is one of ``torchvision.models``, ``-small`` appended for small images.

    Raises:
        ConfigError: An unknown name or option.
    """
    kind, *parts = name.split("-")
    if kind in NETWORKS:
        return NETWORKS[kind](**dict(_network_option(kind, part) for part in parts))
    model = name.removesuffix("-small")
    try:
        return TorchvisionNetwork(model, small_stem=model != name)
    except ConfigError:
        from torchvision import models

        raise unknown("network", name, [*NETWORKS, *models.list_models(module=models)]) from None


def _network_option(kind: str, text: str) -> tuple[str, Any]:
    """``w64`` -> (``width``, 64), ``batch`` -> (``norm``, ``batch``) and so on."""
    accepted = inspect.signature(NETWORKS[kind]).parameters
    if text[1:].isdigit() and SIZES.get(text[0]) in accepted:
        return SIZES[text[0]], int(text[1:])
    known = {word: (option, value) for word, (option, value) in WORDS.items() if option in accepted}
    if text not in known:
        sizes = [f"{letter}{{N}}" for letter, option in SIZES.items() if option in accepted]
        raise unknown(f"option of network {kind!r}", text, [*sizes, *known])
    return known[text]


def protocol(name: str, data: str = "") -> TrainProtocol:
    """The training recipe called ``name``, with the augmentation that suits the data set called ``data``."""
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    found = PROTOCOLS[name]
    if found.augmentation is None or data not in UNFLIPPED:
        return found
    return dataclasses.replace(found, augmentation=found.augmentation.without("flip"))


def augmentation(text: str, data: str) -> Augmentation | None:
    """The operations that suit a data set.

    Args:
        text: ``auto`` (all six, without ``flip`` for digits), ``none``, or a comma-separated list.
        data: Name of the data set; only ``auto`` reads it.
    """
    if text == "none":
        return None
    if text == "auto":
        return Augmentation().without("flip") if data in UNFLIPPED else Augmentation()
    return Augmentation(ops=tuple(text.split(",")))


def options_of(found: Any) -> dict[str, Any]:
    """Options that can be written as text, with their defaults.

    Args:
        found: A class, a function that makes an object, or a configured object.
    """
    parameters = inspect.signature(found if _makes(found) else type(found)).parameters
    return {k: p.default for k, p in parameters.items() if type(p.default) in PLAIN and k != "name"}


def changed(configured: Any) -> dict[str, Any]:
    """The options of a configured object whose values differ from its class's defaults."""
    return {k: getattr(configured, k) for k, v in options_of(configured).items() if getattr(configured, k, v) != v}


def row_name(configured: Condenser, **more: Any) -> str:
    """What a table calls a run: the method, its options that are not the default, and ``more`` of them."""
    options = {**changed(configured), **more}.items()
    return " ".join([configured.name, *(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in options)])


def _makes(found: Any) -> bool:
    """Whether calling ``found`` gives the object (a selection is called as well, but with data)."""
    return isinstance(found, type) or inspect.isroutine(found)


def _configure(kind: str, found: Any, options: Mapping[str, Any]) -> Any:
    """The object that ``found`` makes or is, with ``options``; raises one ConfigError for all that do not fit."""
    defaults = options_of(found) if options else {}
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in options.items():
        try:
            if name not in defaults:
                raise unknown(kind, name, defaults)
            values[name] = _convert(name, value, type(defaults[name]))
        except ConfigError as error:
            problems.append(str(error))
    made = found
    try:
        if _makes(found):
            made = found(**values)
        elif values:
            made = dataclasses.replace(found, **values)
    except ConfigError as error:
        problems += error.problems
    refuse(*problems)
    return made


def _convert(name: str, value: Any, kind: type) -> Any:
    """``value``, where it is a text: as ``kind``."""
    if not isinstance(value, str) or kind is str:
        return value
    try:
        return {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
    except (ValueError, KeyError):
        raise ConfigError(f"{name} must be {kind.__name__}, got {value!r}") from None


def _find(kind: str, name: str, table: Mapping[str, Any]) -> Any:
    """What the table, an entry point or ``module:object`` holds under ``name``."""
    if name in table:
        return table[name]
    if ":" in name:
        return _load(kind, name, EntryPoint(name, name, "").load)
    plugins = {point.name: point for point in entry_points(group=f"condensekit.{kind}s")}
    if name not in plugins:
        raise unknown(kind, name, [*table, *plugins])
    return _load(kind, name, plugins[name].load)


def _load(kind: str, name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"cannot import {kind} {name!r}: {error}") from error
