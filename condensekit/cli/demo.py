"""Command ``demo``: condensation, replay and search on small digits, told as a story."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from condensekit import catalog
from condensekit.catalog import recipes
from condensekit.cli import show
from condensekit.cli.demo_search import searched
from condensekit.cli.kinds import Command, Location, gathered, option
from condensekit.cli.options import JSON, QUIET, SEED, Place, Source, machine_options
from condensekit.cli.story import Chapter, Story
from condensekit.compute import Compute, Machine
from condensekit.data.images import ClassImages
from condensekit.driver import Saving, condense
from condensekit.nas.study.result import SearchResult
from condensekit.replay.memory.base import Interrupted
from condensekit.replay.study.memories import Making
from condensekit.replay.study.protocol import Settings
from condensekit.replay.study.results import ReplayResult
from condensekit.replay.study.runner import run_protocol
from condensekit.report import evaluated, replayed, report
from condensekit.report import searched as verdicts
from condensekit.rng import Draw
from condensekit.selection.base import selected_set
from condensekit.selection.classic import Random
from condensekit.sets.condensed import CondensedSet
from condensekit.training.evaluation import Candidate, Evaluation, evaluate
from condensekit.training.train import SHORT

SETS, NETWORKS, STEPS, IPC = 3, 2, 150, 1
ORDERS, REPLAYED, REPLAY_STEPS = 3, 9, 100  # of the chapter replay: 9 condensed images take the bytes of 10 real ones
EXPERIENCES = 5
CANDIDATES = 12  # architectures of the chapter search
BATCH = 64  # the digits have about 140 images per class
RECIPE = recipes.dm(batch_real=BATCH)
REPORT = "report.html"
SOURCE = Source("digits", None, None, download=False, trust_local_copy=False)
CHAPTERS = {
    "data": Chapter("reading scikit-learn's 8 x 8 digits", 2),
    "condense": Chapter(
        f"condensing them to {IPC} image per class, {SETS} times with other random numbers", 15, {"condense": 5}
    ),
    "evaluate": Chapter(
        "training networks on these images, and on as many random images, to compare them", 10, {"evaluate": 10}
    ),
    "replay": Chapter(
        f"class-incremental learning: {EXPERIENCES} experiences of two digits; former digits are kept as condensed "
        "images, or as random ones in the same bytes",
        50,
        {"condense": 1.2, "dm": 5, "random-equal-bytes": 5},
    ),
    "search": Chapter(
        f"architecture search: {CANDIDATES} networks are ranked by short trainings on condensed images, and all are "
        "trained fully to judge this order",
        20,
        {"condense": 6, "dm": 4, "random": 4, "full-0": 4},
    ),
}
NEXT = """\
Next, with your own images, one folder for each class:
  condensekit condense --data photos/ --image-size 32 --ipc 10 --minutes 5 --out runs/photos
  condensekit replay --data photos/ --image-size 32 --ipc 5 --memory dm,random --experiences 2 --out runs/replay
  condensekit search --data photos/ --image-size 32 --space convnet-small --trials 12 --out runs/search"""

HELP = """Condense, replay and search on scikit-learn's 8x8 digits: about two minutes on two cores, no download.

Each chapter ends with what it found. RUN gets a folder for each set, evaluation.json, the folders replay and search,
and report.html with images, curves and tables. Repeat the command to continue an interrupted demo.

\b
Example:
  condensekit demo --out demo
