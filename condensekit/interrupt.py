"""Interrupts: Ctrl-C and SIGTERM as a flag, so that a run ends after its current step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """The signal that asked the run to end; ``signum`` is None before a signal."""

    signum: int | None = None


@contextmanager
def caught() -> Iterator[Stop]:
    """Store the first SIGINT or SIGTERM in ``Stop.signum``; the second signal has its usual effect.

    Outside the main thread, Python allows no handlers, and signals keep their usual effect.
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
