"""Full training on all training images, which measures the truth of a ranking and retrains the winner."""

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

NETWORK = "network"  # kind of a file of weights
FIRST_SEED = 1_000  # first seed of full trainings, whose initial weights differ from those of rankers


@dataclass(frozen=True, eq=False)
class FullTraining:
    """Settings of full trainings, which measure the truth of each architecture on test images.

    Args:
        train: All training images, including those held out from the rankers.
        test: Test images.
        protocol: Training protocol.
        seeds: Number of trainings of each architecture; two or more also measure the noise of the truth.
        machine: Device and precision of the trainings.
    """

    train: ClassImages
    test: ClassImages
    protocol: ProxyProtocol
    seeds: int = 1
    machine: Machine = Machine()  # noqa: RUF009 - frozen

    def evaluator(self, seed: int) -> ProxyEvaluator:
        """Evaluator that trains an architecture once and tests it at the end."""
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
        space: Space of the architecture.
        architecture: The architecture, usually the winner of a contest.
        full: Data, protocol and machine.
        seed: Seed of weights, batches and augmentation.
        path: ``.safetensors`` file for the weights; None: the weights are not written.
        stop: Function that is called before each step and returns whether the time is over.

    Returns:
        The trained module, and its accuracy on the test images in [0, 1].

    Raises:
        CondensekitError: The training diverged.
        OutOfTimeError: ``stop`` returned True.
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
