"""How long work reports on itself without printing: the library calls, the caller decides what to show."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


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
