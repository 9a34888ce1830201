"""The one table from names to configured objects: what the command line, run folders and benchmarks read.

A name is one of the tables below, an entry point that an installed package declares in the group
``condensekit.methods`` or ``condensekit.selections``, or ``module:object`` for something of your own: a
class, a function that makes the object, or the finished object itself. A method of the tables is a
:class:`~condensekit.presets.Preset`: it brings the encoder, packing, augmentation and start of its paper.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from condensekit.errors import ConfigError, refuse, unknown
from condensekit.methods import Condenser, DistributionMatching, gradient
from condensekit.methods.discrepancy import MMD, Discrepancy, Laplace, Moments, linear, mean, polynomial
from condensekit.methods.encoders import Encoder, Fresh
from condensekit.methods.gradient import DISTANCES, GradientMatching
from condensekit.methods.kernel import KernelRidge
from condensekit.methods.sampling import Clustered, Importance, Sampling, Uniform
from condensekit.methods.trained_encoders import Trained
from condensekit.networks.adaptor import TorchvisionNetwork
from condensekit.networks.base import ACTIVATIONS, NORMS, POOLINGS, Network
from condensekit.networks.classics import MLP, VGG11, AlexNet, LeNet
from condensekit.networks.convnet import ConvNet
from condensekit.networks.resnet import ResNet18
from condensekit.presets import Preset
from condensekit.selection.base import Noise, Selection
from condensekit.selection.classic import Herding, KCenter, KMeans, Random
from condensekit.selection.importance import ImportanceKMeans, ImportanceKRR
from condensekit.selection.jpeg_random import JpegRandom
from condensekit.sets.condensed import Formation
from condensekit.training.augment import Augmentation
from condensekit.training.evaluation import DC, IDC, SHORT, TrainProtocol

OWN_NETWORKS = {**gradient.UNFIT, "discrepancy": "it compares gradients: see --set distance"}
M3D = DistributionMatching(MMD(), lr=1.0, batch_real=128, per_image=True, space="pixel", name="m3d")
M3D_PRESET = Preset(
    M3D,
    paper="Zhang et al., M3D, AAAI 2024",
    cost="light",
    encoder=Fresh(keep=5),
    augmentation=Augmentation(ops=("color", "crop", "cutout")),
    factor=2,
)
PRESETS: dict[str, Preset] = {
    preset.method.name: preset
    for preset in (
        Preset(DistributionMatching(), paper="Zhao and Bilen, DM, WACV 2023", cost="light"),
        M3D_PRESET,
        dataclasses.replace(
            M3D_PRESET,
            method=dataclasses.replace(M3D, name="echo"),
            paper="first version of M3D, arXiv 2312.15927v1",
        ),
        Preset(
            GradientMatching(name="dc"),
            paper="Zhao, Mopuri and Bilen, DC, ICLR 2021",
            cost="heavy",
            augmentation=None,
            init=Noise(),
            unfit={**OWN_NETWORKS, "augment": "under an augmentation it is dsa"},
        ),
        Preset(
            GradientMatching(name="dsa"),
            paper="Zhao and Bilen, DSA, ICML 2021",
            cost="heavy",
            unfit=OWN_NETWORKS,
        ),
        Preset(
            KernelRidge(),
            paper="Nguyen, Chen and Lee, KIP, ICLR 2021; Loo et al., RFAD, NeurIPS 2022",
            cost="medium",
            augmentation=None,
            unfit={"discrepancy": "it compares predicted labels"},
        ),
    )
}
METHODS: dict[str, Condenser] = {name: preset.method for name, preset in PRESETS.items()}
DISCREPANCIES: dict[str, Discrepancy] = {
    "mean": mean,
    "gaussian": MMD(),
    "laplace": MMD(Laplace()),
    "linear": MMD(linear),
    "polynomial": MMD(polynomial),
    "moments": Moments(),
}
ENCODERS: dict[str, Encoder] = {"fresh": Fresh(), "kept": Fresh(keep=5), "trained": Trained()}
SAMPLINGS: dict[str, Sampling] = {"uniform": Uniform(), "importance": Importance(), "kmeans": Clustered()}
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
NETWORKS: dict[str, Callable[..., Network]] = {
    "ConvNet": ConvNet,
    "ResNet18": ResNet18,
    "AlexNet": AlexNet,
    "VGG11": VGG11,
    "LeNet": LeNet,
    "MLP": MLP,
}
PROTOCOLS: dict[str, TrainProtocol] = {"short": SHORT, "dc": DC, "idc": IDC}
# Of the search. It imports NNI, so what makes something stands here as module:object and is imported when asked for.
ENGINES = ("sequential", "pool", "nni")
SPACES = {
    "convnet": "condensekit.nas.spaces.spaces:convnet_space",
    "convnet-small": "condensekit.nas.spaces.spaces:small_convnet_space",
    "nasbench201": "condensekit.nas.spaces.spaces:nasbench201_space",
}
STRATEGIES = {name: f"condensekit.nas.trials.strategies:{name}" for name in ("random", "grid", "evolution", "tpe")}
LISTED = ("random", "grid")  # strategies for which every ranker scores one list
ZERO_COST = {name: f"condensekit.nas.rankers.zero_cost:{name}" for name in ("synflow", "nwot", "jacov", "zen")}
COUNTS = ("params", "flops")  # rankers that only count
SCORES = ("accuracy", "cross-entropy", "margin", "tse")  # of a trained candidate
EARLY, ADDITIVE = "early-stop", "additive"  # further rankers
# before a method: half of its set is real, or all of it: the images that it starts from; before rankers: a regression
HALF, START, RIDGE = "half-", "start-", "ridge:"
UNFLIPPED = ("digits", "mnist", "svhn")  # a mirrored digit is no digit

SIZES = {"d": "depth", "w": "width"}
WORDS = {
    **{name: ("norm", name) for name in NORMS if name != "none"},
    **{name: ("activation", name) for name in ACTIVATIONS},
    **{name: ("pooling", name) for name in POOLINGS if name != "none"},
    "nonorm": ("norm", "none"),
    "nopool": ("pooling", "none"),
}
FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
PLAIN = {kind.__name__: kind for kind in (bool, int, float, str)}  # types of options that can be written as text
OBJECTS: dict[str, Mapping[str, Any]] = {
    "discrepancy": DISCREPANCIES,
    "distance": DISTANCES,
}  # options whose values have names


def preset(name: str) -> Preset:
    """How the method called ``name`` is run: from :data:`PRESETS`; any other method is run as DM is."""
    if name in PRESETS:
        return PRESETS[name]
    return Preset(method(name), paper="", cost="")


def method(name: str, /, **options: Any) -> Condenser:
    """The method called ``name``, without what its paper runs beside it.

    Encoder, augmentation, start and packing are arguments of ``condense``, whose defaults are DM's. Those of the
    method's own preset come from a :class:`~condensekit.recipe.Recipe`, for the data set they are meant for::

        method, arguments = Recipe.parse("m3d lr=3").build("cifar10")
        condense(train, method, ipc=1, iterations=100, **arguments)

    Args:
        name: A name of :data:`METHODS`, an entry point, or ``module:object``.
        options: Hyper-parameters that differ from the defaults; texts are converted to the option's type.
            A discrepancy or distance may be given by name.

    Raises:
        ConfigError: An unknown name or option (with the nearest match), or values that make no sense; all of them.
    """
    found = _find("method", name, METHODS)
    if _makes(found) or isinstance(found, Condenser):
        found = _configure(f"option of method {name!r}", found, options)
    if not isinstance(found, Condenser):
        raise ConfigError(f"method {name!r} gives a {type(found).__name__}: expected a subclass of Condenser")
    return found


def discrepancy(name: str) -> Discrepancy:
    """The discrepancy called ``name``: of :data:`DISCREPANCIES`, or ``moments-3`` for three moments and so on."""
    kind, _, order = name.partition("-")
    if kind == "moments" and order.isascii() and order.isdecimal():
        return Moments(int(order))
    if name not in DISCREPANCIES:
        raise unknown("discrepancy", name, [*DISCREPANCIES, "moments-{P}"])
    return DISCREPANCIES[name]


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


def selection(name: str, /, **options: Any) -> Selection:
    """The selection called ``name``: of :data:`SELECTIONS`, an entry point, or ``module:object``."""
    made: Selection = _configure(f"option of selection {name!r}", _find("selection", name, SELECTIONS), options)
    if not callable(made):
        raise ConfigError(f"selection {name!r} gives a {type(made).__name__}: expected (data, ipc, draw, compute)")
    return made


def imported(kind: str, name: str, table: Mapping[str, str]) -> Any:
    """What a table of ``module:object`` has under a name, imported now.

    Raises:
        ConfigError: An unknown name.
    """
    if name not in table:
        raise unknown(kind, name, table)
    return _load(kind, name, EntryPoint(name, table[name], "").load)


def baseline(name: str) -> tuple[Selection, Formation]:
    """A selection and how its images are stored: ``packed-kmeans`` is ``kmeans`` with two by two images in one."""
    packed = name.startswith(PACKED)
    if packed and name not in PACKED_SELECTIONS:
        raise unknown("selection", name, PACKED_SELECTIONS)
    return selection(name.removeprefix(PACKED)), Formation(factor=2 if packed else 1)


def baseline_name(chosen_by: Selection, formation: Formation) -> str:
    """What a table calls a set of :func:`baseline`, ``packed-kmeans`` say, and how else it is stored."""
    parts = [PACKED * (formation.factor > 1) + chosen_by.name]
    parts += [f"factor={formation.factor}"] * (formation.factor > 2)
    parts += [f"storage={formation.dtype}"] * (formation.dtype != "float32")
    return " ".join(parts)


def initialiser(name: str, /, **options: Any) -> Selection | Noise:
    """Where a condensation starts: a selection of real images, or ``noise``."""
    if name not in STARTS and ":" not in name:
        raise unknown("initialiser", name, STARTS)
    if name != "noise":
        return selection(name, **options)
    refuse(*(f"noise has no option {option!r}" for option in options))
    return Noise()


def network(name: str) -> Network:
    """The architecture called ``name``, as its ``name`` property gives it.

    Those of :data:`NETWORKS` may take options: ``ConvNet-d4-w64-batch`` is 4 blocks of 64 channels with batch
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
    if text.isascii() and text[1:].isdecimal() and SIZES.get(text[0]) in accepted:
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


