"""Progress: reports of long work; the library calls, the caller decides what to show."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class Stage:
    """One running piece of work; silent unless a subclass shows it."""

    def advance(self, steps: int = 1, values: Mapping[str, float] | None = None) -> None:
        """``steps`` more are done; ``values`` are the newest figures (say ``{"loss": 1.2}``)."""


class Shared(Stage):
    """One stage that several workers advance, and through which the failure of one reaches the others."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.lock = threading.Lock()
        self.failure: BaseException | None = None

    def advance(self, steps: int = 1, values: Mapping[str, float] | None = None) -> None:
        """Pass on; raises what failed elsewhere."""
        with self.lock:
            if self.failure:
                raise self.failure
            self.stage.advance(steps, values)

    @contextmanager
    def ending_all(self) -> Iterator[None]:
        """Whatever is raised inside, Ctrl-C included, ends the work of all workers at their next step."""
        try:
            yield
        except BaseException as error:
            self.failure = self.failure or error
            raise


class Progress:
    """Silent progress; subclass and override :meth:`stage` to show a bar."""

    @contextmanager
    def stage(self, name: str, total: int | None, done: int = 0) -> Iterator[Stage]:
        """A piece of work called ``name`` of ``total`` steps (None: unknown), ``done`` already finished."""
        yield Stage()


SILENT = Progress()


class Bar(Stage):
    """A stage shown as a bar of tqdm with its newest figures."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def advance(self, steps: int = 1, values: Mapping[str, float] | None = None) -> None:
        """See :meth:`Stage.advance`."""
        if values:
            self.bar.set_postfix({k: f"{v:.4g}" for k, v in values.items()}, refresh=False)
        self.bar.update(steps)


class Bars(Progress):
    """One bar for each stage on standard error, with the remaining time; nothing where that is no terminal."""

    @contextmanager
    def stage(self, name: str, total: int | None, done: int = 0) -> Iterator[Stage]:
        """See :meth:`Progress.stage`."""
        from tqdm import tqdm

        with tqdm(total=total, initial=done, desc=name, file=sys.stderr, disable=None, dynamic_ncols=True) as bar:
            yield Bar(bar)
