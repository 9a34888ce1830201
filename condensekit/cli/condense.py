"""``condensekit condense``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from condensekit import catalog
from condensekit.cli import show
from condensekit.cli.options import (
    DEVICE,
    IPC,
    JSON,
    STORAGE,
    Command,
    Place,
    Positive,
    Problems,
    Source,
    option,
    packed,
    place_options,
    source_options,
)
from condensekit.compute import PRECISIONS, make_plan
from condensekit.condense import CondenseResult, Saving, Status, condense
from condensekit.condensed import Formation
from condensekit.encoders import Fresh
from condensekit.errors import refuse
from condensekit.methods import Condenser

DEFAULTS: dict[str, Any] = {  # anything else becomes part of the row's name
    "init": "random",
    "network": "ConvNet",
    "keep": 1,
    "augment": "auto",
    "storage": "float32",
    "precision": "fp32",
}
EXIT = {Status.FINISHED: 0, Status.DIVERGED: 3, Status.INTERRUPTED: 128}  # an interrupt adds the signal's number


@dataclass(frozen=True)
class Recipe:
    """How to condense, in the words of the command line; the options below say what each field means."""

    method: str
    settings: tuple[str, ...]
    lr: float | None
    batch_real: int | None
    init: str
    network: str
    keep: int
    augment: str
    storage: str
    precision: str

    def options(self) -> dict[str, Any]:
        """The method's options.

        Raises:
            ConfigError: A ``--set`` without ``=``, all of them.
        """
        refuse(*(f"--set takes NAME=VALUE, got {text!r}" for text in self.settings if "=" not in text))
        short = {"lr": self.lr, "batch_real": self.batch_real}
        long = dict(text.split("=", 1) for text in self.settings)
        return {**long, **{name: value for name, value in short.items() if value is not None}}

    def build(self, data: str, problems: Problems) -> tuple[Condenser, dict[str, Any]]:
        """The method, and the other arguments of ``condense`` that the recipe decides.

        Raises:
            ConfigError: Every problem of every option, and those already in ``problems``.
        """
        with problems:
            method = catalog.method(self.method, **self.options())
        with problems:
            init = catalog.initialiser(self.init)
        with problems:
            encoder = Fresh(catalog.network(self.network), self.keep)
        with problems:
            augmentation = catalog.augmentation(self.augment, data)
        problems.refuse()
        return method, {
            "init": init,
            "encoder": encoder,
            "augmentation": augmentation,
            "formation": Formation(dtype=self.storage),
            "precision": self.precision,
        }

    def name(self, method: Condenser) -> str:
        """What a table calls the run: the method and its options that are not the default."""
        return catalog.row_name(method, **{k: getattr(self, k) for k, v in DEFAULTS.items() if getattr(self, k) != v})


def _methods() -> str:
    """``dm (lr=1.0, momentum=0.5)`` and so on."""
    described = []
    for name, made in catalog.METHODS.items():
        described.append(f"{name} ({', '.join(f'{k}={v}' for k, v in catalog.options_of(made).items())})")
    return "; ".join(described)


HELP = f"""Learn a few synthetic images per class that stand for a whole data set.

Starts from random real images (--init) and improves them for a number of --iterations, or of --minutes. The set
lands in RUN/set.safetensors; `condensekit evaluate RUN` measures it.

\b
Examples:
  condensekit condense --data digits --method dm --ipc 1 --iterations 300 --out runs/digits
  condensekit condense --data cifar10 --download --method dm --ipc 10 --iterations 20000 --seeds 3 --out runs/dm
  condensekit condense --data photos/ --image-size 64 --method dm --ipc 5 --minutes 30 --out runs/photos
  condensekit condense --data digits --method mine:Method --set strength=0.3 --ipc 1 --iterations 100 --out run

Methods and their options (--set NAME=VALUE): {_methods()}. A method of your own is module:object.

An interrupted run (Ctrl-C, SIGTERM, a crash) goes on with the same command and --resume; on a CPU it gives the
same images bit for bit as an uninterrupted one. Resuming with other options is refused.
"""


recipe_options = packed(
    Recipe,
    "recipe",
    option("--method", default="dm", show_default=True, metavar="NAME", help="How to condense; see above."),
    option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="An option of the method; repeatable."),
    option("--lr", type=float, metavar="X", help="Step size of the images; short for --set lr=X."),
    option("--batch-real", type=int, metavar="N", help="Real images per class and step; --set batch_real=N."),
    option(
        "--init",
        default=DEFAULTS["init"],
        show_default=True,
        metavar="NAME",
        help="First images: random, herding, kmeans or kcenter real ones, or noise.",
    ),
    option(
        "--network",
        default=DEFAULTS["network"],
        show_default=True,
        metavar="NAME",
        help="What embeds images, say ConvNet-d4-w64-batch, ResNet18-instance, or a name from torchvision.models.",
    ),
    option(
        "--keep",
        type=click.IntRange(min=1),
        default=DEFAULTS["keep"],
        show_default=True,
        metavar="K",
        help="Steps for which one random network is used.",
    ),
    option(
        "--augment",
        default=DEFAULTS["augment"],
        show_default=True,
        metavar="LIST",
        help="Of color,crop,cutout,flip,scale,rotate, or none; auto is all, without flip for digits and mnist.",
    ),
    STORAGE,
    option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default=DEFAULTS["precision"],
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
    method, options = recipe.build(source.data, problems)
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
