"""What the user sees: progress bars and messages on standard error, results on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click
from tqdm import tqdm

from condensekit.progress import Progress, Stage


class _Bar(Stage):
    """A stage shown as a bar with its newest figures."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def advance(self, steps: int = 1, values: Mapping[str, float] | None = None) -> None:
        if values:
            self.bar.set_postfix({k: f"{v:.4g}" for k, v in values.items()}, refresh=False)
        self.bar.update(steps)


class Bars(Progress):
    """One bar for each stage, with the remaining time; nothing where standard error is no terminal."""

    @contextmanager
    def stage(self, name: str, total: int | None, done: int = 0) -> Iterator[Stage]:
        """See :meth:`Progress.stage`."""
        with tqdm(total=total, initial=done, desc=name, file=sys.stderr, disable=None, dynamic_ncols=True) as bar:
            yield _Bar(bar)


def emit(as_json: bool, record: Mapping[str, Any], text: str) -> None:
    """Print a result: as one JSON object, or for people."""
    click.echo(json.dumps(record, indent=1) if as_json else text)


def pairs(values: Mapping[str, Any]) -> str:
    """One ``key  value`` line for each entry, aligned."""
    width = max(map(len, values))
    return "\n".join(f"{key:<{width}}  {value}" for key, value in values.items())


def size(nbytes: int) -> str:
    """``2.5 KiB`` and the like."""
    power = min(3, (max(1, nbytes).bit_length() - 1) // 10)
    return f"{nbytes / 1024**power:.4g} {('bytes', 'KiB', 'MiB', 'GiB')[power]}"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of texts as aligned columns, two blanks between them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
