"""Command ``encoders``: train networks that embed images, once for all condensations of a data set."""

from __future__ import annotations

from pathlib import Path

import click

from condensekit import catalog
from condensekit.cli import show
from condensekit.cli.kinds import MANY, Command, Whole, gathered, option
from condensekit.cli.options import JSON, QUIET, SEED, Source, machine_options, source_options
from condensekit.compute import Compute, Machine
from condensekit.data.images import ClassImages
from condensekit.methods.trained_encoders import Trained
from condensekit.networks.base import Network
from condensekit.training import networks
from condensekit.training.train import accuracy

HELP = """Train networks that embed images, once for all condensations of a data set.

They are kept in a cache ($CONDENSEKIT_CACHE, or the user's folder for caches), where the method dance and all others
with trained encoders find them, whatever their seed and number of images: by the data, --encoder-network, --epochs
(elsewhere encoder.epochs=N) and --seed. A condensation that does not find them trains them itself. An interrupted
training goes on with the same command; with a larger --count, only those are trained that lack.

`condensekit list encoders` shows what the cache has.

\b
Examples:
  condensekit encoders --data digits --encoder-network ConvNet-w32 --epochs 20
  condensekit encoders --data cifar10 --encoder-network ConvNet-w32 --count 5
  condensekit encoders --remove ConvNet-w32-0123456789ab
"""


def _remove(ctx: click.Context, option: click.Parameter, name: str | None) -> None:
    """Remove a folder of networks, and end the command."""
    if name is not None:
        show.emit(False, {}, f"removed {networks.remove(name)}")
        ctx.exit()


@click.command("encoders", cls=Command, help=HELP, common="data image-size encoder-network count epochs workers remove")
@source_options
@option("--encoder-network", default="ConvNet", help="Network that embeds images, as in `condensekit condense`.")
@option("--count", type=Whole(min=1, max=MANY), default=5, help="Networks to train.")
@option("--epochs", type=Whole(min=1, max=MANY), default=60, help="Passes of each training over the images.")
@option(
    "--remove",
    metavar="NAME",
    is_eager=True,
    expose_value=False,
    callback=_remove,
    help="Remove a folder of networks from the cache, and do nothing else.",
)
@SEED
@machine_options
@QUIET
@JSON
def command(
    source: Source,
    encoder_network: str,
    count: int,
    epochs: int,
    seed: int,
    machine: Machine,
    quiet: bool,
    as_json: bool,
) -> None:
    """Load the data, and train the networks that lack."""
    problems = gathered()
    with problems:
        network = catalog.as_network(encoder_network, "encoder_network")
    problems.refuse()
    train, test = source.load(quiet)
    encoder = Trained(network, count, epochs=epochs, seed=seed)
    with Compute(machine, (train.spec.shape[1], train.spec.shape[2])) as compute:
        shelf = encoder.shelf(train)
        found = shelf.networks(count, compute, show.progress(quiet))
        accuracies = [_accuracy(one, network, train, test, compute) for one in found] if test is not None else []
    assert shelf.folder is not None
    told = {
        "encoders": str(shelf.folder),
        "count": count,
        "steps": shelf.steps(),
        "seconds": [one.seconds for one in found],
        "accuracies": accuracies,
    }
    show.emit(as_json, told, _text(shelf.folder, count, shelf.steps(), accuracies))


def _accuracy(
    one: networks.Graduate, network: Network, train: ClassImages, test: ClassImages, compute: Compute
) -> float:
    known = test.select([label for label in test.classes if label in train.classes])
    module = network.build(train.spec.shape, len(train.classes)).to_empty(device=compute.device)
    return accuracy(one.fill(module), known, train.classes, compute)


def _text(folder: Path, count: int, steps: int, accuracies: list[float]) -> str:
    lines = [f"{folder}: {count} networks, each trained for {steps:,} steps"]
    if accuracies:
        lines.append(f"They recognise {', '.join(f'{100 * a:.1f}' for a in accuracies)} % of the test images.")
    return "\n".join(lines)
