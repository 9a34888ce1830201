"""Texts: objects with options that are written as text, ``NAME key=value ...``."""

from __future__ import annotations

import dataclasses
import inspect
from collections import Counter
from collections.abc import Callable, Container, Mapping
from typing import Any

from condensekit.errors import ConfigError, refuse, unknown
from condensekit.methods.discrepancy import (
    MMD,
    CharacteristicFunction,
    Discrepancy,
    Laplace,
    Moments,
    linear,
    mean,
    polynomial,
)
from condensekit.methods.gradient import DISTANCES

DISCREPANCIES: dict[str, Discrepancy] = {
    "mean": mean,
    "gaussian": MMD(),
    "laplace": MMD(Laplace()),
    "linear": MMD(linear),
    "polynomial": MMD(polynomial),
    "moments": Moments(),
    "characteristic": CharacteristicFunction(),
}
NUMBERED: dict[str, tuple[Callable[[int], Discrepancy], str]] = {
    "moments": (Moments, "order"),
    "characteristic": (CharacteristicFunction, "frequencies"),
}
"""Discrepancies whose names may end with a number, such as ``moments-3``, each with what that is."""
FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
PLAIN = {kind.__name__: kind for kind in (bool, int, float, str)}  # types of options that can be written as text
WRITTEN = {bool: "true or false", int: "a whole number", float: "a number"}
OBJECTS: dict[str, Mapping[str, Any]] = {
    "discrepancy": DISCREPANCIES,
    "distance": DISTANCES,
}  # options whose values have names


def named(text: str, kind: str) -> tuple[str, dict[str, str]]:
    """Read a name and its options, written ``NAME key=value ...``.

    >>> named("m3d lr=3 init=kmeans", "recipe")
    ('m3d', {'lr': '3', 'init': 'kmeans'})

    Raises:
        ConfigError: A part without ``=``, or a key given twice.
    """
    name, *parts = text.split() or [""]
    keys = [part.partition("=")[0] for part in parts]
    refuse(
        *(f"a {kind} is written NAME key=value ..., got {part!r} in {text!r}" for part in parts if "=" not in part),
        *(f"{key} is given {n} times in {text!r}: keep one of them" for key, n in Counter(keys).items() if n > 1),
    )
    return name, dict(part.split("=", 1) for part in parts)


def written(name: str, options: Mapping[str, Any]) -> str:
    """The inverse of :func:`named`."""
    return " ".join([name, *(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in options.items())])


def discrepancy(name: str) -> Discrepancy:
    """The discrepancy called ``name``: of :data:`DISCREPANCIES`, or of :data:`NUMBERED` with a number.

    ``moments-3``: three moments. ``characteristic-1024``: 1,024 frequencies.
    """
    kind, _, number = name.partition("-")
    if kind in NUMBERED and number.isascii() and number.isdecimal():
        return NUMBERED[kind][0](int(number))
    if name not in DISCREPANCIES:
        raise unknown("discrepancy", name, [*DISCREPANCIES, *(f"{known}-{{N}}" for known in NUMBERED)])
    return DISCREPANCIES[name]


def options_of(found: Any) -> dict[str, Any]:
    """Options that can be written as text, with the values they have; what :data:`OBJECTS` holds by name.

    Args:
        found: A class or a function that makes an object, with its defaults, or a configured object.
    """
    kinds, parameters = _kinds(found), inspect.signature(found if _makes(found) else type(found)).parameters
    values = {k: parameters[k].default if _makes(found) else getattr(found, k) for k in kinds}
    return {k: _called(k, v) if k in OBJECTS else v for k, v in values.items()}


def changed(given: Any, usual: Any) -> dict[str, Any]:
    """The options of a configured object whose values differ from those of ``usual``, an object or a class.

    Where that is of another class, the defaults of the object's own class count.
    """
    same = type(given) in (usual, type(usual))
    base = options_of(usual if same else type(given))
    return {k: v for k, v in options_of(given).items() if base.get(k, v) != v}


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
    for kind, (make, number) in NUMBERED.items():
        value = getattr(found, number, None)
        if value is not None and found == make(value):
            return f"{kind}-{value}"
    names = (name for name, known in OBJECTS[option].items() if known == found)
    return next(names, getattr(found, "__name__", type(found).__name__))


def _makes(found: Any) -> bool:
    """Whether calling ``found`` gives the object (a selection is called as well, but with data)."""
    return isinstance(found, type) or inspect.isroutine(found)


def configured(kind: str, found: Any, options: Mapping[str, Any], hidden: Container[str] = ()) -> Any:
    """The object that ``found`` makes or is, with options changed.

    Args:
        kind: What errors call an option.
        found: A class, a function, or an object.
        options: Values, or their texts.
        hidden: Options that make no sense here.

    Raises:
        ConfigError: All options that do not fit.
    """
    kinds = {k: v for k, v in _kinds(found).items() if k not in hidden} if options else {}
    others = _parameters(found) if options else set()
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in options.items():
        try:
            if name not in kinds and (isinstance(value, str) or name not in others):
                raise unknown(kind, name, kinds)
            values[name] = convert(name, value, kinds.get(name, object))
        except ConfigError as error:
            problems.append(str(error))
    made = found
    missing = [name for name in _required(found) if name not in options] if _makes(found) else []
    problems += [f"{kind} {name!r} has no default: give it a value, {name}=VALUE" for name in missing]
    try:
        if _makes(found):
            made = None if missing else found(**values)
        elif values:
            made = dataclasses.replace(found, **values)
    except ConfigError as error:
        problems += error.problems
    refuse(*problems)
    return made


def _parameters(found: Any) -> set[str]:
    """The names of all parameters of ``found``, or of the class of an object."""
    return set(inspect.signature(found if _makes(found) else type(found)).parameters)


def _required(found: Any) -> list[str]:
    """The names of the parameters of ``found`` without defaults."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    try:
        parameters = inspect.signature(found).parameters.items()
    except ValueError:  # some of Python's own have no signature
        return []
    return [name for name, p in parameters if p.default is p.empty and p.kind in named]


def convert(name: str, value: Any, kind: type) -> Any:
    """Convert a text to ``kind``, or to the object of that name, and an integer to float if ``kind`` is float."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
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
        raise ConfigError(f"{name} must be {WRITTEN.get(kind, kind.__name__)}, got {value!r}") from None
