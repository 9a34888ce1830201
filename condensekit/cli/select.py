"""Command ``select``: choose a few real images per class."""

from __future__ import annotations

import click

from condensekit import catalog
from condensekit.cli import show
from condensekit.cli.kinds import MANY, Command, Whole, gathered, option, unused
from condensekit.cli.next import ending
from condensekit.cli.options import (
    BYTES,
    FACTOR,
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
from condensekit.errors import refuse, require
from condensekit.report.words import holds
from condensekit.rng import Draw
from condensekit.runs.describe import describe
from condensekit.runs.folder import RunDir, check_free
from condensekit.selection.base import selected_set, smaller_note, stored_each
from condensekit.selection.number import number_misfits
from condensekit.sets.coding import plain_bytes
from condensekit.sets.formation import Formation
from condensekit.training.number import search_number

HELP = """Choose a few real images per class: the baselines that condensation must beat.

The set is written to RUN/set.safetensors in the same form as a condensed set, for `evaluate`, `export` and
`inspect`. Distances are between embeddings of one random network.

With --bytes instead of --ipc, each class gets as many images as fit: of pictures (--storage avif-mosaic) as many as a
rule of thumb says, at the highest quality that fits; --search finds the number on a tenth of the images instead.

\b
Examples:
  condensekit select --data digits --selection kmeans --ipc 10 --out runs/kmeans
  condensekit select --data cifar10 --selection herding --ipc 50 --out run
  condensekit select --data cifar10 --storage avif-mosaic --bytes 9000 --out run
"""


@click.command(
    "select",
    cls=Command,
    help=HELP,
    common="data image-size download selection ipc bytes storage seeds factor device out resume",
)
@source_options
@option(
    "--selection",
    default="random",
    help="How images are chosen: random, herding, kmeans, kcenter, ... (see `condensekit list selections`), or "
    "module:object. packed- before a name means --factor 2; avif-, webp- or jpeg- a storage of this kind, with as many "
    "images as the bytes of --ipc plain images hold.",
)
@option("--ipc", type=Whole(min=1, max=MANY), help="Images per class; may be left out with --bytes.")
@BYTES
@option("--search", is_flag=True, help="Find the number of images in --bytes: train on several, judge on a tenth.")
@FACTOR
@STORAGE
@place_options
@machine_options
@QUIET
@JSON
def command(
    source: Source,
    selection: str,
    ipc: int | None,
    room: int | None,
    search: bool,
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
        trained = "nothing is trained" if source.augment == "none" else None
        unused(factor=coded, storage=coded, room=coded, search=coded, augment=trained)
        refuse(*number_misfits(ipc, room, search))
    with problems:
        folders = place.folders()
    problems.refuse()
    for folder in folders.values():
        check_free(folder, place.resume)
    train, _ = source.load(quiet, *folders.values())
    refuse(formation.misfit(train.spec.shape))
    runs, tables, note = [], list[str](), None
    if storage is None and usual.coded and room is None:
        assert ipc is not None
        room, ipc = plain_bytes(train.spec.shape, ipc), None
    if ipc is not None:
        note = smaller_note(stored_each(train, ipc, formation.factor).values())
    with Compute(machine, (train.spec.shape[1], train.spec.shape[2])) as compute:
        for seed, folder in folders.items():
            found = None
            if search and room is not None:
                shown = show.progress(quiet)
                found = search_number(train, chosen_by, formation, room, compute=compute, seed=seed, progress=shown)
                tables.append(found.table())
            each = ipc if found is None else found.number
            name = catalog.baseline_name(chosen_by, formation)
            made = selected_set(train, chosen_by, each, Draw(seed), compute, formation, room, name)
            config = {
                "name": name,
                "selection": describe(chosen_by),
                "ipc": made.provenance["ipc"],
                **({} if room is None else {"room": room, "search": search}),
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
                    "ipc": made.provenance["ipc"],
                    "per_class": made.per_class,
                    "images": len(made),
                    "nbytes": made.nbytes,
                    **({} if found is None else {"search": found.to_json()}),
                }
            )
    told = "{run}: {per_class} images for each of {classes} classes" + ("" if room is None else ", {nbytes:,} bytes")
    end = ending(place.out, f"{holds(made, len(runs))}.", "measure how good they are", "evaluate", place.out)
    text = "\n".join(filter(None, [*tables, *(told.format(**run) for run in runs), note, end]))
    show.emit(as_json, {"runs": runs}, text)
