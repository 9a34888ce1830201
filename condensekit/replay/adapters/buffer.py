"""Condensed buffer: a condensed memory as an Avalanche storage policy."""

from __future__ import annotations

import logging
import time
from collections.abc import MutableMapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor

from condensekit.compute import Machine, Spent, usual_modes
from condensekit.data.images import ImageSpec
from condensekit.errors import DataError, instance, refuse, whole
from condensekit.methods.base import Condenser
from condensekit.methods.recipe import Recipe
from condensekit.progress import SILENT, Bars, Progress
from condensekit.replay.adapters.costs import costlier
from condensekit.replay.adapters.replayed import ClassView, check_replayed, replayed, transform_groups
from condensekit.replay.adapters.state import reach_optimisers, restored, stored
from condensekit.replay.adapters.stream import (
    Key,
    Layout,
    check_batchable,
    check_same_stream,
    class_images,
    key_of,
    task_labels,
)
from condensekit.replay.memory.base import Filler, Job
from condensekit.replay.memory.budget import Budget
from condensekit.replay.memory.content import Content
from condensekit.replay.memory.learner import observed
from condensekit.replay.memory.names import as_filler
from condensekit.replay.memory.rules import Rules
from condensekit.selection.base import Choice, Selection
from condensekit.sets.condensed import CondensedSet

log = logging.getLogger(__name__)


