"""Full training on all training images, which measures the truth of a ranking and retrains the winner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from condensekit.compute import Machine
from condensekit.data.images import ClassImages, ImageSpec
from condensekit.errors import CondensekitError, DataError, StoreError, instance, refuse, require, whole
from condensekit.nas.rankers.base import Setting
from condensekit.nas.rankers.evaluator import ProxyEvaluator
from condensekit.nas.rankers.training import ProxyData, ProxyProtocol, train_candidate
from condensekit.nas.spaces.architecture import Architecture
from condensekit.nas.spaces.spaces import build, fingerprint, is_of
from condensekit.runs.code import code_of, refuse_edited
from condensekit.runs.files import load_tensors, save_tensors
from condensekit.training.lessons import targets_for

NETWORK = "network"  # kind of a file of weights
FIRST_SEED = 1_000  # first seed of full trainings, whose initial weights differ from those of rankers


@dataclass(frozen=True, eq=False)
class FullTraining:
    """Settings of full trainings, which measure the truth of each architecture on test images.

    >>> import condensekit as ck
    >>> from condensekit.nas import FullTraining, ProxyProtocol
    >>> train, test = ck.load("digits")
    >>> FullTraining(train, test, ProxyProtocol(epochs=10), seeds=2).seeds
    2

    Args:
        train: All training images, including those held out from the rankers.
        test: Test images.
        protocol: Training protocol.
        seeds: Number of trainings of each architecture; two or more also measure the noise of the truth.
        machine: Device and precision of the trainings.

    Raises:
        ConfigError: Arguments of another type, or ``seeds`` is below 1; the error lists all of them.
        DataError: The test images differ from the training images in shape or normalisation, or share no class.
    """

    train: ClassImages
    test: ClassImages
    protocol: ProxyProtocol
    seeds: int = 1
    machine: Machine = Machine()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        refuse(
            instance("train", self.train, ClassImages, "the first part of ck.load(data)"),
            instance("test", self.test, ClassImages, "the second part of ck.load(data)"),
            instance("protocol", self.protocol, ProxyProtocol, "ProxyProtocol()"),
            whole("seeds", self.seeds, 1),
            instance("machine", self.machine, Machine, "Machine('cpu')"),
        )
        targets_for("the training images", self.train, self.test)

    def evaluator(self, seed: int) -> ProxyEvaluator:
        """Evaluator that trains an architecture once and tests it at the end."""
        data = ProxyData(self.train, self.test)
        return ProxyEvaluator(data, self.protocol, seed=FIRST_SEED + seed, last=1, checks=0, machine=self.machine)

    def limit_s(self, trial_limit_s: float | None, setting: Setting) -> float | None:
        """Largest time of a full training in seconds: the limit of a trial times its work relative to a trial's.

        Args:
            trial_limit_s: Seconds for a trial of a ranker; None: no limit, and the result is None, too.
            setting: Setting of these trials. The work is the number of training images, with repetitions.
        """
        if trial_limit_s is None:
            return None
        ours = self.protocol.steps_on(len(self.train)) * self.protocol.batch
        return trial_limit_s * max(1.0, ours / (setting.train_steps * setting.protocol.batch * setting.seeds))


def retrain(
    space: ModelSpace,
    architecture: Architecture,
    full: FullTraining,
    seed: int,
    path: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[nn.Module, float]:
    """Train an architecture in this process on all training images and test it.

    A network that hangs or ends its process does so here; the command ``search`` trains in a worker, unless
    its engine is ``sequential``.

    >>> import condensekit as ck
    >>> from condensekit.nas import FullTraining, ProxyProtocol, retrain, sample_architectures, space
    >>> train, test = ck.load("digits")
    >>> convnets = space("convnet-small", (1, 8, 8), 10)
    >>> best = sample_architectures(convnets, n=1, seed=0)[0]
    >>> full = FullTraining(train, test, ProxyProtocol(steps=5, augmentation=None))
    >>> network, accuracy = retrain(convnets, best, full, seed=0)
    >>> 0 <= accuracy <= 1
    True

    Args:
        space: Space of the architecture.
        architecture: The architecture, usually the winner of a contest.
        full: Data, protocol and machine.
        seed: Seed of weights, batches and augmentation.
        path: ``.safetensors`` file for the weights; None: the weights are not written. Its metadata ``manifest``, a
            JSON text, has the architecture, the accuracy, and what :func:`how_to_feed` gives. :func:`load_winner`
            reads the file.
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
            "code": code_of(space),
            **how_to_feed(full),
        }
        weights = {name: value.clone() for name, value in made[0].state_dict().items()}  # some may share memory
        save_tensors(path, weights, about, NETWORK)
    return made[0], accuracy


