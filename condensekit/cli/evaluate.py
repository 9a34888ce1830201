"""``condensekit evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import click

from condensekit import catalog
from condensekit.cli import show
from condensekit.cli.options import (
    DEVICE,
    DOWNLOAD,
    JSON,
    SEED,
    TRUST,
    Command,
    Source,
    listed,
    option,
)
from condensekit.compute import Compute, make_plan
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, Problems
from condensekit.networks.base import Network
from condensekit.rng import Draw
from condensekit.runs.files import write_json
from condensekit.selection.base import Selection, selected_set
from condensekit.sets.condensed import Formation
from condensekit.sets.found import Group, group
from condensekit.training.evaluation import Candidate, evaluate

HELP = """Train networks from scratch on the sets of each RUN, and test them on the whole test set.

Runs that differ only in the seed form one row (a folder made with --seeds is such a group). A row gives the
mean accuracy, its spread, and the difference to random images under the same network and set seeds, with a 95%
interval: over sets where there are at least three, else over networks. The table is printed; everything goes to
evaluation.json in the first RUN.

\b
Examples:
  condensekit evaluate runs/dm
  condensekit evaluate runs/dm runs/kmeans --against random,herding,full --protocol dc
  condensekit evaluate runs/dm --architectures ConvNet,ResNet18 --networks 3 --json
"""


@click.command("evaluate", cls=Command, help=HELP)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@option(
    "--against",
    type=listed,
    metavar="LIST",
    default="random",
    show_default=True,
    help="Baselines from the same data, with the same images per class and seeds: random, herding, kmeans, kcenter, "
    "importance-kmeans, importance-krr, any of these packed (packed-random), jpeg-random, module:object; full is all "
    "training images; none is no baseline.",
)
@option(
    "--networks",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    metavar="N",
    help="Networks trained from scratch on each set.",
)
@option(
    "--protocol",
    default="short",
    show_default=True,
    metavar="NAME",
    help="How they are trained: dc and idc are the recipes of the papers; short is dc in 300 epochs, for a CPU.",
)
@option(
    "--equal-epochs",
    is_flag=True,
    help="Train on packed sets for as many epochs as on others, as their papers do: more steps of more images. By "
    "default all sets of as many stored images get equal steps.",
)
@option(
    "--architectures",
    type=listed,
    metavar="LIST",
    default="ConvNet",
    show_default=True,
    help="What is trained, say ConvNet,ResNet18, ConvNet-d4-w64-batch, or names from torchvision.models.",
)
@option("--data", metavar="NAME|PATH", help="Where the runs' data is now.  [default: as in the run's config.json]")
@option(
    "--data-root",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder of the named data sets.  [default: as in config.json]",
)
@DOWNLOAD
@TRUST
@SEED
@DEVICE
@JSON
def command(
    runs: tuple[Path, ...],
    against: list[str],
    networks: int,
    protocol: str,
    equal_epochs: bool,
    architectures: list[str],
    data: str | None,
    data_root: Path | None,
    download: bool,
    trust_local_copy: bool,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Gather the runs, make the baselines, measure, write."""
    problems = Problems()
    with problems:
        catalog.protocol(protocol)
    models: list[Network] = []
    for name in architectures:
        with problems:
            models.append(catalog.network(name))
    selections: dict[str, tuple[Selection, Formation]] = {}
    for name in against:
        with problems:
            if name not in ("full", "none"):
                selections[name] = catalog.baseline(name)
    with problems:
        make_plan((1, 1), device=device)
    with problems:
        groups = group(runs)
        source = _source(groups, Source(data or "", None, data_root, download, trust_local_copy))
    problems.refuse()
    train, test = source.load(show.Bars())
    _same_data(groups, train)
    with Compute(make_plan(train.spec.shape[1:], device=device)) as compute:
        candidates = [Candidate(g.name, tuple(made.set for made in g.runs), g.ipc) for g in groups]
        candidates += baselines(groups, selections, train, compute)
        if "full" in against:
            candidates.append(Candidate("full", (train,), None))
        result = evaluate(
            candidates,
            test,
            networks=networks,
            architectures=tuple(models),
            protocol=catalog.protocol(protocol, source.data),
            seed=seed,
            compute=compute,
            equal_steps=not equal_epochs,
            progress=show.Bars(),
        )
    write_json(runs[0] / "evaluation.json", result.to_json())
    show.emit(as_json, result.to_json(), result.table())


def baselines(
    groups: Sequence[Group],
    selections: Mapping[str, tuple[Selection, Formation]],
    train: ClassImages,
    compute: Compute,
) -> list[Candidate]:
    """For each size among ``groups``: each selection's sets, with the seeds of the group that has most."""
    made = []
    for ipc in dict.fromkeys(g.ipc for g in groups):
        alike = [g for g in groups if g.ipc == ipc]
        seeds = max(([run.seed for run in g.runs] for g in alike), key=len)
        for name, (selection, formation) in selections.items():
            if name in {g.name for g in alike}:
                continue
            sets = tuple(selected_set(train, selection, ipc, Draw(seed), compute, formation) for seed in seeds)
            made.append(Candidate(name, sets, ipc))
    return made


def _source(groups: Sequence[Group], given: Source) -> Source:
    """The data the runs were made from: as recorded, but for what is ``given``.

    Raises:
        ConfigError: The runs' data differ, or are not on record and not given.
    """
    configs = [g.runs[0].config for g in groups]
    recorded = configs[0].get("data")
    if any(config.get("data") != recorded for config in configs):
        raise ConfigError("the runs are made from different data: evaluate them one by one")
    if recorded is None and not given.data:
        raise ConfigError(f"{groups[0].runs[0].folder} does not record its data: give --data")
    recorded = recorded or {}
    root = given.data_root or configs[0].get("data_root")
    return replace(
        given,
        data=given.data or recorded["name"],
        image_size=recorded.get("image_size"),
        data_root=Path(root) if root else None,
    )


def _same_data(groups: Sequence[Group], train: ClassImages) -> None:
    """Refuse to measure on data that a run was not made from."""
    now = train.fingerprint()
    for made in (made for g in groups for made in g.runs):
        if made.config["data_fingerprint"] != now:
            raise ConfigError(
                f"{made.folder} was made from other training images than these: give --data or --data-root"
            )
