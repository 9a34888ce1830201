"""Search spaces by name, and lists and samples of their architectures, without building modules."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
from nni.mutable import Categorical, LabeledMutable, Mutable, MutableAnnotation, MutableDict, SampleValidationError
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import model_context
from torch import nn

from condensekit.catalog import own
from condensekit.errors import ConfigError, DataError, instance, refuse, require, several, unknown, whole
from condensekit.nas.names import SPACES, imported
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.spaces.convnets import ConvNetSpace
from condensekit.nas.spaces.nasbench201 import NasBench201Space
from condensekit.networks.convnet import ConvNet
from condensekit.networks.cost import Shape
from condensekit.rng import Draw, isolated

log = logging.getLogger(__name__)

ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # memory address in the repr of a function or object
MAX_LISTED = 1 << 18  # largest number of architectures of a space that is sampled by a permutation of its list
MAX_DRAWS = 1_000  # largest number of draws for each architecture of a larger space: constraints reject some draws


def space(name: str, shape: Shape = (3, 32, 32), classes: int = 10, **options: Any) -> ModelSpace:
    """Make a space by its name.

    >>> from condensekit.nas import enumerate_architectures, space
    >>> len(list(enumerate_architectures(space("convnet"))))
    720

    Args:
        name: ``convnet`` (the 720 ConvNets of Dataset Condensation), ``convnet-small`` (widths 16 to 64, depths 1 to
            3), ``nasbench201`` (15,625 cells), or ``module:Class`` of your own ModelSpace. The names are in
            :data:`condensekit.nas.names.SPACES`.
        shape: (C, H, W) of the images; not passed to ``module:Class``.
        classes: Number of outputs; not passed to ``module:Class``.
        options: Arguments of :func:`convnet_space`, :class:`NasBench201Space` or the class.

    Raises:
        ConfigError: An unknown name, a class that cannot be imported or built, or options that the space does not have.
    """
    if not isinstance(name, str):
        raise unknown("space", name, (*SPACES, "module:Class"))
    if ":" in name:
        return _imported(name, options)
    if name not in SPACES:
        raise unknown("space", name, (*SPACES, "module:Class"))
    try:
        return imported("space", name, SPACES)(shape, classes, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"space {name!r} cannot be built: {error}") from error


def _imported(name: str, options: dict[str, Any]) -> ModelSpace:
    try:
        made = own.load("space", name)(**options)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"space {name!r} cannot be imported and built: {type(error).__name__}: {error}") from error
    if not isinstance(made, ModelSpace):
        raise ConfigError(f"space {name!r} is a {type(made).__name__}, expected an nni.nas.nn.pytorch.ModelSpace")
    return made


def convnet_space(
    shape: Shape,
    classes: int,
    *,
    depths: Sequence[int] = (1, 2, 3, 4),
    widths: Sequence[int] = (32, 64, 128, 256),
    activations: Sequence[str] = ("sigmoid", "relu", "leakyrelu"),
    norms: Sequence[str] = ("none", "batch", "layer", "instance", "group"),
    poolings: Sequence[str] = ("none", "max", "avg"),
) -> ConvNetSpace:
    """Make a grid of :class:`condensekit.networks.convnet.ConvNet`.

    >>> from condensekit.nas import convnet_space, enumerate_architectures
    >>> small = convnet_space((1, 8, 8), 10, depths=[1, 2], widths=[8], norms=["none"], poolings=["avg"])
    >>> len(list(enumerate_architectures(small)))
    6

    Args:
        shape: (C, H, W) of the images.
        classes: Number of outputs.
        depths: Numbers of blocks. Depths at which pooling leaves a map below 1x1 are dropped;
            :attr:`ConvNetSpace.notes` and a logged warning name them.
        widths: Numbers of channels of every block.
        activations: Names of activations that ConvNet has.
        norms: Names of norms that ConvNet has.
        poolings: Names of poolings that ConvNet has.

    Raises:
        ConfigError: An option that ConvNet does not have, an empty list, or no depth that fits the images.
    """
    lists = {"depths": depths, "widths": widths, "activations": activations, "norms": norms, "poolings": poolings}
    refuse(
        *(several(name, values, "such as (1, 2)") for name, values in lists.items()),
        several("shape", shape, "(channels, height, width)"),
        whole("classes", classes, 1),
    )
    refuse(
        *(f"{name} must name at least one value" for name, values in lists.items() if not values),
        *(whole("a size of the shape", size, 1) for size in shape),
    )
    for choice in product(widths, depths, activations, norms, poolings):
        ConvNet(*choice)  # raises an error for unknown options
    pooled = next((name for name in poolings if name != "none"), "none")
    kept, dropped = [], []
    for depth in depths:
        try:
            ConvNet(4, depth, pooling=pooled).build(shape, classes)
            kept.append(depth)
        except ConfigError as error:
            dropped.append((depth, error))
    if not kept:
        raise ConfigError(f"no depth of {tuple(depths)} fits {'x'.join(map(str, shape))} images: {dropped[0][1]}")
    notes = [f"dropped depth {depth}: {error}" for depth, error in dropped]
    for note in notes:
        log.warning("%s", note)
    made = ConvNetSpace(shape, classes, tuple(kept), tuple(widths), tuple(activations), tuple(norms), tuple(poolings))
    made.notes = tuple(notes)
    return made


def small_convnet_space(shape: Shape, classes: int, **options: Any) -> ConvNetSpace:
    """:func:`convnet_space` with widths 16 to 64 and depths 1 to 3."""
    return convnet_space(shape, classes, **{"depths": (1, 2, 3), "widths": (16, 32, 64), **options})


def nasbench201_space(shape: Shape, classes: int, **options: Any) -> NasBench201Space:
    """:class:`NasBench201Space` for images of this shape."""
    return NasBench201Space(channels=shape[0], classes=classes, **options)


def check_choices(space: ModelSpace) -> None:
    """Raise an error for choices whose values a log, a table or another process would change.

    Raises:
        ConfigError: JSON changes a value or cannot hold it; the text names the value and its label.
    """
    for label, mutable in space.simplify().items():
        for value in getattr(mutable, "values", ()):
            try:
                back: Any = json.loads(json.dumps(value))
            except (TypeError, ValueError):
                back = None
            if back != value or type(back) is not type(value):
                raise ConfigError(
                    f"choice {label!r} has the value {value!r}, which JSON changes to {back!r}: choose among texts or "
                    "numbers, and let the space translate them into values"
                )


def choices(space: Mutable) -> dict[str, LabeledMutable]:
    """Choices of a space by label, without its constraints."""
    return {label: m for label, m in space.simplify().items() if not isinstance(m, MutableAnnotation)}


def plain(labels: Container[str], sample: Mapping[str, Any]) -> Architecture:
    """Architecture of a sample: the sample without values None that some of NNI's strategies store for constraints."""
    return {label: value for label, value in sample.items() if value is not None or label in labels}


