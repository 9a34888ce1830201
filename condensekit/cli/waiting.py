"""Waiting: a sign of life while libraries are imported and data are read, and what an interrupted command leaves.

This module imports the standard library alone, so that it comes before anything else is imported.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path

AFTER = 1.5  # seconds without a line
COMPUTING = ("condense", "select", "code", "evaluate", "replay", "search", "demo")
PLACE: ContextVar[tuple[str, Path] | None] = ContextVar("place", default=None)
"""Name and run folder of the present command, if it can be resumed."""
KEPT: ContextVar[Path | None] = ContextVar("kept", default=None)
"""Folder that keeps what the present command has finished, if the same command goes on from there."""
_timer: threading.Timer | None = None


def begin(words: Sequence[str]) -> None:
    """Say in a moment that a command which computes has started, unless it says something before."""
    global _timer  # one process, one command
    if words and words[0] in COMPUTING and not {"--quiet", "--help", "--help-all", "-h"} & set(words):
        _timer = threading.Timer(AFTER, _tell, [words[0]])
        _timer.daemon = True
        _timer.start()


def end() -> None:
    """Say nothing: the command does."""
    if _timer:
        _timer.cancel()


def _tell(command: str) -> None:
    print(f"condensekit {command}: loading PyTorch and the data", file=sys.stderr, flush=True)


def interrupted() -> str:
    """What the present command leaves after Ctrl-C, and how it goes on."""
    if kept := KEPT.get():
        return f"Interrupted: what is finished is kept in {kept}. To go on: repeat the command"
    name, out = PLACE.get() or ("", Path())
    if name and (any(out.glob("config.json")) or any(out.glob("seed-*/config.json"))):
        return f"Interrupted: what is finished is kept in {out}. To go on: {again(name, out)}"
    return "Interrupted: nothing is kept"


def again(name: str, out: Path) -> str:
    """The command that continues the run in ``out``."""
    return f"condensekit {name} --resume --out {out}"
