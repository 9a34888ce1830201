"""``condensekit condense``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from condensekit import catalog
from condensekit.cli import show
from condensekit.cli.options import (
    DEVICE,
    DISCREPANCY,
    ENCODER,
    FACTOR,
    INIT,
    IPC,
    JSON,
    NETWORK,
    SAMPLING,
    STORAGE,
    Command,
    Place,
    Positive,
    Source,
    option,
    packed,
    place_options,
    source_options,
)
from condensekit.compute import PRECISIONS, make_plan
from condensekit.driver import CondenseResult, Saving, Status, condense
from condensekit.errors import Problems, refuse
from condensekit.recipe import Recipe

EXIT = {Status.FINISHED: 0, Status.DIVERGED: 3, Status.INTERRUPTED: 128}  # an interrupt adds the signal's number


HELP = """Learn a few synthetic images per class that stand for a whole data set.

Starts from real images or noise (--init) and improves them for a number of --iterations, or of --minutes. The set
lands in RUN/set.safetensors; `condensekit evaluate RUN` measures it. A method brings the start, encoder,
augmentation and packing (--factor) of its paper; every one of them can be changed.

\b
Examples:
  condensekit condense --data digits --method dm --ipc 1 --iterations 300 --out runs/digits
  condensekit condense --data cifar10 --download --method dm --ipc 10 --iterations 20000 --seeds 3 --out runs/dm
  condensekit condense --data cifar10 --method m3d --init kmeans --ipc 10 --minutes 60 --out runs/m3d
  condensekit condense --data photos/ --image-size 64 --method dm --ipc 5 --minutes 30 --out runs/photos
  condensekit condense --data digits --method mine:Method --set strength=0.3 --ipc 1 --iterations 100 --out run

`condensekit methods` lists the methods and their options (--set NAME=VALUE). One of your own is module:object.

An interrupted run (Ctrl-C, SIGTERM, a crash) goes on with the same command and --resume; on a CPU it gives the
same images bit for bit as an uninterrupted one. Resuming with other options is refused.
"""


recipe_options = packed(
    Recipe,
    "recipe",
    option("--method", default="dm", show_default=True, metavar="NAME", help="How to condense; see above."),
    option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="An option of the method, or of init, sampling or encoder (sampling.NAME=VALUE); repeatable.",
    ),
    option("--lr", type=float, metavar="X", help="Step size of the images; short for --set lr=X."),
    option("--batch-real", type=int, metavar="N", help="Real images per class and step; --set batch_real=N."),
    DISCREPANCY,
    INIT,
    SAMPLING,
    ENCODER,
    option("--network", metavar="NAME", help=NETWORK),
    option("--keep", type=click.IntRange(min=1), metavar="K", help="Steps for which one network is used."),
    option(
        "--augment",
        metavar="LIST",
        help="Of color,crop,cutout,flip,scale,rotate, or none; auto is the method's usual one, without flip for "
        f"{', '.join(catalog.UNFLIPPED)}.",
    ),
    FACTOR,
    option(
        "--nested", is_flag=True, help="Make every prefix of the set a set of its own, so that it may shrink later."
    ),
    option("--soft-labels", is_flag=True, help="Label images as the networks of --encoder trained do; it costs bytes."),
    STORAGE,
    option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default="fp32",
        show_default=True,
        help="fp32; mixed embeds real images in bfloat16; bf16 embeds all images so.",
    ),
)


@click.command("condense", cls=Command, help=HELP)
@source_options
@IPC
@option("--iterations", type=click.IntRange(min=1), metavar="N", help="Steps to take.")
@option("--minutes", type=Positive(), metavar="M", help="Wall time of the steps, instead of --iterations.")
@recipe_options
@place_options
@option("--checkpoint-every", type=click.IntRange(min=1), metavar="N", help="Steps between checkpoints.")
@option(
    "--checkpoint-minutes",
    type=Positive(),
    default=5.0,
    show_default=True,
    metavar="M",
    help="Minutes between checkpoints.",
)
@option("--snapshot-every", type=click.IntRange(min=1), metavar="N", help="Steps between PNG grids in RUN/snapshots.")
@DEVICE
@option("--compiled", is_flag=True, help="Compile the network: faster for long runs on a quiet CPU; needs g++.")
@JSON
def command(
    source: Source,
    ipc: int,
    iterations: int | None,
    minutes: float | None,
    recipe: Recipe,
    place: Place,
    checkpoint_every: int | None,
    checkpoint_minutes: float,
    snapshot_every: int | None,
    device: str,
    compiled: bool,
    as_json: bool,
) -> int:
    """Build every object, load the data, and make one run for each seed."""
    problems = Problems()
    with problems:
        refuse(
            "give --iterations or --minutes, exactly one of them" if (iterations is None) == (minutes is None) else None
        )
    with problems:
        make_plan((1, 1), device=device, compiled=compiled)
    with problems:
        folders = place.folders()
    with problems:
        method, options = recipe.build(source.data)
    problems.refuse()
    train, _ = source.load(show.Bars())
    results: dict[Path, CondenseResult] = {}
    for seed, folder in folders.items():
        results[folder] = condense(
            train,
            method,
            ipc=ipc,
            iterations=iterations,
            minutes=minutes,
            seed=seed,
            device=device,
            compiled=compiled,
            saving=Saving(
                folder,
                resume=place.resume,
                every=checkpoint_every,
                minutes=checkpoint_minutes,
                snapshot_every=snapshot_every,
                record={"name": recipe.name(method), **source.record(folder)},
            ),
            progress=show.Bars(),
            **options,
        )
        if results[folder].status is Status.INTERRUPTED:
            break
    show.emit(as_json, {"runs": [_record(f, r) for f, r in results.items()]}, "\n".join(map(_line, results.items())))
    return max(map(_exit_code, results.values()))


def _exit_code(result: CondenseResult) -> int:
    return EXIT[result.status] + (result.signum or 0)


def _line(item: tuple[Path, CondenseResult]) -> str:
    folder, result = item
    return f"{folder}: {result.message}"


def _record(folder: Path, result: CondenseResult) -> dict[str, Any]:
    return {
        "run": str(folder),
        "seed": result.set.provenance["config"]["seed"],
        "status": result.status.value,
        "message": result.message,
        "steps": result.set.provenance["steps"],
        "classes": len(result.set.classes),
        "ipc": result.set.ipc,
        "nbytes": result.set.nbytes,
    }