def augmentation(text: str, data: str, usual: Augmentation | None = Augmentation()) -> Augmentation | None:  # noqa: B008
    """The operations that suit a data set.

    Args:
        text: ``auto`` (the usual ones, without ``flip`` for digits), ``none``, or a comma-separated list.
        data: Name of the data set; only ``auto`` reads it.
        usual: What the method uses where the data allow.
    """
    if text == "none":
        return None
    if text != "auto":
        return Augmentation(ops=tuple(text.split(",")))
    return usual.without("flip") if usual and data in UNFLIPPED and "flip" in usual.ops else usual


def options_of(found: Any) -> dict[str, Any]:
    """Options that can be written as text, with the values they have; what :data:`OBJECTS` holds by name.

    Args:
        found: A class or a function that makes an object, with its defaults, or a configured object.
    """
    kinds, parameters = _kinds(found), inspect.signature(found if _makes(found) else type(found)).parameters
    values = {k: parameters[k].default if _makes(found) else getattr(found, k) for k in kinds}
    return {k: _called(k, v) if k in OBJECTS else v for k, v in values.items()}


def changed(configured: Any) -> dict[str, Any]:
    """The options of a configured object that are neither its preset's nor its class's default."""
    base = METHODS.get(getattr(configured, "name", ""))
    usual = options_of(base if type(base) is type(configured) else type(configured))
    return {k: v for k, v in options_of(configured).items() if usual.get(k, v) != v}


