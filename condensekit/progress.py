"""How long work reports on itself without printing: the library calls, the caller decides what to show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Stage:
    """One running piece of work; silent unless a subclass shows it."""

    def advance(self, steps: int = 1, values: Mapping[str, float] | None = None) -> None:
        """``steps`` more are done; ``values`` are the newest figures (say ``{"loss": 1.2}``)."""


class Progress:
    """Silent progress; subclass and override :meth:`stage` to show a bar."""

    @contextmanager
    def stage(self, name: str, total: int | None, done: int = 0) -> Iterator[Stage]:
        """A piece of work called ``name`` of ``total`` steps (None: unknown), ``done`` already finished."""
        yield Stage()


SILENT = Progress()
