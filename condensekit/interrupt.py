"""Interrupts: Ctrl-C and SIGTERM as a flag, so that a running step ends before the run does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether a signal has asked the run to end."""

    signum: int | None = None


@contextmanager
def caught() -> Iterator[Stop]:
    """Turn the first SIGINT or SIGTERM into ``Stop.signum``; a second one acts as usual.

    Outside the main thread, where Python allows no handlers, signals keep their meaning.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {s: signal.getsignal(s) or signal.SIG_DFL for s in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for s, handler in before.items():
            signal.signal(s, handler)

    def note(signum: int, frame: FrameType | None) -> None:
        stop.signum = signum
        restore()

    for s in before:
        signal.signal(s, note)
    try:
        yield stop
    finally:
        restore()
