"""Command ``report``: one HTML file about runs."""

from __future__ import annotations

from pathlib import Path

import click

from condensekit.cli import show
from condensekit.cli.kinds import Command, Location, option
from condensekit.cli.options import JSON
from condensekit.errors import refuse
from condensekit.report import report
from condensekit.runs.files import stream_of

HELP = """Write one HTML file about each RUN: what it found, in a sentence with its figure, and how sure that is;
images, learning curves, tables, cost, data, options, and the command that repeats it.

The file needs nothing from elsewhere, is light or dark as the reader's system is, and can be printed. RUN is a folder
made by condense, select, replay, search or demo; the results of evaluate are in the folder of its first RUN. Of an
unfinished or damaged run, the report shows what is there and says what lacks.

\b
Examples:
  condensekit report runs/dm
  condensekit report runs/dm runs/kmeans runs/replay --out all.html --overwrite
"""


@click.command("report", cls=Command, help=HELP)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=Location())
@option(
    "--out",
    type=Location("file"),
    help="The file to make; /dev/stdout is standard output. Needed for several runs.  [default: report.html in RUN]",
)
@option("--overwrite", is_flag=True, help="Replace an existing file.")
@JSON
def command(runs: tuple[Path, ...], out: Path | None, overwrite: bool, as_json: bool) -> None:
    """Read the runs, write the report, and show the verdicts."""
    if out is None:
        refuse("a report of several runs has no default --out: give one, such as --out all.html" if runs[1:] else None)
        out = (runs[0] if runs[0].is_dir() else runs[0].parent) / "report.html"
    made = report(runs, out, overwrite=overwrite)
    record = {
        "report": str(made.path),
        "nbytes": made.nbytes,
        "runs": [{"run": one.name, "verdict": one.verdict, "lacks": list(one.lacks)} for one in made.runs],
    }
    lines = [f"{one.name}: {one.verdict}" for one in made.runs]
    text = "\n".join([*lines, f"Report: {made.path} ({show.size(made.nbytes)}); open it in a browser"])
    show.emit(as_json, record, text, err=stream_of(out) == 1)
