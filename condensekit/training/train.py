"""Training of a network from scratch: protocols, and the loop that follows them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condensekit.compute import Compute
from condensekit.data.images import ClassImages, ImageSpec
from condensekit.errors import finite, positive, refuse, whole
from condensekit.networks.base import FeatureNetwork, Network
from condensekit.networks.cost import Shape
from condensekit.progress import Stage
from condensekit.rng import Draw
from condensekit.training.augment import Augmentation, cutmix_batch

log = logging.getLogger(__name__)

WEIGHTS, MOMENTUM = "weights/", "momentum/"  # prefixes of the tensors of a training that was stopped
TEST_PIXELS = 1024 * 32 * 32  # pixels of the images that are tested in one call


@dataclass(frozen=True)
class TrainProtocol:
    """How a network is trained: SGD with momentum, a stepped learning rate, augmentation.

    Args:
        name: Its name in tables.
        epochs: Passes over a set.
        full_epochs: Passes over a whole data set.
        lr: Learning rate at the start.
        momentum: Momentum, in [0, 1).
        weight_decay: Weight decay of all parameters, at least 0.
        batch: Images in a gradient step; if ``steps`` is None, the last batch of an epoch may be smaller.
        milestones: Fractions of the training, in (0, 1), after which the learning rate is lowered.
        factor: Number by which the learning rate is multiplied at a milestone.
        restart_momentum: Whether to reset the momentum at a milestone.
        augmentation: Per-sample augmentation of the training images; None: no augmentation.
        cutmix: Probability that a batch is mixed by CutMix, in [0, 1].
        steps: Gradient steps of the whole training, instead of ``epochs``; None: use ``epochs``. Each step has a full
            batch, or all images if there are fewer. Images left over at the end of an epoch go into the next batch.

    Raises:
        ConfigError: Values out of range, all of them listed.
    """

    name: str
    epochs: int
    full_epochs: int
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch: int = 256
    milestones: tuple[float, ...] = (0.5,)
    factor: float = 0.1
    restart_momentum: bool = True
    augmentation: Augmentation | None = Augmentation()  # noqa: RUF009 - frozen
    cutmix: float = 0.0
    steps: int | None = None

    def __post_init__(self) -> None:
        lengths = {"epochs": self.epochs, "full_epochs": self.full_epochs, "batch": self.batch, "steps": self.steps}
        refuse(
            *(whole(name, value, 1) for name, value in lengths.items() if value is not None),
            positive("lr", self.lr),
            None
            if finite(self.momentum) and 0 <= self.momentum < 1
            else f"momentum must lie in [0, 1), got {self.momentum!r}",
            positive("weight_decay", self.weight_decay, zero=True),
            None
            if all(0 < m < 1 for m in self.milestones)
            else f"milestones are fractions of the training between 0 and 1, got {self.milestones}",
            positive("factor", self.factor),
            None if 0 <= self.cutmix <= 1 else f"cutmix is a probability in [0, 1], got {self.cutmix}",
        )

    def on(self, spec: ImageSpec) -> TrainProtocol:
        """The protocol for data with this spec: without ``flip`` if a mirrored image may show another class."""
        used = None if self.augmentation is None else self.augmentation.on(spec)
        return self if used == self.augmentation else replace(self, augmentation=used)

    def for_full(self) -> TrainProtocol:
        """The protocol for a whole data set: ``full_epochs``, and no limit in steps."""
        return replace(self, epochs=self.full_epochs, steps=None)

    def as_on(self, images: int) -> TrainProtocol:
        """The protocol with the number of steps, and of images in a step, that it has on a set of ``images``.

        A set that decodes to more images then gets the same work.
        """
        return replace(self, steps=self.steps_on(images), batch=min(self.batch, images))

    def steps_on(self, images: int) -> int:
        """The number of gradient steps of a training on ``images``."""
        return self.steps or self.epochs * math.ceil(images / self.batch)

    def passes_on(self, images: int) -> float:
        """The number of passes over each image in a training on ``images``."""
        return self.epochs if self.steps is None else self.steps * min(self.batch, images) / images

    def drops(self, steps: int) -> tuple[int, ...]:
        """The numbers of the steps, of ``steps`` in all, before which the learning rate is lowered."""
        return tuple(round(fraction * steps) for fraction in self.milestones)


DC = TrainProtocol("dc", epochs=1000, full_epochs=200)
"""Training in Dataset Condensation, DSA and DM (Zhao and Bilen, 2021 to 2023): SGD, one drop of the learning
rate, DSA augmentation. Their loop runs 1,001 epochs and drops the rate after the 502nd: here 1,000 and 500."""

IDC = TrainProtocol(
    "idc",
    epochs=1000,
    full_epochs=200,
    batch=64,
    milestones=(2 / 3, 5 / 6),
    factor=0.2,
    restart_momentum=False,
    augmentation=Augmentation().without("cutout"),
    cutmix=0.5,
)
"""Training in IDC (Kim et al., ICML 2022) at up to 32x32 pixels: smaller batches, two drops, CutMix. Departure:
one operation of DSA for each batch, as in ``DC``, where IDC's own variant always applies flip and colour."""

