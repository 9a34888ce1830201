"""Command line: one file for each command, imported when the command is called. Only this package prints.

This module imports the standard library alone, so that signals are handled before anything else is imported.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

from condensekit import interrupt
from condensekit.cli import waiting

COMMANDS = {
    "condense": "Learn a few synthetic images per class.",
    "select": "Choose a few real images per class.",
    "encoders": "Train networks that embed images, once for all condensations.",
    "code": "Store a set's images as pictures or with few bits: more in the same bytes.",
    "list": "List methods, selections, networks, encoders, memories, rankers or data.",
    "methods": "Show the options of each method.",
    "evaluate": "Train networks from scratch on sets; compare them with baselines.",
    "replay": "Learn classes in several experiences with condensed memory; compare with random memory.",
    "search": "Rank architectures by training them on a small proxy set.",
    "report": "Write one HTML file: verdict, images, curves, tables, cost, command.",
    "export": "Write a set as PNG files, one folder per class.",
    "inspect": "Show the contents of a set and how it was made.",
    "demo": "Condense small digits and compare with random images; minutes, no download.",
}


def imported(name: str) -> Any:
    """The command called ``name``, a key of :data:`COMMANDS`."""
    module = "lists" if name == "list" else name  # a module called list would hide the class in this package
    return importlib.import_module(f"condensekit.cli.{module}").command


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code; every expected failure is one line on standard error.

    Args:
        arguments: The words after ``condensekit``; None: those of this process. Where they are given, handlers of
            signals and ``sys.path`` are as before in the end.
    """
    handlers, path = {s: signal.getsignal(s) for s in interrupt.SIGNALS}, list(sys.path)
    try:
        interrupt.end_by_signals()
        leave_current_folder()
        if arguments is None and os.environ.get("RANK", "0") == "0":
            waiting.begin(sys.argv[1:])
        run = importlib.import_module("condensekit.cli.group").run
        code = contextvars.copy_context().run(run, arguments)
    finally:
        if arguments is not None:
            sys.path[:] = path
            for s, handler in handlers.items():
                signal.signal(s, handler)
    if arguments is None and (code > 128 or _waited_for()):
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # taking torch apart in order would take seconds
    sys.exit(code)


def _waited_for() -> bool:
    """Whether the process would wait for a thread, which a candidate of a search may have left."""
    return any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread())


def leave_current_folder() -> None:
    """Search the current folder for no module: torch and others look for optional ones, and run what they find.

    A ``module:object`` of the command line is still found there, see :mod:`condensekit.catalog.own`.
    """
    sys.path[:] = [entry for entry in sys.path if entry and not _is_current(entry)]


def _is_current(folder: str) -> bool:
    try:
        return os.path.samefile(folder, os.curdir)
    except OSError:
        return False
