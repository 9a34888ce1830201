"""Command ``replay``: learn classes in several experiences with condensed memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from condensekit import catalog
from condensekit.cli import show, waiting
from condensekit.cli.kinds import MANY, Choice, Command, List, Number, Whole, gathered, option, packed, unused
from condensekit.cli.next import ending
from condensekit.cli.options import (
    JSON,
    QUIET,
    RUN,
    SEED,
    SET,
    TENSORBOARD,
    Source,
    machine_options,
    settings_of,
    source_options,
    together,
)
from condensekit.compute import Machine
from condensekit.data.folders import NestedError
from condensekit.errors import DataError, StoreError
from condensekit.ranks import launched
from condensekit.replay.memory.base import Interrupted
from condensekit.replay.study.memories import FROM_SCRATCH, REGIMES, Making, MemoryKind, memory
from condensekit.replay.study.protocol import Online, Settings
from condensekit.replay.study.results import FILE, ReplayResult
from condensekit.replay.study.runner import PLOT, TABLE, check_regime, run_protocol
from condensekit.report.replayed import verdict
from condensekit.runs.folder import check_free

EXPERIENCES = (
    "This command divides one folder of classes into experiences. For a stream of folders, use condensekit.load with "
    "like= and Memory.observe in a loop: see 'A stream of folders' in docs/tutorials/replay.md"
)
HELP = f"""Learn the classes of a data set in several experiences, with a memory of the former classes.

The classes of an experience are condensed from the images of this experience only. All memories get the same class
orders, network seeds, gradient steps, images in a step and augmentation, so that their differences are paired.
RUN gets {FILE}, {TABLE} and {PLOT}.

\b
Regimes (--regime):
  from-scratch  after each experience, a new network is trained on the memory
                only, as in GDumb and DM
  er            one network learns the real images of each experience, and as
                many replayed images
  er-ace, der++ as er, with the losses of these methods
  In er and der++, dm and m3d condense with the learner's weights, unless it
  has batch norm; else, and with --own-encoder, with the recipe's encoder,
  whose network --encoder-network gives.
\b
Examples:
  condensekit replay --data digits --ipc 3 --memory dm,random --out runs/digits
  condensekit replay --data cifar100 --download --experiences 10 --ipc 20 \\
      --memory dm,m3d,random,random-equal-bytes --regime er --out runs/cl
\f
The primary contrast, whose p value is not corrected, is the first condensed memory of --memory against
random-equal-bytes, else against random, else against the first real memory.

A memory is written NAME, or 'NAME key=value ...' in quotes, with the options of --set for this memory only.
`condensekit list memories` lists them, with Avalanche's own memories and strategies: bounds, whose conditions may
differ, and which --distillation and --fine-tune do not change.

--workers are the threads that condense, choose, and train from scratch. A learner of another regime is trained by
Avalanche, with torch's threads: OMP_NUM_THREADS=1 before the command bounds them.

