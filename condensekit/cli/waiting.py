"""Waiting: a sign of life while libraries are imported and data are read, and what an interrupted command leaves.

This module imports the standard library alone, so that it comes before anything else is imported.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path

AFTER, EACH = 1.5, 30.0  # seconds without a line: before the first one, and between it and further ones
COMPUTING = ("condense", "select", "code", "evaluate", "replay", "search", "demo")
DROPPED = {"replay": "the training in work starts anew, a condensation goes on from its checkpoint"}
"""What an interrupted command does not keep, where it is more than a step."""
PLACE: ContextVar[tuple[str, Path] | None] = ContextVar("place", default=None)
"""Name and run folder of the present command, if it can be resumed."""
KEPT: ContextVar[Path | None] = ContextVar("kept", default=None)
"""Folder that keeps what the present command has finished, if the same command goes on from there."""
_ended = threading.Event()


def begin(words: Sequence[str]) -> None:
    """Say in a moment, and then now and again, that a command which computes has started, until it says something."""
    global _ended  # one process, one command
    _ended = threading.Event()
    if words and words[0] in COMPUTING and not {"--quiet", "--help", "--help-all", "-h"} & set(words):
        threading.Thread(target=_tell, args=[words[0], _ended], daemon=True).start()


def end() -> None:
    """Say nothing: the command does."""
    _ended.set()


def _tell(command: str, ended: threading.Event) -> None:
    began, wait, so_far = time.monotonic(), AFTER, ""
    while not ended.wait(wait):
        print(f"condensekit {command}: loading PyTorch and the data{so_far}", file=sys.stderr, flush=True)
        wait = EACH
        so_far = f", {time.monotonic() - began + wait:.0f} s so far"


def interrupted() -> str:
    """What the present command leaves after Ctrl-C, and how it goes on."""
    if kept := KEPT.get():
        return f"Interrupted: what is finished is kept in {kept}. To go on: repeat the command"
    name, out = PLACE.get() or ("", Path())
    if name and (any(out.glob("config.json")) or any(out.glob("seed-*/config.json"))):
        drops = f" ({DROPPED[name]})" if name in DROPPED else ""
        return f"Interrupted: what is finished is kept in {out}{drops}. To go on: {again(name, out)}"
    return "Interrupted: nothing is kept"


def again(name: str, out: Path) -> str:
    """The command that continues the run in ``out``."""
    return f"condensekit {name} --resume --out {out}"
