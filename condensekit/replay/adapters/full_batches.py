"""Full memory batches: equally many replayed images in every gradient step, however small the memory is."""

from __future__ import annotations

from typing import Any

from avalanche.benchmarks.utils.data_loader import ReplayDataLoader
from avalanche.training.plugins import ReplayPlugin
from torch.utils.data import BatchSampler, RandomSampler

from condensekit.errors import ConfigError, require
from condensekit.replay.adapters.buffer import condensed


class FullReplayLoader(ReplayDataLoader):
    """Avalanche's loader of new and replayed images, but that each memory batch is full.

    The stock loader ends a memory batch where a pass over the memory ends: 20 stored images give batches of 20 where
    32 were asked for, 40 give 32, 8, 32, 8. Here a batch goes on with the next pass, each pass in a new random order.
    """

    def _create_samplers(self, datasets: Any, batch_sizes: Any, *args: Any) -> Any:
        new, _ = super()._create_samplers(datasets, batch_sizes, *args)
        size = batch_sizes[1]
        endless = RandomSampler(datasets[1], num_samples=size * max(1, len(self)))
        return [new, BatchSampler(endless, size, drop_last=True)]


class Replay(ReplayPlugin):
    """Avalanche's ``ReplayPlugin`` with full memory batches, filled by ``post_adapt``: no warning that ``update`` goes.

    Args:
        kwargs: What ``ReplayPlugin`` takes.

    Raises:
        ConfigError: ``task_balanced_dataloader``; while training, a memory with soft labels, which a batch of hard
            labels cannot hold.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require(
            not self.task_balanced_dataloader,
            "task_balanced_dataloader=True: memory batches are full, whatever their tasks: leave it out, or use "
            "Avalanche's ReplayPlugin",
        )

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Mix the memory, if there is one, with the stream."""
        if len(self.storage_policy.buffer) == 0:
            return
        refuse_soft(self.storage_policy, type(strategy).__name__)
        passed = {name: kwargs[name] for name in ("num_workers", "drop_last", "persistent_workers") if name in kwargs}
        strategy.dataloader = FullReplayLoader(
            strategy.adapted_dataset,
            self.storage_policy.buffer,
            oversample_small_tasks=True,
            batch_size=self.batch_size or strategy.train_mb_size,
            batch_size_mem=self.batch_size_mem or strategy.train_mb_size,
            shuffle=kwargs.get("shuffle", True),
            **passed,
        )

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Fill the memory."""
        self.storage_policy.post_adapt(strategy, strategy.experience)


def refuse_soft(storage_policy: Any, user: str) -> None:
    """Raise ConfigError where a memory has soft labels and ``user`` replays hard ones."""
    policy = condensed(storage_policy)
    memory = policy.memory if policy else None
    if memory is not None and memory.soft_labels is not None:
        raise ConfigError(
            f"{user} replays hard labels and the memory has soft ones: use FromScratchOnMemory or FineTuneOnMemory, "
            "or a method without soft labels"
        )
