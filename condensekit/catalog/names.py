"""Names: the objects behind the names of networks, selections, encoders, samplings and protocols.

A name is a key of a table below, an entry point of an installed package in the group
``condensekit.methods`` or ``condensekit.selections``, or ``module:object`` for your own object: a class, a
function that makes the object, or the object itself. Options follow as ``key=value``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from torch import nn

from condensekit.catalog import own
from condensekit.catalog.texts import configured, convert, named
from condensekit.errors import ConfigError, function, meant, quoted, refuse, require, unknown
from condensekit.methods.encoders import Encoder, Fresh
from condensekit.methods.sampling import Clustered, Importance, Sampling, Uniform
from condensekit.methods.schedule import Constant, Cosine, Plateau, Schedule
from condensekit.methods.trained_encoders import Trained
from condensekit.networks.adaptor import ModuleNetwork, OwnNetwork, TorchvisionNetwork
from condensekit.networks.base import ACTIVATIONS, NORMS, POOLINGS, Network
from condensekit.networks.classics import MLP, VGG11, AlexNet, LeNet
from condensekit.networks.convnet import ConvNet
from condensekit.networks.resnet import ResNet18
from condensekit.selection.base import Function, Noise, Selection, Start
from condensekit.selection.classic import Herding, KCenter, KMeans, Random
from condensekit.selection.importance import ImportanceKMeans, ImportanceKRR
from condensekit.selection.jpeg_random import JpegRandom
from condensekit.sets.codecs import JPEG
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import Formation
from condensekit.sets.found import HasSet, first_set
from condensekit.sets.paths import FOREIGN
from condensekit.training.augment import Augmentation
from condensekit.training.train import DC, IDC, SHORT, TrainProtocol

ENCODERS: dict[str, Encoder] = {"fresh": Fresh(), "kept": Fresh(keep=5), "trained": Trained()}
SAMPLINGS: dict[str, Sampling] = {"uniform": Uniform(), "importance": Importance(), "kmeans": Clustered()}
SCHEDULES: dict[str, Schedule] = {"constant": Constant(), "cosine": Cosine(), "plateau": Plateau()}
SELECTIONS: dict[str, Callable[..., Selection]] = {
    "random": Random,
    "herding": Herding,
    "kmeans": KMeans,
    "kcenter": KCenter,
    "importance-kmeans": ImportanceKMeans,
    "importance-krr": ImportanceKRR,
    "jpeg-random": JpegRandom,
}
STARTS = (*(name for name in SELECTIONS if name != JpegRandom.name), "noise")
PACKED = "packed-"  # before the name of a selection: two by two of its images, shrunk, in each stored one
PACKED_SELECTIONS = tuple(PACKED + name for name in SELECTIONS if name != JpegRandom.name)
STORED = {"avif-": "avif-mosaic", "webp-": "webp-mosaic", "jpeg-": JPEG}
"""Storages by the word before the name of a selection, which then fills the bytes of ``ipc`` plain images."""
STORED_SELECTIONS = tuple(
    word + name for word in STORED for name in SELECTIONS if JpegRandom.name not in (name, word + name)
)
NETWORKS: dict[str, Callable[..., Network]] = {
    "ConvNet": ConvNet,
    "ResNet18": ResNet18,
    "AlexNet": AlexNet,
    "VGG11": VGG11,
    "LeNet": LeNet,
    "MLP": MLP,
}
PROTOCOLS: dict[str, TrainProtocol] = {"short": SHORT, "dc": DC, "idc": IDC}
SIZES = {"d": "depth", "w": "width"}
WORDS = {
    **{name: ("norm", name) for name in NORMS if name != "none"},
    **{name: ("activation", name) for name in ACTIVATIONS},
    **{name: ("pooling", name) for name in POOLINGS if name != "none"},
    "nonorm": ("norm", "none"),
    "nopool": ("pooling", "none"),
}


def encoder(name: str, /, **options: Any) -> Encoder:
    """The encoder called ``name``, a name of :data:`ENCODERS`; texts are converted to an option's type."""
    made: Encoder = _built("encoder", name, ENCODERS, options, Encoder)
    return made


def encoder_name(found: Encoder) -> str:
    """The name under which :func:`encoder` gives an encoder of this kind."""
    if isinstance(found, Fresh):
        return "fresh" if found.keep == 1 else "kept"
    return next((name for name, known in ENCODERS.items() if type(known) is type(found)), type(found).__name__)


def sampling(name: str, /, **options: Any) -> Sampling:
    """How real batches are drawn, a name of :data:`SAMPLINGS`; texts are converted to an option's type."""
    made: Sampling = _built("sampling", name, SAMPLINGS, options, Sampling)
    return made


def schedule(name: str, /, **options: Any) -> Schedule:
    """The factor of the step size over a run, a name of :data:`SCHEDULES`; texts are converted to an option's type."""
    made: Schedule = _built("schedule", name, SCHEDULES, options, Schedule)
    return made


