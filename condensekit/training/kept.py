"""Kept trainings: a file for each network that was trained and tested, which a repeated evaluation reads."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import torch

import condensekit
from condensekit.compute import Compute, Spent
from condensekit.data.images import ClassImages
from condensekit.errors import StoreError
from condensekit.networks.base import Network
from condensekit.ranks import launched
from condensekit.runs.code import code_of
from condensekit.runs.describe import describe
from condensekit.runs.kept import kept
from condensekit.runs.lock import trying
from condensekit.training.lessons import Lesson

log = logging.getLogger(__name__)
FOLDER = "trainings"  # in the folder of an evaluation


@dataclass(frozen=True)
class Outcome:
    """What came of a training.

    Args:
        accuracy: The fraction of the test images that it recognises.
        seconds: Wall time of its training and test.
        work: Its work.
        kept: Whether this was read from a file.
    """

    accuracy: float
    seconds: float
    work: Spent
    kept: bool = False


class _File(TypedDict):
    """What the file of a training holds."""

    accuracy: float
    seconds: float
    work: Spent


class Shelf:
    """The files of finished trainings in a folder; the name of a file depends on all that decides the result.

    Args:
        folder: The folder; None: nothing is kept.
        test: The test images.
        compute: Runs the networks.
    """

    def __init__(self, folder: Path | None, test: ClassImages, compute: Compute) -> None:
        self.folder, self.test, self.compute = folder, test, compute
        self.shared = folder is not None and launched().several  # whether other ranks train for this folder, too
        self._networks: dict[int, dict[str, Any]] = {}

    def has(self, lesson: Lesson, network: Network, seed: int) -> bool:
        """Whether this training is finished."""
        return self.folder is not None and os.path.lexists(_file(self.folder, self._recipe(lesson, network, seed)))

    def outcome(self, lesson: Lesson, network: Network, seed: int, train: Callable[[], Outcome]) -> Outcome | None:
        """The outcome of a training from its file; without a file, from ``train``, and then it is kept.

        None: another rank is at this training. A rank that ends leaves it to the others.

        If it cannot be written, a warning says so, and nothing more is kept.

        Raises:
            StoreError: The file is damaged.
        """
        folder, made = self.folder, list[Outcome]()
        if folder is None:
            return train()

        def make() -> dict[str, Any]:
            made.append(train())
            return {"accuracy": made[0].accuracy, "seconds": made[0].seconds, "work": asdict(made[0].work)}

        recipe = self._recipe(lesson, network, seed)
        path = _file(folder, recipe)
        free = not self.shared or os.path.lexists(path)
        try:
            with nullcontext(True) if free else trying(path.with_suffix(".lock")) as held:
                if not held:
                    return None
                found = kept(path, recipe, make, "a training", kind=_File)
        except StoreError as error:
            if not made:
                raise
            log.warning("%s; from now on, no network is kept", error)
            self.folder = None
        return made[0] if made else Outcome(found["accuracy"], found["seconds"], Spent(**found["work"]), True)

    def _recipe(self, lesson: Lesson, network: Network, seed: int) -> dict[str, Any]:
        """All that decides the outcome of a training, as JSON values."""
        if id(network) not in self._networks:
            self._networks[id(network)] = self._known(network)
        trained = {"set": lesson.fingerprint, "protocol": describe(lesson.protocol), "seed": seed}
        return {**trained, **self._networks[id(network)], **self._machine}

    def _known(self, network: Network) -> dict[str, Any]:
        """A network, with the layers that it has for these images, which its name may not tell."""
        layers = repr(network.build(self.test.spec.shape, len(self.test.classes)))
        digest = hashlib.sha256(layers.encode()).hexdigest()
        return {"network": describe(network), "layers": digest, "code": code_of(network)}

    @cached_property
    def _machine(self) -> dict[str, Any]:
        versions = {"condensekit": condensekit.__version__, "torch": str(torch.__version__)}
        machine = {"device": self.compute.device.type, **self.compute.machine.identity}
        return {"test": self.test.fingerprint(), **versions, **machine}


def _file(folder: Path, recipe: dict[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return folder / FOLDER / f"{digest[:16]}.json"
