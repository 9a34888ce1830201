"""Command ``demo``: condensation, replay and search on small digits."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import click

from condensekit import catalog
from condensekit.catalog import recipes
from condensekit.cli import show
from condensekit.cli.demo_search import searched
from condensekit.cli.kinds import Command, Location, gathered, option
from condensekit.cli.options import JSON, QUIET, SEED, Place, Source, machine_options
from condensekit.compute import Compute, Machine
from condensekit.driver import CondenseResult, Saving, condense
from condensekit.errors import StoreError
from condensekit.replay.memory.base import Interrupted
from condensekit.replay.study.memories import Making
from condensekit.replay.study.protocol import Settings
from condensekit.replay.study.runner import PLOT, run_protocol
from condensekit.rng import Draw
from condensekit.runs.files import write_json
from condensekit.selection.base import selected_set
from condensekit.selection.classic import Random
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.export import to_png_grid
from condensekit.training.evaluation import Candidate, Evaluation, evaluate
from condensekit.training.train import SHORT

SETS, NETWORKS, STEPS, IPC = 5, 3, 200, 1
ORDERS, REPLAYED = 3, 3  # class orders and images per class of the chapter replay
CANDIDATES = 12  # architectures of the chapter search
RECIPE = recipes.dm(batch_real=64)  # the digits have about 140 images per class
CHAPTERS = ("condense", "replay", "search")

HELP = """Condense scikit-learn's 8x8 digits to one image per class, and compare with one random image per class.

Takes a few minutes on two cores and downloads nothing. RUN gets a folder for each set, the table as evaluation.json,
and the picture demo.png: a row for each class, condensed images on the left, random images on the right.
The chapter replay shows the digits two classes at a time, and trains networks from scratch on three stored images of
each class so far, condensed or random (RUN/replay). The chapter search ranks small networks on condensed digits, and
measures the ranking (RUN/search). Repeat the command to continue an interrupted demo.

\b
Example:
  condensekit demo --out demo
"""


@click.command("demo", cls=Command, help=HELP)
@option("--out", type=Location("folder"), required=True, metavar="RUN", help="The folder to make.")
@option(
    "--until",
    type=click.Choice(CHAPTERS),
    default=CHAPTERS[-1],
    show_default=True,
    help="The last chapter to run.",
)
@SEED
@machine_options
@QUIET
@JSON
def command(out: Path, until: str, seed: int, machine: Machine, quiet: bool, as_json: bool) -> int:
    """Run the chapters condense, replay and search."""
    gathered().refuse()
    source = Source("digits", None, None, download=False, trust_local_copy=False)
    progress = show.progress(quiet)
    train, test = source.load(quiet)
    folders = Place(out, resume=True, seeds=SETS, seed=seed).folders()
    results: list[CondenseResult] = []
    for number, folder in folders.items():
        results.append(
            condense(
                train,
                RECIPE,
                ipc=IPC,
                steps=STEPS,
                seed=number,
                machine=machine,
                saving=Saving(folder, resume=True),
                record={"name": catalog.name_of(RECIPE), **source.record(folder)},
                progress=progress,
            )
        )
        if results[-1].signum is not None:
            show.tell(f"{folder}: {results[-1].message}")
            return 128 + results[-1].signum
    with Compute(machine, (train.spec.shape[1], train.spec.shape[2])) as compute:
        sets = [result.set for result in results]
        random = [selected_set(train, Random(), IPC, Draw(number), compute) for number in folders]
        candidates = [Candidate("random", tuple(random), IPC)]
        candidates.insert(0, Candidate(catalog.name_of(RECIPE), tuple(sets), IPC))
        found: Evaluation = evaluate(
            candidates, test, networks=NETWORKS, protocol=SHORT, seed=seed, compute=compute, progress=progress
        )
    record: dict[str, Any] = found.to_json()
    text = [f"{found.table()}\n\nImages: {out / 'demo.png'}"]
    try:
        write_json(out / "evaluation.json", found.to_json())
        to_png_grid(functools.reduce(CondensedSet.merge, [*sets, *random]), out / "demo.png")
    except StoreError:
        show.emit(as_json, record, found.table())
        raise
    if until != "condense":
        try:
            replayed = run_protocol(
                train,
                test,
                memories=("dm", "random"),
                out=out / "replay",
                settings=Settings(ipc=REPLAYED, orders=ORDERS, seed=seed),
                making=Making(STEPS, {"batch_real": 64}, machine=machine),
                resume=True,
                progress=progress,
            )
        except Interrupted as stopped:
            show.tell(f"{out / 'replay'}: {stopped}")
            return 128 + stopped.signum
        record["replay"] = replayed.to_json()
        head = "Two classes at a time, from scratch on the memory:"
        text.append(f"{head}\n\n{replayed.table()}\n\nPlot: {out / 'replay' / PLOT}")
    if until == "search":
        record["search"], chapter = searched(
            train, test, out / "search", candidates=CANDIDATES, steps=STEPS, seed=seed, progress=progress
        )
        text.append(chapter)
    show.emit(as_json, record, "\n\n".join(text))
    return 0
