"""Command ``evaluate``: train networks on sets, and compare the sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import click

from condensekit import catalog
from condensekit.cli import show, waiting
from condensekit.cli.flags import as_flags
from condensekit.cli.kinds import MANY, Command, Data, List, Location, Whole, gathered, option, unused
from condensekit.cli.next import ending, page
from condensekit.cli.options import AUGMENT, DOWNLOAD, JSON, QUIET, SEED, TENSORBOARD, TRUST, Source, machine_options
from condensekit.compute import Machine
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, StoreError, require
from condensekit.everyday import FULL, evaluate
from condensekit.report.evaluated import verdict
from condensekit.runs.files import check_writable, fitting
from condensekit.sets.found import Group, groups
from condensekit.training.evaluation import FILE, Evaluation

NONE = "none"  # the name in --against for no baseline


class _Data(TypedDict):
    """The data of a run, as its ``config.json`` tells it."""

    name: str
    image_size: int | None


class _Config(TypedDict, total=False):
    """What is read of a ``config.json``."""

    data: _Data | None
    data_root: str | None


HELP = """Train networks from scratch on the sets of each RUN, and test them on the whole test set.

Runs that differ only in the seed form one row of the table, as do the runs of a folder made with several seeds. A row
shows the mean accuracy, its standard deviation, and the difference to the reference (the first name of --against)
for the same seeds, with a 95% interval. Each finished network is kept at once: after an interruption, repeat the
command.

\b
Examples:
  condensekit evaluate runs/dm
  condensekit evaluate runs/dm runs/kmeans --against random,herding
  condensekit evaluate runs/dm --network ConvNet,ResNet18 --networks 3 --json
\f
The interval is over sets if there are at least three sets, else over networks. All results are written to
evaluation.json in the first RUN, and each finished network to its folder trainings.
"""


@click.command(
    "evaluate",
    cls=Command,
    help=HELP,
    common="against network networks protocol augment device workers json quiet",
)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=Location())
@option(
    "--against",
    type=List(),
    default="random",
    help="Baselines from the same data, with the same ipc and seeds (see `condensekit list selections`); the first is "
    "the reference. full: all training images; none: no baseline.",
)
@option(
    "--networks",
    type=Whole(min=1, max=MANY),
    default=5,
    help="Networks trained from scratch on each set.",
)
@option(
    "--protocol",
    default="short",
    help="How networks are trained: dc and idc as in these papers; short is dc with 300 epochs, for a CPU.",
)
@option(
    "--equal-epochs",
    is_flag=True,
    help="Train on all sets for equally many epochs, as the papers do; packed sets then get more steps. By default, "
    "sets of the same ipc get equally many steps.",
)
@option(
    "--network",
    type=List(),
    default="ConvNet",
    help="Networks to train and judge: ConvNet,ResNet18 or your own module:object (see `condensekit list networks`).",
)
@option(
    "--data",
    type=Data(),
    help="The data of the runs, if its name or path changed.  [default: as in config.json]",
)
@option(
    "--data-root",
    type=Location(),
    metavar="FOLDER",
    help="Folder of the named data sets.  [default: as in config.json]",
)
@DOWNLOAD
@TRUST
@AUGMENT
@SEED
@machine_options
@TENSORBOARD
@QUIET
@JSON
def command(
    runs: tuple[Path, ...],
    against: list[str],
    networks: int,
    protocol: str,
    equal_epochs: bool,
    network: list[str],
    data: str | None,
    data_root: Path | None,
    download: bool,
    trust_local_copy: bool,
    augment: str,
    seed: int,
    machine: Machine,
    tensorboard: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Check the options, read the runs and their data, evaluate, and write the results."""
    problems = gathered()
    formed = []
    for name in network:
        with problems:
            catalog.network(name)
    for name in against:
        with problems:
            require(name != NONE or against == [NONE], f"--against {NONE} means no baseline: leave out the others")
            if name not in (FULL, NONE):
                formed.append(catalog.baseline(name))
    with problems:
        trained = catalog.protocol(protocol)
        if augment != "auto":
            trained = replace(trained, augmentation=catalog.augmentation(augment))
    with problems:
        found = groups(list(runs))
        source = _source(found, Source(data or "", None, data_root, download, trust_local_copy, augment=augment))
        more = any(len(one) * one.formation.factor**2 != g.ipc * len(one.classes) for g in found for one in g.sets)
        more |= any(selection.codes or formation.coded or formation.factor > 1 for selection, formation in formed)
        source.check()
        unused(equal_epochs=None if more else "no set is packed or coded")
    problems.refuse()
    file = (runs[0] if runs[0].is_dir() else runs[0].parent) / FILE
    check_writable(file)
    progress = show.progress(quiet, file.parent if tensorboard else None)
    train, test = source.load(quiet)
    _same_data(found, train)
    waiting.KEPT.set(file.parent)
    try:
        result = evaluate(
            list(runs),
            test,
            train=train,
            against=[name for name in against if name != NONE],
            network=network,
            networks=networks,
            protocol=trained,
            seed=seed,
            machine=machine,
            equal_steps=not equal_epochs,
            progress=progress,
            out=file.parent,
        )
    except StoreError as error:
        if isinstance(error.result, Evaluation):
            show.emit(as_json, error.result.to_json(), error.result.table())
        raise
    purpose = "see images, accuracies and cost on one page"
    end = ending(file, verdict(result), purpose, *page(file.parent, *runs))
    told = replace(result, notes=tuple(map(as_flags, result.notes)))
    show.emit(as_json, result.to_json(), f"{told.table()}\n\n{end}")


def _source(found: Sequence[Group], given: Source) -> Source:
    """The data of the runs: as recorded, with the changes in ``given``.

    Raises:
        ConfigError: The runs have different data, or their data is neither recorded nor given.
    """
    runs = [g.runs[0] for g in found]
    configs = [fitting(f"{run.folder}: its configuration", run.config, _Config) for run in runs]
    recorded = configs[0].get("data")
    if any(config.get("data") != recorded for config in configs):
        raise ConfigError("the runs are made from different data: evaluate them one by one")
    if recorded is None and not given.data:
        raise ConfigError(f"{found[0].runs[0].folder} does not record its data: give --data")
    recorded = recorded or {}
    root = given.data_root or configs[0].get("data_root")
    return replace(
        given,
        data=given.data or recorded["name"],
        image_size=recorded.get("image_size"),
        splits=recorded.get("splits", True),
        layout=recorded.get("layout"),
        data_root=Path(root) if root else None,
    )


def _same_data(found: Sequence[Group], train: ClassImages) -> None:
    """Raise ConfigError if a run was made from other training images."""
    now = train.fingerprint()
    for made in (made for g in found for made in g.runs):
        if made.config.get("data_fingerprint") != now:
            raise ConfigError(
                f"{made.folder} was made from other training images than these: give --data or --data-root"
            )