SHORT = replace(DC, name="short", epochs=300, full_epochs=30)
"""``DC`` with 300 epochs, for a CPU."""


def train_network(
    images: Tensor | ClassImages,
    targets: Tensor,
    network: Network,
    protocol: TrainProtocol,
    draw: Draw,
    compute: Compute,
    classes: int,
    stage: Stage = Stage(),  # noqa: B008 - silent and stateless
    standing: Standing | None = None,
) -> FeatureNetwork:
    """Train a new network, or go on with its training.

    Args:
        images: (N, C, H, W) float32, normalised; or real images, which are normalised batch by batch.
        targets: (N,) int64 in 0..classes-1, or (N, classes) float32 probabilities; for real images in the
            order of ``images.order``.
        network: The architecture.
        protocol: How the network is trained.
        draw: All random numbers: initial weights, order of the images and augmentation.
        compute: Runs the network.
        classes: Outputs of the network.
        stage: Receives each gradient step.
        standing: Where the training stands; it is kept up to date. None: at its beginning.

    Returns:
        The network after the last step, on the compute device, in training mode.
    """
    channels, height, width = images.spec.shape if isinstance(images, ClassImages) else images.shape[1:]
    module = untrained((channels, height, width), network, draw, compute, classes)
    steps = protocol.steps_on(len(images))
    standing = standing or Standing()
    standing.begin(module, steps, protocol)
    loss = torch.zeros(())
    first = standing.step
    lessons = batches(images, targets.to(compute.device), protocol, Draw(draw.key("train")), classes, first)
    for step, (batch, wanted) in enumerate(lessons, first):
        optimiser = standing.optimiser = optimiser_at(step, steps, module, protocol, standing.optimiser)
        optimiser.zero_grad()
        loss = compute.backprop(module, batch, wanted, _cross_entropy)
        optimiser.step()
        standing.step = step + 1
        stage.advance()
    if not torch.isfinite(loss):
        log.warning("training a %s ended with loss %s: lower the protocol's lr", network.name, float(loss))
    return module


class Standing:
    """Where a training stands, so that it can be stopped and go on, bit for bit.

    Args:
        tensors: What :meth:`tensors` gave when it was stopped; None: a training at its beginning.
        step: Gradient steps made.
    """

    def __init__(self, tensors: Mapping[str, Tensor] | None = None, step: int = 0) -> None:
        self._found, self.step = tensors, step
        self.module: FeatureNetwork | None = None
        self.optimiser: torch.optim.SGD | None = None

    def begin(self, module: FeatureNetwork, steps: int, protocol: TrainProtocol) -> None:
        """Take the network of the training, and put it and its optimiser where they stood."""
        self.module = module
        if self._found is None:
            return
        with torch.no_grad():
            for name, value in module.state_dict().items():
                value.copy_(self._found[WEIGHTS + name])
        self.optimiser = optimiser_at(self.step, steps, module, protocol)
        for name, parameter in module.named_parameters():
            if (velocity := self._found.get(MOMENTUM + name)) is not None:
                self.optimiser.state[parameter]["momentum_buffer"] = velocity.to(parameter.device, copy=True)

    def tensors(self) -> dict[str, Tensor]:
        """The weights, and the momentum of those that have it, on the CPU."""
        assert self.module is not None
        found = {WEIGHTS + name: value.detach().cpu() for name, value in self.module.state_dict().items()}
        state = self.optimiser.state if self.optimiser else {}
        for name, parameter in self.module.named_parameters():
            if (velocity := state.get(parameter, {}).get("momentum_buffer")) is not None:
                found[MOMENTUM + name] = velocity.cpu()
        return found


