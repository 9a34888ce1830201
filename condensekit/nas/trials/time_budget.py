"""Time budget: wall time of all work together, counted on after a kill and a resume."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TypedDict

from condensekit import errors
from condensekit.errors import CondensekitError, StoreError, positive, refuse
from condensekit.runs.files import read_json, write_json

log = logging.getLogger(__name__)

NOTE_EVERY_S = 1.0  # seconds between two writes of the time used: a kill loses at most this time
FILE = "time.json"  # file with the time used, in the folder of the log of trials


class _Used(TypedDict):
    """The file."""

    used_s: float  # seconds


class OutOfTimeError(CondensekitError):
    """The budget ended before a result was made; finished parts are kept, and a larger budget continues."""


class TimeBudget:
    """Budget for the wall time inside ``with budget:``, over all processes that use the same file.

    >>> from condensekit.nas import TimeBudget
    >>> with TimeBudget(seconds=3600) as budget:
    ...     budget.spent()
    False

    Args:
        seconds: Size of the budget, above 0; None: no limit, but the time is counted, too.
        path: JSON file with the entry ``used_s``, written every second; None: the time is kept in memory.

    Raises:
        ConfigError: ``seconds`` is not positive and finite.
        StoreError: The file cannot be read or has no valid time; at the begin and end of the context, if it cannot be
            written.
    """

    def __init__(self, seconds: float | None = None, path: Path | None = None) -> None:
        refuse(
            None if seconds is None else positive("budget_s", seconds),
            None if path is None else errors.path("path", path, "a JSON file"),
        )
        path = None if path is None else Path(path)
        self.seconds, self.path = seconds, path
        self._before = _used(path) if path is not None and os.path.lexists(path) else 0.0
        self._start: float | None = None
        self._ended = threading.Event()
        self._beat: threading.Thread | None = None

    @property
    def used_s(self) -> float:
        """Seconds used so far, including those of earlier processes."""
        return self._before + (0.0 if self._start is None else time.monotonic() - self._start)

    @property
    def left_s(self) -> float:
        """Seconds left, at least 0; infinite: there is no limit."""
        return math.inf if self.seconds is None else max(0.0, self.seconds - self.used_s)

    @property
    def deadline(self) -> float | None:
        """Value of ``time.monotonic()`` at which the budget ends; None: there is no limit."""
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
                log.warning("%s: after a kill the time since the last write would not be counted", error)


def _used(path: Path) -> float:
    """The seconds in a file of the time used."""
    try:
        return float(read_json(path, _Used)["used_s"])
    except StoreError as error:
        raise StoreError(
            f"{path} has no valid time used (used_s, in seconds): {error}; delete the file to count from 0"
        ) from error