def how_to_feed(full: FullTraining) -> dict[str, Any]:
    """What a user of a network of this training must know, as JSON values.

    ``spec`` has the shape (C, H, W) of the images, ``mean`` and ``std`` of each channel of pixels in [0, 1], by which
    ``(pixels - mean) / std`` are the inputs, and the class names by label; ``classes`` has the label of each output.
    """
    return {"spec": full.train.spec.to_json(), "classes": list(ProxyData(full.train, full.test).classes)}


@dataclass(frozen=True, eq=False)
class Winner:
    """A retrained network, and how to feed it; :func:`load_winner` reads it.

    >>> import torch, condensekit as ck
    >>> from condensekit.nas import Winner
    >>> train, test = ck.load("digits")
    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> winner = Winner(network, train.spec, train.classes, {"width": 16}, accuracy=0.1)
    >>> len(winner.classify(torch.zeros(3, 1, 8, 8, dtype=torch.uint8)))
    3

    Args:
        network: The network in evaluation mode, from normalised images (N, C, H, W) to logits (N, K).
        spec: Shape, normalisation and class names; ``spec.normalise(pixels)`` are the inputs.
        classes: Label of each of the K outputs.
        architecture: Architecture of the network.
        accuracy: Accuracy on the test images in [0, 1].
    """

    network: nn.Module
    spec: ImageSpec
    classes: tuple[int, ...]
    architecture: Architecture
    accuracy: float

    def classify(self, pixels: Tensor) -> list[str]:
        """Names of the classes of N images.

        Args:
            pixels: (N, C, H, W) uint8 in 0..255 or float32 in [0, 1]; of data that came normalised, float32 as it came.

        Raises:
            DataError: Images of another shape.
        """
        found, shape = tuple(pixels.shape[1:]), self.spec.shape
        if found != shape:
            raise DataError(f"images must be (N, {', '.join(map(str, shape))}), got {tuple(pixels.shape)}")
        with torch.no_grad():
            outputs = self.network(self.spec.normalise(pixels)).argmax(1).tolist()
        return [self.spec.class_names.get(self.classes[i], str(self.classes[i])) for i in outputs]


def load_winner(path: str | Path, space: ModelSpace) -> Winner:
    """Read the network that :func:`retrain` or the command ``search`` wrote.

    Four lines load a winner and classify pictures, here of 8x8 grey pixels::

        from condensekit.nas import load_winner, space

        winner = load_winner("runs/nas/retrained.safetensors", space("convnet-small", (1, 8, 8), 10))
        pixels = torch.from_numpy(pictures)[:, None]  # pictures: (N, 8, 8) uint8
        print(winner.classify(pixels))

    >>> import tempfile, torch, condensekit as ck
    >>> from pathlib import Path
    >>> from condensekit.nas import FullTraining, ProxyProtocol, load_winner, retrain, sample_architectures, space
    >>> train, test = ck.load("digits")
    >>> convnets = space("convnet-small", (1, 8, 8), 10)
    >>> best = sample_architectures(convnets, n=1, seed=0)[0]
    >>> full = FullTraining(train, test, ProxyProtocol(steps=5, augmentation=None))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "retrained.safetensors"
    ...     network, accuracy = retrain(convnets, best, full, seed=0, path=path)
    ...     winner = load_winner(path, convnets)
    >>> len(winner.classify(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)))
    2

    Args:
        path: The ``.safetensors`` file.
        space: The space of the search; ``config.json`` beside the file has its name.

    Raises:
        ConfigError: Another space, or a space whose code was edited since.
        DataError: There is no such file.
        StoreError: The file is damaged, or of an earlier version, which did not write how to feed the network.
    """
    path = Path(path)
    tensors, about = load_tensors(path, NETWORK)
    if "spec" not in about:
        raise StoreError(f"{path} does not tell how to feed the network: delete it, and retrain the winner")
    require(is_of(space, about["space"]), f"{path} holds a network of another space: give the space of its search")
    refuse_edited(f"{path} holds a network", about["code"], code_of(space), "undo the edit")
    network = build(space, about["architecture"])
    network.load_state_dict(tensors)
    spec, classes = ImageSpec.from_json(about["spec"]), tuple(about["classes"])
    return Winner(network.eval(), spec, classes, about["architecture"], about["accuracy"])
