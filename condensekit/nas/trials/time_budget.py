"""Time budget: wall time for all the work, however often it is killed and continued."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TypedDict

from condensekit.errors import CondensekitError, StoreError, require
from condensekit.runs.files import read_json, write_json

log = logging.getLogger(__name__)

NOTE_EVERY_S = 1.0  # the time used; what a kill forgets is no longer
FILE = "time.json"  # beside the log of trials


class _Used(TypedDict):
    """The file."""

    used_s: float  # seconds


class OutOfTimeError(CondensekitError):
    """The budget ended before something was made; what it needs is kept, and a larger budget goes on."""


class TimeBudget:
    """Seconds that everything inside ``with budget:`` may take together, over all processes that use the same file.

    Args:
        seconds: In all, above 0; None: no limit, the time is noted all the same.
        path: A JSON file with ``used_s``, rewritten every second; None keeps the time in memory.

    Raises:
        ConfigError: ``seconds`` is not positive.
        StoreError: The file cannot be read, or says no time; when entered or left, written.
    """

    def __init__(self, seconds: float | None = None, path: Path | None = None) -> None:
        require(seconds is None or seconds > 0, f"budget_s must be positive, got {seconds}")
        self.seconds, self.path = seconds, path
        self._before = _used(path) if path is not None and os.path.lexists(path) else 0.0
        self._start: float | None = None
        self._ended = threading.Event()
        self._beat: threading.Thread | None = None

    @property
    def used_s(self) -> float:
        """Seconds used so far, by earlier processes too."""
        return self._before + (0.0 if self._start is None else time.monotonic() - self._start)

    @property
    def left_s(self) -> float:
        """Seconds left, at least 0; infinite without a limit."""
        return math.inf if self.seconds is None else max(0.0, self.seconds - self.used_s)

    @property
    def deadline(self) -> float | None:
        """``time.monotonic()`` at which it is spent; None without a limit."""
        return None if self.seconds is None else time.monotonic() + self.left_s

    def spent(self) -> bool:
        """Whether no time is left."""
        return self.left_s <= 0

    def __enter__(self) -> TimeBudget:
        self._start = time.monotonic()
        if self.path is not None:
            self._note()
            self._ended.clear()
            self._beat = threading.Thread(target=self._note_on, daemon=True)
            self._beat.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._ended.set()
        if self._beat is not None:
            self._beat.join()
        self._before, self._start = self.used_s, None
        if self.path is not None:
            self._note()

    def _note(self) -> None:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"used_s": round(self.used_s, 3)})

    def _note_on(self) -> None:
        while not self._ended.wait(NOTE_EVERY_S):
            try:
                self._note()
            except StoreError as error:
                log.warning("%s: a kill now would give its time back to the budget", error)


def _used(path: Path) -> float:
    """The seconds that a file says."""
    try:
        return float(read_json(path, _Used)["used_s"])
    except StoreError as error:
        raise StoreError(f"{path} does not say the time used ({error}): delete it to count from 0") from error
