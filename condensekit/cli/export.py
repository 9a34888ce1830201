"""Command ``export``: write a set as pictures or arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from condensekit.cli import show
from condensekit.cli.kinds import Command, Location, Whole, option
from condensekit.cli.next import ending
from condensekit.cli.options import JSON
from condensekit.data.folders import LOADER
from condensekit.errors import ConfigError
from condensekit.runs.files import stream_of
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.export import picture, to_folder, to_npz
from condensekit.sets.found import find_one

HELP = """Write the images of RUN as PNG files, as one picture, or as NumPy arrays.

--to makes one folder per class, the layout that torchvision's ImageFolder, Keras and most tools read.
labels.json in it says the label of each folder, the values of the pixels and the soft labels; load.py reads them.
--npz writes images as networks see them, (N, C, H, W) normalised float32, with labels, soft labels if there are any,
mean, std and class names. In Python, CondensedSet.as_dataset() is a torch data set for a DataLoader.

Values are turned back into pixels and clipped to the range of a PNG file; values that are no pixels, of data that came
normalised, are mapped from the least and the greatest.

\b
Examples:
  condensekit export runs/dm --to images
  condensekit export runs/dm --grid dm.png --seed 2
  condensekit export runs/dm --npz dm.npz
"""


@click.command("export", cls=Command, help=HELP)
@click.argument("run", type=Location())
@option("--to", "folder", type=Location("folder"), help="A new or empty folder of images.")
@option(
    "--grid",
    type=Location("file"),
    help="One picture of the images, a row for each class with its name; /dev/stdout writes it to standard output.",
)
@option("--npz", type=Location("file"), help="A new file of NumPy arrays.")
@option("--seed", type=Whole(), help="Seed of one set, if RUN has several sets.  [default: the first]")
@JSON
def command(
    run: Path, folder: Path | None, grid: Path | None, npz: Path | None, seed: int | None, as_json: bool
) -> None:
    """Load the set, and write the folder, the picture and the arrays."""
    if folder is None and grid is None and npz is None:
        raise ConfigError("nothing to write: give --to FOLDER, --grid FILE.png or --npz FILE.npz")
    chosen = CondensedSet.load(find_one(run, seed))
    written: dict[str, Any] = {}
    if folder is not None:
        to_folder(chosen, folder)
        written["folder"] = str(folder)
    if grid is not None:
        picture(chosen, grid)
        written["grid"] = str(grid)
    if npz is not None:
        to_npz(chosen, npz)
        written["npz"] = str(npz)
    factor = chosen.formation.factor
    images = len(chosen) * factor**2
    mapped = None if chosen.spec.pixels else chosen.value_range
    told = [f"{images} images of {len(chosen.classes)} classes"]
    told += [f"unpacked from {len(chosen)} stored images, each at 1/{factor} of the resolution"] * (factor > 1)
    if mapped is not None:
        told.append(f"in pictures, values from {mapped[0]:.3g} to {mapped[1]:.3g} became pixels from 0 to 255")
    place, meaning = " and ".join(written.values()), f"Wrote {'; '.join(told)}."
    if folder is not None:
        end = ending(place, meaning, "read images and labels in Python", folder / LOADER, program="python")
    else:
        end = ending(place, meaning, "write each image to a file of its own", "export", run, "--to", "images")
    to_stdout = any(stream_of(path) == 1 for path in (grid, npz) if path is not None)
    record = {**written, "images": images, "stored": len(chosen), "range": mapped}
    show.emit(as_json, record, end, err=to_stdout)