def selection(name: str, /, **options: Any) -> Selection:
    """The selection called ``name``: of :data:`SELECTIONS`, an entry point, or ``module:object``.

    Options may stand in the name as well: ``kmeans candidates=1000``.
    """
    name, more = named(name, "selection")
    made = configured(f"option of selection {name!r}", find("selection", name, SELECTIONS), {**more, **options})
    if not callable(made):
        raise ConfigError(f"selection {name!r} gives a {type(made).__name__}: expected (data, ipc, draw, compute)")
    return as_selection(made)


def as_selection(given: Any, name: str = "selection") -> Selection:
    """A selection by name, as an object, or as a function of ``(data, ipc, draw, compute)``.

    Args:
        given: It.
        name: The argument, for errors.

    Raises:
        ConfigError: Something else.
    """
    if isinstance(given, str):
        return selection(given)
    if isinstance(given, type | nn.Module) or not callable(given):
        way_out = f"{given.__name__}()" if isinstance(given, type) else '"kmeans" or KMeans()'
        raise ConfigError(f"{name} must be a name, an object or a function, got {quoted(given)}: pass {way_out}")
    if isinstance(given, Selection):
        return given
    refuse(function(name, given, 'a function of (data, ipc, draw, compute), "kmeans" or KMeans()', 4))
    return Function(given)


def baseline(given: Any, argument: str = "selection") -> tuple[Selection, Formation]:
    """A selection and how its images are stored.

    ``packed-kmeans`` is ``kmeans`` with two by two images in one, ``avif-kmeans`` is ``kmeans storage=avif-mosaic``.

    >>> baseline("random storage=4bit")[1].dtype, baseline("avif-random")[1].dtype
    ('4bit', 'avif-mosaic')

    Args:
        given: A name, or what else :func:`as_selection` takes.
        argument: Its name, for errors.
    """
    if not isinstance(given, str):
        return as_selection(given, argument), Formation()
    name, options = named(given, "selection")
    usual, word = Formation(), ""
    if name.startswith(PACKED):
        usual, word, known = Formation(factor=2), PACKED, PACKED_SELECTIONS
    elif name not in SELECTIONS and name.startswith(tuple(STORED)):
        word, known = name.partition("-")[0] + "-", STORED_SELECTIONS
        usual = Formation(dtype=STORED[word])
    if word and name not in known:
        raise unknown("selection", given, known)
    factor = convert("factor", options.pop("factor", usual.factor), int)
    formation = Formation(factor, options.pop("storage", usual.dtype))
    return selection(name.removeprefix(word), **options), formation


def baseline_name(chosen_by: Selection, formation: Formation) -> str:
    """The name of a set of :func:`baseline` in tables, such as ``packed-kmeans``, with its storage options."""
    word = next((word for word, dtype in STORED.items() if dtype == formation.dtype), "")
    if word + chosen_by.name not in STORED_SELECTIONS:
        word = PACKED * (formation.factor > 1)
    parts = [word + chosen_by.name]
    parts += [f"factor={formation.factor}"] * (formation.factor > (2 if word == PACKED else 1))
    parts += [f"storage={formation.dtype}"] * (formation.dtype != "float32" and word not in STORED)
    return " ".join(parts)


def initialiser(name: str, /, **options: Any) -> Start:
    """Where a condensation starts: a selection of real images, or ``noise``."""
    if name not in STARTS and ":" not in name:
        raise unknown("init", name, [*STARTS, "the path of a set or a run"])
    if name != "noise":
        return selection(name, **options)
    refuse(*(f"noise has no option {option!r}" for option in options))
    return Noise()


def saved(given: Any) -> CondensedSet | None:
    """The set that is given as the start of a condensation: itself, a result, or the path of a set or a run.

    Returns:
        The set; None: something else is given, such as the name of a selection.

    Raises:
        ConfigError: A path without a set.
        DataError: A file of another code that does not tell enough.
        StoreError: A damaged file.
    """
    if isinstance(given, HasSet):
        return given.set
    if isinstance(given, str):
        a_path = "/" in given or Path(given).suffix in (*FOREIGN, ".safetensors") or Path(given).is_dir()
        given = Path(given) if a_path and given not in STARTS else None
    if isinstance(given, Path):
        return first_set(given)
    return given if isinstance(given, CondensedSet) else None


def network(name: str) -> Network:
    """The architecture called ``name``, as its ``name`` property gives it.

    Those of :data:`NETWORKS` may take options: ``ConvNet depth=4 width=64 norm=batch`` is 4 blocks of 64 channels
    with batch norm, ``ConvNet-d4-w64-batch`` is short for it. ``module:object`` is your own
    :class:`~condensekit.networks.base.Network`, which may take options too, or a function or class that makes a
    ``torch.nn.Module``. Any other name is one of ``torchvision.models``, ``-small`` appended for small images.

    Raises:
        ConfigError: An unknown name or option, or one that cannot be imported.
    """
    name, options = named(name, "network")
    if ":" in name:
        return _own_network(name, options)
    kind, *parts = name.split("-")
    if options and kind in NETWORKS:
        require(not parts, "write options of a network as key=value or after dashes, not both")
        made: Network = configured(f"option of network {kind!r}", NETWORKS[kind], options)
        return made
    if kind in NETWORKS:
        return NETWORKS[kind](**dict(_network_option(kind, part) for part in parts))
    model = name.removesuffix("-small")
    try:
        return TorchvisionNetwork(model, small_stem=model != name)
    except ConfigError:
        from torchvision import models

        hint = meant(name, [*NETWORKS, *models.list_models(module=models)])
        ours = ", ".join(NETWORKS)
        raise ConfigError(
            f"unknown network {name!r}.{hint} Known: {ours}, the names of torchvision.models and module:object"
        ) from None


