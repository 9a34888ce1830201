"""Baselines: Avalanche's own strategies and storage policies, with the study's memory size, steps and augmentation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from avalanche.training.plugins import GDumbPlugin
from avalanche.training.storage_policy import (
    ClassBalancedBuffer,
    ClosestToCenterSelectionStrategy,
    ExperienceBalancedBuffer,
    HerdingSelectionStrategy,
    ParametricBuffer,
    ReservoirSamplingBuffer,
)
from avalanche.training.supervised import DER, ER_ACE, Cumulative, ICaRL, JointTraining, Naive
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from condensekit.replay.adapters.loader import TensorLoader
from condensekit.replay.study.protocol import Bench
from condensekit.selection.clustering import herd
from condensekit.sets.coding import LABEL


@dataclass(frozen=True, eq=False)
class Learner:
    """A strategy, and functions that report on its memory.

    Args:
        strategy: Any Avalanche strategy.
        nbytes: Returns the stored bytes: images, labels and logits, without copies of the network.
        images: Returns the number of stored images.
        replayed: Returns the number of decoded images from which memory batches are drawn; None: no batch is drawn.
        condense_s: Returns the seconds of filling the memory in experience i; 0.0: unknown.
        work: Returns the images and FLOPs of the networks that fill the memory in experience i; None: unknown.
        waited_s: Returns the seconds of filling the memory in the last experience, in this process.
        before: Is called before each experience with the number of classes seen, including the experience.
        at_once: Whether the strategy trains on the whole stream at once.
    """

    strategy: Any
    nbytes: Callable[[], int]
    images: Callable[[], int]
    replayed: Callable[[], int] | None = None
    condense_s: Callable[[int], float] = lambda i: 0.0
    work: Callable[[int], dict[str, int] | None] = lambda i: None
    waited_s: Callable[[], float] = lambda: 0.0
    before: Callable[[int], None] = lambda classes: None
    at_once: bool = False


@dataclass(frozen=True, eq=False)
class Parts:
    """Parts from which a baseline is made.

    Args:
        common: Arguments of every strategy: model, optimiser and so on.
        replay: Class or function that makes the strategy which replays a ``storage_policy``.
        bench: The run.
    """

    common: dict[str, Any]
    replay: Callable[..., Any]
    bench: Bench

    @property
    def total(self) -> int:
        """Number of stored images after all classes have appeared."""
        return self.bench.settings.ipc * len(self.bench.train.classes)

    @property
    def bytes_each(self) -> int:
        """Bytes of a stored image with its label."""
        data = self.bench.train
        return math.prod(data.spec.shape) * (1 if data.whole_bytes else 4) + LABEL

    @property
    def loader(self) -> TensorLoader:
        """Plugin with the augmentation of the protocol."""
        return TensorLoader(self.bench.settings.protocol.augmentation, seed=self.bench.settings.seed)

    @property
    def body(self) -> nn.Sequential:
        """The network without its classifier; Avalanche's buffers measure distances in its layer "1"."""
        return nn.Sequential(self.common["model"].body, nn.Flatten())

    def keeping(self, strategy: Any, policy: Any, extra: int = 0) -> Learner:
        """A learner whose storage policy keeps real images, each with ``extra`` further bytes.

        Avalanche gives the whole memory to the first classes. Here its size grows with the classes, as the size of
        condensed memories does.
        """

        def grow(classes: int) -> None:
            policy.max_size = self.bench.settings.ipc * classes

        def held() -> int:
            return len(policy.buffer)

        return Learner(strategy, lambda: held() * (self.bytes_each + extra), held, before=grow)

    def without(self, strategy: Any, kept: Callable[[], int], at_once: bool = False) -> Learner:
        """A learner without a storage policy; ``kept`` returns the number of images that it continues to use."""
        return Learner(strategy, lambda: kept() * self.bytes_each, kept, at_once=at_once)


