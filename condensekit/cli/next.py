"""Next: the last lines of a command's text, which tell where the result is, what it means and what to do next."""

from __future__ import annotations

import shlex
from pathlib import Path


def ending(place: object, meaning: str | None, purpose: str, *command: object, program: str = "condensekit") -> str:
    """The last lines of the text of a command that made something.

    >>> print(ending("runs/dm", "The set holds 10 images condensed by dm.", "measure them", "evaluate", "runs/dm"))
    Result: runs/dm
    The set holds 10 images condensed by dm.
    Next, to measure them: condensekit evaluate runs/dm

    Args:
        place: The folder or file of the result.
        meaning: What was found, in a sentence with its figure, see :mod:`condensekit.report`; None: nothing to tell.
        purpose: What the next command is for, after ``to``.
        command: The words of the next command after its program; paths are quoted for a shell.
        program: The program.
    """
    lines = [f"Result: {place}", meaning, f"Next, to {purpose}: {words(program, *command)}"]
    return "\n".join(line for line in lines if line)


def page(folder: Path, *runs: Path) -> tuple[object, ...]:
    """The words of the command that writes the report of runs into a folder; it replaces the one that is there."""
    file = folder / "report.html"
    return ("report", *runs, "--out", file, *(["--overwrite"] * file.exists()))


def words(*command: object) -> str:
    """A command as one line for a shell.

    >>> words("condensekit", "evaluate", "my runs/dm")
    "condensekit evaluate 'my runs/dm'"
    """
    return shlex.join(map(str, command))
