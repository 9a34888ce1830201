"""Command ``export``: write a set as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from condensekit.cli import show
from condensekit.cli.kinds import Command, Location, Whole, option
from condensekit.cli.options import JSON
from condensekit.errors import ConfigError
from condensekit.runs.files import stream_of
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.export import to_folder, to_png_grid
from condensekit.sets.found import find_one

HELP = """Write the images of RUN as PNG files.

--to makes one folder per class, the layout that torchvision's ImageFolder, Keras and most tools read.
labels.json in it says the label of each folder, the values of the pixels and the soft labels; load.py reads them.
Values are turned back into pixels and clipped to the range of a PNG file; values that are no pixels, of data that came
normalised, are mapped from the least and the greatest.

\b
Examples:
  condensekit export runs/dm --to images
  condensekit export runs/dm --grid dm.png --seed 2
"""


@click.command("export", cls=Command, help=HELP)
@click.argument("run", type=Location())
@option("--to", "folder", type=Location("folder"), help="A new or empty folder of images.")
@option(
    "--grid",
    type=Location("file"),
    help="One picture of all images, with a row for each class; /dev/stdout writes it to standard output.",
)
@option("--seed", type=Whole(), help="Seed of one set, if RUN has several sets.  [default: the first]")
@JSON
def command(run: Path, folder: Path | None, grid: Path | None, seed: int | None, as_json: bool) -> None:
    """Load the set, and write the folder and the picture."""
    if folder is None and grid is None:
        raise ConfigError("nothing to write: give --to FOLDER or --grid FILE.png")
    chosen = CondensedSet.load(find_one(run, seed))
    written: dict[str, Any] = {}
    if folder is not None:
        to_folder(chosen, folder)
        written["folder"] = str(folder)
    if grid is not None:
        to_png_grid(chosen, grid)
        written["grid"] = str(grid)
    images = len(chosen.decode()[0])
    mapped = None if chosen.spec.pixels else chosen.value_range
    note = "" if mapped is None else f"; values from {mapped[0]:.3g} to {mapped[1]:.3g} became pixels from 0 to 255"
    text = f"wrote {images} images to {' and '.join(written.values())}{note}"
    to_stdout = grid is not None and stream_of(grid) == 1
    show.emit(as_json, {**written, "images": images, "range": mapped}, text, err=to_stdout)
