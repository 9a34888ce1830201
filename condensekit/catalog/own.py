"""Objects of your own: what ``module:object`` names, and which of these names count.

Importing a module runs its code. A name that the user gives is imported; a name that stands in a file is not, because
a file may come from somebody else.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from importlib.metadata import EntryPoint
from typing import Any

from condensekit.errors import require
from condensekit.runs.code import LOADED, code_of

_WORDS: ContextVar[tuple[str, ...] | None] = ContextVar("words", default=None)  # None: of a program; all names count
_BESIDE: ContextVar[bool] = ContextVar("beside", default=False)  # whether the current folder is searched


@contextlib.contextmanager
def only(*words: str, beside: bool = False) -> Iterator[None]:
    """Inside, only objects that are named in ``words`` are imported.

    Args:
        words: What the user gave, such as the words of a command line; without words, only built-in names count.
        beside: Whether to search the current folder for their modules, after all other folders.
    """
    before = _WORDS.set(words), _BESIDE.set(beside)
    around = LOADED.get()
    loaded = LOADED.set({} if around is None else around)
    try:
        yield
    finally:
        _WORDS.reset(before[0])
        _BESIDE.reset(before[1])
        LOADED.reset(loaded)


def check(kind: str, name: str) -> None:
    """Raise ConfigError for the name of an object that is not built in, where the user did not give that name."""
    words, alone = _WORDS.get(), rf"(?<![\w.:]){re.escape(name)}(?![\w.:])"
    require(
        words is None or any(re.search(alone, word) for word in words),
        f"{kind} {name!r} is not built in, and only a file names it: give it again",
    )


def load(kind: str, name: str) -> Any:
    """The object at ``module:object``.

    Raises:
        ConfigError: The user did not give that name.
        ImportError: There is no such module.
        AttributeError: The module has no such object, or the text is no such name.
    """
    check(kind, name)
    if _BESIDE.get():
        with contextlib.suppress(FileNotFoundError):  # the current folder is deleted
            sys.path += [here] if (here := os.getcwd()) not in sys.path else []
    before = _WORDS.set(None)  # names in that module are its own
    try:
        found = EntryPoint(name, name, "").load()
    finally:
        _WORDS.reset(before)
    loaded = LOADED.get()
    if loaded is not None:
        loaded |= code_of(found)
    return found
