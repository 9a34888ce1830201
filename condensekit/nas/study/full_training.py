"""Full training on all of the data: what a ranking is measured by, and what is done with the winner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nni.nas.nn.pytorch import ModelSpace
from torch import nn

from condensekit.compute import Machine
from condensekit.data.images import ClassImages
from condensekit.errors import CondensekitError
from condensekit.nas.rankers.evaluator import ProxyEvaluator
from condensekit.nas.rankers.training import ProxyData, ProxyProtocol, train_candidate
from condensekit.nas.spaces.architecture import Architecture
from condensekit.nas.spaces.spaces import build, fingerprint
from condensekit.runs.files import save_tensors

NETWORK = "network"  # kind of the file that holds the weights
FIRST_SEED = 1_000  # of full trainings, which share no initial weights with those of rankers


@dataclass(frozen=True, eq=False)
class FullTraining:
    """How the truth is measured: every architecture trained on all of the data, and tested on test images.

    Args:
        train: All training images, those held out from the rankers included.
        test: Test images.
        protocol: How it is trained.
        seeds: Trainings of each architecture; two or more tell how noisy the truth is.
        machine: Where.
    """

    train: ClassImages
    test: ClassImages
    protocol: ProxyProtocol
    seeds: int = 1
    machine: Machine = Machine()  # noqa: RUF009 - frozen

    def evaluator(self, seed: int) -> ProxyEvaluator:
        """Trains and tests one architecture once; only its end counts."""
        data = ProxyData(self.train, self.test)
        return ProxyEvaluator(data, self.protocol, seed=FIRST_SEED + seed, last=1, checks=0, machine=self.machine)


def retrain(
    space: ModelSpace,
    architecture: Architecture,
    full: FullTraining,
    seed: int,
    path: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[nn.Module, float]:
    """Train an architecture on all training images and test it.

    Args:
        space: Of the architecture.
        architecture: The winner.
        full: Data and protocol.
        seed: Of the training.
        path: Where the weights go, as ``.safetensors``; None keeps them in memory.
        stop: Asked before each step whether to give up.

    Returns:
        The module, and its accuracy on the test images at the end, in [0, 1].

    Raises:
        CondensekitError: The training diverged; an OutOfTimeError where ``stop`` said so.
        StoreError: The file cannot be written.
    """
    made: list[nn.Module] = []

    def make() -> nn.Module:
        made.append(build(space, architecture, seed))
        return made[0]

    data = ProxyData(full.train, full.test)
    result = train_candidate(make, data, full.protocol, seed=seed, last=1, checks=0, machine=full.machine, stop=stop)
    if result.problem:
        raise CondensekitError(f"retraining the winner: {result.problem}; lower its learning rate")
    accuracy = float(result.scores["accuracy"])
    if path is not None:
        about: dict[str, Any] = {
            "architecture": architecture,
            "accuracy": accuracy,
            "seed": seed,
            "space": fingerprint(space),
        }
        save_tensors(path, made[0].state_dict(), about, NETWORK)
    return made[0], accuracy
