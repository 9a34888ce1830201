"""Images of any storage policy, by row, and their targets."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.models.utils import avalanche_forward
from torch import Tensor, nn

from condensekit.errors import ConfigError, DataError
from condensekit.replay.adapters.buffer import condensed
from condensekit.replay.adapters.replayed import Source
from condensekit.replay.adapters.stream import check_head
from condensekit.training.train import TrainProtocol


class Read:
    """Images of one of Avalanche's own memories, read once in evaluation mode.

    Args:
        items: Data set of (x, y) or (x, y, t).
    """

    def __init__(self, items: Any) -> None:
        rows = [items[i] for i in range(len(items))]
        self.images = torch.stack([row[0] for row in rows])
        self.labels = torch.tensor([int(row[1]) for row in rows])
        self.tasks = torch.tensor([int(row[2]) if len(row) > 2 else 0 for row in rows])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> Tensor:
        return self.images[i].cpu()

    def at(self, rows: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """See :class:`~condensekit.replay.adapters.replayed.Source`."""
        self.images = self.images.to(device)
        return self.images[rows.to(device)]


def source_of(storage_policy: Any) -> Source:
    """The images of a memory: of a ``CondensedBuffer``, or of another policy, whose data set is read once.

    Raises:
        DataError: The memory is empty.
    """
    if memory := condensed(storage_policy):
        return memory.core.decoded
    items = storage_policy.buffer.eval()
    if len(items) == 0:
        raise DataError(
            f"the memory of {type(storage_policy).__name__} is empty: put the plugin that fills it first, such as "
            "ReplayPlugin(memory.max_size, storage_policy=memory)"
        )
    return Read(items)


def targets_of(storage_policy: Any, labels: Tensor, outputs: int) -> Tensor:
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


def outputs_of(strategy: Any, source: Source) -> int:
    """Number of outputs of the strategy's model; of several heads, the largest number among the tasks of ``source``."""
    training = strategy.model.training
    strategy.model.eval()
    found = 0
    with torch.no_grad():
        for task in torch.unique(source.tasks).tolist():
            row = (source.tasks == task).nonzero()[0]
            outputs = forward(strategy.model, source.at(row, strategy.device), source.tasks[row])
            found = max(found, outputs.shape[1])
    strategy.model.train(training)
    return found


def forward(model: nn.Module, images: Tensor, tasks: Tensor) -> Tensor:
    """Outputs (N, K) of a model, each from the head of its task."""
    found: Tensor = avalanche_forward(model, images, tasks.to(images.device))
    return found


def check_mixing(protocol: TrainProtocol, source: Source) -> None:
    """Raise ConfigError for a protocol that mixes images of different heads."""
    tasks = torch.unique(source.tasks).tolist()
    if protocol.cutmix and len(tasks) > 1:
        raise ConfigError(f"CutMix would mix images of the tasks {tasks}: use a protocol without cutmix")
