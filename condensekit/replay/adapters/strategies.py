"""Strategies for Avalanche that replay a condensed memory: ER, ER-ACE and DER++."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
from avalanche.models import IncrementalClassifier, MultiHeadClassifier
from avalanche.training.supervised import DER, ER_ACE
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn

from condensekit.catalog import PUBLISHED
from condensekit.errors import ConfigError, instance, positive, refuse, whole
from condensekit.methods.encoders import Fresh
from condensekit.networks.base import separable
from condensekit.replay.adapters.arguments import strategy_problems
from condensekit.replay.adapters.buffer import CondensedBuffer, condensed
from condensekit.replay.adapters.full_batches import Replay, refuse_soft
from condensekit.replay.adapters.loader import TensorLoader, rows_of
from condensekit.replay.adapters.plugins import Distillation, FineTuneOnMemory
from condensekit.replay.adapters.replayed import Source
from condensekit.replay.adapters.sources import forward, source_of
from condensekit.replay.adapters.stream import task_labels
from condensekit.replay.memory.content import Group
from condensekit.replay.memory.learner import by_learner
from condensekit.rng import Draw
from condensekit.training.augment import Augmentation
from condensekit.training.train import TrainProtocol


class CondensedReplay(SupervisedTemplate):
    """Experience replay from a condensed memory: Avalanche's ``ReplayPlugin`` with the plugins of this package.

    Each step has ``batch_size_mem`` replayed images. A smaller memory repeats its images in the batch
    (:class:`~condensekit.replay.adapters.full_batches.Replay`).

    If the memory is a ``CondensedBuffer``, its method compares features only and its encoder is the usual encoder, then
    the learner becomes the encoder (:class:`~condensekit.replay.memory.learner.LearnerEncoder`), unless it has batch
    norm. The learner's features then also choose the first images, if an untrained network's features would do so.
    A learner whose outputs are not those of a linear layer, such as one with a head for each task, cannot embed: a
    warning before the first step says so, and the memory keeps its own encoder.

    >>> import torch
    >>> from condensekit.replay import CondensedBuffer, CondensedReplay, Images
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> strategy = CondensedReplay(
    ...     model=net,
    ...     optimizer=torch.optim.SGD(net.parameters(), lr=0.05),
    ...     storage_policy=CondensedBuffer(Images(20), "dm", classes=10),
    ...     train_mb_size=32,
    ... )  # then strategy.train(experience), as any strategy of Avalanche

    Args:
        model: The learner.
        optimizer: Optimiser of the learner.
        criterion: Loss of a batch; None: cross entropy.
        storage_policy: The memory: a ``CondensedBuffer``, or any Avalanche ``ExemplarsBuffer``.
        batch_size_mem: Number of replayed images in each step, in addition to ``train_mb_size`` new images; None: the
            same number as new images.
        learner_encoder: False: keep the encoder of the memory.
        augmentation: Augmentation of batches of new and replayed images; it replaces the stream's training transforms.
            None: the stream's training transforms.
        distillation: Weight of :class:`~condensekit.replay.adapters.plugins.Distillation`, at least 0; 0: no
            distillation.
        fine_tune: Protocol of :class:`~condensekit.replay.adapters.plugins.FineTuneOnMemory`; None: no fine-tuning.
        seed: Seed of augmentation and fine-tuning.
        plugins: Further plugins.
        kwargs: Further arguments of ``SupervisedTemplate``.

    Raises:
        ConfigError: Arguments of another type or out of range; in training, if the memory has soft labels, and the
            errors of :meth:`CondensedBuffer.post_adapt`.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        storage_policy: Any,
        criterion: Any = None,
        batch_size_mem: int | None = None,
        learner_encoder: bool = True,
        augmentation: Augmentation | None = None,
        distillation: float = 0.0,
        fine_tune: TrainProtocol | None = None,
        seed: int = 0,
        plugins: list[Any] | None = None,
        **kwargs: Any,
    ) -> None:
        others = {"model": model, "optimizer": optimizer, "criterion": criterion, **kwargs}
        refuse(
            *strategy_problems(storage_policy, plugins, others),
            _batch_problem(batch_size_mem),
            _flag_problem(learner_encoder),
            positive("distillation", distillation, zero=True),
            None if fine_tune is None else instance("fine_tune", fine_tune, TrainProtocol, 'catalog.protocol("short")'),
        )
        own: list[Any] = [
            Replay(mem_size=storage_policy.max_size, batch_size_mem=batch_size_mem, storage_policy=storage_policy),
            TensorLoader(augmentation, seed=seed),
        ]
        own += [Distillation(distillation)] if distillation else []
        own += [FineTuneOnMemory(storage_policy, protocol=fine_tune, seed=seed)] if fine_tune else []
        super().__init__(
            model=model,
            optimizer=optimizer,
            criterion=nn.CrossEntropyLoss() if criterion is None else criterion,
            plugins=[*own, *(plugins or [])],
            **kwargs,
        )
        self.storage_policy = storage_policy
        if learner_encoder:
            embed_with_learner(storage_policy, model)

    def _before_training_exp(self, **kwargs: Any) -> None:
        super()._before_training_exp(**kwargs)
        watch(self.storage_policy, self)  # the model has the outputs of this experience now