RUN has all data for --resume. A resumed run may have more memories, regimes or orders: its results are kept, and all
memories get equally many orders. Processes that torchrun starts share the pairs of a memory and a class order; a run
may go on with another number of them.
"""

online_options = packed(
    Online,
    "online",
    option(
        "--er-epochs",
        "epochs",
        type=Whole(),
        default=5,
        help="Epochs over the images of an experience.",
    ),
    option("--er-lr", "lr", type=Number(), default=0.03, help="Learning rate of the learner."),
    option("--er-momentum", "momentum", type=Number(), default=0.0, help="Momentum of the learner."),
    option(
        "--er-weight-decay",
        "weight_decay",
        type=Number(),
        default=0.0,
        help="Weight decay of the learner.",
    ),
    option("--er-batch", "batch", type=Whole(), default=32, help="New images in a gradient step."),
    option(
        "--er-batch-mem",
        "batch_mem",
        type=Whole(),
        default=32,
        help="Replayed images in a gradient step.",
    ),
    option(
        "--learner-encoder/--own-encoder",
        "learner_encoder",
        default=True,
        help="Condense with the weights of the learner (unless it has batch norm), or with those of the recipe.",
    ),
    option(
        "--distillation",
        type=Number(),
        default=0.0,
        help="Weight of distillation; 0: no distillation.",
    ),
    option(
        "--fine-tune",
        type=Whole(),
        default=0,
        help="Steps on the memory only, after each experience.",
    ),
)


@click.command(
    "replay",
    cls=Command,
    help=HELP,
    common="data image-size download experiences ipc memory regime orders network steps train-epochs set device "
    "workers out resume",
)
@source_options
@option(
    "--experiences",
    type=Whole(),
    default=5,
    help="Number of experiences, with equally many classes; of 5 classes, 2 experiences have 3 and 2.",
)
@option("--ipc", type=Whole(max=MANY), required=True, help="Stored images of each class.")
@option(
    "--memory",
    "memories",
    type=List(),
    required=True,
    help="Memories to compare: dm,random,herding (see `condensekit list memories`).",
)
@option(
    "--regime",
    "regimes",
    type=List(),
    default="from-scratch",
    help=f"How a memory is used: {', '.join(REGIMES)}.",
)
@option(
    "--orders",
    type=Whole(max=MANY),
    default=5,
    help="Class orders: permutations of numpy seeds 0, 1, ...",
)
@option(
    "--first-order",
    type=Whole(),
    default=0,
    help="Number of the first class order; use others to tune.",
)
@option("--seeds", type=Whole(), help="Condensation seeds over the orders.  [default: one for each order]")
@option(
    "--networks",
    type=Whole(max=MANY),
    default=1,
    help="Networks trained on each memory.",
)
@option(
    "--network",
    default="ConvNet",
    help="Network to train and judge, or your own module:object (see `condensekit list networks`).",
)
@option("--protocol", default="short", help="Training from scratch: dc, idc or short.")
@option("--train-epochs", type=Whole(), help="Epochs from scratch.  [default: the protocol's]")
@option(
    "--steps",
    type=Whole(),
    help="Matching steps of each condensation.  [default: one for each image of the largest class, 100 to 500]",
)
@option(
    "--encoder-network",
    help="Network that embeds images, to condense or choose them for from-scratch.  [default: the method's]",
)
@option(
    "--storage",
    type=Choice(["uint8", "float16", "float32"]),
    default="uint8",
    help="How condensed images are stored: uint8, float16 or float32; real images always take 8 bits.",
)
@SET
@online_options
@RUN
@option("--resume", is_flag=True, help="Continue an interrupted run: --resume --out RUN.")
@SEED
@machine_options
@TENSORBOARD
@QUIET
@JSON
def command(
    source: Source,
    experiences: int,
    ipc: int,
    memories: list[str],
    regimes: list[str],
    orders: int,
    first_order: int,
    seeds: int | None,
    networks: int,
    network: str,
    protocol: str,
    train_epochs: int | None,
    steps: int | None,
    encoder_network: str | None,
    storage: str,
    settings: tuple[str, ...],
    online: Online,
    out: Path,
    resume: bool,
    seed: int,
    machine: Machine,
    tensorboard: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Check the options, load the data, run the study, and show the results."""
    problems, making = gathered(), Making()
    augment = None if source.augment == "auto" else source.augment
    with problems:
        options = together(settings_of(settings), {"encoder_network": encoder_network, "augment": augment})
        making = Making(steps, options, storage, machine or Machine())
    kinds: list[MemoryKind] = []
    for name in memories:
        with problems:
            kinds.append(memory(name, making))
    for name in regimes:
        with problems:
            check_regime(name)
    with problems:
        training = catalog.protocol(protocol)
        training = training if train_epochs is None else replace(training, epochs=train_epochs)
        training = training if augment is None else replace(training, augmentation=catalog.augmentation(augment))
        stream = Settings(
            experiences=experiences,
            ipc=ipc,
            orders=orders,
            first_order=first_order,
            seeds=seeds,
            networks=networks,
            network=catalog.network(network),
            protocol=training,
            online=online,
            seed=seed,
        )
    with problems:
        if not resume and len(kinds) == len(memories):  # a folder may have more memories and regimes than are named
            unused(**_idle(kinds, regimes, orders, seeds))
    problems.refuse()
    if launched().first:
        check_free(out, resume)
    progress = show.progress(quiet, out if tensorboard else None)
    try:
        train, test = source.load(quiet, *[out] * resume)
    except NestedError as error:
        raise DataError(f"{error}. {EXPERIENCES}") from None
    making = making.on(train)
    if steps is None and not quiet and any(kind.learnt for kind in kinds):
        show.tell(f"each condensation has {making.steps} steps, which fit the data: --steps N gives another number")
    try:
        result = run_protocol(
            train,
            test,
            memories=memories,
            regimes=regimes,
            settings=stream,
            making=making,
            out=out,
            resume=resume,
            record=source.record(out),
            progress=progress,
        )
    except Interrupted as stopped:
        show.tell(f"{out}: {stopped}; {waiting.DROPPED['replay']}")
        return 128 + stopped.signum
    except StoreError as error:
        if isinstance(error.result, ReplayResult):
            show.emit(as_json, error.result.to_json(), error.result.table())
        raise
    page = ("report", out, "--out", out / "report.html")
    end = ending(out, verdict(result), "see curves, comparisons and cost on one page", *page)
    show.emit(as_json, result.to_json(), f"{result.table()}\n\nPlot: {out / PLOT}\n{end}")
    return 0


def _idle(kinds: Sequence[MemoryKind], regimes: Sequence[str], orders: int, seeds: int | None) -> dict[str, str | None]:
    """Why options do nothing with these memories and regimes; see :func:`unused`.

    ``--steps``, ``--train-epochs`` and ``--encoder-network`` are the setting of a study: they may stand with all.
    """
    learner = f"it is for the other regimes than {FROM_SCRATCH}" if set(regimes) == {FROM_SCRATCH} else None
    plain = None if any(kind.learnt for kind in kinds) else "nothing is condensed"
    return {
        **{field.name: learner for field in dataclasses.fields(Online)},
        "learner_encoder": learner or plain,
        "storage": plain,
        "seeds": f"there are {orders} orders, each with a seed of its own" if (seeds or 0) > orders else None,
    }
