"""Search for the number of images: in the bytes of a class, many images of low quality or few of high quality."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from condensekit.compute import Compute
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, refuse, require, several, whole
from condensekit.networks.base import Network
from condensekit.networks.convnet import ConvNet
from condensekit.progress import SILENT, Progress
from condensekit.rng import Draw
from condensekit.selection.base import Selection, selected_set
from condensekit.selection.number import usual_number
from condensekit.sets.formation import Formation
from condensekit.tables import markdown
from condensekit.training.train import TrainProtocol, accuracy, class_indices, train_network

HELD_OUT = 0.1  # share of the images on which numbers are judged
STEPS = (0.5, math.sqrt(0.5), 1.0, math.sqrt(2), 2.0)  # of the usual number: the numbers that are tried
PROTOCOL = TrainProtocol("search", epochs=1, full_epochs=1, batch=64, steps=800)


@dataclass(frozen=True)
class Tried:
    """One number of images that was tried.

    Args:
        images: Stored images of each class.
        nbytes: Bytes of the whole set; 0 if it does not fit.
        quality: The lowest and the highest quality of a class; None: the storage has no quality.
        accuracies: Accuracy of each network on the images that were held out; empty if the set does not fit.
    """

    images: int
    nbytes: int = 0
    quality: tuple[int, int] | None = None
    accuracies: tuple[float, ...] = ()


@dataclass(frozen=True)
class NumberSearch:
    """What :func:`search_number` found.

    Args:
        storage: Name of the storage.
        room: Bytes of each class.
        tried: The numbers that were tried, ascending.
    """

    storage: str
    room: int
    tried: tuple[Tried, ...] = field(default=())

    @property
    def best(self) -> Tried:
        """The number with the highest mean accuracy."""
        return max((one for one in self.tried if one.accuracies), key=lambda one: fmean(one.accuracies))

    @property
    def number(self) -> int:
        """Its images of each class."""
        return self.best.images

    def to_json(self) -> list[dict[str, Any]]:
        """Each number that was tried as JSON values."""
        return [asdict(one) for one in self.tried]

    def table(self) -> str:
        """All numbers as a table; the best one is marked."""
        rows = [
            (
                f"{one.images}{' (best)' * (one == self.best)}",
                f"{one.nbytes:,}" if one.nbytes else "does not fit",
                "-" if one.quality is None else " to ".join(map(str, sorted({*one.quality}))),
                f"{100 * fmean(one.accuracies):.1f}" if one.accuracies else "-",
            )
            for one in self.tried
        ]
        return markdown(("images per class", "bytes", "quality", "accuracy on held-out images %"), rows)


def search_number(
    data: ClassImages,
    selection: Selection,
    formation: Formation,
    room: int,
    *,
    compute: Compute,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
    network: Network = ConvNet(width=32),  # noqa: B008 - frozen
    networks: int = 2,
    protocol: TrainProtocol = PROTOCOL,
    progress: Progress = SILENT,
) -> NumberSearch:
    """Find the number of images per class that teaches most in a number of bytes.

    A tenth of the images is held out. For each number, images are chosen from the others and stored at the best quality
    that fits, networks are trained on them, and tested on the tenth.

    Args:
        data: Training images.
        selection: How images are chosen.
        formation: How they are stored.
        room: Bytes for each class, with labels.
        compute: Runs the networks.
        seed: Seed of the division, the selection and the networks.
        numbers: Stored images per class to try; None: from half to twice the usual number, in steps of 1.4.
        network: What is trained.
        networks: Number of networks trained on each set.
        protocol: How they are trained.
        progress: Receives each network.

    Raises:
        ConfigError: No number fits, or wrong arguments.
        DataError: Too few images.
    """
    rest, held_out = data.split(HELD_OUT, Draw(seed))
    if numbers is None:
        usual, most = usual_number(rest, formation, room, Draw(seed)), max(map(rest.count, rest.classes))
        tried = sorted({min(max(1, round(usual * step)), most // formation.factor**2) for step in STEPS})
    else:
        problem = several("numbers", numbers, "[40, 80, 160]")
        refuse(problem, *(() if problem else (whole("a number of images", n, 1) for n in numbers)))
        tried = sorted({*map(int, numbers)})
    used, found, reason = protocol.on(data.spec), list[Tried](), ""
    with progress.stage(f"number of images in {room:,} bytes", len(tried) * networks) as stage:
        for number in tried:
            try:
                made = selected_set(rest, selection, number, Draw(seed), compute, formation, room)
            except ConfigError as error:
                reason = str(error)
                found.append(Tried(number))
                stage.advance(networks)
                continue
            images, labels = made.decode()
            targets, accuracies = class_indices(labels, data.classes), list[float]()
            for place in range(networks):
                draw = Draw(seed).at(place)
                module = train_network(images, targets, network, used, draw, compute, len(data.classes))
                accuracies.append(accuracy(module, held_out, data.classes, compute))
                stage.advance()
            quality = made.provenance.get("storage", {}).get("quality")
            ends = (min(quality), max(quality)) if quality else None
            found.append(Tried(number, made.nbytes, ends, tuple(accuracies)))
    require(any(one.accuracies for one in found), reason or "numbers is empty: give at least one")
    return NumberSearch(formation.dtype, room, tuple(found))