"""


@dataclass(frozen=True)
class Plan:
    """What all chapters share.

    Args:
        out: The run folder.
        seed: Seed of all random numbers.
        machine: Where networks run.
        story: Shows the chapters.
    """

    out: Path
    seed: int
    machine: Machine
    story: Story


@click.command("demo", cls=Command, help=HELP)
@option("--out", type=Location("folder"), required=True, metavar="RUN", help="The folder to make.")
@option(
    "--until",
    type=click.Choice([*CHAPTERS][2:]),
    default=[*CHAPTERS][-1],
    show_default=True,
    help="The last chapter to run.",
)
@SEED
@machine_options
@QUIET
@JSON
def command(out: Path, until: str, seed: int, machine: Machine, quiet: bool, as_json: bool) -> int:
    """Run the chapters, and write the report."""
    gathered().refuse()
    names = [*CHAPTERS][: [*CHAPTERS].index(until) + 1]
    story = Story([CHAPTERS[name] for name in names], quiet, (lambda text: None) if as_json else click.echo)
    plan = Plan(out, seed, machine, story)
    record: dict[str, Any] = {}
    try:
        with story.told():
            train, test = _data(plan)
            sets = _condensed(plan, train)
            record |= _evaluated(plan, train, test, sets).to_json()
            if "replay" in names:
                record["replay"] = _replayed(plan, train, test).to_json()
            if "search" in names:
                record["search"] = _searched(plan, train, test).to_json()
    except Interrupted as stopped:
        show.tell(f"{out}: {stopped.message}: repeat the command to go on")
        return 128 + stopped.signum
    made = report(out, out / REPORT, overwrite=True)
    record |= {"verdicts": story.verdicts, "report": str(made.path)}
    text = f"\nImages, curves and tables: {made.path} (open it in a browser)\n\n{NEXT}"
    show.emit(as_json, record, text)
    return 0


def _data(plan: Plan) -> tuple[ClassImages, ClassImages]:
    plan.story.begin()
    train, test = SOURCE.load(quiet=True)
    plan.story.verdict(
        f"{len(train):,} images to learn from, {len(test):,} to test with, of {len(train.classes)} classes."
    )
    return train, test


def _condensed(plan: Plan, train: ClassImages) -> list[CondensedSet]:
    plan.story.begin()
    results = []
    for number, folder in Place(plan.out, resume=True, seeds=SETS, seed=plan.seed).folders().items():
        result = condense(
            train,
            RECIPE,
            ipc=IPC,
            steps=STEPS,
            seed=number,
            machine=plan.machine,
            saving=Saving(folder, resume=True),
            record={"name": catalog.name_of(RECIPE), **SOURCE.record(folder)},
            progress=plan.story,
        )
        if result.signum is not None:
            raise Interrupted(result.message.partition(": continue")[0], result.signum, "repeat the call to go on")
        results.append(result)
    images, passes = results[0].set, STEPS * BATCH * len(train.classes) / len(train)
    plan.story.verdict(
        f"{len(images)} images of {show.size(images.nbytes)} now stand for {len(train):,}; each image was looked at "
        f"about {passes:.0f} times."
    )
    return [result.set for result in results]


def _evaluated(plan: Plan, train: ClassImages, test: ClassImages, sets: list[CondensedSet]) -> Evaluation:
    plan.story.begin()
    with Compute(plan.machine, (train.spec.shape[1], train.spec.shape[2])) as compute:
        chance = [selected_set(train, Random(), IPC, Draw(plan.seed + i), compute) for i in range(SETS)]
        found = evaluate(
            [Candidate(catalog.name_of(RECIPE), tuple(sets), IPC), Candidate("random", tuple(chance), IPC)],
            test,
            networks=NETWORKS,
            protocol=SHORT,
            seed=plan.seed,
            compute=compute,
            progress=plan.story,
            out=plan.out,
        )
    plan.story.verdict(evaluated.verdict(found) or "")
    return found


def _replayed(plan: Plan, train: ClassImages, test: ClassImages) -> ReplayResult:
    plan.story.begin()
    found = run_protocol(
        train,
        test,
        memories=("dm", "random-equal-bytes"),
        out=plan.out / "replay",
        settings=Settings(experiences=EXPERIENCES, ipc=REPLAYED, orders=ORDERS, seed=plan.seed),
        making=Making(REPLAY_STEPS, {"batch_real": BATCH}, machine=plan.machine),
        resume=True,
        progress=plan.story,
    )
    plan.story.verdict(replayed.verdict(found) or "")
    return found


def _searched(plan: Plan, train: ClassImages, test: ClassImages) -> SearchResult:
    plan.story.begin()
    found = searched(
        train, test, plan.out / "search", candidates=CANDIDATES, steps=STEPS, seed=plan.seed, progress=plan.story
    )
    plan.story.verdict(verdicts.verdict(found) or "")
    return found