def row_name(configured: Condenser, **more: Any) -> str:
    """What a table calls a run: the method, its options that are not the default, and ``more`` of them."""
    options = {**changed(configured), **more}.items()
    return " ".join([configured.name, *(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in options)])


def _kinds(found: Any) -> dict[str, type]:
    """The options of :func:`options_of`, each with its type; one that may be None has its other type."""
    kinds = {}
    for name, parameter in inspect.signature(found if _makes(found) else type(found)).parameters.items():
        noted = str(getattr(parameter.annotation, "__name__", parameter.annotation)).removesuffix(" | None")
        usual = parameter.default
        kind = PLAIN.get(noted, object) if usual is None or usual is parameter.empty else type(usual)
        if name != "name" and (name in OBJECTS or kind in PLAIN.values()):
            kinds[name] = kind
    return kinds


def _called(option: str, found: Any) -> str:
    """The name of an object in :data:`OBJECTS`; a description of one that has none."""
    if isinstance(found, Moments):
        return f"moments-{found.order}"
    names = (name for name, known in OBJECTS[option].items() if known == found)
    return next(names, getattr(found, "__name__", type(found).__name__))


def _makes(found: Any) -> bool:
    """Whether calling ``found`` gives the object (a selection is called as well, but with data)."""
    return isinstance(found, type) or inspect.isroutine(found)


