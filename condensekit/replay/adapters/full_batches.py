"""Full memory batches: the same number of replayed images in each gradient step, also for a small memory."""

from __future__ import annotations

from typing import Any

from avalanche.benchmarks.utils.data_loader import ReplayDataLoader
from avalanche.training.plugins import ReplayPlugin
from torch.utils.data import BatchSampler, RandomSampler

from condensekit.errors import ConfigError, require
from condensekit.replay.adapters.buffer import condensed


class FullReplayLoader(ReplayDataLoader):
    """Avalanche's loader of new and replayed images, with full memory batches.

    Avalanche's loader ends a memory batch at the end of a pass over the memory: with a batch size of 32, a memory of
    20 images gives batches of 20, a memory of 40 gives 32, 8, 32, 8. Here the batch continues with the next pass. Each
    pass has a new random order.
    """

    def _create_samplers(self, datasets: Any, batch_sizes: Any, *args: Any) -> Any:
        new, _ = super()._create_samplers(datasets, batch_sizes, *args)
        size = batch_sizes[1]
        endless = RandomSampler(datasets[1], num_samples=size * max(1, len(self)))
        return [new, BatchSampler(endless, size, drop_last=True)]


class Replay(ReplayPlugin):
    """Avalanche's ``ReplayPlugin`` with full memory batches.

    It fills the memory by ``post_adapt``, without Avalanche's warning about the deprecated ``update``.

    Args:
        kwargs: Arguments of ``ReplayPlugin``.

    Raises:
        ConfigError: ``task_balanced_dataloader`` is True; in training, if the memory has soft labels.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require(
            not self.task_balanced_dataloader,
            "task_balanced_dataloader=True: memory batches are full and not balanced by task: leave it out, or use "
            "Avalanche's ReplayPlugin",
        )

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Mix the memory with the stream; an empty memory changes nothing."""
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
    """Raise ConfigError if a memory has soft labels; ``user`` is the class that replays hard labels."""
    policy = condensed(storage_policy)
    memory = policy.memory if policy else None
    if memory is not None and memory.soft_labels is not None:
        raise ConfigError(
            f"{user} replays hard labels and the memory has soft labels: use FromScratchOnMemory or FineTuneOnMemory, "
            "or a method without soft labels"
        )
