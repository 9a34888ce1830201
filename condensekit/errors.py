"""Errors: the three kinds that a user can meet, their exit codes, and the checks that raise them."""

from __future__ import annotations

import inspect
import math
import os
import re
from collections.abc import Iterable
from numbers import Integral, Real
from types import TracebackType
from typing import Any

from condensekit.words import nearest

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
LISTED = 40  # names that an error lists
LONGEST_NAME = 255  # bytes of one part of a path
LONGEST_PATH = 4096 - 256  # bytes of a path below which a run still has room for the names of its files


def printable(text: object) -> str:
    r"""A text as one line for a terminal: characters that would control it are written as escapes, as ``\x1b``.

    These are the control characters (line ends included), those that change the direction of text, and bytes of a
    path that are no text.

    >>> print(printable("\x1b[2Jname"))
    \x1b[2Jname
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def printable_lines(text: str) -> str:
    """The same for a text of several lines, which stay lines."""
    return "\n".join(map(printable, text.split("\n")))


class CondensekitError(Exception):
    """Base of every error this package raises on purpose; its text is one actionable sentence.

    >>> import condensekit as ck
    >>> try:
    ...     ck.Recipe.parse("dm lr=-1")
    ... except ck.CondensekitError as error:
    ...     print(error)
    lr must be positive and finite, got -1.0
    """

    exit_code = 2
    of_all = False  # whether all ranks of a run raise it, so that one of them tells it

    def __str__(self) -> str:
        """The text; what it quotes from files and data cannot control a terminal."""
        return printable(super().__str__())


class DataError(CondensekitError):
    """The given images or labels cannot be used; the text names the wrong item."""


class ConfigError(CondensekitError):
    """An option, or a combination of options, is wrong; the error lists every problem."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class StoreError(CondensekitError):
    """A file is damaged, has an unknown format, or cannot be written; the text names the path and the stage.

    ``result`` holds the result in memory of a run whose folder could not be written, else None.
    """

    exit_code = 4
    result: object = None


class RankError(CondensekitError):
    """Another rank of a run has ended, or does not answer."""

    exit_code = 1
    of_all = True


def unknown(kind: str, value: object, known: Iterable[str]) -> ConfigError:
    """Make the error for an unknown name: it offers what the word may mean, and the list of known names.

    Args:
        kind: What the name names.
        value: The unknown name.
        known: The names, the usual ones first.
    """
    names = list(known)
    more = [f"and {len(names) - LISTED} more"] if len(names) > LISTED else []
    listed = f"Known: {', '.join([*sorted(names)[:LISTED], *more])}"
    if not isinstance(value, str):
        return ConfigError(f"{kind} must be a name, got {quoted(value)}. {listed}")
    return ConfigError(f"unknown {kind} {value!r}.{meant(value, names)} {listed}")


def meant(value: str, known: Iterable[str]) -> str:
    """The sentence `` Did you mean 'dm'?`` with the names that a word may mean; empty if it means none of them."""
    word = (value.split() or [""])[0]  # options may follow a name
    near = " or ".join(map(repr, nearest(word, known)))
    return f" Did you mean {near}?" if near else ""


def refuse(*problems: str | None) -> None:
    """Raise one :class:`ConfigError` that lists all given problems; entries that are None are ignored."""
    found = [p for p in problems if p]
    if found:
        raise ConfigError(*found)


def require(condition: bool, problem: str) -> None:
    """Raise a :class:`ConfigError` with the text ``problem`` if the condition is false."""
    if not condition:
        raise ConfigError(problem)


def instance(name: str, value: object, kind: type, way_out: str) -> str | None:
    """The problem of an argument that must be an object of a class; None if there is no problem.

    Args:
        name: The name of the argument.
        value: The given value.
        kind: The expected class.
        way_out: A value that would work.
    """
    if isinstance(value, kind):
        return None
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    return f"{name} must be {article} {kind.__name__}, got {quoted(value)}: pass {way_out}"


