"""Incremental regimes: one learner is trained on all experiences and replays, by Avalanche's strategies.

A killed cell starts again with its first experience. Its condensations are resumed at their checkpoints. The trainings
between them are repeated with the same results, because the random numbers of an experience depend on its number only.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.training.plugins import EvaluationPlugin, SupervisedPlugin
from torch import Tensor
from torch.utils.data import Dataset

from condensekit.data.images import ClassImages
from condensekit.progress import Stage
from condensekit.replay.adapters.buffer import CondensedBuffer
from condensekit.replay.adapters.plugins import FineTuneOnMemory
from condensekit.replay.adapters.strategies import ERACE, CondensedReplay, DERpp
from condensekit.replay.memory.base import DivergedError
from condensekit.replay.memory.budget import Bytes, Images
from condensekit.replay.memory.learner import by_learner
from condensekit.replay.study.baselines import BASELINES, Learner, Parts
from condensekit.replay.study.checks import embeds_with_learner
from condensekit.replay.study.memories import DER, ER, ER_ACE, MemoryKind
from condensekit.replay.study.protocol import Bench, Record, Score, Settings, cell, total
from condensekit.rng import Draw, isolated
from condensekit.training.train import TrainProtocol

EVALUATED = 256  # batch size with which Avalanche's own memories compute features
NOTHING = {
    **{"score": None, "nbytes": 0, "images": 0, "condense_s": 0.0, "work": None},
    **{"train_s": 0.0, "train_steps": 0, "passes": None},
}  # record of an experience without training


class _Experience(TypedDict):
    """What is kept of one experience."""

    score: Score | None
    nbytes: int
    images: int
    condense_s: float
    work: dict[str, float] | None
    train_s: float
    train_steps: float
    passes: float | None


class _Cell(TypedDict):
    """What is kept of one learner."""

    experiences: list[_Experience]


class Stream(Dataset[tuple[Tensor, int]]):
    """Real images as a data set for Avalanche, each normalised when it is read, which saves memory.

    Args:
        data: The real images.
    """

    def __init__(self, data: ClassImages) -> None:
        self.data = data
        self.targets: list[int] = data.labels[data.order].tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.data.gather(self.data.order[index]), self.targets[index]


class Finite(SupervisedPlugin):
    """Plugin that ends a run whose learner has diverged, before a memory is condensed with this learner.

    Args:
        lr: Learning rate of the learner, for the text of the error.

    Raises:
        DivergedError: In training, if a weight is not finite.
    """

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr = lr

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Check the weights."""
        if not all(bool(torch.isfinite(weights).all()) for weights in strategy.model.parameters()):
            raise DivergedError(
                f"the learner's weights are not finite in experience {strategy.clock.train_exp_counter + 1}: lower its "
                f"learning rate (lr={self.lr})"
            )

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Check the weights again, because fine-tuning on the memory has changed them."""
        self.after_training_epoch(strategy)


def incremental(memory: MemoryKind, order: int, bench: Bench, regime: str) -> list[Record]:
    """Run one memory in one class order, in the regime ``er``, ``er-ace`` or ``der++``.

    Returns:
        Records as those of :func:`condensekit.replay.study.from_scratch.from_scratch`. ``train_s`` are the seconds of
        the experience without condensation. ``train_steps`` and ``passes`` include fine-tuning on the memory.
        ``passes`` counts passes over the images of the memory; None: the strategy uses its memory in another way. A
        strategy that learns the whole stream at once has scores of the last experience only.
    """
    settings = bench.settings
    found = []
    for network in range(settings.networks):
        with bench.progress.stage(f"{regime}, {memory.name}, order {order}", settings.experiences) as stage:
            make = partial(_run, memory, regime, order, network, bench, stage)
            found.append(bench.remember(memory, cell(regime, order, network), make, _Cell)["experiences"])
    rows = []
    for networks in zip(*found, strict=True):
        mean = {key: sum(record[key] for record in networks) / len(networks) for key in ("condense_s", "train_s")}
        scores = [record["score"] for record in networks if record["score"] is not None]
        same = {key: networks[0][key] for key in ("nbytes", "images", "work", "train_steps", "passes")}
        rows.append({"scores": scores, **same, **mean})
    return rows


@contextmanager
def without_avalanches_warnings() -> Iterator[None]:
    """Suppress warnings from files of Avalanche, which overrides usual warning filters; show all other warnings."""
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            yield
    finally:
        for found in caught:
            if "avalanche" not in Path(found.filename).parts:
                warnings.warn_explicit(found.message, found.category, found.filename, found.lineno)


def _run(memory: MemoryKind, regime: str, order: int, network: int, bench: Bench, stage: Stage) -> Record:
    """Train one learner on the whole stream; returns the record of each experience under ``experiences``."""
    settings, classes = bench.settings, bench.train.classes
    experiences = settings.stream(order, len(classes))
    flat = [label for labels in experiences for label in labels]
    seed = settings.network_seed(order, network)
    rows: list[Record] = []
    with without_avalanches_warnings():
        with isolated(Draw(seed).key("stream")):
            stream = nc_benchmark(
                Stream(bench.train),
                Stream(bench.test),
                len(experiences),
                task_labels=False,
                fixed_class_order=flat,
                per_exp_classes=dict(enumerate(map(len, experiences))),
            ).train_stream
        learner = _learner(memory, regime, order, network, bench)
        learner.strategy.plugins.append(Finite(settings.online.lr))
        for i, exp in enumerate(stream):
            start = time.perf_counter()
            seen = experiences[: i + 1]
            last = i + 1 == len(experiences)
            if learner.at_once and not last:
                rows.append({**NOTHING})
                stage.advance()
                continue
            learner.before(sum(map(len, seen)))
            held, done = _held(learner), learner.strategy.clock.train_iterations
            with isolated(Draw(seed).key(f"experience/{i}")):
                learner.strategy.train(stream if learner.at_once else exp, eval_streams=[])
            seconds, done = time.perf_counter() - start, learner.strategy.clock.train_iterations - done
            held = _held(learner) if regime == ER_ACE and i else held  # ER-ACE fills the memory before the training
            tuned = [plugin for plugin in learner.strategy.plugins if isinstance(plugin, FineTuneOnMemory)]
            passes = [settings.online.batch_mem * done / held] if held else []
            passes += [plugin.shown / _held(learner) for plugin in tuned]
            score = bench.score(learner.strategy.model, seen)
            rows.append(
                {
                    "score": score,
                    "nbytes": learner.nbytes(),
                    "images": learner.images(),
                    "condense_s": learner.condense_s(i),
                    "work": learner.work(i),
                    "train_s": seconds - learner.waited_s(),
                    "train_steps": done + sum(plugin.steps for plugin in tuned),
                    "passes": sum(passes) if passes else None,
                }
            )
            stage.advance(1, {"accuracy": total(score)})
    return {"experiences": rows}


def _held(learner: Learner) -> int:
    """Number of images from which memory batches are drawn; 0: no batch is drawn."""
    return learner.replayed() if learner.replayed else 0


def _learner(memory: MemoryKind, regime: str, order: int, network: int, bench: Bench) -> Learner:
    """The learner of one cell; the network seed decides the weights of its model."""
    settings, online = bench.settings, bench.settings.online
    seed = settings.network_seed(order, network)
    shape, classes = bench.train.spec.shape, len(bench.train.classes)
    model = settings.network.new(shape, classes, Draw(seed), device=bench.compute.device)
    common: dict[str, Any] = {
        "model": model,
        "optimizer": torch.optim.SGD(
            model.parameters(), lr=online.lr, momentum=online.momentum, weight_decay=online.weight_decay
        ),
        "train_mb_size": online.batch,
        "eval_mb_size": EVALUATED,
        "train_epochs": online.epochs,
        "device": bench.compute.device,
        "evaluator": EvaluationPlugin(),
    }
    replaying: dict[str, Any] = {
        "batch_size_mem": online.batch_mem,
        "augmentation": settings.protocol.augmentation,
        "seed": seed,
    }
    own: dict[str, Any] = {"learner_encoder": False}  # _buffer decides whether the learner is the encoder
    replay: Callable[..., Any] = partial(
        CondensedReplay,
        **common,
        **replaying,
        **own,
        distillation=online.distillation,
        fine_tune=_fine_tuning(settings, classes) if online.fine_tune else None,
    )
    ace: Callable[..., Any] = partial(ERACE, **common, **replaying)
    der: Callable[..., Any] = partial(DERpp, **common, **replaying, **own)
    kind = {ER: replay, ER_ACE: ace, DER: der}[regime]
    if memory.filler is None:
        return BASELINES[memory.name](Parts(common, kind, bench))
    buffer = _buffer(memory, regime, order, network, bench)
    strategy = kind(storage_policy=buffer)
    counted = strategy if regime == DER else buffer
    return Learner(
        strategy,
        nbytes=lambda: int(counted.nbytes),
        images=lambda: len(buffer.memory or ()),
        replayed=lambda: len(buffer.buffer),
        condense_s=lambda i: buffer.condense_s[i],
        work=lambda i: asdict(buffer.work[i]),
        waited_s=lambda: buffer.wall_s,
    )


def _fine_tuning(settings: Settings, classes: int) -> TrainProtocol:
    """Protocol of fine-tuning the learner on the memory only, after each experience.

    The batch is at most the nominal number of images after the first experience, so that it is equal for all memories.
    """
    online = settings.online
    return TrainProtocol(
        "fine-tune",
        epochs=1,
        full_epochs=1,
        steps=online.fine_tune,
        batch=min(online.batch + online.batch_mem, settings.ipc * classes // settings.experiences),
        lr=online.lr,
        momentum=online.momentum,
        weight_decay=online.weight_decay,
        augmentation=settings.protocol.augmentation,
    )


def _buffer(memory: MemoryKind, regime: str, order: int, network: int, bench: Bench) -> CondensedBuffer:
    """The memory of a cell; in regimes that fill the memory after the experience, the learner may be its encoder.

    A learner with batch norm is no encoder, as in :func:`condensekit.replay.adapters.strategies.embed_with_learner`.
    """
    assert memory.filler is not None
    settings, train = bench.settings, bench.train
    count, filler = memory.images(settings.ipc, train, bench.room), memory.filler
    learner = settings.network.build(train.spec.shape, len(train.classes))
    if embeds_with_learner(memory, regime, settings, learner) and filler.recipe:
        filler = filler.with_recipe(by_learner(filler.recipe))
    return CondensedBuffer(
        Bytes(per_class=bench.room) if filler.codes else Images(per_class=count),
        filler,
        steps=bench.making.steps,
        seed=settings.set_seed(order),
        machine=bench.making.machine,
        storage=None,
        spec=train.spec if train.whole_bytes else None,
        out=bench.out / "sets" / regime / bench.folder(memory) / f"order-{order}-network-{network}",
        progress=bench.progress,
        cache=bench.cache,
    )