def size(space: ModelSpace) -> int | None:
    """Number of architectures of a space without its constraints; None: some mutables are not lists of choices."""
    mutables = choices(space).values()
    return prod(len(m) for m in mutables) if all(isinstance(m, Categorical) for m in mutables) else None


def enumerate_architectures(space: ModelSpace) -> Iterator[Architecture]:
    """Every architecture of the space once, in the order of its choices, without building modules.

    >>> from condensekit.nas import enumerate_architectures, space
    >>> next(enumerate_architectures(space("convnet-small", (1, 8, 8), 10)))
    {'width': 16, 'depth': 1, 'activation': 'sigmoid', 'norm': 'none', 'pooling': 'none'}
    """
    check_space(space)
    seen, labels = set(), choices(space)
    for sample in MutableDict(space.simplify()).grid():
        if key(sample) not in seen:
            seen.add(key(sample))
            yield plain(labels, sample)


def sample_architectures(space: ModelSpace, n: int, seed: int) -> list[Architecture]:
    """Draw ``n`` different architectures with equal probability; a smaller space gives all its architectures.

    NNI draws from spaces of more than 262,144 architectures, and from spaces with mutables other than choices.

    >>> from condensekit.nas import sample_architectures, space
    >>> len(sample_architectures(space("nasbench201"), n=5, seed=0))
    5

    Raises:
        ConfigError: No draw satisfies the constraints of the space.
    """
    check_space(space)
    refuse(whole("n", n, 1), whole("seed", seed))
    draw = Draw(seed)
    count = size(space)
    if count is not None and count <= MAX_LISTED:
        listed = list(enumerate_architectures(space))
        return [listed[i] for i in draw.permutation("architectures", len(listed))[:n].tolist()]
    mutables, labels = MutableDict(space.simplify()), choices(space)
    found: dict[str, Architecture] = {}
    source = np.random.RandomState(draw.key("architectures") & 0xFFFFFFFF)
    for _ in range(MAX_DRAWS * n):
        with contextlib.suppress(SampleValidationError):  # the sample violates a constraint
            sample = plain(labels, mutables.random(random_state=source))
            found.setdefault(key(sample), sample)
        if len(found) == n:
            break
    require(bool(found), f"none of {MAX_DRAWS * n} random draws satisfies the constraints of this space: loosen them")
    return list(found.values())


