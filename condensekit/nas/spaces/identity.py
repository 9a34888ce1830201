"""Identity of networks: a text that is the same for architectures of which the same network is built."""

from __future__ import annotations

import functools
import hashlib
import sys
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from condensekit.nas.spaces.architecture import Architecture
from condensekit.nas.spaces.spaces import build

RECORDS = {"_mutables", "trace_args", "trace_kwargs", "_label_scope", "_frozen_context"}
"""Attributes in which NNI stores how a module was made: they name choices, and no network uses them."""


def identity(space: ModelSpace, architecture: Architecture) -> str:
    """Identity of the network that a space builds of an architecture; see :func:`identity_of`."""
    return identity_of(lambda seed: build(space, architecture, seed))


def identity_of(make: Callable[[int], nn.Module]) -> str:
    """Identity of a network: a short hash of its structure, the same in every process.

    The structure is all that two builds with different seeds share: classes, modules and their order, shapes, and the
    values of attributes, of buffers and of parameters, unless these values are random. Modules, tensors and other
    objects that are used twice count. The names of choices do not count.

    Args:
        make: Builds the network with the weights of a seed.
    """
    first, second = (set(structure(make(seed))) for seed in (0, 1))
    text = "\n".join(sorted(first & second))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def structure(module: nn.Module) -> Iterator[str]:
    """Lines that describe a module and all that it holds: a line for each class, value and place."""
    return _Walk().lines("network", module)


class _Walk:
    """Walk through an object and all that it holds; an object that it has met is a reference to its first place."""

    def __init__(self) -> None:
        self.met: dict[int, tuple[str, object]] = {}  # with the objects, whose numbers are thus not given again

    def lines(self, place: str, value: Any) -> Iterator[str]:
        """The lines of a value at a place."""
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
            yield f"{place} = {type(value).__name__} {value!r}"
            return
        if id(value) in self.met:
            yield f"{place} = {self.met[id(value)][0]}"
            return
        self.met[id(value)] = place, value
        if isinstance(value, type):
            yield from self._class(place, value)
        elif isinstance(value, (types.FunctionType, types.CodeType)):
            yield from self._code(place, value)
        elif isinstance(value, (Tensor, np.ndarray)):
            yield from self._array(place, value)
        elif isinstance(value, (Mapping, list, tuple, set, frozenset)):
            yield from self._collection(place, value)
        else:
            yield from self._object(place, value)

    def _collection(self, place: str, value: Collection[Any]) -> Iterator[str]:
        """A collection by its class and members; of a set without their order."""
        yield f"{place} has {type(value).__qualname__} {len(value)}"
        if isinstance(value, (set, frozenset)):
            yield f"{place} = {sorted('; '.join(_Walk().lines('', inner)) for inner in value)}"
            return
        if isinstance(value, Mapping):
            for number, key in enumerate(value):
                yield from self.lines(f"{place}[{number}] of", key)
            value = list(value.values())
        for number, inner in enumerate(value):
            yield from self.lines(f"{place}[{number}]", inner)

    def _object(self, place: str, value: Any) -> Iterator[str]:
        """An object by its class and attributes, or by what pickle would keep of it."""
        yield from self.lines(f"{place} is", type(value))
        if isinstance(value, types.ModuleType):
            yield f"{place} {value.__name__}"
        elif isinstance(value, functools.partial):
            yield from self.lines(f"{place}()", [value.func, value.args, value.keywords])
        elif isinstance(value, types.MethodType):
            yield from self.lines(f"{place}()", [value.__self__, value.__func__])
        elif hasattr(value, "__dict__"):
            for name, inner in sorted(vars(value).items()):
                if name not in RECORDS:
                    yield from self.lines(f"{place}.{name}", inner)
        else:
            try:
                kept = value.__reduce_ex__(2)
            except Exception:
                return  # such as a lock, which has no value
            yield from self.lines(f"{place}()", kept if isinstance(kept, str) else list(kept[:3]))

    def _class(self, place: str, value: type) -> Iterator[str]:
        """A class by its name; one that its name does not give, such as a class in a function, by its code too."""
        yield f"{place} {value.__module__}.{value.__qualname__}"
        if not _named(value):
            yield from self.lines(f"{place} of", value.__bases__)
            for name, inner in sorted(vars(value).items()):
                if name not in ("__dict__", "__weakref__", "__doc__"):
                    inner = getattr(inner, "__func__", getattr(inner, "fget", inner))  # of a static method or property
                    yield from self.lines(f"{place}.{name}", inner)

    def _code(self, place: str, value: types.FunctionType | types.CodeType) -> Iterator[str]:
        """A function by its name; one that its name does not give, such as a lambda, by its code and all it uses."""
        if isinstance(value, types.CodeType):
            yield f"{place} runs {value.co_code.hex()} {value.co_names}"
            yield from self.lines(f"{place}.constants", value.co_consts)
            return
        yield f"{place} {value.__module__}.{value.__qualname__}"
        if not _named(value):
            cells = [_cell(cell) for cell in value.__closure__ or ()]
            yield from self.lines(f"{place}()", [value.__code__, value.__defaults__, value.__kwdefaults__, cells])

    def _array(self, place: str, value: Tensor | np.ndarray[Any, Any]) -> Iterator[str]:
        """The class, shape and dtype of an array, and its values in a line of their own, which may be random."""
        lazy = isinstance(value, Tensor) and is_lazy(value)
        yield f"{place} is {type(value).__qualname__} {'lazy' if lazy else tuple(value.shape)} {value.dtype}"
        if isinstance(value, Tensor):
            yield f"{place} learns {value.requires_grad}"
            if lazy or value.is_meta:
                return
            value = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        yield f"{place} = {hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()}"


def _named(value: type | types.FunctionType) -> bool:
    """Whether the name of a class or function, in its module, gives this class or function."""
    found: Any = sys.modules.get(value.__module__)
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is value


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None  # an empty cell
