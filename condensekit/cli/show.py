"""Output of commands: results on standard output, bars and messages on standard error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from condensekit.progress import SILENT, Bars, Progress


def progress(quiet: bool) -> Progress:
    """Bars on standard error; no output if ``quiet``."""
    return SILENT if quiet else Bars()


def emit(as_json: bool, record: Mapping[str, Any], text: str, err: bool = False) -> None:
    """Print a result, as one JSON object or as text; on standard error if standard output holds something else."""
    click.echo(json.dumps(record, indent=1) if as_json else text, err=err)


def pairs(values: Mapping[str, Any]) -> str:
    """One ``key  value`` line for each entry, aligned."""
    width = max(map(len, values))
    return "\n".join(f"{key:<{width}}  {value}" for key, value in values.items())


def size(nbytes: int) -> str:
    """A number of bytes with a unit: ``2.5 KiB``."""
    power = min(3, (max(1, nbytes).bit_length() - 1) // 10)
    return f"{nbytes / 1024**power:.4g} {('bytes', 'KiB', 'MiB', 'GiB')[power]}"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of texts as aligned columns, two blanks between them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
