"""Command ``select``: choose a few real images per class."""

from __future__ import annotations

import click

from condensekit import catalog
from condensekit.cli import show
from condensekit.cli.kinds import Command, gathered, option, unused
from condensekit.cli.next import ending
from condensekit.cli.options import (
    FACTOR,
    IPC,
    JSON,
    QUIET,
    STORAGE,
    Place,
    Source,
    machine_options,
    place_options,
    source_options,
)
from condensekit.compute import Compute, Machine
from condensekit.errors import require
from condensekit.report.words import holds
from condensekit.rng import Draw
from condensekit.runs.describe import describe
from condensekit.runs.folder import RunDir, check_free
from condensekit.selection.base import selected_set, smaller_note, stored_each
from condensekit.sets.formation import Formation

HELP = """Choose a few real images per class: the baselines that condensation must beat.

The set is written to RUN/set.safetensors in the same form as a condensed set, for `evaluate`, `export` and
`inspect`. Distances are between embeddings of one random network.

\b
Examples:
  condensekit select --data digits --selection kmeans --ipc 10 --out runs/kmeans
  condensekit select --data cifar10 --selection herding --ipc 50 --out run
"""


@click.command(
    "select",
    cls=Command,
    help=HELP,
    common="data image-size download selection ipc seeds factor device out resume",
)
@source_options
@option(
    "--selection",
    default="random",
    help="How images are chosen: random, herding, kmeans, kcenter, ... (see `condensekit list selections`), or "
    "module:object. packed- before a name means --factor 2.",
)
@IPC
@FACTOR
@STORAGE
@place_options
@machine_options
@QUIET
@JSON
def command(
    source: Source,
    selection: str,
    ipc: int,
    factor: int | None,
    storage: str | None,
    place: Place,
    machine: Machine,
    quiet: bool,
    as_json: bool,
) -> None:
    """Check the options, load the data, and choose and save a set for each seed."""
    problems = gathered()
    with problems:
        chosen_by, usual = catalog.baseline(selection)
        require(
            factor != 1 or usual.factor == 1,
            f"{selection} is packed, got --factor 1: leave out the factor or {catalog.PACKED!r}",
        )
        formation = Formation(factor or usual.factor, storage or usual.dtype)
        coded = f"{selection} images are stored as JPEG: leave out factor and storage" if chosen_by.codes else None
        unused(factor=coded, storage=coded, augment="nothing is trained" if source.augment == "none" else None)
    with problems:
        folders = place.folders()
    problems.refuse()
    for folder in folders.values():
        check_free(folder, place.resume)
    train, _ = source.load(quiet, *folders.values())
    runs, note = [], smaller_note(stored_each(train, ipc, formation.factor).values())
    with Compute(machine, (train.spec.shape[1], train.spec.shape[2])) as compute:
        for seed, folder in folders.items():
            made = selected_set(train, chosen_by, ipc, Draw(seed), compute, formation)
            config = {
                "name": catalog.baseline_name(chosen_by, formation),
                "selection": describe(chosen_by),
                "ipc": ipc,
                "seed": seed,
                "formation": describe(formation),
                **source.record(folder),
            }
            with RunDir.create(folder, config, place.resume, train.fingerprint()) as run:
                made.save(run.path / "set.safetensors", overwrite=True)
                show.images(made, run.path)
            runs.append(
                {
                    "run": str(folder),
                    "seed": seed,
                    "classes": len(made.classes),
                    "ipc": ipc,
                    "per_class": made.per_class,
                    "images": len(made),
                    "nbytes": made.nbytes,
                }
            )
    each = "{run}: {per_class} images for each of {classes} classes"
    end = ending(place.out, f"{holds(made, len(runs))}.", "measure how good they are", "evaluate", place.out)
    text = "\n".join(filter(None, [*(each.format(**run) for run in runs), note, end]))
    show.emit(as_json, {"runs": runs}, text)
