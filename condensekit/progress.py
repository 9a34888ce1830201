"""Progress: reports of long work. The library reports, and the caller decides what to show."""

from __future__ import annotations

import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

FIRST_LINE, NEXT_LINE = 10.0, 60.0  # seconds until the first line about a stage, and between later lines


class Stage:
    """A running piece of work; a subclass may show it."""

    def advance(self, steps: int = 1, values: Mapping[str, float] | None = None) -> None:
        """Report that ``steps`` more steps are done; ``values`` are the newest metrics, such as ``{"loss": 1.2}``."""


class Shared(Stage):
    """A stage that several workers share; when one worker fails, the others stop."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.lock = threading.Lock()
        self.failure: BaseException | None = None

    def advance(self, steps: int = 1, values: Mapping[str, float] | None = None) -> None:
        """Advance the stage; raises the error of another worker."""
        with self.lock:
            if self.failure:
                raise self.failure
            self.stage.advance(steps, values)

    @contextmanager
    def ending_all(self) -> Iterator[None]:
        """Make an error raised inside, or Ctrl-C, stop all workers at their next step."""
        try:
            yield
        except BaseException as error:
            self.failure = self.failure or error
            raise


class Progress:
    """Silent progress; subclass and override :meth:`stage` to show a bar."""

    @contextmanager
    def stage(self, name: str, total: int | None, done: int = 0) -> Iterator[Stage]:
        """Begin a piece of work with ``total`` steps (None: unknown), of which ``done`` are finished already."""
        yield Stage()


SILENT = Progress()


class Bar(Stage):
    """A stage shown as a bar of tqdm with its newest metrics."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def advance(self, steps: int = 1, values: Mapping[str, float] | None = None) -> None:
        """See :meth:`Stage.advance`."""
        if values:
            self.bar.set_postfix({k: f"{v:.4g}" for k, v in values.items()}, refresh=False)
        self.bar.update(steps)


class Bars(Progress):
    """A bar for each stage on standard error, with the remaining time; no output if it is no terminal or notebook."""

    @contextmanager
    def stage(self, name: str, total: int | None, done: int = 0) -> Iterator[Stage]:
        """See :meth:`Progress.stage`."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "IProgress not found")  # a notebook without ipywidgets has text bars
            from tqdm.auto import tqdm

        disable = False if type(sys.stderr).__module__.startswith("ipykernel.") else None  # None: unless a terminal
        with tqdm(total=total, initial=done, desc=name, file=sys.stderr, disable=disable, dynamic_ncols=True) as bar:
            yield Bar(bar)


class Line(Stage):
    """A stage that is told in lines.

    Args:
        name: Name of the stage.
        total: Number of steps; None: unknown.
        done: Number of finished steps.
        tell: Prints one line.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        name: str,
        total: int | None,
        done: int,
        tell: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.total, self.done, self.tell, self.clock = name, total, done, tell, clock
        self.began, self.before = clock(), done
        self.due = self.began + FIRST_LINE

    def advance(self, steps: int = 1, values: Mapping[str, float] | None = None) -> None:
        """See :meth:`Stage.advance`."""
        self.done += steps
        now = self.clock()
        if now < self.due:
            return
        self.due = now + NEXT_LINE
        numbers = [f"{self.done}" if self.total is None else f"{self.done} of {self.total}"]
        numbers += [f"{name} {value:.4g}" for name, value in (values or {}).items()]
        if self.total is not None and self.done > self.before:
            left = (now - self.began) / (self.done - self.before) * (self.total - self.done)
            numbers.append(f"{duration(left)} left")
        self.tell(f"{datetime.now():%H:%M:%S} {self.name}: {', '.join(numbers)}")


class Lines(Progress):
    """A line about each running stage after some seconds, and then every minute: for logs and clusters.

    Args:
        tell: Prints one line.
    """

    def __init__(self, tell: Callable[[str], object]) -> None:
        self.tell = tell

    @contextmanager
    def stage(self, name: str, total: int | None, done: int = 0) -> Iterator[Stage]:
        """See :meth:`Progress.stage`."""
        yield Line(name, total, done, self.tell)


def duration(seconds: float) -> str:
    """A time for people: ``42 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