class GDumb(GDumbPlugin):
    """Avalanche's ``GDumbPlugin`` with the same gradient steps, and images in a step, as a learner that replays.

    Avalanche's plugin makes as many passes over its small memory as other strategies make over the stream.

    Args:
        mem_size: Largest number of stored images.
        batch_mem: Number of images that other strategies replay in a step, in addition to ``train_mb_size`` new images,
            from the second experience on.
    """

    def __init__(self, mem_size: int, batch_mem: int) -> None:
        super().__init__(mem_size)
        self.batch_mem = batch_mem

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Set a loader of full batches of the memory, with as many batches as the experience has."""
        memory, mine = strategy.adapted_dataset, strategy.train_mb_size
        size = mine + (self.batch_mem if strategy.clock.train_exp_counter else 0)
        rows = RandomSampler(memory, num_samples=size * -(-len(strategy.experience.dataset) // mine))
        batches = BatchSampler(rows, size, drop_last=True)
        strategy.dataloader = DataLoader(memory, batch_sampler=batches, collate_fn=memory.collate_fn)


class Herded(HerdingSelectionStrategy):
    """Avalanche's ``HerdingSelectionStrategy``, limited to the first ``most`` images of a class.

    ``most`` is the largest number of images that is ever kept of a class. Avalanche's class orders all images of the
    class, which takes several times as long as the training on them.
    """

    def __init__(self, model: nn.Module, layer_name: str, most: int) -> None:
        super().__init__(model, layer_name)
        self.most = most

    def make_sorted_indices_from_features(self, features: Tensor) -> list[int]:
        """Row numbers of the features (N, D) in the order of herding, at most ``most`` of them."""
        exact = features.double().cpu()
        chosen: list[int] = herd(exact - exact.mean(0), min(self.most, len(exact))).tolist()
        return chosen


def _gdumb(parts: Parts) -> Learner:
    plugin = GDumb(parts.total, parts.bench.settings.online.batch_mem)
    return parts.keeping(Naive(**parts.common, plugins=[plugin, parts.loader]), plugin.storage_policy)


def _replaying(make: Callable[[Parts], Any], parts: Parts) -> Learner:
    policy = make(parts)
    found = parts.keeping(parts.replay(storage_policy=policy), policy)
    return replace(found, replayed=found.images)


def _chosen(how: Callable[..., Any], parts: Parts) -> Any:
    return ParametricBuffer(parts.total, groupby="class", selection_strategy=how(parts.body, "1"))


def _alone(kind: Callable[..., Any], logits: bool, parts: Parts) -> Learner:
    """Avalanche's own ER-ACE or DER++, which read their memories by their own loaders."""
    batch = parts.bench.settings.online.batch_mem
    strategy = kind(**parts.common, mem_size=parts.total, batch_size_mem=batch, plugins=[parts.loader])
    return parts.keeping(strategy, strategy.storage_policy, 4 * len(parts.bench.train.classes) if logits else 0)


def _naive(parts: Parts) -> Learner:
    return parts.without(Naive(**parts.common, plugins=[parts.loader]), lambda: 0)


def _cumulative(parts: Parts) -> Learner:
    strategy = Cumulative(**parts.common, criterion=nn.CrossEntropyLoss(), plugins=[parts.loader])
    return parts.without(strategy, lambda: len(strategy.dataset))


def _joint(parts: Parts) -> Learner:
    strategy = JointTraining(**parts.common, criterion=nn.CrossEntropyLoss(), plugins=[parts.loader])
    return parts.without(strategy, lambda: len(parts.bench.train), at_once=True)


def _icarl(parts: Parts) -> Learner:
    """Avalanche's iCaRL with the network's body and classifier; it classifies by the nearest class mean."""
    strategy = ICaRL(
        **{key: value for key, value in parts.common.items() if key != "model"},
        feature_extractor=parts.body,
        classifier=parts.common["model"].classifier,
        memory_size=parts.bench.settings.ipc,
        buffer_transform=None,
        fixed_memory=False,
        plugins=[parts.loader],
    )
    own = next(plugin for plugin in strategy.plugins if hasattr(plugin, "x_memory"))
    return parts.without(strategy, lambda: sum(map(len, own.x_memory)))


BASELINES: dict[str, Callable[[Parts], Learner]] = {
    "class-balanced": partial(_replaying, lambda parts: ClassBalancedBuffer(parts.total)),
    "experience-balanced": partial(_replaying, lambda parts: ExperienceBalancedBuffer(parts.total)),
    "reservoir": partial(_replaying, lambda parts: ReservoirSamplingBuffer(parts.total)),
    "avalanche-herding": partial(_replaying, lambda parts: _chosen(partial(Herded, most=parts.total), parts)),
    "closest-to-mean": partial(_replaying, partial(_chosen, ClosestToCenterSelectionStrategy)),
    "avalanche-er-ace": partial(_alone, ER_ACE, False),
    "avalanche-der++": partial(_alone, DER, True),
    "gdumb": _gdumb,
    "icarl": _icarl,
    "naive": _naive,
    "cumulative": _cumulative,
    "joint": _joint,
}  # function that makes the learner of each name in condensekit.replay.study.memories.AVALANCHE
