"""Command ``list``: the names that options take, each with what it is in one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

import click

from condensekit import catalog
from condensekit.cli import show
from condensekit.cli.kinds import Choice, Command
from condensekit.cli.options import JSON
from condensekit.data import datasets
from condensekit.nas.names import ADDITIVE, COUNTS, EARLY, EQUAL, HALF, RIDGE, START, ZERO_COST
from condensekit.replay.memory.names import DOWNSCALED, HYBRID, UNPACKED
from condensekit.replay.study.memories import AVALANCHE, EQUAL_BYTES
from condensekit.training.networks import shelves

METHODS = {
    "dm": "mean embeddings",
    "m3d": "embeddings by a kernel; packs four images into one",
    "echo": "as m3d",
    "dance": "mean embeddings, by trained networks",
    "ncfm": "characteristic functions of embeddings; packs as m3d",
    "dc": "gradients of networks, from noise",
    "dsa": "gradients under an augmentation",
    "krr": "kernel ridge",
}
SELECTIONS = {
    "random": "real images, drawn uniformly",
    "herding": "real images whose mean embedding is nearest to that of the class",
    "kmeans": "the real image nearest to each centre of k-means",
    "kcenter": "always the real image farthest from those chosen before",
    "importance-kmeans": "drawn by their importance for the loss of k-means",
    "importance-krr": "drawn by their importance for the loss of kernel ridge regression",
    "jpeg-random": "random images as JPEG, as many as fit into the bytes of ipc images",
}
NETWORKS = {
    "ConvNet": "three blocks of 128 channels; ConvNet-d4-w64-batch: four of 64 with batch norm",
    "ResNet18": "for small images; ResNet18-instance: with instance norm",
    "AlexNet": "for small images: five convolutions",
    "VGG11": "for small images: eight convolutions",
    "LeNet": "LeNet-5 with ReLU",
    "MLP": "two hidden layers of 128",
}
DATA = {
    "digits": "8 x 8, grey, 10 classes, 1,797 images; comes with scikit-learn",
    "mnist": "28 x 28, grey, 10 digits",
    "fashionmnist": "28 x 28, grey, 10 kinds of clothes",
    "svhn": "32 x 32, colour, 10 digits of house numbers",
    "cifar10": "32 x 32, colour, 10 classes",
    "cifar100": "32 x 32, colour, 100 classes",
    "tinyimagenet": "64 x 64, colour, 200 classes; is not downloaded",
}
AVALANCHES = {
    "class-balanced": "Avalanche's memory: equally many of each class, at random",
    "experience-balanced": "Avalanche's memory: equally many images of each experience",
    "reservoir": "Avalanche's memory: all images with equal probability",
    "avalanche-herding": "Avalanche's memory: herding, in the learner's embedding",
    "closest-to-mean": "Avalanche's memory: the images nearest to the class mean",
    "avalanche-er-ace": "Avalanche's strategy ER-ACE",
    "avalanche-der++": "Avalanche's strategy DER++",
    "gdumb": "Avalanche's strategy GDumb",
    "icarl": "Avalanche's strategy iCaRL",
    "naive": "no memory: a lower bound",
    "cumulative": "all images so far: an upper bound",
    "joint": "all images at once: an upper bound",
}
OWN = {"module:object": "your own, in a module of the current folder or an installed package"}


def methods() -> dict[str, str]:
    """Methods, with their papers."""
    return {
        **{name: f"{METHODS[name]} ({made.paper})" for name, made in catalog.PUBLISHED.items()},
        **_installed("methods"),
        **OWN,
    }


def selections() -> dict[str, str]:
    """Selections, as baselines too."""
    packed = {
        f"{catalog.PACKED}NAME": "the same, four smaller images in each stored one",
        "avif-NAME": "the same in AVIF (webp-, jpeg-), as many as the bytes of ipc images hold",
        "'NAME storage=4bit'": "the same with another storage, in quotes",
    }
    return {**{name: SELECTIONS[name] for name in catalog.SELECTIONS}, **packed, **_installed("selections"), **OWN}


def networks() -> dict[str, str]:
    """Networks."""
    others = {
        "MODEL": "of torchvision.models: resnet18, vgg11_bn, ...",
        "MODEL-small": "the same with a stem for small images",
    }
    return {**{name: NETWORKS[name] for name in catalog.NETWORKS}, **others, **OWN}


def memories() -> dict[str, str]:
    """Memories of ``condensekit replay``."""
    return {
        **{name: f"condensed images: {METHODS[name]}" for name in catalog.PUBLISHED},
        "'NAME lr=3'": "one of these with options, in quotes",
        **SELECTIONS,
        f"{catalog.PACKED}NAME": "four smaller images in each stored one",
        f"{UNPACKED}METHOD": "one image in each stored one (m3d packs by default)",
        EQUAL_BYTES: "as many as fit into the bytes of the largest condensed memory",
        "jpeg-NAME-TIMES": "TIMES as many images as JPEG in the same bytes: jpeg-dm-9",
        f"{DOWNSCALED}-N": "N x N smaller random images in the bytes of one",
        "random-soft": "random images with soft labels; for from-scratch only",
        f"{HYBRID}-METHOD-PERCENT": "PERCENT condensed images, and real images that complement them",
        **{name: f"{AVALANCHES[name]}; for {', '.join(stock.regimes)}" for name, stock in AVALANCHE.items()},
    }


def rankers() -> dict[str, str]:
    """Rankers of ``condensekit search``."""
    return {
        **{name: "trains on a condensed set; with options in quotes: 'NAME lr=3'" for name in catalog.PUBLISHED},
        f"{HALF}METHOD": "half of that set is real, chosen by k-means",
        f"{START}METHOD": "trains on the real images from which a condensation starts",
        **SELECTIONS,
        f"{catalog.PACKED}SELECTION": "the same, four smaller images in each stored one",
        "NAME@50": "with this ipc instead of --ipc, in equally many steps",
        f"random{EQUAL}": "as random, at the cost of the most expensive set",
        EARLY: "all images for a short time, at that cost; early-stop@3: 3 epochs",
        **{name: "a property, without training" for name in COUNTS},
        **{name: "a score without training" for name in ZERO_COST},
        "NAME+NAME": "the sum of the ranks: dm+synflow+jacov",
        f"{RIDGE}NAME+NAME": "a regression on the scores, from 10 truths",
        ADDITIVE: "a regression on the choices of the architecture, from 10 truths",
    }


def data() -> dict[str, str]:
    """Data."""
    return {
        **{name: DATA[name] for name in datasets.NAMES},
        "folder": "a folder of images for each class; or train and test (or val) of that form",
        "file": ".npz, .h5 or .hdf5 with images and labels, or x_train and y_train",
        "folder of .npy": "files images and labels, or x_train and y_train",
    }


def encoders() -> dict[str, str]:
    """Trained encoders in the cache."""
    return {
        path.name: f"{count} trained for {told['protocol']['steps'] or told['protocol']['epochs']} "
        f"{'steps' if told['protocol']['steps'] else 'epochs'} on {told['images']:,} images of "
        f"{len(told['classes'])} classes ({told['source'] or 'own data'})"
        for path, told, count in shelves()
    }


LISTS: dict[str, tuple[Callable[[], Mapping[str, str]], str]] = {
    "methods": (methods, "condense --method NAME; `condensekit methods NAME` shows its options"),
    "selections": (
        selections,
        "select --selection NAME, evaluate --against LIST, condense --init NAME (without prefix)",
    ),
    "networks": (networks, "evaluate and replay --network, --encoder-network NAME"),
    "encoders": (encoders, "encoders --remove NAME; condense finds them by its data and options"),
    "memories": (memories, "replay --memory LIST"),
    "rankers": (rankers, "search --rankers LIST"),
    "data": (data, "--data NAME|PATH"),
}
"""Lists by name, each with what makes it and the options that take its names."""
HELP = f"""List names that options take, each with what it is.

KIND is one of {", ".join(LISTS)}.

\\b
Examples:
  condensekit list methods
  condensekit list memories --json
"""


@click.command("list", cls=Command, help=HELP)
@click.argument("kind", type=Choice(LISTS))
@JSON
def command(kind: str, as_json: bool) -> None:
    """Read the catalog."""
    made, where = LISTS[kind]
    names = made()
    show.emit(as_json, {kind: names}, f"{show.columns([*names.items()])}\n\nFor {where}.")


def _installed(kind: str) -> dict[str, str]:
    """Names that installed packages declare."""
    points = entry_points(group=f"condensekit.{kind}")
    return {point.name: f"of the package {point.dist.name}" for point in points if point.dist}
