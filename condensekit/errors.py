"""Errors: the three kinds that a user can meet, and the exit code of each."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from numbers import Integral
from types import TracebackType


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
    got = f"the class {value.__name__}" if isinstance(value, type) else f"{value!r:.60} ({type(value).__name__})"
    return f"{name} must be a {kind.__name__}, got {got}: pass {way_out}"


def whole(name: str, value: object, low: int | None = None) -> str | None:
    """What is wrong with a value that must be an integer, at least ``low`` where that is given; None where nothing is.

    NumPy's integers are as good as Python's; True and False are none.
    """
    if not isinstance(value, bool) and isinstance(value, Integral) and (low is None or int(value) >= low):
        return None
    bound = "" if low is None else f" of at least {low}"
    return f"{name} must be an integer{bound}, got {value!r}"


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
