"""Command ``export``: write a set as pictures, as arrays, or as files that other codes read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from condensekit.cli import show
from condensekit.cli.kinds import Command, Location, Whole, option
from condensekit.cli.next import ending
from condensekit.cli.options import JSON
from condensekit.cli.public import Public, public_options
from condensekit.data.folders import LOADER
from condensekit.errors import ConfigError
from condensekit.runs.files import stream_of
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.export import picture, to_folder, to_npz, to_pair, to_pt

HELP = """Write the images of RUN as PNG files, as one picture, as NumPy arrays, or as .pt files that other codes read.

RUN is a run folder, the file of a set, or a .pt file of another code, which --safetensors turns into a set.

--to makes one folder per class, the layout that torchvision's ImageFolder, Keras and most tools read.
labels.json in it says the label of each folder, the values of the pixels and the soft labels; load.py reads them.
--npz writes images as networks see them, (N, C, H, W) normalised float32, with labels, soft labels if there are any,
mean, std and class names. In Python, CondensedSet.as_dataset() is a torch data set for a DataLoader.
--pt writes the same values as DC, DSA and DM save them, and --pair as MTT does: images and labels in two files.

Values are turned back into pixels and clipped to the range of a PNG file; values that are no pixels, of data that came
normalised, are mapped from the least and the greatest.

\b
Examples:
  condensekit export runs/dm --to images
  condensekit export runs/dm --grid dm.png --seed 2
  condensekit export runs/dm --npz dm.npz
  condensekit export runs/dm --pt res_DM_CIFAR10_ConvNet_10ipc.pt
  condensekit export data_best.pt --factor 2 --safetensors dance.safetensors
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
@option("--pt", type=Location("file"), help="A new .pt file of tensors: a dictionary, as DC, DSA and DM write it.")
@option(
    "--pair",
    type=Location("folder"),
    help="A new or empty folder with images_best.pt and labels_best.pt, as MTT writes them, and what the values mean.",
)
@option("--safetensors", type=Location("file"), help="A new file of the set as it is, which every command reads.")
@option("--seed", type=Whole(), help="Seed of one set, if RUN has several sets.  [default: the first]")
@public_options
@JSON
def command(
    run: Path,
    folder: Path | None,
    grid: Path | None,
    npz: Path | None,
    pt: Path | None,
    pair: Path | None,
    safetensors: Path | None,
    seed: int | None,
    public: Public,
    as_json: bool,
) -> None:
    """Load the set, and write what is asked for."""
    wanted: dict[str, tuple[Path | None, Callable[[CondensedSet, Path], object]]] = {
        "folder": (folder, to_folder),
        "grid": (grid, picture),
        "npz": (npz, to_npz),
        "pt": (pt, to_pt),
        "pair": (pair, to_pair),
        "safetensors": (safetensors, CondensedSet.save),
    }
    written: dict[str, Any] = {name: str(path) for name, (path, _) in wanted.items() if path is not None}
    if not written:
        raise ConfigError(
            "nothing to write: give --to FOLDER, --grid FILE.png, --npz FILE.npz, --pt FILE.pt, --pair FOLDER or "
            "--safetensors FILE"
        )
    _, chosen = public.one(run, seed)
    for path, write in wanted.values():
        if path is not None:
            write(chosen, path)
    factor = chosen.formation.factor
    images = len(chosen) * factor**2
    mapped = None if chosen.spec.pixels else chosen.value_range
    told = [f"{images} images of {len(chosen.classes)} classes"]
    told += [f"unpacked from {len(chosen)} stored images, each at 1/{factor} of the resolution"] * (factor > 1)
    if mapped is not None:
        told.append(f"in pictures, values from {mapped[0]:.3g} to {mapped[1]:.3g} became pixels from 0 to 255")
    if chosen.soft_labels is not None and pt is not None:
        told.append("in --pt, each image has the label of its class, because such files have no soft labels")
    place, meaning = " and ".join(written.values()), f"Wrote {'; '.join(told)}."
    if folder is not None:
        end = ending(place, meaning, "read images and labels in Python", folder / LOADER, program="python")
    elif safetensors is not None:
        end = ending(place, meaning, "see what it holds", "inspect", safetensors)
    else:
        end = ending(place, meaning, "write each image to a file of its own", "export", run, "--to", "images")
    to_stdout = any(stream_of(Path(path)) == 1 for path in written.values())
    record = {**written, "images": images, "stored": len(chosen), "range": mapped}
    show.emit(as_json, record, end, err=to_stdout)
