"""Trained encoders: embedding networks trained on the real images, and their soft labels."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch

from condensekit.compute import Compute, Spent
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, DataError, refuse, whole
from condensekit.methods.encoders import Encoder, Prepared
from condensekit.networks.base import FeatureNetwork, Network
from condensekit.networks.convnet import ConvNet
from condensekit.progress import SILENT, Progress
from condensekit.rng import Draw
from condensekit.runs.describe import describe
from condensekit.sets.condensed import CondensedSet
from condensekit.training.networks import END, START, Course, Shelf
from condensekit.training.train import TrainProtocol

PRETRAIN = TrainProtocol(
    "pretrain", epochs=10, full_epochs=10, batch=64, milestones=(2 / 3, 5 / 6), factor=0.2, restart_momentum=False
)
"""A short training of embedding networks: the protocol :data:`condensekit.training.train.IDC` with 10 epochs, without
CutMix.
"""

TIMED = 4  # steps that are trained to know how long all would take
CLASSES, WORK = "classes", "work"  # names of prepared tensors, beside those of the networks


@dataclass(frozen=True)
class Trained(Encoder):
    """Random interpolations between the initial and the trained weights of a few networks.

    DANCE (Zhang et al., "Dual-View Distribution Alignment for Dataset Condensation", IJCAI 2024): in each
    step, the encoder is a random interpolation between the weights of one network before and after training.
    Thus few trainings give many encoders, trained for shorter or longer. The networks see only the real
    images of the classes that are condensed: in continual learning, no later class.

    The networks are kept in the cache (``$CONDENSEKIT_CACHE``, else the user's folder for caches), so that each number
    of images, each seed and each method uses the same ones. Thus sets of different seeds share their encoders.

    Departures from the authors' code: 10 epochs by default, where they train 60; a new interpolation for each step.
    Batch norm layers use the statistics of the batch, as in all encoders.

    >>> import condensekit as ck
    >>> train, test = ck.load("digits")
    >>> encoder = ck.Trained(ck.ConvNet(width=8), count=1, steps=2)
    >>> made = ck.condense(train, ck.recipes.dm(encoder=encoder, calibration=0.1), ipc=1, steps=2)
    >>> len(made.set), len(made.history)
    (10, 2)

    Args:
        network: The architecture.
        count: Number of networks to train.
        protocol: How each network is trained.
        epochs: Epochs of each training; 0: as the protocol says.
        steps: Gradient steps of each training, instead of epochs; 0: epochs count.
        interpolate: False: use only the trained weights.
        keep: Steps for which one network is kept.
        seed: Seed of the networks, whatever the seed of the condensation.
    """

    network: Network = field(default_factory=ConvNet)
    count: int = 5
    protocol: TrainProtocol = PRETRAIN
    epochs: int = 0
    steps: int = 0
    interpolate: bool = True
    keep: int = 1
    seed: int = 0
    trained: ClassVar[bool] = True
    can_label: ClassVar[bool] = True

    def __post_init__(self) -> None:
        refuse(
            whole("epochs", self.epochs, 0),
            whole("steps", self.steps, 0),
            whole("count", self.count, 1),
            whole("keep", self.keep, 1),
            whole("seed", self.seed),
        )

    def shelf(self, data: ClassImages, steps: int | None = None) -> Shelf:
        """The networks on these images, in the cache; with ``steps``, of so many gradient steps and not kept."""
        epochs, length = self.epochs or self.protocol.epochs, steps or self.steps or None
        protocol = replace(self.protocol, epochs=epochs, full_epochs=epochs, steps=length).on(data.spec)
        course = Course(self.network, protocol, self.seed)
        return Shelf.of(course, data) if steps is None else Shelf(course, data, None)

    def within(self, seconds: float, data: ClassImages, compute: Compute) -> int | None:
        """See :meth:`Encoder.within`; the time is foreseen from a few steps."""
        shelf = self.shelf(data)
        missing = self.count - sum(map(shelf.has, range(self.count)))
        if seconds == math.inf or not missing:
            return None
        start = time.perf_counter()
        self.shelf(data, TIMED).networks(missing, compute)
        most = max(1, int(seconds / max(time.perf_counter() - start, 1e-9) * TIMED))
        return most if most < shelf.steps() else None

    def prepare(
        self,
        data: ClassImages,
        draw: Draw,
        compute: Compute,
        progress: Progress = SILENT,
        steps: int | None = None,
    ) -> Prepared:
        """See :meth:`Encoder.prepare`: take the networks from the cache, or train them. Ranks share the trainings.

        Returns:
            CPU tensors: ``classes`` (K,) int64, the labels of the outputs; ``work`` (count, 2) int64, images and
            operations of each training; for each entry of the module's state ``initial/<name>`` and ``final/<name>``,
            (count, ...).

        Raises:
            ConfigError: A training ended with values that are not finite.
            StoreError: A file of the cache is damaged.
        """
        found = self.shelf(data, steps).networks(self.count, compute, progress)
        stacked = {name: torch.stack([one.tensors[name] for one in found]) for name in found[0].tensors}
        work = torch.tensor([[one.spent.images, one.spent.flops] for one in found])
        return {CLASSES: torch.tensor(data.classes), WORK: work, **stacked}

    def work(self, prepared: Prepared) -> Spent:
        """See :meth:`Encoder.work`."""
        images, flops = prepared[WORK].sum(0).tolist() if WORK in prepared else (0, 0)
        return Spent(images, flops)

    def load(self, module: FeatureNetwork, draw: Draw, prepared: Prepared) -> None:
        """See :meth:`Encoder.load`; ``keep`` steps in a row get the same weights, which depend only on the step."""
        if not self.interpolate:
            return self.load_trained(module, draw, prepared)
        kept = self._kept(draw)
        return _fill(module, prepared, self._pick(kept), float(kept.uniform("encoder/way", torch.zeros(1), 1)))

    def load_trained(self, module: FeatureNetwork, draw: Draw, prepared: Prepared) -> None:
        """Fill ``module`` with the trained weights of the network that :meth:`load` uses at this step."""
        _fill(module, prepared, self._pick(self._kept(draw)), 1.0)

    def label(self, condensed: CondensedSet, prepared: Prepared, compute: Compute) -> CondensedSet:
        """See :func:`soft_labels`."""
        return soft_labels(condensed, self, prepared, compute)

    def _kept(self, draw: Draw) -> Draw:
        return draw.at((draw.step - 1) // self.keep, draw.attempt)

    def _pick(self, kept: Draw) -> int:
        return int(kept.integers("encoder/which", torch.zeros(1), 1, self.count))


def soft_labels(condensed: CondensedSet, encoder: Trained, prepared: Prepared, compute: Compute) -> CondensedSet:
    """The same images with soft labels: the mean softmax of the trained networks on each decoded image.

    Soft labels are stored in float32 and count in ``nbytes``: 4 bytes for each decoded image and class of the spec.

    Args:
        condensed: A set of images of the classes that the networks know.
        encoder: The encoder of the networks.
        prepared: The weights of the networks: the result of ``encoder.prepare``, or ``prepared.safetensors`` of a run.
        compute: Runs the networks.

    Raises:
        ConfigError: ``prepared`` does not come from this encoder.
        DataError: The networks do not know a class of the set, or know a class that its spec does not name.
    """
    if CLASSES not in prepared:
        raise ConfigError("soft labels need trained networks: pass what Trained().prepare returned")
    known: list[int] = prepared[CLASSES].tolist()
    strange = sorted(set(condensed.classes) - set(known))
    if strange:
        name = condensed.spec.name_of(strange[0])
        raise DataError(f"no soft labels for class {name}: the networks were trained on classes {known}")
    images = condensed.decode()[0].to(compute.device)
    module = encoder.network.new(condensed.spec.shape, len(known), Draw(0), device=compute.device).eval()
    total = torch.zeros(len(images), len(known), device=compute.device)
    for i in range(encoder.count):
        _fill(module, prepared, i, 1.0)
        total += compute.logits(module, images).softmax(1)
    provenance = {**condensed.provenance, "soft_labels": describe(encoder)}
    return replace(condensed.with_soft_labels(total / encoder.count, known), provenance=provenance)


def _fill(module: FeatureNetwork, prepared: Prepared, i: int, way: float) -> None:
    """Fill ``module`` with network i, interpolated from initial (``way`` 0) to final (1) weights; integers are final.

    Raises:
        ConfigError: ``prepared`` does not hold this network.
    """
    with torch.no_grad():
        for name, value in module.state_dict().items():
            end = prepared.get(END + name)
            if end is None or i >= len(end) or end.shape[1:] != value.shape:
                raise ConfigError(f"no prepared weights for {name!r} of network {i}: prepare this encoder first")
            if way < 1 and end.is_floating_point():
                value.copy_(torch.lerp(prepared[START + name][i], end[i], way))
            else:
                value.copy_(end[i])