class ERACE(ER_ACE):
    """Avalanche's ``ER_ACE`` (Caccia et al., ICLR 2022) with any storage policy, on streams with and without tasks.

    The memory is filled before the training on an experience, so that images of the new classes are replayed, too.
    Then the look of condensed images does not tell the network which classes are old. Departure from Avalanche's
    class: a memory smaller than ``batch_size_mem`` is replayed, too; it repeats its images in the batch.

    >>> import torch
    >>> from condensekit.replay import ERACE, CondensedBuffer, Images
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> strategy = ERACE(
    ...     model=net,
    ...     optimizer=torch.optim.SGD(net.parameters(), lr=0.05),
    ...     storage_policy=CondensedBuffer(Images(20), "herding", classes=10),
    ...     batch_size_mem=32,
    ... )

    Args:
        storage_policy: The memory.
        batch_size_mem: Number of replayed images in each step, at least 1.
        augmentation: See :class:`CondensedReplay`.
        seed: Seed of augmentation and of the order of replayed images.
        plugins: Further plugins.
        kwargs: Further arguments of ``ER_ACE``: model, optimizer, train_mb_size and so on.

    Raises:
        ConfigError: Arguments of another type or out of range; in training, if the memory has soft labels.
    """

    def __init__(
        self,
        *,
        storage_policy: Any,
        batch_size_mem: int = 10,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        plugins: list[Any] | None = None,
        **kwargs: Any,
    ) -> None:
        refuse(*strategy_problems(storage_policy, plugins, kwargs), whole("batch_size_mem", batch_size_mem, 1))
        self.loader = TensorLoader(augmentation, seed=seed)
        super().__init__(
            mem_size=storage_policy.max_size,
            batch_size_mem=batch_size_mem,
            plugins=[self.loader, *(plugins or [])],
            **kwargs,
        )
        self.storage_policy, self.seed = storage_policy, seed

    def _before_training_exp(self, **kwargs: Any) -> None:
        watch(self.storage_policy, self)
        first = len(self.storage_policy.buffer) == 0
        self.storage_policy.post_adapt(self, self.experience)
        if not first:
            self.replay_loader = (batch[:3] for batch in _memory_batches(self, _draw_of(self)))
        super(ER_ACE, self)._before_training_exp(**kwargs)


