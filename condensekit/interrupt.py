"""Interrupts: Ctrl-C, SIGTERM and SIGHUP, as a flag inside a run and as the end of a command."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Signalled(KeyboardInterrupt):
    """A signal ends the command. Libraries handle a KeyboardInterrupt as Ctrl-C; a SystemExit may be a failure to them.

    Args:
        signum: The signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.signum = signum


class Stop:
    """The signal that asked the run to end; ``signum`` is None before a signal."""

    signum: int | None = None


@contextmanager
def caught() -> Iterator[Stop]:
    """Store the first of :data:`SIGNALS` in ``Stop.signum``; the second signal has its usual effect.

    In a command, the second signal ends the process at once. Under ``nohup``, SIGHUP stays ignored. Outside the main
    thread, Python allows no handlers, and signals keep their usual effect.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {s: signal.getsignal(s) or signal.SIG_DFL for s in _heard()}

    def note(signum: int, frame: FrameType | None) -> None:
        stop.signum = signum
        for s, handler in before.items():
            signal.signal(s, leave if handler is _end else handler)

    for s in before:
        signal.signal(s, note)
    try:
        yield stop
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def end_by_signals() -> None:
    """Let the first signal end the command by :class:`Signalled`, and the second signal end the process at once.

    During an import the first one ends the process at once: libraries lose exceptions while they are imported, and
    nothing has to be undone.
    """
    for s in _heard():
        signal.signal(s, _end)


def leave(signum: int, frame: FrameType | None = None) -> NoReturn:
    """End the process at once, with the exit code of a signal. What it started notices, and ends too."""
    os._exit(128 + signum)


def _heard() -> list[signal.Signals]:
    """All but a SIGHUP that is ignored, as under ``nohup``."""
    return [s for s in SIGNALS if s.name != "SIGHUP" or signal.getsignal(s) is not signal.SIG_IGN]


def _end(signum: int, frame: FrameType | None) -> NoReturn:
    for s in _heard():
        signal.signal(s, leave)
    if _importing(frame):
        leave(signum)
    raise Signalled(signum)


def _importing(frame: FrameType | None) -> bool:
    """Whether the main thread is in an import."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False
