"""Command ``condense``: learn a few synthetic images per class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from condensekit import catalog
from condensekit.cli import show, waiting
from condensekit.cli.flags import as_flags
from condensekit.cli.kinds import Command, Positive, Whole, gathered, option
from condensekit.cli.next import ending
from condensekit.cli.options import (
    IPC,
    JSON,
    QUIET,
    TENSORBOARD,
    Place,
    Source,
    condensing_options,
    place_options,
    recipe_options,
    source_options,
)
from condensekit.compute import Machine
from condensekit.driver import CondenseResult, Saving, Status, condense
from condensekit.errors import require
from condensekit.methods.recipe import Recipe
from condensekit.ranks import launched
from condensekit.report.words import holds
from condensekit.runs.folder import check_free

EXIT = {Status.FINISHED: 0, Status.DIVERGED: 3}  # of runs that no signal ended

HELP = """Learn a few synthetic images per class that stand for a whole data set.

The images start as real images or noise (--init), and improve for a number of --steps or --minutes. The set is
written to RUN/set.safetensors; `condensekit evaluate RUN` measures it.

\b
Examples:
  condensekit condense --data digits --ipc 1 --steps 300 --out runs/digits
  condensekit condense --data cifar10 --download --ipc 10 --minutes 30 --out run
  condensekit condense --data photos/ --image-size 64 --ipc 5 --steps 2000 \\
      --out runs/photos
\f
\b
Further examples:
  condensekit condense --data cifar10 --method m3d --init kmeans --ipc 10 \\
      --minutes 60 --seeds 3 --out runs/m3d
  condensekit condense --data digits --method mine:Method --set strength=0.3 \\
      --ipc 1 --steps 100 --out run

The defaults of --init, --encoder, --augment and --factor are those of the method's paper. `condensekit methods` shows
the options of each method (--set NAME=VALUE). Your own method is written module:object.

To continue an interrupted run (Ctrl-C, SIGTERM, SIGHUP, a crash), give --resume --out RUN; options that name your
own code are given again. On a CPU, this gives the same images, bit for bit, as a run without interruption. A run
cannot be resumed with other options, but for more --steps or --minutes: with them, a finished run goes on, too. With
schedule=cosine or an average, these must stay as well.

Processes that torchrun starts share the classes, see `condensekit --help`. A run may go on with another number of them.
"""


@click.command(
    "condense",
    cls=Command,
    help=HELP,
    common="data image-size download method ipc seeds steps minutes init set device workers out resume",
)
@source_options
@IPC
@option("--steps", type=Whole(min=1), help="Matching steps to take.")
@option(
    "--minutes",
    type=Positive(),
    help="Wall time of the run, instead of --steps: encoders, first images, steps and files.",
)
@recipe_options
@place_options
@option("--checkpoint-every", type=Whole(min=1), help="Steps between checkpoints.")
@option(
    "--checkpoint-minutes",
    type=Positive(),
    default=5.0,
    help="Minutes between checkpoints.",
)
@option("--snapshot-every", type=Whole(min=1), help="Steps between PNG grids in RUN/snapshots.")
@condensing_options
@TENSORBOARD
@QUIET
@JSON
def command(
    source: Source,
    ipc: int,
    steps: int | None,
    minutes: float | None,
    recipe: Recipe,
    place: Place,
    checkpoint_every: int | None,
    checkpoint_minutes: float,
    snapshot_every: int | None,
    machine: Machine,
    tensorboard: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Load the data, and make a run for each seed."""
    problems = gathered()
    with problems:
        require(
            (steps is None) != (minutes is None),
            "give --steps or --minutes, exactly one of them, such as --steps 1000 or --minutes 5",
        )
    folders: dict[int, Path] = {}
    with problems:
        folders = place.folders()
    problems.refuse()
    first = launched().first
    for folder in folders.values() if first else ():
        check_free(folder, place.resume)
    titles = [f"set {number} of {len(folders)}" if len(folders) > 1 else "" for number in range(1, len(folders) + 1)]
    shown = [
        show.progress(quiet, folder if tensorboard else None, title)
        for folder, title in zip(folders.values(), titles, strict=True)
    ]
    train, _ = source.load(quiet, *folders.values())
    results: dict[Path, CondenseResult] = {}
    for number, (seed, folder) in enumerate(folders.items()):
        results[folder] = condense(
            train,
            recipe,
            ipc=ipc,
            steps=steps,
            minutes=minutes,
            seed=seed,
            machine=machine.condensing(recipe.method.features_only),
            saving=Saving(
                folder,
                resume=place.resume,
                every=checkpoint_every,
                minutes=checkpoint_minutes,
                snapshot_every=snapshot_every,
            ),
            record={"name": catalog.name_of(recipe), **source.record(folder)},
            progress=shown[number],
        )
        if first:
            show.images(results[folder].set, folder)
        if results[folder].signum is not None:
            break
    text = "\n".join(map(_line, results.items()))
    if any(result.status is Status.INTERRUPTED for result in results.values()):
        text += f"\nThe images are kept in the last checkpoint. To go on: {waiting.again('condense', place.out)}"
    else:
        meaning = f"{holds(next(iter(results.values())).set, len(results))}."
        text += f"\n{ending(place.out, meaning, 'measure how good they are', 'evaluate', place.out)}"
    show.emit(as_json, {"runs": [_record(f, r) for f, r in results.items()]}, text)
    return max(map(_exit_code, results.values()))


def _exit_code(result: CondenseResult) -> int:
    return EXIT[result.status] if result.signum is None else 128 + result.signum


def _line(item: tuple[Path, CondenseResult]) -> str:
    folder, result = item
    return f"{folder}: {as_flags(result.message)}"


def _record(folder: Path, result: CondenseResult) -> dict[str, Any]:
    return {
        "run": str(folder),
        "seed": result.set.provenance["config"]["seed"],
        "status": result.status.value,
        "message": as_flags(result.message),
        "steps": result.set.provenance["steps"],
        "classes": len(result.set.classes),
        "ipc": result.set.ipc,
        "per_class": result.set.per_class,
        "nbytes": result.set.nbytes,
        "work": dict(result.work),
    }
