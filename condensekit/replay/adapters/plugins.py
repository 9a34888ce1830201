"""Plugins for Avalanche strategies: training from scratch on the memory, distillation, fine-tuning on the memory."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from avalanche.models.utils import is_multi_task_module
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor, nn

from condensekit.errors import ConfigError, instance, positive, refuse, whole
from condensekit.networks.base import FeatureNetwork, Network
from condensekit.replay.adapters.arguments import policy_problem
from condensekit.replay.adapters.buffer import condensed
from condensekit.replay.adapters.replayed import Source
from condensekit.replay.adapters.seeds import network_draw
from condensekit.replay.adapters.sources import check_mixing, forward, outputs_of, source_of, targets_of
from condensekit.replay.adapters.stream import task_labels
from condensekit.rng import Draw, isolated
from condensekit.training.train import SHORT, TrainProtocol, batch_rows, batches, optimiser_at


class FromScratchOnMemory(SupervisedPlugin):
    """Plugin that trains a network with new weights on the memory only, in each experience: the regime of GDumb and DM.

    GDumb (Prabhu, Torr and Dokania, ECCV 2020); DM's continual protocol (Zhao and Bilen, WACV 2023). The memory is
    filled before the training. The strategy's model gets new weights; the protocol replaces the strategy's optimiser,
    epochs and loader. With a ``network``, the training is that of :func:`condensekit.training.train.train_network`
    with :func:`network_draw`.

    Departures from Avalanche's ``GDumbPlugin``: each experience draws new weights (there: the same initial weights);
    any storage policy; a falling learning rate.

    >>> from condensekit.replay import CondensedBuffer, FromScratchOnMemory, Images
    >>> buffer = CondensedBuffer(Images(20), "dm", classes=10)
    >>> plugins = [FromScratchOnMemory(buffer)]  # Naive(..., plugins=plugins)

    Args:
        storage_policy: Any Avalanche ``ExemplarsBuffer``.
        protocol: Training protocol of the network.
        network: Architecture of the strategy's model, which draws the weights; None: each layer of the model draws its
            own weights.
        seed: Seed of weights, batches and augmentation.

    Raises:
        ConfigError: Arguments of another type; in training, if the memory stays empty or a layer has no
            ``reset_parameters``.
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
        refuse(
            policy_problem(storage_policy),
            instance("protocol", protocol, TrainProtocol, 'catalog.protocol("short")'),
            None if network is None else instance("network", network, Network, "ConvNet(), or None"),
            whole("seed", seed),
        )
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
        source = source_of(self.storage_policy)
        check_mixing(self.protocol, source)
        outputs = outputs_of(strategy, source)
        targets = targets_of(self.storage_policy, source.labels, outputs).to(strategy.device)
        draw = Draw(network_draw(self.seed, len(torch.unique(source.labels))).key("train"))
        fresh_weights(strategy.model, self.network, draw)
        self._step, self._steps = 0, self.protocol.steps_on(len(targets))
        strategy.optimizer = optimiser_at(0, self._steps, strategy.model, self.protocol)
        per_epoch = -(-len(targets) // self.protocol.batch)
        lessons = _lessons(source, targets, self.protocol, draw, outputs)
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
    ``temperature`` squared, over all images of the batch, also replayed images. Of a model with several heads, only
    images of former tasks count, each with the head of its task. The teacher is a copy of the model that exists only
    during an experience.

    >>> from condensekit.replay import Distillation
    >>> plugins = [Distillation(weight=1.0, temperature=2.0)]

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
        self.known: dict[int, set[int]] = {}  # classes of former experiences by task
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
            wanted = _forward(self.teacher, strategy) / self.temperature
        given = strategy.mb_output / self.temperature
        gap, rows = given.new_zeros(()), 0
        for mine, known in self._former(strategy):
            own, former = given[mine][:, known].log_softmax(1), wanted[mine][:, known].log_softmax(1)
            gap = gap + F.kl_div(own, former, reduction="sum", log_target=True)
            rows += len(own)
        if rows:
            strategy.loss += self.weight * self.temperature**2 * gap / rows

    def _former(self, strategy: Any) -> Iterator[tuple[Tensor | slice, list[int]]]:
        """Rows of the batch, and the former classes whose outputs are kept for them."""
        if not is_multi_task_module(strategy.model):
            yield slice(None), sorted(set().union(*self.known.values()))
            return
        for task, known in self.known.items():
            yield strategy.mb_task_id == task, sorted(known)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Add the classes of the experience to the former classes, and delete the teacher."""
        dataset = strategy.experience.dataset
        for task, label in zip(task_labels(dataset).tolist(), map(int, dataset.targets), strict=True):
            self.known.setdefault(task, set()).add(label)
        self.teacher = None


class FineTuneOnMemory(SupervisedPlugin):
    """Plugin that trains the model on the memory only, for a short time after each experience, so that classes balance.

    Put the plugin that fills the memory before this plugin. A ``CondensedBuffer`` is filled first in any order.

    >>> from condensekit.catalog import protocol
    >>> from condensekit.replay import CondensedBuffer, FineTuneOnMemory, Images
    >>> buffer = CondensedBuffer(Images(20), "dm", classes=10)
    >>> plugins = [FineTuneOnMemory(buffer, protocol=protocol("short"))]

    Args:
        storage_policy: Any Avalanche ``ExemplarsBuffer``.
        protocol: Training protocol; its ``steps`` or ``epochs`` decide the length.
        seed: Seed of batches and augmentation.

    Attributes:
        steps: Number of gradient steps after the last experience; the strategy's clock does not count these steps.
        shown: Number of images in all these steps together.

    Raises:
        ConfigError: Arguments of another type.
        DataError: In training, if the memory is empty or a label is beyond the network's head.
    """

    def __init__(self, storage_policy: Any, *, protocol: TrainProtocol, seed: int = 0) -> None:
        super().__init__()
        refuse(
            policy_problem(storage_policy),
            instance("protocol", protocol, TrainProtocol, 'catalog.protocol("short")'),
            whole("seed", seed),
        )
        self.storage_policy, self.protocol, self.seed = storage_policy, protocol, seed
        self.steps, self.shown = 0, 0

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Train the model on the memory."""
        if memory := condensed(self.storage_policy):
            memory.post_adapt(strategy, strategy.experience)
        source = source_of(self.storage_policy)
        check_mixing(self.protocol, source)
        outputs = outputs_of(strategy, source)
        targets = targets_of(self.storage_policy, source.labels, outputs).to(strategy.device)
        draw = Draw(Draw(self.seed).key(f"fine-tune/{strategy.clock.train_exp_counter}"))
        steps, optimiser = self.protocol.steps_on(len(targets)), None
        self.steps, self.shown = steps, 0
        strategy.model.train()
        for step, (batch, wanted, tasks) in enumerate(_lessons(source, targets, self.protocol, draw, outputs)):
            optimiser = optimiser_at(step, steps, strategy.model, self.protocol, optimiser)
            self.shown += len(batch)
            optimiser.zero_grad()
            loss: Tensor = F.cross_entropy(forward(strategy.model, batch, tasks), wanted)
            loss.backward()
            optimiser.step()


Lesson = tuple[Tensor, Tensor, Tensor]
"""Images (n, C, H, W), targets (n,) or (n, outputs), and task labels (n,) of a batch."""


def _lessons(source: Source, targets: Tensor, protocol: TrainProtocol, draw: Draw, outputs: int) -> Iterator[Lesson]:
    """All batches of a training on a memory, on the device of the targets."""
    rows = batch_rows(len(targets), protocol, draw)
    for (images, wanted), mine in zip(batches(source, targets, protocol, draw, outputs), rows, strict=True):
        yield images, wanted, source.tasks[mine].to(targets.device)


class _Epochs:
    """Loader in which each pass gives the next epoch of one training, as lists of tensors.

    Args:
        lessons: All batches of the training.
        per_epoch: Number of batches of an epoch.
        tasked: Whether a batch ends with task labels.
    """

    def __init__(self, lessons: Iterator[Lesson], per_epoch: int, tasked: bool) -> None:
        self.lessons, self.per_epoch, self.tasked = lessons, per_epoch, tasked

    def __len__(self) -> int:
        return self.per_epoch

    def __iter__(self) -> Iterator[list[Tensor]]:
        for images, targets, tasks in islice(self.lessons, self.per_epoch):
            yield [images, targets, tasks] if self.tasked else [images, targets]


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


def _forward(model: nn.Module, strategy: Any) -> Tensor:
    """Outputs of the model for the strategy's current batch."""
    tasked = hasattr(strategy.experience, "task_labels")
    found: Tensor = forward(model, strategy.mb_x, strategy.mb_task_id) if tasked else model(strategy.mb_x)
    return found