class DERpp(DER):
    """Avalanche's ``DER`` (DER++ with beta above 0; Buzzega et al., NeurIPS 2020) with a condensed memory.

    The logits of the condensed images of a class are computed at the end of its experience and stored: 4 bytes for each
    output, counted in :attr:`nbytes`. Images without logits, for example after ``load_state_dict``, get their logits
    from the learner at the beginning of the next experience. A class that ``update_from_dataset`` renews keeps its
    former logits. Works on streams with and without task labels, with heads that grow, and with a memory smaller than
    ``batch_size_mem``. An output that an image had no logit for keeps its value.

    >>> import torch
    >>> from condensekit.replay import CondensedBuffer, DERpp, Images
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> strategy = DERpp(
    ...     model=net,
    ...     optimizer=torch.optim.SGD(net.parameters(), lr=0.05),
    ...     storage_policy=CondensedBuffer(Images(20), "dm", classes=10),
    ... )

    Args:
        storage_policy: A ``CondensedBuffer``; for real images use Avalanche's own ``DER``.
        batch_size_mem: Number of replayed images in each step; None: ``train_mb_size``.
        learner_encoder: See :class:`CondensedReplay`.
        augmentation: See :class:`CondensedReplay`; the logits are those of images without augmentation.
        seed: Seed of augmentation and of the order of replayed images.
        plugins: Further plugins.
        kwargs: Further arguments of ``DER``: model, optimizer, alpha, beta, train_mb_size and so on.

    Raises:
        ConfigError: ``storage_policy`` is not a ``CondensedBuffer``, or arguments of another type or out of range; in
            training, if the memory has soft labels.
    """

    def __init__(
        self,
        *,
        storage_policy: CondensedBuffer,
        batch_size_mem: int | None = None,
        learner_encoder: bool = True,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        plugins: list[Any] | None = None,
        **kwargs: Any,
    ) -> None:
        refuse(
            *strategy_problems(storage_policy, plugins, kwargs),
            _batch_problem(batch_size_mem),
            _flag_problem(learner_encoder),
        )
        if condensed(storage_policy) is None:
            raise ConfigError(
                f"DERpp keeps logits of a CondensedBuffer, got a {type(storage_policy).__name__}: use Avalanche's DER"
            )
        self.loader = TensorLoader(augmentation, seed=seed)
        super().__init__(
            mem_size=storage_policy.max_size,
            batch_size_mem=batch_size_mem,
            plugins=[self.loader, *(plugins or [])],
            **kwargs,
        )
        self.storage_policy, self.seed = storage_policy, seed
        self.logits: dict[Group, Tensor] = {}
        if learner_encoder:
            embed_with_learner(storage_policy, self.model)

    @property
    def nbytes(self) -> int:
        """Stored bytes of the memory and of the logits."""
        return int(self.storage_policy.nbytes) + sum(t.numel() * t.element_size() for t in self.logits.values())

    def _before_training_exp(self, **kwargs: Any) -> None:
        self.replay_loader = None
        if len(self.storage_policy.buffer):
            self._take_logits(set())
            self.replay_loader = _memory_batches(self, _draw_of(self), self.logits)
        super(DER, self)._before_training_exp(**kwargs)
        watch(self.storage_policy, self)

    def _before_forward(self, **kwargs: Any) -> None:
        super(DER, self)._before_forward(**kwargs)
        if self.replay_loader is None:
            return
        images, labels, tasks, self.batch_logits = next(self.replay_loader)
        fields = [images, labels, tasks]
        self.mbatch[:] = [torch.cat((old, new)) for old, new in zip(fields, self.mbatch, strict=False)]

    def _after_forward(self, **kwargs: Any) -> None:
        if self.replay_loader is not None:
            self.batch_logits, stored = self.mb_output[: self.batch_size_mem].detach().clone(), self.batch_logits
            known = ~stored[:, : self.batch_logits.shape[1]].isnan()
            self.batch_logits[:, : known.shape[1]][known] = stored[:, : known.shape[1]][known]
        super()._after_forward(**kwargs)

    def _after_training_exp(self, **kwargs: Any) -> None:
        self.replay_loader = None  # a generator cannot be saved in a checkpoint
        dataset = self.experience.dataset
        new = set(zip(task_labels(dataset).tolist(), map(int, dataset.targets), strict=True))
        self.storage_policy.post_adapt(self, self.experience)
        self._take_logits(new)
        super(DER, self)._after_training_exp(**kwargs)

    @torch.no_grad()
    def _take_logits(self, new: set[Group]) -> None:
        """Compute logits for the ``new`` groups and for images without logits; drop logits of dropped images."""
        source = self.storage_policy.core.decoded
        former, self.logits = self.logits, {}
        self.model.eval()
        for group in self.storage_policy.core.groups:
            rows, known = source.rows_of(group), former.get(group)
            if group in new or known is None or len(known) < len(rows):
                known = torch.cat([self._logits(source, part) for part in rows.split(self.train_mb_size)])
            self.logits[group] = known[: len(rows)]
        self.model.train()

    def _logits(self, source: Source, rows: Tensor) -> Tensor:
        """Logits (R, K) of the images at ``rows``, on the CPU; NaN for outputs that a growing head has masked."""
        found = forward(self.model, source.at(rows, self.device), source.tasks[rows]).cpu()
        for head in self.model.modules():
            if isinstance(head, IncrementalClassifier | MultiHeadClassifier) and head.masking:
                found[found == head.mask_value] = torch.nan
        return found


