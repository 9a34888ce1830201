"""Plugins for Avalanche strategies: training from scratch on the memory, distillation, fine-tuning on the memory."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from avalanche.models.utils import avalanche_forward
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor, nn

from condensekit.errors import ConfigError, DataError, positive, refuse
from condensekit.networks.base import FeatureNetwork, Network
from condensekit.replay.adapters.buffer import condensed
from condensekit.replay.adapters.seeds import network_draw
from condensekit.replay.adapters.stream import check_head
from condensekit.rng import Draw, isolated
from condensekit.training.train import SHORT, TrainProtocol, batches, optimiser_at


class FromScratchOnMemory(SupervisedPlugin):
    """Plugin that trains a network with new weights on the memory only, in each experience: the regime of GDumb and DM.

    GDumb (Prabhu, Torr and Dokania, ECCV 2020); DM's continual protocol (Zhao and Bilen, WACV 2023). The memory is
    filled before the training. The strategy's model gets new weights; the protocol replaces the strategy's optimiser,
    epochs and loader. With a ``network``, the training is that of :func:`condensekit.training.train.train_network`
    with :func:`network_draw`.

    Departures from Avalanche's ``GDumbPlugin``: each experience draws new weights (there: the same initial weights);
    any storage policy; a falling learning rate.

    Args:
        storage_policy: Any Avalanche ``ExemplarsBuffer``.
        protocol: Training protocol of the network.
        network: Architecture of the strategy's model, which draws the weights; None: each layer of the model draws its
            own weights.
        seed: Seed of weights, batches and augmentation.

    Raises:
        ConfigError: In training, if the memory stays empty or a layer has no ``reset_parameters``.
        DataError: In training, if a label is beyond the network's head.
    """

    def __init__(
        self,
        storage_policy: Any,
        *,
        protocol: TrainProtocol = SHORT,
        network: Network | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.storage_policy, self.protocol, self.network, self.seed = storage_policy, protocol, network, seed
        self._step, self._steps, self._epochs = 0, 0, 0

    def after_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Fill the memory, and make it the training data."""
        self.storage_policy.post_adapt(strategy, strategy.experience)
        if len(self.storage_policy.buffer) == 0:
            raise ConfigError(f"the memory of {type(self.storage_policy).__name__} is empty after post_adapt")
        strategy.adapted_dataset = self.storage_policy.buffer.train()

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Set new weights, a new optimiser, and a loader of the protocol's batches."""
        images, labels = memory_tensors(self.storage_policy)
        outputs = outputs_of(strategy, images)
        targets = memory_targets(self.storage_policy, labels, outputs)
        draw = Draw(network_draw(self.seed, len(torch.unique(labels))).key("train"))
        fresh_weights(strategy.model, self.network, draw)
        self._step, self._steps = 0, self.protocol.steps_on(len(images))
        strategy.optimizer = optimiser_at(0, self._steps, strategy.model, self.protocol)
        per_epoch = -(-len(images) // self.protocol.batch)
        lessons = batches(images, targets.to(strategy.device), self.protocol, draw, outputs)
        strategy.dataloader = _Epochs(lessons, per_epoch, hasattr(strategy.experience, "task_labels"))
        self._epochs, strategy.train_epochs = strategy.train_epochs, -(-self._steps // per_epoch)

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        """Set the protocol's learning rate."""
        strategy.optimizer = optimiser_at(self._step, self._steps, strategy.model, self.protocol, strategy.optimizer)
        self._step += 1

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Restore the strategy's number of epochs."""
        strategy.train_epochs = self._epochs


class Distillation(SupervisedPlugin):
    """Plugin that adds a distillation term to the loss, which keeps the outputs for former classes as they were.

    The term is the Kullback-Leibler divergence of softened outputs (Hinton, Vinyals and Dean, 2015; Li and Hoiem,
    "Learning without Forgetting", ECCV 2016) between the model before the experience (teacher) and now, times
    ``temperature`` squared, over all images of the batch, also replayed images. The teacher is a copy of the model
    that exists only during an experience.

    Args:
        weight: Weight of the term, above 0.
        temperature: Divisor of the outputs, above 0.

    Raises:
        ConfigError: ``weight`` or ``temperature`` is not positive and finite.
    """

    def __init__(self, weight: float = 1.0, temperature: float = 2.0) -> None:
        super().__init__()
        refuse(positive("weight", weight), positive("temperature", temperature))
        self.weight, self.temperature = weight, temperature
        self.known: list[int] = []
        self.teacher: nn.Module | None = None

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Copy the model as the teacher, except in the first experience."""
        if self.known:
            self.teacher = copy.deepcopy(strategy.model).requires_grad_(False).eval()

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the term."""
        if self.teacher is None:
            return
        with torch.no_grad():
            wanted = _forward(self.teacher, strategy)[:, self.known] / self.temperature
        given = strategy.mb_output[:, self.known] / self.temperature
        gap = F.kl_div(given.log_softmax(1), wanted.log_softmax(1), reduction="batchmean", log_target=True)
        strategy.loss += self.weight * self.temperature**2 * gap

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Add the classes of the experience to the former classes, and delete the teacher."""
        self.known = sorted({*self.known, *map(int, strategy.experience.dataset.targets)})
        self.teacher = None


class FineTuneOnMemory(SupervisedPlugin):
    """Plugin that trains the model on the memory only, for a short time after each experience, so that classes balance.

    Put the plugin that fills the memory before this plugin. A ``CondensedBuffer`` is filled first in any order.

    Args:
        storage_policy: Any Avalanche ``ExemplarsBuffer``.
        protocol: Training protocol; its ``steps`` or ``epochs`` decide the length.
        seed: Seed of batches and augmentation.

    Attributes:
        steps: Number of gradient steps after the last experience; the strategy's clock does not count these steps.
        shown: Number of images in all these steps together.

    Raises:
        DataError: In training, if the memory is empty or a label is beyond the network's head.
    """

    def __init__(self, storage_policy: Any, *, protocol: TrainProtocol, seed: int = 0) -> None:
        super().__init__()
        self.storage_policy, self.protocol, self.seed = storage_policy, protocol, seed
        self.steps, self.shown = 0, 0

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Train the model on the memory."""
        if memory := condensed(self.storage_policy):
            memory.post_adapt(strategy, strategy.experience)
        images, labels = memory_tensors(self.storage_policy)
        outputs = outputs_of(strategy, images)
        targets = memory_targets(self.storage_policy, labels, outputs)
        draw = Draw(Draw(self.seed).key(f"fine-tune/{strategy.clock.train_exp_counter}"))
        steps, optimiser = self.protocol.steps_on(len(images)), None
        self.steps, self.shown = steps, 0
        lessons = batches(images, targets.to(strategy.device), self.protocol, draw, outputs)
        strategy.model.train()
        for step, (batch, wanted) in enumerate(lessons):
            optimiser = optimiser_at(step, steps, strategy.model, self.protocol, optimiser)
            self.shown += len(batch)
            optimiser.zero_grad()
            loss: Tensor = F.cross_entropy(_outputs(strategy.model, batch), wanted)
            loss.backward()
            optimiser.step()


class _Epochs:
    """Loader in which each pass gives the next epoch of one training, as lists of tensors.

    Args:
        lessons: All batches of the training.
        per_epoch: Number of batches of an epoch.
        task_labels: Whether a batch ends with task labels, all 0.
    """

    def __init__(self, lessons: Iterator[tuple[Tensor, Tensor]], per_epoch: int, task_labels: bool) -> None:
        self.lessons, self.per_epoch, self.task_labels = lessons, per_epoch, task_labels

    def __len__(self) -> int:
        return self.per_epoch

    def __iter__(self) -> Iterator[list[Tensor]]:
        for images, targets in islice(self.lessons, self.per_epoch):
            tasks = [torch.zeros(len(images), dtype=torch.int64, device=images.device)] if self.task_labels else []
            yield [images, targets, *tasks]


def memory_tensors(storage_policy: Any) -> tuple[Tensor, Tensor]:
    """Decoded images (N, C, H, W) float32 of a memory, and their labels (N,) int64, on the CPU.

    Args:
        storage_policy: A ``CondensedBuffer``, or another policy, whose data set is read in evaluation mode.

    Raises:
        DataError: The memory is empty.
    """
    if memory := condensed(storage_policy):
        return memory.decoded()
    items = storage_policy.buffer.eval()
    if len(items) == 0:
        raise DataError(
            f"the memory of {type(storage_policy).__name__} is empty: put the plugin that fills it first, such as "
            "ReplayPlugin(memory.max_size, storage_policy=memory)"
        )
    rows = [items[i] for i in range(len(items))]
    return torch.stack([row[0] for row in rows]), torch.tensor([int(row[1]) for row in rows])


def memory_targets(storage_policy: Any, labels: Tensor, outputs: int) -> Tensor:
    """Targets of a memory for a network with ``outputs`` outputs: labels (N,), or soft labels (N, outputs).

    The outputs of classes outside the memory get 0.

    Raises:
        DataError: A label is beyond the outputs.
    """
    check_head(outputs, labels)
    policy = condensed(storage_policy)
    memory = policy.memory if policy else None
    if memory is None or memory.soft_labels is None:
        return labels
    soft = torch.zeros(len(labels), outputs)
    soft[:, list(memory.spec.classes)] = memory.soft_labels
    return soft


def fresh_weights(model: nn.Module, network: Network | None, draw: Draw) -> None:
    """Draw new weights of a model, in place.

    Args:
        model: Any module.
        network: Architecture of ``model``; None: call ``reset_parameters`` of each layer.
        draw: Random numbers of the weights.

    Raises:
        ConfigError: A layer has parameters but no ``reset_parameters``, or ``network`` has not made the model.
    """
    if network is not None:
        if not isinstance(model, FeatureNetwork):
            raise ConfigError(
                f"network={network.name} needs a model that this network made, got a {type(model).__name__}"
            )
        return network.fill_(model, draw, "network")
    with isolated(draw.key("network")):
        for name, part in model.named_modules():
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()
            elif any(True for _ in part.parameters(recurse=False)):
                raise ConfigError(
                    f"layer {name!r} ({type(part).__name__}) has no reset_parameters(): add one, or pass network="
                )


def outputs_of(strategy: Any, images: Tensor) -> int:
    """Number of outputs of the strategy's model."""
    training = strategy.model.training
    with torch.no_grad():
        found = _outputs(strategy.model.eval(), images[:1].to(strategy.device)).shape[1]
    strategy.model.train(training)
    return int(found)


def _outputs(model: nn.Module, images: Tensor) -> Tensor:
    tasks = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    found: Tensor = avalanche_forward(model, images, tasks)
    return found


def _forward(model: nn.Module, strategy: Any) -> Tensor:
    """Outputs of the model for the strategy's current batch."""
    if hasattr(strategy.experience, "task_labels"):
        found: Tensor = avalanche_forward(model, strategy.mb_x, strategy.mb_task_id)
        return found
    found = model(strategy.mb_x)
    return found
