"""Avalanche's own strategies and storage policies as baselines, with the memory, steps and augmentation of ours."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
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
from torch import nn

from condensekit.replay.loader import TensorLoader
from condensekit.replay.protocol import Bench

LABEL = 8  # bytes


@dataclass(frozen=True, eq=False)
class Learner:
    """A strategy, and what a run wants to know of its memory.

    Args:
        strategy: Any Avalanche strategy.
        nbytes: Stored bytes now.
        images: Stored images now.
        condense_s: Seconds that filling the memory took in an experience, where that is known.
        waited_s: Of these, what the last experience took in this process.
        before: Called with the number of classes seen before each experience is learnt.
        at_once: Whether it learns the whole stream at once.
    """

    strategy: Any
    nbytes: Callable[[], int]
    images: Callable[[], int]
    condense_s: Callable[[int], float] = lambda i: 0.0
    waited_s: Callable[[], float] = lambda: 0.0
    before: Callable[[int], None] = lambda classes: None
    at_once: bool = False


def own_memory(name: str, common: dict[str, Any], replay: Callable[..., Any], bench: Bench) -> Learner:
    """One of :data:`condensekit.replay.memories.AVALANCHE`.

    The memory of ``per_class`` images of each class seen is shared as the part shares it; where Avalanche would
    give all of it to the first classes, its size grows with the classes, as that of the condensed ones does.
    The stream's augmentation holds for replayed images too, but for the memories of ``avalanche-er-ace`` and
    ``avalanche-der++``, which these strategies read by loaders of their own.

    Args:
        name: Which.
        common: Model, optimiser and the rest of what every strategy takes.
        replay: The strategy that replays a ``storage_policy``.
        bench: The run.
    """
    online, per_class = bench.settings.online, bench.settings.per_class
    total = per_class * len(bench.train.classes)
    pixels = math.prod(bench.train.spec.shape) * (1 if bench.train.images.element_size() == 1 else 4)
    loader = TensorLoader(bench.settings.protocol.augmentation, seed=bench.settings.seed)
    body = nn.Sequential(common["model"].body, nn.Flatten())  # layer "1": where Avalanche's buffers measure distances

    def learner(strategy: Any, policy: Any, extra: int = 0) -> Learner:
        def grow(classes: int) -> None:
            policy.max_size = per_class * classes

        return Learner(
            strategy,
            nbytes=lambda: len(policy.buffer) * (pixels + LABEL + extra),
            images=lambda: len(policy.buffer),
            before=grow,
        )

    if name in ("naive", "cumulative", "joint"):
        kinds: dict[str, Any] = {"naive": Naive, "cumulative": Cumulative, "joint": JointTraining}
        strategy = kinds[name](**common, criterion=nn.CrossEntropyLoss(), plugins=[loader])
        stored = _everything(name, strategy, bench)
        return Learner(strategy, nbytes=lambda: stored() * (pixels + LABEL), images=stored, at_once=name == "joint")
    if name == "gdumb":
        plugin = GDumbPlugin(total)
        return learner(Naive(**common, plugins=[plugin, loader]), plugin.storage_policy)
    if name == "icarl":
        return _icarl(common, loader, per_class, pixels)
    if name == "avalanche-er-ace":
        strategy = ER_ACE(**common, mem_size=total, batch_size_mem=online.batch_mem, plugins=[loader])
        return learner(strategy, strategy.storage_policy)
    if name == "avalanche-der++":
        strategy = DER(**common, mem_size=total, batch_size_mem=online.batch_mem, plugins=[loader])
        return learner(strategy, strategy.storage_policy, 4 * len(bench.train.classes))
    policies: dict[str, Callable[[], Any]] = {
        "class-balanced": lambda: ClassBalancedBuffer(total),
        "experience-balanced": lambda: ExperienceBalancedBuffer(total),
        "reservoir": lambda: ReservoirSamplingBuffer(total),
        "avalanche-herding": lambda: ParametricBuffer(
            total, groupby="class", selection_strategy=HerdingSelectionStrategy(body, "1")
        ),
        "closest-to-mean": lambda: ParametricBuffer(
            total, groupby="class", selection_strategy=ClosestToCenterSelectionStrategy(body, "1")
        ),
    }
    policy = policies[name]()
    return learner(replay(storage_policy=policy), policy)


def _everything(name: str, strategy: Any, bench: Bench) -> Callable[[], int]:
    """How many images a strategy without a memory keeps: none, all so far, or all."""
    if name == "naive":
        return lambda: 0
    if name == "joint":
        return lambda: len(bench.train)
    return lambda: len(strategy.dataset)


def _icarl(common: dict[str, Any], loader: TensorLoader, per_class: int, pixels: int) -> Learner:
    """iCaRL, with the network's body and classifier; it classifies by the nearest class mean."""
    model = common["model"]
    rest = {key: value for key, value in common.items() if key != "model"}
    strategy = ICaRL(
        **rest,
        feature_extractor=nn.Sequential(model.body, nn.Flatten()),
        classifier=model.classifier,
        memory_size=per_class,
        buffer_transform=None,
        fixed_memory=False,
        plugins=[loader],
    )
    own = next(plugin for plugin in strategy.plugins if hasattr(plugin, "x_memory"))

    def images() -> int:
        return sum(map(len, own.x_memory))

    return Learner(strategy, nbytes=lambda: images() * (pixels + LABEL), images=images)