def embed_with_learner(storage_policy: Any, learner: nn.Module) -> None:
    """Make the learner the encoder of a memory, if the learner has no batch norm and the recipe allows it.

    The recipe allows it if its method compares features only and its encoder is the usual encoder: that of the
    published recipe, or a new ConvNet in each step. Trained batch norms have steep features, so that images may
    diverge, and few images give poor batch statistics: two digits of 8x8 pixels under a small ResNet reached 500
    standard deviations.
    """
    memory = condensed(storage_policy)
    recipe = memory.core.rules.filler.recipe if memory and separable(learner) else None
    if memory is None or recipe is None or not recipe.method.features_only:
        return
    published = PUBLISHED.get(recipe.method.name)
    if recipe.encoder == (published.recipe.encoder if published else Fresh()):
        rules = memory.core.rules
        memory.core.rules = replace(rules, filler=rules.filler.with_recipe(by_learner(recipe)))


def watch(storage_policy: Any, strategy: Any) -> None:
    """Let a condensed memory observe the learner before its training."""
    if memory := condensed(storage_policy):
        memory.pre_adapt(strategy, strategy.experience)


def _draw_of(strategy: Any) -> Draw:
    """Random numbers of the memory batches of the next experience."""
    return Draw(Draw(strategy.seed).key(f"memory/{strategy.clock.train_exp_counter}"))


def _memory_batches(
    strategy: Any, draw: Draw, logits: dict[Group, Tensor] | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Endless full batches of the memory: augmented images, labels, tasks, and logits, or else the labels again."""
    refuse_soft(strategy.storage_policy, type(strategy).__name__)
    source, loader = source_of(strategy.storage_policy), strategy.loader
    read = rows_of(strategy.storage_policy.buffer.train(), strategy.device)  # through the stream's transforms
    fields = [t.to(strategy.device) for t in (source.labels, source.tasks, source.labels)]
    if logits is not None:
        fields[2] = _stacked([logits[group] for group in sorted(logits)]).to(strategy.device)
    rows = torch.empty(0, dtype=torch.int64)
    passes = count()
    while True:
        while len(rows) < strategy.batch_size_mem:
            rows = torch.cat([rows, draw.at(next(passes)).permutation("order", len(source.labels))])
        now, rows = rows[: strategy.batch_size_mem], rows[strategy.batch_size_mem :]
        images = loader.augment(source.at(now, strategy.device)) if loader.augmentation else read(now)
        labels, tasks, third = (field[now.to(strategy.device)] for field in fields)
        yield images, labels, tasks, third


def _stacked(parts: list[Tensor]) -> Tensor:
    """One tensor of logits (n, K) with different K, filled up with NaN."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([F.pad(part, (0, width - part.shape[1]), value=torch.nan) for part in parts])


def _batch_problem(size: object) -> str | None:
    return None if size is None else whole("batch_size_mem", size, 1)


def _flag_problem(learner_encoder: object) -> str | None:
    return instance("learner_encoder", learner_encoder, bool, "True or False")