class ByRow(Protocol):
    """Images that are read by row, such as :class:`ClassImages` and a memory whose images are decoded when read."""

    def __len__(self) -> int: ...

    def at(self, rows: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """The images (R, C, H, W) normalised float32 at ``rows`` (R,) int64, on ``device``."""


def batches(
    images: Tensor | ByRow, targets: Tensor, protocol: TrainProtocol, draw: Draw, classes: int, first: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of all gradient steps of a training.

    Args:
        images: As in :func:`train_network`.
        targets: As in :func:`train_network`; the batches are on the device of the targets.
        protocol: Batch size, augmentation, CutMix and number of steps.
        draw: Random numbers for order and augmentation.
        classes: Outputs of the network.
        first: The first gradient step; the batches of those before are left out.

    Yields:
        images (n, C, H, W) float32, augmented; targets (n,) int64, or (n, classes) probabilities.
    """
    if isinstance(images, Tensor):
        images = images.to(targets.device)
    if protocol.cutmix and targets.ndim == 1:
        targets = F.one_hot(targets, classes).float()
    for step, rows in islice(enumerate(batch_rows(len(images), protocol, draw)), first, None):
        yield _prepare(images, targets, rows, protocol, draw.at(step))


def batch_rows(images: int, protocol: TrainProtocol, draw: Draw) -> Iterator[Tensor]:
    """The rows (n,) int64 of each batch that :func:`batches` gives of this number of images."""
    return islice(_batches(images, protocol, draw), protocol.steps_on(images))


def optimiser_at(
    step: int, steps: int, module: nn.Module, protocol: TrainProtocol, before: torch.optim.SGD | None = None
) -> torch.optim.SGD:
    """The optimiser of gradient step ``step`` (the first is 0) of ``steps``, given the optimiser of the step before."""
    drops = protocol.drops(steps)
    due, first = step in drops, before is None
    if before is None or (due and protocol.restart_momentum):
        before = torch.optim.SGD(
            module.parameters(), lr=protocol.lr, momentum=protocol.momentum, weight_decay=protocol.weight_decay
        )
    if due or first:
        for group in before.param_groups:
            group["lr"] = protocol.lr * protocol.factor ** sum(step >= drop for drop in drops)
    return before


def untrained(shape: Shape, network: Network, draw: Draw, compute: Compute, classes: int) -> FeatureNetwork:
    """The network that :func:`train_network` starts from, given the same arguments, for (C, H, W) images."""
    return network.new(shape, classes, Draw(draw.key("train")), device=compute.device)


def accuracy(module: FeatureNetwork, test: ClassImages, classes: Sequence[int], compute: Compute) -> float:
    """The fraction, in [0, 1], of test images whose largest output is the output of their class.

    Args:
        module: The network; it is put into evaluation mode.
        test: Real images, whose labels are in ``classes``.
        classes: The label of each output, ascending.
        compute: Runs the network.
    """
    module.eval()
    block = max(2, TEST_PIXELS // (test.spec.shape[1] * test.spec.shape[2]))
    right = torch.zeros((), dtype=torch.int64, device=compute.device)
    for indices in test.order.split(block):
        wanted = class_indices(test.labels[indices], classes).to(compute.device, non_blocking=True)
        right += (compute.logits(module, test.gather(indices, compute.device)).argmax(1) == wanted).sum()
    return int(right) / len(test)


def class_indices(labels: Tensor, classes: Sequence[int]) -> Tensor:
    """The places of (N,) int64 labels in the ascending ``classes``, which contain all labels."""
    return torch.searchsorted(torch.tensor(classes), labels)


def _batches(images: int, protocol: TrainProtocol, draw: Draw) -> Iterator[Tensor]:
    """The rows of each batch, without end; each epoch has a new order."""
    size, rest = min(int(protocol.batch), images), torch.empty(0, dtype=torch.int64)
    for epoch in count():
        rows = torch.cat([rest, draw.at(epoch).permutation("shuffle", images)])
        used = len(rows) if protocol.steps is None else len(rows) // size * size
        yield from rows[:used].split(size)
        rest = rows[used:]


def _prepare(
    images: Tensor | ByRow, targets: Tensor, rows: Tensor, protocol: TrainProtocol, draw: Draw
) -> tuple[Tensor, Tensor]:
    """One augmented batch and its targets, on the device of ``targets``; ``rows`` are on the CPU."""
    there = rows.to(targets.device, non_blocking=True)
    batch = images[there] if isinstance(images, Tensor) else images.at(rows, there.device)
    wanted = targets[there]
    if protocol.augmentation is not None:
        batch = protocol.augmentation.apply_batch(batch, draw, "augment")
    if protocol.cutmix:
        batch, partner, share = cutmix_batch(batch, draw, "cutmix", protocol.cutmix, 1.0)
        wanted = share * wanted + (1 - share) * wanted[partner]
    return batch, wanted


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """(N,) losses for class indices (N,) or probabilities (N, K)."""
    return F.cross_entropy(logits, targets, reduction="none")
