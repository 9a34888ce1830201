"""A replay memory of condensed images that goes wherever Avalanche takes a storage policy."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor

from condensekit.data.images import ImageSpec
from condensekit.errors import DataError, refuse
from condensekit.methods import Condenser
from condensekit.methods.encoders import Encoder
from condensekit.methods.sampling import Sampling, Uniform
from condensekit.progress import SILENT, Progress
from condensekit.replay.adapters.replayed import ClassView, check_replayed, replayed, transform_groups
from condensekit.replay.adapters.state import restored, stored
from condensekit.replay.adapters.stream import (
    Key,
    Layout,
    check_batchable,
    check_same_stream,
    class_images,
    key_of,
    task_labels,
)
from condensekit.replay.memory.budget import Budget, Images
from condensekit.replay.memory.content import Memory
from condensekit.replay.memory.fillers import Filler, Filling, filler
from condensekit.replay.memory.jpeg import Coded
from condensekit.replay.memory.rules import Rules
from condensekit.selection.base import Noise, Selection
from condensekit.sets.condensed import CondensedSet, Formation
from condensekit.training.augment import Augmentation


class CondensedBuffer(ExemplarsBuffer):
    """Condenses each experience (or selects from it) once and replays the result.

    ``max_size`` counts stored images; with a factor f each is decoded to f * f. A class that appears again keeps a
    part of its images, in proportion to the real images they stand for. Images are condensed as the stream's
    evaluation transforms give them, and replayed in the same space.

    A total that shrinks as classes arrive takes the first images of each class; a condenser then makes nested sets,
    herding, random and k-center selections are nested by themselves.

    Attributes:
        max_size: Stored images the budget has room for; of a budget in bytes, or of one per class without
            ``classes``, it is known after the first experience and 0 before. ``ReplayPlugin(buffer.max_size,
            storage_policy=buffer)`` always fits.
        condense_s: Seconds that each experience took, in whichever run: those before a kill and those of sets read
            from a cache are counted as they were spent.
        wall_s: Wall seconds that the last one took here.

    Args:
        budget: How much may be stored, :class:`Images` or :class:`Bytes`.
        method: A condenser, a selection, or a :class:`~condensekit.replay.memory.fillers.Filler`.
        classes: How many classes will come; each then gets its part of a total from the start.
        storage: ``uint8``, ``float16`` or ``float32``.
        factor: Packing; see :class:`condensekit.Formation`.
        seed: Everything random follows from it; the same in each experience.
        iterations: Matching steps of each condensation.
        init: Where a condenser's images start; None: random real images.
        sampling: How its real batches are drawn.
        encoder: Where its embedding networks come from; one with ``observe(agent, exp)`` is shown the learner, and
            ``forget()`` tells it, where it has that, that the experience is done with.
        augmentation: Siamese augmentation while condensing; leave out ``flip`` for digits.
        precision: How networks run.
        spec: The stream's normalisation, where its images come from 8-bit pixels: then they are kept as bytes, and
            methods that work on pixels know where these lie.
        transforms: Of replayed images: an Avalanche ``TransformGroups``, or a callable for training alone.
        device: Where to condense.
        out: Folder in which a condensation that was killed is continued.
        progress: Told about each step.
        cache: Sets of single classes to take and to give; see :func:`condensekit.replay.memory.fillers.filled`.

    Raises:
        ConfigError: Options that make no sense.
    """

    def __init__(
        self,
        budget: Budget,
        method: Condenser | Selection | Filler,
        *,
        classes: int | None = None,
        storage: str = "uint8",
        factor: int = 1,
        seed: int = 0,
        iterations: int = 500,
        init: Selection | Noise | None = None,
        sampling: Sampling = Uniform(),  # noqa: B008 - frozen
        encoder: Encoder | None = None,
        augmentation: Augmentation | None = Augmentation(),  # noqa: B008 - frozen
        precision: str = "fp32",
        spec: ImageSpec | None = None,
        transforms: Any = None,
        device: str = "auto",
        out: str | Path | None = None,
        progress: Progress = SILENT,
        cache: MutableMapping[str, CondensedSet] | None = None,
    ) -> None:
        how = Filling(
            seed=seed,
            iterations=iterations,
            init=init,
            encoder=encoder,
            augmentation=augmentation,
            sampling=sampling,
            formation=Formation(factor, storage),
            device=device,
            precision=precision,
            progress=progress,
        )
        self._start(budget, method, how, classes, spec, transforms, out, cache)

    @classmethod
    def from_filling(
        cls,
        budget: Budget,
        method: Condenser | Selection | Filler,
        how: Filling,
        *,
        classes: int | None = None,
        spec: ImageSpec | None = None,
        transforms: Any = None,
        out: str | Path | None = None,
        cache: MutableMapping[str, CondensedSet] | None = None,
    ) -> CondensedBuffer:
        """A buffer whose options stand together in a ``Filling``; see the class.

        Sets are nested where ``how`` says so or the budget shrinks; ``how.saving`` gives way to ``out``.

        Raises:
            ConfigError: Options that make no sense.
        """
        made = cls.__new__(cls)
        made._start(budget, method, how, classes, spec, transforms, out, cache)
        return made

    def _start(
        self,
        budget: Budget,
        method: Condenser | Selection | Filler,
        how: Filling,
        classes: int | None,
        spec: ImageSpec | None,
        transforms: Any,
        out: str | Path | None,
        cache: MutableMapping[str, CondensedSet] | None,
    ) -> None:
        """An empty memory."""
        super().__init__(0)
        refuse(
            None if isinstance(budget, Budget) else f"budget must be Images(...) or Bytes(...), got {budget!r}",
            "Coded stores several images in the bytes of one: give a budget in bytes, such as Bytes(per_class=30_800)"
            if isinstance(method, Coded) and isinstance(budget, Images)
            else None,
            None if classes is None or classes >= 1 else f"classes must be at least 1, got {classes}",
            None if how.iterations >= 1 else f"iterations must be at least 1, got {how.iterations}",
        )
        nested = how.nested or (budget.shrinks and classes is None)
        self.rules = Rules(budget, classes, filler(method), replace(how, nested=nested))
        self.spec, self.transforms = spec, transform_groups(transforms)
        self.out = None if out is None else Path(out)
        self.cache = cache
        self.condense_s: list[float] = []
        self.wall_s = 0.0
        self._layout = Layout(False, None)
        self._taken: list[Key] = []
        self._from_elsewhere = False  # restored: whether it belongs to the stream at hand is still to be seen
        self._tensors: tuple[Tensor, Tensor] | None = None
        self._dataset: AvalancheDataset | None = None
        self._groups: dict[int, ClassView] | None = None
        self._set(Memory())

    @property
    def memory(self) -> CondensedSet | None:
        """What is stored, all classes, in storage dtype; None before the first experience.

        Its soft labels, if any, are widened to all classes; they take less in the buffer.
        """
        return self._memory.joined() if self._memory.parts else None

    @property
    def nbytes(self) -> int:
        """Every stored byte, as :attr:`CondensedSet.nbytes` counts them."""
        return self._memory.nbytes

    @property
    def buffer(self) -> AvalancheDataset:
        """The replayed data set: decoded images with the stream's fields and kind of targets; made once."""
        if self._dataset is None:
            if not self._memory.parts:
                return self._buffer
            images, labels = self.decoded()
            self._dataset = replayed(images, labels, self._memory.tasks, self._layout, self.transforms)
        return self._dataset

    def decoded(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """(N, C, H, W) normalised float32 images and (N,) int64 labels; kept on ``device`` until the memory changes.

        Raises:
            DataError: Nothing is stored yet.
        """
        memory, place = self.memory, torch.device(device)
        if memory is None:
            raise DataError("the memory is empty: train on a first experience")
        if self._tensors is None:
            self._tensors = memory.decode()
        if self._tensors[0].device != place:
            self._tensors = self._tensors[0].to(place), self._tensors[1].to(place)
        return self._tensors

    def pre_adapt(self, agent: Any, exp: Any) -> None:
        """Show the learner before training to an encoder that wants to see it; stock plugins do not call this."""
        self._observe(agent, exp)

    def post_adapt(self, agent: Any, exp: Any) -> None:
        """Take the experience into the memory; nothing for one that was taken already, by whomever.

        Raises:
            DataError: A stream that cannot be condensed, or another one than that of a restored memory.
            ConfigError: A budget below one image per class, or more classes than announced.
            Interrupted: A signal ended the condensation.
            DivergedError: It met values that are not finite.

        After any of these the memory is what it was before.
        """
        if len(exp.dataset) == 0:
            return
        key = key_of(exp)
        if key in self._taken:
            return
        if self._from_elsewhere:
            check_same_stream(exp, self._taken)
        self._observe(agent, exp)
        self._update(exp.dataset)
        self._taken.append(key)
        self._from_elsewhere = False

    def update_from_dataset(self, new_data: Any, strategy: Any = None) -> None:
        """Take the images of any Avalanche classification data set into the memory; each call counts.

        Args:
            new_data: The data set.
            strategy: Shown, where it is given, to an encoder that wants to see the learner.

        Raises:
            ConfigError, DataError: As in :meth:`post_adapt`.
        """
        if len(new_data):
            if strategy is not None:
                self._observe(strategy, new_data)
            self._update(new_data)

    def resize(self, strategy: Any, new_size: int) -> None:
        """Store at most ``new_size`` images from now on; a budget in bytes or per class holds as well.

        Raises:
            ConfigError: Less than one image for each class; nothing is dropped then.
        """
        rules = self.rules.resized(new_size, self._memory.classes)
        memory = rules.trimmed(self._memory)
        self.rules = rules
        self._set(memory)

    @property
    def buffer_groups(self) -> dict[int, ClassView]:
        """One read-only view for each class, by label."""
        if self._groups is None:
            whole = self.buffer
            rows: dict[int, list[int]] = {}
            for row, label in enumerate(getattr(whole, "targets", ())):
                rows.setdefault(int(label), []).append(row)
            parts = self._memory.parts
            self._groups = {label: ClassView(whole.subset(found), len(parts[label])) for label, found in rows.items()}
        return self._groups

    @property
    def buffer_datasets(self) -> list[AvalancheDataset]:
        """The replayed data set of each class."""
        return [group.buffer for group in self.buffer_groups.values()]

    def state_dict(self) -> dict[str, Any]:
        """The memory as tensors and plain values: what ``torch.load(weights_only=True)`` takes."""
        formation = self.rules.how.formation
        return {
            "memory": stored(self._memory),
            "formation": [formation.factor, formation.dtype],
            "layout": [self._layout.tasked, str(self._layout.target or "").removeprefix("torch.")],
            "limit": self.rules.limit,
            "taken": [list(key) for key in self._taken],
            "condense_s": list(self.condense_s),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the memory by one of :meth:`state_dict`; what is over this buffer's budget is dropped.

        Raises:
            DataError: No such state.
            ConfigError: Another formation, or a budget below one image per class.
        """
        memory, found = restored(state, self.rules.how.formation)
        rules = self.rules if found.limit is None else self.rules.resized(found.limit, memory.classes)
        memory = rules.trimmed(memory)
        self.rules = rules
        self._set(memory)
        self._layout, self._taken, self.condense_s = found.layout, found.taken, found.condense_s
        self._from_elsewhere = True

    def __getstate__(self) -> dict[str, Any]:
        """What a checkpoint keeps: no decoded images, no progress bar, no cache."""
        rules = replace(self.rules, how=replace(self.rules.how, progress=SILENT))
        kept = {**self.__dict__, "rules": rules, "cache": None}
        return kept | {"_tensors": None, "_dataset": None, "_groups": None, "_from_elsewhere": True}

    @staticmethod
    def all_of(strategy: Any) -> list[CondensedBuffer]:
        """Each condensed memory that a strategy or one of its plugins uses, once."""
        found = [getattr(user, "storage_policy", None) for user in (strategy, *strategy.plugins)]
        return list({id(policy): policy for policy in found if isinstance(policy, CondensedBuffer)}.values())

    @staticmethod
    def of(strategy: Any) -> CondensedBuffer:
        """The buffer that a strategy uses; ``maybe_load_checkpoint`` puts another one into its place.

        Raises:
            DataError: Neither the strategy nor a plugin has one.
        """
        if found := CondensedBuffer.all_of(strategy):
            return found[0]
        raise DataError("neither the strategy nor a plugin of it has a CondensedBuffer as its storage_policy")

    def _set(self, memory: Memory) -> None:
        """Make ``memory`` the content."""
        self.max_size = self.rules.max_size(memory)
        self._memory = memory
        self._tensors = self._dataset = self._groups = None

    def _observe(self, agent: Any, exp: Any) -> None:
        observe = getattr(self.rules.how.encoder, "observe", None)
        if observe:
            observe(agent, exp)

    def _update(self, dataset: Any) -> None:
        """Condense, shrink what was there, and only then make it the content."""
        start = time.perf_counter()
        layout, data = Layout.of(dataset), class_images(dataset, self.spec)
        check_batchable(dataset, data.spec.shape, "an image of the stream")
        memory = self.rules.taken(self._memory, data, len(self.condense_s), self.out, self.cache)
        before = self._memory, self._layout
        self._layout = layout
        self._set(replace(memory, tasks={**task_labels(dataset), **self._memory.tasks}))
        try:
            check_replayed(self.buffer, data.spec.shape)
        except BaseException:
            self._layout = before[1]
            self._set(before[0])
            raise
        forget = getattr(self.rules.how.encoder, "forget", None)
        if forget:
            forget()
        self.wall_s = time.perf_counter() - start
        self.condense_s.append(max(self.wall_s, memory.seconds_since(before[0])))
