"""Page: the report of run folders as one HTML file."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import condensekit
from condensekit.errors import ConfigError, path, quoted, refuse, require, unusable
from condensekit.html import render, style
from condensekit.html.strips import BUDGET
from condensekit.report import together
from condensekit.report.found import Found, find
from condensekit.report.run import Run, of, tried
from condensekit.runs.files import stream_of, write_bytes_atomic

log = logging.getLogger(__name__)
MOST_RUNS = 100
Given = str | os.PathLike[str]


@dataclass(frozen=True)
class Reported:
    """A report that was written.

    Args:
        path: Its file.
        nbytes: Its size.
        runs: What it says of each run.
    """

    path: Path
    nbytes: int
    runs: tuple[Run, ...]


def report(runs: Given | Sequence[Given], out: Given, *, overwrite: bool = False) -> Reported:
    """Write a report of run folders as one HTML file, which needs nothing from elsewhere.

    What a run lacks, because it is unfinished, damaged or of another version, is said in the report, and in a warning
    of the log for each run.

    Args:
        runs: Folders made by condense, select, replay, search or demo (with the results of evaluate), or files of
            sets; one of them, or a list of at most 100.
        out: The HTML file. ``/dev/stdout`` is written to as a stream.
        overwrite: Whether an existing file is replaced.

    Raises:
        ConfigError: No run, too many, or one given twice; the file exists and ``overwrite`` is off; a run that holds
            nothing to show, if no other run does.
        DataError: There is no such run, if no other run can be shown.
        StoreError: No run can be shown, and one is damaged; the file cannot be written.
    """
    refuse(path("out", out, "the HTML file"))
    given = [Path(run) for run in ([runs] if isinstance(runs, str | os.PathLike) else _listed(runs))]
    out = Path(out)
    _check(given, out, overwrite)
    found = [one for path in given for one in find(path)]
    if all(one.empty for one in found):
        faults = [fault for one in found for fault in one.faults]
        raise (
            max(faults, key=lambda fault: fault.exit_code)
            if faults
            else ConfigError(
                f"nothing to report in {found[0].path}: give folders made by condense, select, replay, search or demo"
            )
        )
    text, made = page(found)
    for one in made:
        if one.lacks:
            log.warning("%s", "; ".join(one.lacks))
    content = text.encode()
    write_bytes_atomic(out, content)
    return Reported(out, len(content), tuple(made))


def page(found: Sequence[Found]) -> tuple[str, list[Run]]:
    """The HTML text of a report, and what it says of each run."""
    pictures = sum(any(member.set is not None for member in one.members) for one in found)
    judged = {row.set.partition(" (")[0] for one in found if one.evaluation for row in one.evaluation.rows}
    runs = [of(one, BUDGET // max(1, pictures), judged) for one in found]
    title = f"Report of {runs[0].name}" if len(runs) == 1 else f"Report of {len(runs)} runs"
    lacks: list[str] = []
    joined = tried("the comparison", lambda: together.sections(found), lacks)
    text = render(
        "page.html",
        title=title,
        made=f"Made by condensekit {condensekit.__version__}",
        style=style(),
        runs=runs,
        together=joined,
        lacks=lacks,
    )
    return str(text), runs


def _listed(runs: object) -> list[Given]:
    require(
        isinstance(runs, Sequence) and all(isinstance(run, str | os.PathLike) for run in runs),
        f"runs must be the path of a run folder or a list of these, got {quoted(runs)}",
    )
    return list(runs)  # type: ignore[call-overload, no-any-return]


def _check(given: Sequence[Path], out: Path, overwrite: bool) -> None:
    twice = [path for place, path in enumerate(given) if path in given[:place]]
    bad = next(((path, why) for path in (*given, out) if (why := unusable(path))), None)
    taken = stream_of(out) is None and not overwrite and not bad and os.path.lexists(out)
    refuse(
        None if given else "no runs: give at least one run folder",
        f"{len(given):,} runs are given, the most is {MOST_RUNS}: make several reports"
        if len(given) > MOST_RUNS
        else None,
        f"{twice[0]} is given twice: leave one out" if twice else None,
        f"{str(bad[0])!r} is no path: {bad[1]}" if bad else None,
        f"{out} exists: pass overwrite=True to replace it, or choose another name" if taken else None,
    )