def function(name: str, value: object, way_out: str, arguments: int | None = None) -> str | None:
    """The problem of an argument that must be a function or another callable object; None if there is no problem.

    Args:
        name: The name of the argument.
        value: The given value.
        way_out: A value that would work.
        arguments: Number of arguments that it is called with; None: it is not checked.
    """
    if not callable(value) or isinstance(value, type):
        return f"{name} must be a function, got {quoted(value)}: pass {way_out}"
    try:
        inspect.signature(value).bind(*[None] * (arguments or 0))
    except TypeError:
        if arguments is not None:
            return f"{name} must be a function of {arguments} arguments, got {quoted(value)}: pass {way_out}"
    except ValueError:
        pass  # a function written in C may have no signature
    return None


def path(name: str, value: object, way_out: str = "the path as a text") -> str | None:
    """The problem of an argument that must be a path; None if there is no problem."""
    if isinstance(value, str | os.PathLike):
        return None
    return f"{name} must be a path, got {quoted(value)}: pass {way_out}"


def several(name: str, value: object, way_out: str) -> str | None:
    """The problem of an argument that must be a list, a tuple or a range; None if there is no problem."""
    good = isinstance(value, list | tuple | range)
    return None if good else f"{name} must be a list, got {quoted(value)}: pass {way_out}"


def choice(name: str, value: object, known: Iterable[str]) -> str | None:
    """The problem of a value that must be one of some words; None if there is no problem."""
    words = tuple(known)
    if isinstance(value, str) and value in words:
        return None
    return f"{name} must be one of {', '.join(words)}, got {_brief(value)}"


def within(name: str, value: Any, low: float, high: float) -> str | None:
    """The problem of a value that must be a number from ``low`` to ``high``; None if there is no problem."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    return None if number and low <= value <= high else f"{name} must lie in [{low:g}, {high:g}], got {_brief(value)}"


def quoted(value: object) -> str:
    """A value as an error message shows it: the name of a class, or the first 60 characters of another value."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    text = " ".join(repr(value).split())
    return f"{text:.60} ({type(value).__name__})"


def _brief(value: object) -> str:
    """A value in one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text:.60}... ({type(value).__name__})"


def unusable(path: str | os.PathLike[str]) -> str | None:
    """Why no file can have this path; None if one can."""
    text = os.fspath(path)
    if not text.strip():
        return "it is empty"
    if "\0" in text:
        return "it has a zero byte"
    try:
        parts = os.fsencode(text).split(os.sep.encode())
    except UnicodeEncodeError:
        return "it has characters that no file name can have"
    if max(map(len, parts)) > LONGEST_NAME or len(os.fsencode(text)) > LONGEST_PATH:
        return "it is too long for a file name"
    return None


def whole(name: str, value: object, low: int | None = None) -> str | None:
    """The problem of a value that must be an integer, and at least ``low`` if given; None if there is no problem.

    NumPy's integers are accepted; True and False are not.
    """
    if not isinstance(value, bool) and isinstance(value, Integral) and (low is None or int(value) >= low):
        return None
    bound = "" if low is None else f" of at least {low}"
    return f"{name} must be an integer{bound}, got {_brief(value)}"


def finite(value: object) -> bool:
    """Whether a value is a finite number; True and False do not count as numbers."""
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def positive(name: str, value: Any, zero: bool = False) -> str | None:
    """The problem of a value that must be finite and above 0 (or at least 0 if ``zero``); None if there is none."""
    if finite(value) and (value > 0 or (zero and value == 0)):
        return None
    return (
        f"{name} must be finite and at least 0, got {_brief(value)}"
        if zero
        else f"{name} must be positive and finite, got {_brief(value)}"
    )


class Problems:
    """Collector of problems: build each object inside ``with problems:``, then call :meth:`refuse`."""

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
        """Raise one ConfigError with all collected problems, each of them once."""
        refuse(*dict.fromkeys(self.found))
