"""Command ``evaluate``: train networks on sets, and compare the sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import click

from condensekit import catalog
from condensekit.cli import show, waiting
from condensekit.cli.flags import as_flags
from condensekit.cli.kinds import MANY, Command, Data, List, Location, Whole, gathered, option, unused
from condensekit.cli.next import ending, page
from condensekit.cli.options import (
    AUGMENT,
    DOWNLOAD,
    IMAGE_SIZE,
    JSON,
    QUIET,
    SEED,
    TENSORBOARD,
    TRUST,
    Source,
    machine_options,
)
from condensekit.cli.public import Public, converted, is_public, public_options
from condensekit.compute import Machine
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, StoreError, require
from condensekit.everyday import FULL, evaluate
from condensekit.report.evaluated import verdict
from condensekit.runs.files import check_writable, fitting
from condensekit.sets.contents import content_of
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
command. A RUN may also be the file of a set, or a .pt file of another code (DC, DSA, DM, MTT, IDC, DANCE, NCFM).

\b
Examples:
  condensekit evaluate runs/dm
  condensekit evaluate runs/dm runs/kmeans --against random,herding
  condensekit evaluate runs/dm --network ConvNet,ResNet18 --networks 3 --json
  condensekit evaluate res_DM_CIFAR10_ConvNet_10ipc.pt --data cifar10
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
@IMAGE_SIZE
@public_options
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
    image_size: int | None,
    public: Public,
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
        public.check(*runs)
        own = [run for run in runs if not is_public(run)]
        found = groups(own) if own else []
        for path in filter(is_public, runs):
            content_of(path)  # before the data are read
        given = Source(data or "", image_size, data_root, download, trust_local_copy, augment=augment)
        source = _source(found, given, runs[0])
        more = len(own) < len(runs) or any(
            len(one) * one.formation.factor**2 != g.ipc * len(one.classes) for g in found for one in g.sets
        )
        more |= any(selection.codes or formation.coded or formation.factor > 1 for selection, formation in formed)
        source.check()
        unused(equal_epochs=None if more else "no set is packed or coded")
    problems.refuse()
    file = (runs[0] if runs[0].is_dir() else runs[0].parent) / FILE
    check_writable(file)
    progress = show.progress(quiet, file.parent if tensorboard else None)
    train, test = source.load(quiet)
    _same_data(found, train)
    sets = [one for run in runs for one in (public.sets(run, train) if is_public(run) else [run])]
    waiting.KEPT.set(file.parent)
    try:
        result = evaluate(
            sets,
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
    purpose, words = "see images, accuracies and cost on one page", page(file.parent, *runs)
    if len(own) < len(runs):
        path = next(filter(is_public, runs))
        purpose, words = "write its images as a set of condensekit", converted(path)
    end = ending(file, verdict(result), purpose, *words)
    told = replace(result, notes=tuple(map(as_flags, result.notes)))
    show.emit(as_json, result.to_json(), f"{told.table()}\n\n{end}")


def _source(found: Sequence[Group], given: Source, first: Path) -> Source:
    """The data of the runs: as recorded, with the changes in ``given``.

    Raises:
        ConfigError: The runs have different data, or their data is neither recorded nor given.
    """
    runs = [g.runs[0] for g in found]
    configs = [fitting(f"{run.folder}: its configuration", run.config, _Config) for run in runs]
    told = [config for config in configs if config.get("data")]  # sets of other codes do not tell it
    if any(config["data"] != told[0]["data"] for config in told):
        raise ConfigError("the runs are made from different data: evaluate them one by one")
    if not told and not given.data:
        raise ConfigError(f"{first} does not record its data: give --data, such as --data cifar10")
    recorded: dict[str, Any] = {**(told[0]["data"] or {})} if told else {}
    root = given.data_root or (told[0].get("data_root") if told else None)
    return replace(
        given,
        data=given.data or recorded["name"],
        image_size=given.image_size or recorded.get("image_size"),
        splits=recorded.get("splits", True),
        layout=recorded.get("layout"),
        data_root=Path(root) if root else None,
    )


def _same_data(found: Sequence[Group], train: ClassImages) -> None:
    """Raise ConfigError if a run was made from other training images."""
    now = train.fingerprint()
    for made in (made for g in found for made in g.runs):
        if made.config.get("data_fingerprint") not in (None, now):
            raise ConfigError(
                f"{made.folder} was made from other training images than these: give --data or --data-root"
            )
