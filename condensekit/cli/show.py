"""Output of commands: results on standard output, bars and messages on standard error.

What comes from files and data is printed by :func:`condensekit.errors.printable`: it cannot control the terminal.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from condensekit.cli import waiting
from condensekit.cli.flags import as_flags
from condensekit.errors import printable, printable_lines
from condensekit.progress import SILENT, Bars, Lines, Part, Progress, Stage
from condensekit.ranks import launched
from condensekit.tables import terminal

if TYPE_CHECKING:
    from condensekit.sets.condensed import CondensedSet

IMAGES = "images.png"  # in the folder of a set
LONGEST_WORD, LONGEST_MESSAGE = 400, 6000  # characters


def progress(quiet: bool, tensorboard: Path | None = None, part: str = "") -> Progress:
    """Bars on standard error, or a line each minute if it is no terminal; no output if ``quiet``, and of other ranks.

    Args:
        quiet: Whether nothing is shown.
        tensorboard: The run folder that also gets event files for TensorBoard; None: no event files.
        part: Name and number of the part of the work that is shown, such as ``set 2 of 5``; empty: all of it.
    """
    if not launched().first:
        return SILENT
    shown = SILENT if quiet else _Bars() if sys.stderr.isatty() else Lines(tell)
    shown = Part(shown, part) if part else shown
    if tensorboard is None:
        return shown
    from condensekit.runs.tensorboard import FOLDER, TensorBoard  # it imports torch, which no help needs

    return TensorBoard(tensorboard / FOLDER, shown)


class _Bars(Bars):
    """Bars that end the waiting."""

    @contextmanager
    def stage(self, name: str, total: int | None, done: int = 0) -> Iterator[Stage]:
        """See :meth:`Progress.stage`."""
        waiting.end()
        with super().stage(name, total, done) as stage:
            yield stage


def emit(as_json: bool, record: Mapping[str, Any], text: str, err: bool = False) -> None:
    """Print a result, as one JSON object or as text; on standard error if standard output holds something else."""
    waiting.end()
    if launched().first:
        click.echo(json.dumps(record, indent=1) if as_json else printable_lines(text), err=err)


def tell(text: str, here: bool | None = None) -> None:
    """Print a message, one line on standard error.

    Args:
        text: The message.
        here: Whether this rank of a run prints it; None: rank 0 does.
    """
    waiting.end()
    if launched().first if here is None else here:
        click.echo(message(text), err=True)


def message(text: str) -> str:
    """A message of the library for a terminal: one line, flags for arguments, long words and quotations cut."""
    long = rf"\S{{{LONGEST_WORD},}}|(?<!\w)'[^']{{{LONGEST_WORD},}}'"
    words = re.sub(long, lambda found: _shortened(found[0], 100), as_flags(text))
    return printable(_shortened(words, LONGEST_MESSAGE))


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


class Warnings(logging.Formatter):
    """Warnings as lines that cannot control the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        return printable_lines(super().format(record))


def images(made: CondensedSet, folder: Path) -> None:
    """Write the picture of a set into its run folder; images of other than 1 or 3 channels have none."""
    from condensekit.sets.export import picture

    if made.spec.shape[0] in (1, 3):
        picture(made, folder / IMAGES)


def pairs(values: Mapping[str, Any]) -> str:
    """A ``key  value`` paragraph for each entry, aligned, that fits the terminal."""
    indent = max(map(len, values)) + 2
    width = max(2 * indent, terminal())
    return "\n".join(
        textwrap.fill(f"{key:<{indent}}{printable(value)}", width, subsequent_indent=" " * indent)
        for key, value in values.items()
    )


def size(nbytes: int) -> str:
    """A number of bytes with a unit: ``2.5 KiB``."""
    power = min(3, (max(1, nbytes).bit_length() - 1) // 10)
    return f"{nbytes / 1024**power:.4g} {('bytes', 'KiB', 'MiB', 'GiB')[power]}"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of texts as aligned columns, two blanks between them."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in shown)