class CondensedBuffer(ExemplarsBuffer):
    """Storage policy that condenses each experience once, or selects images from it, and replays these images.

    >>> from condensekit.replay import CondensedBuffer, Images
    >>> CondensedBuffer(Images(20), "m3d lr=3", classes=10).max_size
    20

    With a packing factor f, each stored image is decoded to f * f replayed images. If a class appears again, new and
    old images share its part of the memory in proportion to the real images that they represent. The images have the
    values that the stream's evaluation transforms give, in condensation and in replay.

    If a total budget is divided by the classes seen so far, each class loses its last images when more classes appear.
    Then the recipe makes nested sets; selections by herding, random and k-center are nested without this.

    Attributes:
        max_size: Largest number of stored images. For a budget in bytes, and for a budget per class without
            ``classes``, it is 0 until the first experience is stored. ``ReplayPlugin(buffer.max_size,
            storage_policy=buffer)`` works in any case.
        condense_s: Seconds that were spent on each experience, including the seconds before a kill and those of sets
            that were read from a cache.
        work: Images and FLOPs of the networks for each experience, counted in the same way.
        wall_s: Wall seconds of the last experience in this process.

    Args:
        budget: Largest size of the memory, :class:`Images` or :class:`Bytes`.
        recipe: How the memory is filled: the text of a recipe (``"m3d lr=3"``), of a selection (``"herding"``) or of
            another filler (``"hybrid-m3d-25"``, see :mod:`condensekit.replay.memory.names`); a
            :class:`~condensekit.methods.recipe.Recipe`; a bare method, with the other parts of DM's recipe; a
            selection, or a function with the same arguments; or a :class:`~condensekit.replay.memory.base.Filler`. The
            recipe's encoder observes the learner.
        classes: Number of classes of the whole stream: a total budget is divided by it from the start. None: unknown.
        steps: Number of matching steps of each condensation; None: as many as fit the data, at most 500, see
            :func:`condensekit.replay.memory.base.usual_steps`.
        seed: Seed of all random numbers, the same in each experience.
        machine: Device, precision and workers of the networks that fill the memory.
        storage: Type of the stored values: ``uint8``, ``float16`` or ``float32``; None: that of the recipe.
        spec: Normalisation of the stream, if its images come from 8-bit pixels: then they are read as bytes, and
            methods that work on pixels know the range of pixels. With ``flippable=False`` no image is mirrored.
        transforms: Transforms of replayed images: an Avalanche ``TransformGroups``, or a callable for training only.
        out: Folder of condensations, from which a killed condensation is resumed; None: nothing is saved.
        progress: Progress display, which names each condensation and is updated after each step; None shows bars in a
            terminal.
        cache: Sets of single classes, read and written; see :func:`condensekit.replay.memory.fillers.filled`.

    Raises:
        ConfigError: Wrong options.
    """

    def __init__(
        self,
        budget: Budget,
        recipe: str | Recipe | Condenser | Selection | Choice | Filler = "m3d",
        *,
        classes: int | None = None,
        steps: int | None = None,
        seed: int = 0,
        machine: Machine = Machine(),  # noqa: B008 - frozen
        storage: str | None = "uint8",
        spec: ImageSpec | None = None,
        transforms: Any = None,
        out: str | Path | None = None,
        progress: Progress | None = None,
        cache: MutableMapping[str, CondensedSet] | None = None,
    ) -> None:
        super().__init__(0)
        reach_optimisers()
        filler = as_filler(recipe)
        refuse(
            instance("budget", budget, Budget, "Images(2000), or Bytes(2_000_000)") or filler.budget_misfit(budget),
            None if classes is None else whole("classes", classes, 1),
            None if steps is None else whole("steps", steps, 1),
            whole("seed", seed),
        )
        if filler.recipe and budget.shrinks and classes is None:
            filler = filler.with_recipe(filler.recipe.replace(nested=True))
        filler = filler if storage is None else filler.with_storage(storage)
        self.rules = Rules(budget, classes, filler, Job(seed, steps, machine, progress=progress or Bars()))
        self.spec, self.transforms = spec, transform_groups(transforms)
        self.out = None if out is None else Path(out)
        self.cache = cache
        self.condense_s: list[float] = []
        self.work: list[Spent] = []
        self.wall_s = 0.0
        self._layout = Layout(False, None)
        self._taken: list[Key] = []
        self._warned = False  # that a condensation is more work than the training
        self._from_elsewhere = False  # whether the memory was restored and not yet compared with the stream
        self._tensors: tuple[Tensor, Tensor] | None = None
        self._dataset: AvalancheDataset | None = None
        self._groups: dict[int, ClassView] | None = None
        self._set(Content())

    @property
    def memory(self) -> CondensedSet | None:
        """The stored images of all classes, in storage dtype; None before the first experience.

        Soft labels have a column for each class of the memory; the buffer itself stores fewer columns.
        """
        return self._content.joined() if self._content.parts else None

    @property
    def nbytes(self) -> int:
        """All stored bytes, as :attr:`CondensedSet.nbytes` counts them."""
        return self._content.nbytes

    @property
    def buffer(self) -> AvalancheDataset:
        """The replayed data set: decoded images, with fields and targets as in the stream; kept until a change."""
        if self._dataset is None:
            if not self._content.parts:
                return self._buffer
            images, labels = self.decoded()
            self._dataset = replayed(images, labels, self._content.tasks, self._layout, self.transforms)
        return self._dataset

    def decoded(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """(N, C, H, W) normalised float32 images and (N,) int64 labels; kept on ``device`` until the memory changes.

        Raises:
            DataError: The memory is empty.
        """
        memory, place = self.memory, torch.device(device)
        if memory is None:
            raise DataError("the memory is empty: train on a first experience")
        if self._tensors is None:
            self._tensors = memory.decode()
        if self._tensors[0].device != place:
            self._tensors = self._tensors[0].to(place), self._tensors[1].to(place)
        return self._tensors

    @usual_modes()
    def pre_adapt(self, agent: Any, exp: Any) -> None:
        """Let the encoder observe the learner before its training; Avalanche's plugins do not call this."""
        self._observe(agent, exp)

    @usual_modes()
    def post_adapt(self, agent: Any, exp: Any) -> None:
        """Store an experience; a second call with the same experience, also by another plugin, changes nothing.

        Raises:
            DataError: A stream that cannot be condensed, or a restored memory of another stream.
            ConfigError: A budget below one image per class, or more classes than announced.
            Interrupted: A signal ended the condensation.
            DivergedError: The condensation met values that are not finite.

        An error leaves the memory unchanged.
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
        self._compare_costs(agent, exp)
        self._taken.append(key)
        self._from_elsewhere = False

    @usual_modes()
    def update_from_dataset(self, new_data: Any, strategy: Any = None) -> None:
        """Store the images of an Avalanche classification data set; each call counts as a new experience.

        Args:
            new_data: The data set.
            strategy: The strategy whose learner the encoder observes; None: no learner.

        Raises:
            ConfigError, DataError: As in :meth:`post_adapt`.
        """
        if len(new_data):
            if strategy is not None:
                self._observe(strategy, new_data)
            self._update(new_data)

    def resize(self, strategy: Any, new_size: int) -> None:
        """Store at most ``new_size`` images from now on; a budget in bytes or per class stays in force, too.

        Raises:
            ConfigError: ``new_size`` is less than one image for each class; then the memory is unchanged.
        """
        rules = self.rules.resized(new_size, self._content.classes)
        content = rules.trimmed(self._content)
        self.rules = rules
        self._set(content)

    @property
    def buffer_groups(self) -> dict[int, ClassView]:
        """A read-only view of each class, by label."""
        if self._groups is None:
            whole = self.buffer
            rows: dict[int, list[int]] = {}
            for row, label in enumerate(getattr(whole, "targets", ())):
                rows.setdefault(int(label), []).append(row)
            parts = self._content.parts
            self._groups = {label: ClassView(whole.subset(found), len(parts[label])) for label, found in rows.items()}
        return self._groups

    @property
    def buffer_datasets(self) -> list[AvalancheDataset]:
        """The replayed data set of each class."""
        return [group.buffer for group in self.buffer_groups.values()]

    def state_dict(self) -> dict[str, Any]:
        """The memory as tensors and plain values, which ``torch.load(weights_only=True)`` can read."""
        formation = self.rules.filler.formation
        return {
            "memory": stored(self._content),
            "formation": [formation.factor, formation.dtype],
            "layout": [self._layout.tasked, str(self._layout.target or "").removeprefix("torch.")],
            "limit": self.rules.limit,
            "taken": [list(key) for key in self._taken],
            "condense_s": list(self.condense_s),
            "work": [asdict(spent) for spent in self.work],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the memory by that of a :meth:`state_dict`; images that exceed the budget of this buffer are dropped.

        Raises:
            DataError: ``state`` is not the state of a buffer.
            ConfigError: The state has another formation, or the budget is below one image per class.
        """
        content, found = restored(state, self.rules.filler.formation)
        rules = self.rules if found.limit is None else self.rules.resized(found.limit, content.classes)
        content = rules.trimmed(content)
        self.rules = rules
        self._set(content)
        self._layout, self._taken = found.layout, found.taken
        self.condense_s, self.work = found.condense_s, found.work
        self._from_elsewhere = True

    def __getstate__(self) -> dict[str, Any]:
        """State for a checkpoint, without decoded images, progress display and cache."""
        job = self.rules.job
        rules = self.rules if type(job.progress) is Bars else replace(self.rules, job=replace(job, progress=SILENT))
        kept = {**self.__dict__, "rules": rules, "cache": None}
        return kept | {"_tensors": None, "_dataset": None, "_groups": None, "_from_elsewhere": True}

    @staticmethod
    def all_of(strategy: Any) -> list[CondensedBuffer]:
        """The condensed memories of a strategy and of its plugins, each once."""
        found = (condensed(getattr(user, "storage_policy", None)) for user in (strategy, *strategy.plugins))
        return list({id(memory): memory for memory in found if memory}.values())

    @staticmethod
    def of(strategy: Any) -> CondensedBuffer:
        """The buffer of a strategy or of its plugins; after ``maybe_load_checkpoint`` this is another object.

        Raises:
            DataError: Neither the strategy nor a plugin has a buffer.
        """
        if found := CondensedBuffer.all_of(strategy):
            return found[0]
        raise DataError("neither the strategy nor a plugin of it has a CondensedBuffer as its storage_policy")

    def _set(self, content: Content) -> None:
        self.max_size = self.rules.max_size(content)
        self._content = content
        self._tensors = self._dataset = self._groups = None

    def _observe(self, agent: Any, exp: Any) -> None:
        filler = self.rules.filler
        if filler.recipe:
            self.rules = replace(self.rules, filler=filler.with_recipe(observed(filler.recipe, agent, exp)))

    def _compare_costs(self, agent: Any, exp: Any) -> None:
        """Log one warning if a condensation is more work than the training."""
        if self.rules.filler.recipe and not self._warned:
            told = costlier(self.work[-1], agent, len(exp.dataset), self._content.spec.shape)
            self._warned = told is not None
            if told:
                log.warning("%s", told)

    def _update(self, dataset: Any) -> None:
        """Make the new content, and replace the old content only if there was no error."""
        start = time.perf_counter()
        layout, data = Layout.of(dataset), class_images(dataset, self.spec)
        check_batchable(dataset, data.spec.shape, "an image of the stream")
        content = self.rules.taken(self._content, data, len(self.condense_s), self.out, self.cache)
        before = self._content, self._layout
        self._layout = layout
        self._set(replace(content, tasks={**task_labels(dataset), **self._content.tasks}))
        try:
            check_replayed(self.buffer, data.spec.shape)
        except BaseException:
            self._layout = before[1]
            self._set(before[0])
            raise
        if self.rules.filler.recipe:
            self.rules.filler.recipe.encoder.forget()
        self.wall_s = time.perf_counter() - start
        seconds, spent = content.spent_since(before[0])
        self.condense_s.append(max(self.wall_s, seconds))
        self.work.append(spent)


def condensed(storage_policy: Any) -> CondensedBuffer | None:
    """The storage policy if it is a condensed memory; None: it is another policy."""
    return storage_policy if isinstance(storage_policy, CondensedBuffer) else None