def _own_network(name: str, options: Mapping[str, Any]) -> Network:
    """The network at ``module:object``."""
    found = find("network", name, NETWORKS)
    if isinstance(found, Network) or (isinstance(found, type) and issubclass(found, Network)):
        made: Network = configured(f"option of network {name!r}", found, options)
        return made
    require(not options, f"network {name!r} takes no options: name a function that sets them")
    made = as_network(found, f"network {name!r}")
    return OwnNetwork(made.make, path=name) if isinstance(made, ModuleNetwork) else made


def as_network(given: Any, name: str = "network") -> Network:
    """Convert an architecture in any supported form to a network.

    Args:
        given: A name (see :func:`network`), a :class:`~condensekit.networks.base.Network`, a function or class that
            makes a ``torch.nn.Module``, such as ``torchvision.models.resnet18``.
        name: The argument, for errors.

    Raises:
        ConfigError: Something else, such as a module that is built already.
    """
    if isinstance(given, str):
        return network(given)
    if isinstance(given, Network):
        return given
    if isinstance(given, nn.Module):
        raise ConfigError(
            f"{name} got a {type(given).__name__} that is built already, and each network gets fresh weights: pass "
            "what makes it, such as torchvision.models.resnet18 or the class"
        )
    if isinstance(given, type) and not issubclass(given, nn.Module):
        raise ConfigError(f"{name} must be an architecture, got the class {given.__name__}: pass {given.__name__}()")
    if not callable(given):
        way_out = 'pass "ConvNet", ConvNet() or torchvision.models.resnet18'
        raise ConfigError(f"{name} must be an architecture, got {quoted(given)}: {way_out}")
    return _torchvision(given) or ModuleNetwork(given)


def _torchvision(made: Any) -> Network | None:
    """The architecture that a function of ``torchvision.models`` makes; None for another function."""
    from torchvision import models

    known = models.list_models(module=models)
    return next((TorchvisionNetwork(name) for name in known if models.get_model_builder(name) is made), None)


def _network_option(kind: str, text: str) -> tuple[str, Any]:
    """``w64`` -> (``width``, 64), ``batch`` -> (``norm``, ``batch``) and so on."""
    accepted = inspect.signature(NETWORKS[kind]).parameters
    if text.isascii() and text[1:].isdecimal() and SIZES.get(text[0]) in accepted:
        return SIZES[text[0]], int(text[1:])
    known = {word: (option, value) for word, (option, value) in WORDS.items() if option in accepted}
    if text not in known:
        sizes = [f"{letter}{{N}}" for letter, option in SIZES.items() if option in accepted]
        raise unknown(f"option of network {kind!r}", text, [*sizes, *known])
    return known[text]


def protocol(name: str) -> TrainProtocol:
    """The training protocol called ``name``: one of :data:`PROTOCOLS`."""
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def augmentation(text: str) -> Augmentation | None:
    """The augmentation written as a comma-separated list of operations, or ``none``."""
    return None if text == "none" else Augmentation(ops=tuple(text.split(",")))


def _built(kind: str, name: str, table: Mapping[str, Any], options: Mapping[str, Any], wanted: type[Any]) -> Any:
    """The object called ``name`` with ``options``; ``module:object`` for one of your own."""
    if name not in table and ":" not in name:
        raise unknown(kind, name, table)
    made = configured(f"option of {kind} {name!r}", find(kind, name, table), options)
    if not isinstance(made, wanted):
        raise ConfigError(f"{kind} {name!r} gives a {type(made).__name__}: expected a subclass of {wanted.__name__}")
    return made


def find(kind: str, name: str, table: Mapping[str, Any]) -> Any:
    """The object called ``name`` in the table, among the entry points, or at ``module:object``.

    Raises:
        ConfigError: An unknown name, one that cannot be imported, or one that only a file gives.
    """
    if name in table:
        return table[name]
    if ":" in name:
        return _load(kind, name, lambda: own.load(kind, name))
    plugins = {point.name: point for point in entry_points(group=f"condensekit.{kind}s")}
    if name not in plugins:
        raise unknown(kind, name, [*table, *plugins])
    own.check(kind, name)
    return _load(kind, name, plugins[name].load)


def _load(kind: str, name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"cannot import {kind} {name!r}: {error}") from error
