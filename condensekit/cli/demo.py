"""Command ``demo``: a tour on embedded digits."""

from __future__ import annotations

import functools
from pathlib import Path

import click

from condensekit import catalog
from condensekit.cli import show
from condensekit.cli.demo_search import searched
from condensekit.cli.options import DATA_ROOT, DEVICE, JSON, SEED, Command, Place, Source, option
from condensekit.compute import Compute, make_plan
from condensekit.driver import Saving, Status, condense
from condensekit.replay.memory.fillers import Interrupted
from condensekit.replay.study.memories import Making
from condensekit.replay.study.protocol import Settings
from condensekit.replay.study.results import table
from condensekit.replay.study.runner import PLOT, run_protocol
from condensekit.rng import Draw
from condensekit.runs.files import write_json
from condensekit.selection.base import selected_set
from condensekit.selection.classic import Random
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.export import to_png_grid
from condensekit.training.evaluation import Candidate, evaluate

SETS, NETWORKS, ITERATIONS, IPC = 5, 3, 200, 1
ORDERS, REPLAYED = 3, 3  # of the replay chapter: class orders, images per class
CANDIDATES = 12  # of the search chapter
BATCH_REAL = 64  # the digits have some 140 images a class


HELP = """Condense scikit-learn's 8x8 digits to one image per class, and compare with one random image per class.

Takes a few minutes on two cores and downloads nothing. RUN gets one folder for each set, the table as
evaluation.json, and a picture, demo.png: a row a class, condensed images on the left, random ones on the right.
Then the digits come two classes at a time, and networks are trained from scratch on three stored images of each class
seen so far: condensed ones against random ones, in RUN/replay. At the end it ranks small networks on condensed digits,
and says how good the ranking is, in RUN/search. Run again with the same RUN, it takes up what is there.

\b
Example:
  condensekit demo --out demo
"""


@click.command("demo", cls=Command, help=HELP)
@option("--out", type=click.Path(path_type=Path), required=True, metavar="RUN", help="The folder to make.")
@SEED
@DATA_ROOT
@DEVICE
@JSON
def command(out: Path, seed: int, data_root: Path | None, device: str, as_json: bool) -> int:
    """Condense, select, evaluate, draw."""
    source = Source("digits", None, data_root, download=False, trust_local_copy=False)
    train, test = source.load(show.Bars())
    method = catalog.method("dm", batch_real=BATCH_REAL)
    name = catalog.row_name(method)
    folders = Place(out, resume=True, seeds=SETS, seed=seed).folders()
    sets = []
    for number, folder in folders.items():
        result = condense(
            train,
            method,
            ipc=IPC,
            iterations=ITERATIONS,
            seed=number,
            augmentation=catalog.augmentation("auto", source.data),
            device=device,
            saving=Saving(folder, resume=True, record={"name": name, **source.record(folder)}),
            progress=show.Bars(),
        )
        if result.status is Status.INTERRUPTED:
            click.echo(f"{folder}: {result.message}", err=True)
            return 128 + (result.signum or 0)
        sets.append(result.set)
    with Compute(make_plan(train.spec.shape[1:], device=device)) as compute:
        random = [selected_set(train, Random(), IPC, Draw(number), compute) for number in folders]
        evaluation = evaluate(
            [Candidate(name, tuple(sets), IPC), Candidate("random", tuple(random), IPC)],
            test,
            networks=NETWORKS,
            protocol=catalog.protocol("short", source.data),
            seed=seed,
            compute=compute,
            progress=show.Bars(),
        )
    write_json(out / "evaluation.json", evaluation.to_json())
    to_png_grid(functools.reduce(CondensedSet.merge, [*sets, *random]), out / "demo.png")
    try:
        replayed = run_protocol(
            train,
            test,
            memories=("dm", "random"),
            out=out / "replay",
            settings=Settings(
                per_class=REPLAYED, orders=ORDERS, protocol=catalog.protocol("short", source.data), seed=seed
            ),
            making=Making(ITERATIONS, BATCH_REAL),
            data=source.data,
            device=device,
            resume=True,
            progress=show.Bars(),
        )
    except Interrupted as stopped:
        click.echo(f"{out / 'replay'}: {stopped}", err=True)
        return 128 + stopped.signum
    search, chapter = searched(
        train, test, source.data, out / "search", candidates=CANDIDATES, iterations=ITERATIONS, seed=seed
    )
    text = (
        f"{evaluation.table()}\n\nImages: {out / 'demo.png'}\n\nTwo classes at a time, from scratch on the memory:\n\n"
        f"{table(replayed)}\n\nPlot: {out / 'replay' / PLOT}\n\n{chapter}"
    )
    show.emit(as_json, {**evaluation.to_json(), "replay": replayed, "search": search}, text)
    return 0
