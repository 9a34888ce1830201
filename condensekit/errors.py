"""Errors: the three kinds that a user can meet, and the exit code of each."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real
from types import TracebackType
from typing import Any


class CondensekitError(Exception):
    """Base of every error this package raises on purpose; its text is one actionable sentence."""

    exit_code = 2


class DataError(CondensekitError):
    """The images or labels handed in cannot be used; the text names the offending item."""


class ConfigError(CondensekitError):
    """An option or a combination of options makes no sense; lists every problem found at once."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class StoreError(CondensekitError):
    """A file is damaged, foreign, or cannot be written; the text names path and stage.

    ``result`` holds what a run had learnt in memory when its folder could not be written, else None.
    """

    exit_code = 4
    result: object = None


def unknown(kind: str, value: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that is in no table: it offers the nearest match and the whole list."""
    names = sorted(known)
    spelt = {name.lower(): name for name in names}
    near = difflib.get_close_matches(value.lower(), spelt, n=1, cutoff=0.5)
    hint = f" Did you mean {spelt[near[0]]!r}?" if near else ""
    return ConfigError(f"unknown {kind} {value!r}.{hint} Known: {', '.join(names)}")


def refuse(*problems: str | None) -> None:
    """Raise one :class:`ConfigError` that lists all given problems; ``None`` entries are no problem."""
    found = [p for p in problems if p]
    if found:
        raise ConfigError(*found)


def require(condition: bool, problem: str) -> None:
    """Raise a :class:`ConfigError` with this text unless the condition holds."""
    if not condition:
        raise ConfigError(problem)


def instance(name: str, value: object, kind: type, way_out: str) -> str | None:
    """What is wrong with an argument that must be an object of a kind; None where nothing is.

    Args:
        name: The argument.
        value: What was given.
        kind: What is expected.
        way_out: A call that would work.
    """
    if isinstance(value, kind):
        return None
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    return f"{name} must be {article} {kind.__name__}, got {quoted(value)}: pass {way_out}"


def function(name: str, value: object, way_out: str) -> str | None:
    """What is wrong with an argument that must be a function, or an object that is called like one; see above."""
    if callable(value) and not isinstance(value, type):
        return None
    return f"{name} must be a function, got {quoted(value)}: pass {way_out}"


def quoted(value: object) -> str:
    """A value in the line of an error: a class by its name, anything else as far as 60 characters show it."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    text = " ".join(repr(value).split())
    return f"{text:.60} ({type(value).__name__})"


def whole(name: str, value: object, low: int | None = None) -> str | None:
    """What is wrong with a value that must be an integer, at least ``low`` where that is given; None where nothing is.

    NumPy's integers are as good as Python's; True and False are none.
    """
    if not isinstance(value, bool) and isinstance(value, Integral) and (low is None or int(value) >= low):
        return None
    bound = "" if low is None else f" of at least {low}"
    return f"{name} must be an integer{bound}, got {value!r}"


def finite(value: object) -> bool:
    """Whether a value is a finite number; True and False are none."""
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def positive(name: str, value: Any, zero: bool = False) -> str | None:
    """What is wrong with a value that must be a finite number above 0, or at least 0; None where nothing is."""
    if finite(value) and (value > 0 or (zero and value == 0)):
        return None
    return (
        f"{name} must be finite and at least 0, got {value!r}"
        if zero
        else f"{name} must be positive and finite, got {value!r}"
    )


class Problems:
    """Gathers the problems of several objects: build each inside ``with problems:``, then :meth:`refuse`."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> bool:
        if isinstance(error, ConfigError):
            self.found += error.problems
            return True
        return False

    def refuse(self) -> None:
        """Raise one ConfigError with everything found."""
        refuse(*self.found)