def _built(kind: str, name: str, table: Mapping[str, Any], options: Mapping[str, Any], wanted: type[Any]) -> Any:
    """The object called ``name`` with ``options``; ``module:object`` for one of your own."""
    if name not in table and ":" not in name:
        raise unknown(kind, name, table)
    made = _configure(f"option of {kind} {name!r}", _find(kind, name, table), options)
    if not isinstance(made, wanted):
        raise ConfigError(f"{kind} {name!r} gives a {type(made).__name__}: expected a subclass of {wanted.__name__}")
    return made


def _configure(kind: str, found: Any, options: Mapping[str, Any]) -> Any:
    """The object that ``found`` makes or is, with ``options``; raises one ConfigError for all that do not fit."""
    kinds = _kinds(found) if options else {}
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in options.items():
        try:
            if name not in kinds:
                raise unknown(kind, name, kinds)
            values[name] = convert(name, value, kinds[name])
        except ConfigError as error:
            problems.append(str(error))
    made = found
    missing = [name for name in _required(found) if name not in options] if _makes(found) else []
    problems += [f"{kind} {name!r} has no default: give it a value (--set {name}=VALUE)" for name in missing]
    try:
        if _makes(found):
            made = None if missing else found(**values)
        elif values:
            made = dataclasses.replace(found, **values)
    except ConfigError as error:
        problems += error.problems
    refuse(*problems)
    return made


def _required(found: Any) -> list[str]:
    """What must be given where ``found`` is called."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    try:
        parameters = inspect.signature(found).parameters.items()
    except ValueError:  # some of Python's own have no signature
        return []
    return [name for name, p in parameters if p.default is p.empty and p.kind in named]


def convert(name: str, value: Any, kind: type) -> Any:
    """``value``, where it is a text: as ``kind``, or the object of that name."""
    if not isinstance(value, str) or kind is str:
        return value
    if name == "discrepancy":
        return discrepancy(value)
    if name in OBJECTS:
        if value not in OBJECTS[name]:
            raise unknown(name, value, OBJECTS[name])
        return OBJECTS[name][value]
    try:
        return FLAGS[value.lower()] if kind is bool else kind(value)
    except (ValueError, KeyError):
        way_out = ": write true or false" if kind is bool else ""
        raise ConfigError(f"{name} must be {kind.__name__}, got {value!r}{way_out}") from None


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
