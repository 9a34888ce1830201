"""Condensed memory as an Avalanche storage policy."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor

from condensekit.compute import Machine, Spent
from condensekit.data.images import ImageSpec
from condensekit.errors import DataError, instance, refuse, whole
from condensekit.methods.base import Condenser
from condensekit.methods.recipe import Recipe
from condensekit.progress import SILENT, Progress
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
from condensekit.replay.memory.names import as_filler
from condensekit.replay.memory.rules import Rules
from condensekit.selection.base import Choice, Selection
from condensekit.sets.condensed import CondensedSet


class CondensedBuffer(ExemplarsBuffer):
    """Condenses each experience (or selects from it) once and replays the result.

    >>> from condensekit.replay import CondensedBuffer, Images
    >>> CondensedBuffer(Images(20), "m3d lr=3", classes=10).max_size
    20

    ``max_size`` counts stored images; with a factor f each is decoded to f * f. A class that appears again keeps a
    part of its images, in proportion to the real images they stand for. Images are condensed as the stream's
    evaluation transforms give them, and replayed in the same space.

    A total that shrinks as classes arrive takes the first images of each class; a condenser then makes nested sets,
    herding, random and k-center selections are nested by themselves.

    Attributes:
        max_size: Stored images the budget has room for. For a budget in bytes, and for a budget per class without
            ``classes``, it is known after the first experience and 0 before. ``ReplayPlugin(buffer.max_size,
            storage_policy=buffer)`` always fits.
        condense_s: Seconds that each experience took, in whichever run: those before a kill and those of sets read
            from a cache are counted as they were spent.
        work: What networks did for each experience, counted in the same way.
        wall_s: Wall seconds that the last experience took here.

    Args:
        budget: How much may be stored, :class:`Images` or :class:`Bytes`.
        recipe: What fills the memory: the text of a recipe (``"m3d lr=3"``), of a selection (``"herding"``) or of
            another filler (``"hybrid-m3d-25"``, see :mod:`condensekit.replay.memory.names`); a
            :class:`~condensekit.methods.recipe.Recipe`; a bare method, which is surrounded as in DM; a selection, or
            a function with the same arguments; or a :class:`~condensekit.replay.memory.base.Filler`. The learner is
            shown to the recipe's encoder.
        classes: How many classes will come; each then gets its part of a total from the start.
        steps: Matching steps of each condensation.
        seed: Everything random follows from it; the same in each experience.
        machine: Where networks run while the memory is filled.
        storage: How values are kept, ``uint8``, ``float16`` or ``float32``; None: as the recipe says.
        spec: The stream's normalisation, where its images come from 8-bit pixels: then they are kept as bytes, and
            methods that work on pixels know where these lie. With ``flippable=False`` no image is mirrored.
        transforms: Of replayed images: an Avalanche ``TransformGroups``, or a callable for training alone.
        out: Folder in which a condensation that was killed is continued.
        progress: Told about each step.
        cache: Sets of single classes to take and to give; see :func:`condensekit.replay.memory.fillers.filled`.

    Raises:
        ConfigError: Options that make no sense.
    """

    def __init__(
        self,
        budget: Budget,
        recipe: str | Recipe | Condenser | Selection | Choice | Filler = "m3d",
        *,
        classes: int | None = None,
        steps: int = 500,
        seed: int = 0,
        machine: Machine = Machine(),  # noqa: B008 - frozen
        storage: str | None = "uint8",
        spec: ImageSpec | None = None,
        transforms: Any = None,
        out: str | Path | None = None,
        progress: Progress = SILENT,
        cache: MutableMapping[str, CondensedSet] | None = None,
    ) -> None:
        super().__init__(0)
        reach_optimisers()
        filler = as_filler(recipe)
        refuse(
            instance("budget", budget, Budget, "Images(2000), or Bytes(2_000_000)") or filler.budget_misfit(budget),
            None if classes is None else whole("classes", classes, 1),
            whole("steps", steps, 1),
            whole("seed", seed),
        )
        if filler.recipe and budget.shrinks and classes is None:
            filler = filler.with_recipe(filler.recipe.replace(nested=True))
        filler = filler if storage is None else filler.with_storage(storage)
        self.rules = Rules(budget, classes, filler, Job(seed, steps, machine, progress=progress))
        self.spec, self.transforms = spec, transform_groups(transforms)
        self.out = None if out is None else Path(out)
        self.cache = cache
        self.condense_s: list[float] = []
        self.work: list[Spent] = []
        self.wall_s = 0.0
        self._layout = Layout(False, None)
        self._taken: list[Key] = []
        self._from_elsewhere = False  # restored, and not compared with the stream at hand yet
        self._tensors: tuple[Tensor, Tensor] | None = None
        self._dataset: AvalancheDataset | None = None
        self._groups: dict[int, ClassView] | None = None
        self._set(Content())

    @property
    def memory(self) -> CondensedSet | None:
        """What is stored, all classes, in storage dtype; None before the first experience.

        Its soft labels, if any, are widened to all classes; they take less in the buffer.
        """
        return self._content.joined() if self._content.parts else None

    @property
    def nbytes(self) -> int:
        """Every stored byte, as :attr:`CondensedSet.nbytes` counts them."""
        return self._content.nbytes

    @property
    def buffer(self) -> AvalancheDataset:
        """The replayed data set: decoded images with the stream's fields and kind of targets; made once."""
        if self._dataset is None:
            if not self._content.parts:
                return self._buffer
            images, labels = self.decoded()
            self._dataset = replayed(images, labels, self._content.tasks, self._layout, self.transforms)
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
        """Show the learner, as it is before training, to the encoder; stock plugins do not call this."""
        self._observe(agent, exp)

    def post_adapt(self, agent: Any, exp: Any) -> None:
        """Take the experience into the memory; an experience that was taken before, by any plugin, changes nothing.

        Raises:
            DataError: A stream that cannot be condensed, or another stream than that of a restored memory.
            ConfigError: A budget below one image per class, or more classes than announced.
            Interrupted: A signal ended the condensation.
            DivergedError: It met values that are not finite.

        After any error the memory is as it was before.
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
            strategy: Its learner is shown to the encoder; None shows nothing.

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
            ConfigError: Less than one image for each class; then nothing is dropped.
        """
        rules = self.rules.resized(new_size, self._content.classes)
        content = rules.trimmed(self._content)
        self.rules = rules
        self._set(content)

    @property
    def buffer_groups(self) -> dict[int, ClassView]:
        """One read-only view for each class, by label."""
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
        """The memory as tensors and plain values: what ``torch.load(weights_only=True)`` takes."""
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
        """Replace the memory by that of a :meth:`state_dict`; images over this buffer's budget are dropped.

        Raises:
            DataError: Something else than such a state.
            ConfigError: Another formation, or a budget below one image per class.
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
        """What a checkpoint keeps: no decoded images, no progress bar, no cache."""
        rules = replace(self.rules, job=replace(self.rules.job, progress=SILENT))
        kept = {**self.__dict__, "rules": rules, "cache": None}
        return kept | {"_tensors": None, "_dataset": None, "_groups": None, "_from_elsewhere": True}

    @staticmethod
    def all_of(strategy: Any) -> list[CondensedBuffer]:
        """Each condensed memory that a strategy or a plugin of it uses, once."""
        found = (condensed(getattr(user, "storage_policy", None)) for user in (strategy, *strategy.plugins))
        return list({id(memory): memory for memory in found if memory}.values())

    @staticmethod
    def of(strategy: Any) -> CondensedBuffer:
        """The buffer that a strategy uses; ``maybe_load_checkpoint`` puts another buffer into its place.

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
        if self.rules.filler.recipe:
            self.rules.filler.recipe.encoder.observe(agent, exp)

    def _update(self, dataset: Any) -> None:
        """Make the new content first, and replace the old content only when all has gone well."""
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
    """The storage policy, where it is a condensed memory; None for Avalanche's own."""
    return storage_policy if isinstance(storage_policy, CondensedBuffer) else None