def check_space(space: object) -> None:
    """Raise ConfigError for an object that is no space."""
    way_out = "space('convnet-small', shape, classes), or your own ModelSpace"
    refuse(instance("space", space, ModelSpace, way_out))


def check_architecture(space: ModelSpace, architecture: Architecture) -> None:
    """Raise DataError if an architecture does not belong to the space."""
    refuse(instance("architecture", architecture, Mapping, "a dictionary of labels and values"))
    problem = MutableDict(space.simplify()).check_contains(dict(architecture))  # a copy: the call may change it
    labels = ", ".join(choices(space))
    if problem is not None or not set(choices(space)) <= set(architecture) <= set(space.simplify()):
        text = f"{key(architecture)} is not an architecture of this space ({labels})"
        raise DataError(f"{text}: {problem or 'its labels are different'}")


def build(space: ModelSpace, architecture: Architecture, seed: int = 0) -> nn.Module:
    """Build the module of an architecture, in training mode, with new weights that depend on ``seed`` only.

    >>> import torch
    >>> from condensekit.nas import build, sample_architectures, space
    >>> convnets = space("convnet-small", (1, 8, 8), 10)
    >>> network = build(convnets, sample_architectures(convnets, n=1, seed=0)[0])
    >>> tuple(network(torch.zeros(2, 1, 8, 8)).shape)
    (2, 10)
    """
    check_space(space)
    check_architecture(space, architecture)
    refuse(whole("seed", seed))
    with isolated(Draw(seed).key("weights")), model_context(architecture):
        module: nn.Module = space.trace_copy().get(traceable=False)
    return module


def fingerprint(space: ModelSpace) -> str:
    """Fingerprint of a space: a short hash of its class, arguments and choices, the same in every process.

    Lists and tuples among the arguments count as the same, since NNI sends a space to workers as JSON.
    """
    return _fingerprint(space, tuple)


def is_of(space: ModelSpace, found: str) -> bool:
    """Whether a file holds the fingerprint of a space; that of lists stands in files of earlier workers."""
    return found in (_fingerprint(space, tuple), _fingerprint(space, list))


def _fingerprint(space: ModelSpace, sequence: type[tuple[Any, ...] | list[Any]]) -> str:
    arguments = _sequences(space.trace_args, sequence), _sequences(space.trace_kwargs, sequence)
    made_from = (space.trace_symbol.__qualname__, arguments[0], sorted(arguments[1].items()))
    choices = sorted((label, repr(mutable)) for label, mutable in space.simplify().items())
    text = ADDRESS.sub("", repr((made_from, choices)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sequences(value: Any, sequence: type[tuple[Any, ...] | list[Any]]) -> Any:
    """A value with all its lists and tuples of one type."""
    if isinstance(value, list | tuple):
        return sequence(_sequences(part, sequence) for part in value)
    if isinstance(value, dict):
        return {name: _sequences(part, sequence) for name, part in value.items()}
    return value
