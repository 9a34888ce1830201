"""Command ``report``: one HTML file about runs."""

from __future__ import annotations

from pathlib import Path

import click

from condensekit.cli import show
from condensekit.cli.kinds import Command, Location, option
from condensekit.cli.options import JSON
from condensekit.report import report
from condensekit.runs.files import stream_of

HELP = """Write one HTML file about each RUN: what it found, in a sentence with its figure, and how sure that is;
images, learning curves, tables, cost, data, options, and the command that repeats it.

The file needs nothing from elsewhere, is light or dark as the reader's system is, and can be printed. RUN is a folder
made by condense, select, replay, search or demo; the results of evaluate are in the folder of its first RUN. Of an
unfinished or damaged run, the report shows what is there and says what lacks.

\b
Examples:
  condensekit report runs/dm --out dm.html
  condensekit report runs/dm runs/kmeans runs/replay --out all.html --overwrite
"""


@click.command("report", cls=Command, help=HELP)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=Location())
@option(
    "--out",
    type=Location("file"),
    required=True,
    help="The file to make; /dev/stdout writes it to standard output.",
)
@option("--overwrite", is_flag=True, help="Replace an existing file.")
@JSON
def command(runs: tuple[Path, ...], out: Path, overwrite: bool, as_json: bool) -> None:
    """Read the runs, write the report, and show the verdicts."""
    made = report(runs, out, overwrite=overwrite)
    record = {
        "report": str(made.path),
        "nbytes": made.nbytes,
        "runs": [{"run": one.name, "verdict": one.verdict, "lacks": list(one.lacks)} for one in made.runs],
    }
    lines = [f"{one.name}: {one.verdict}" for one in made.runs]
    text = "\n".join([*lines, f"Report: {made.path} ({show.size(made.nbytes)}); open it in a browser"])
    show.emit(as_json, record, text, err=stream_of(out) == 1)
