"""Progress: reports of long work. The library reports, and the caller decides what to show."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


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
    """A bar for each stage on standard error, with the remaining time; no output if it is not a terminal."""

    @contextmanager
    def stage(self, name: str, total: int | None, done: int = 0) -> Iterator[Stage]:
        """See :meth:`Progress.stage`."""
        from tqdm import tqdm

        with tqdm(total=total, initial=done, desc=name, file=sys.stderr, disable=None, dynamic_ncols=True) as bar:
            yield Bar(bar)
