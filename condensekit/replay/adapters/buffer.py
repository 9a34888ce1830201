"""Condensed buffer: a condensed memory as an Avalanche storage policy."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from avalanche.benchmarks.utils import AvalancheDataset, as_classification_dataset
from avalanche.training.storage_policy import ExemplarsBuffer

from condensekit.compute import Machine, Spent, usual_modes
from condensekit.data.images import ImageSpec
from condensekit.errors import DataError
from condensekit.methods.base import Condenser
from condensekit.methods.recipe import Recipe
from condensekit.progress import Progress
from condensekit.replay.adapters.costs import costlier
from condensekit.replay.adapters.reading import workers_of
from condensekit.replay.adapters.replayed import GroupView, check_replayed, replayed, transform_groups
from condensekit.replay.adapters.space import Followed, follow
from condensekit.replay.adapters.stream import Key, Layout, check_batchable, class_images, key_of, task_labels
from condensekit.replay.memory.base import Filler
from condensekit.replay.memory.budget import Budget
from condensekit.replay.memory.learner import observed
from condensekit.replay.memory.memory import Memory
from condensekit.selection.base import Choice, Selection
from condensekit.sets.condensed import CondensedSet

log = logging.getLogger(__name__)


class CondensedBuffer(ExemplarsBuffer):
    """Storage policy that condenses each experience once, or selects images from it, and replays these images.

    >>> from condensekit.replay import CondensedBuffer, Images
    >>> CondensedBuffer(Images(20), "m3d lr=3", classes=10).max_size
    20

    It is a :class:`~condensekit.replay.memory.memory.Memory`, whose rules it has, with the interface of Avalanche. The
    images of a class are kept apart for each task label, and replayed with it. The images have the values that the
    stream's evaluation transforms give, in condensation and in storage.

    Replayed images are augmented as those of Avalanche's own buffers are: they go back to the values at which the
    stream's training transforms start, for example to 8-bit pictures, and through these transforms once
    (:mod:`condensekit.replay.adapters.space`). The transforms of the last experience count. A warning tells if this is
    not possible.

    Attributes:
        max_size: Largest number of stored images. For a budget in bytes, and for a budget per class without
            ``classes``, it is 0 until the first experience is stored. ``ReplayPlugin(buffer.max_size,
            storage_policy=buffer)`` works in any case.
        core: The memory without Avalanche.

    Args:
        budget: Largest size of the memory, :class:`Images` or :class:`Bytes`.
        recipe: How the memory is filled: the text of a recipe (``"m3d lr=3"``), of a selection (``"herding"``) or of
            another filler (``"hybrid-m3d-25"``, see :mod:`condensekit.replay.memory.names`); a
            :class:`~condensekit.methods.recipe.Recipe`; a bare method, with the other parts of DM's recipe; a
            selection, or a function with the same arguments; or a :class:`~condensekit.replay.memory.base.Filler`. The
            recipe's encoder observes the learner.
        classes: Number of classes of the whole stream, a label in two tasks counted twice: a total budget is divided by
            it from the start. None: unknown.
        steps: Number of matching steps of each condensation; None: as many as fit the data, at most 500, see
            :func:`condensekit.replay.memory.base.usual_steps`.
        seed: Seed of all random numbers, the same in each experience.
        machine: Device, precision and workers of the networks that fill the memory.
        storage: Type of the stored values: ``uint8``, ``float16`` or ``float32``; None: that of the recipe.
        spec: Normalisation of the stream, if its images come from 8-bit pixels: then they are read as bytes, and
            methods that work on pixels know the range of pixels. With ``flippable=False`` no image is mirrored.
        transforms: Transforms of replayed images: an Avalanche ``TransformGroups``, or a callable for training only.
            None: the training transforms of the stream; ``TransformGroups({})``: no transforms.
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
        self.core = Memory(
            budget,
            recipe,
            classes=classes,
            steps=steps,
            seed=seed,
            machine=machine,
            storage=storage,
            spec=spec,
            out=out,
            progress=progress,
            cache=cache,
        )
        self.transforms = transform_groups(transforms)
        self._layout = Layout(False, None)
        self._followed = Followed()  # the training transforms of the stream
        self._restored = False  # whether load_state_dict came last, and these transforms are unknown
        self._taken: list[Key] = []
        self._warned = False  # that a condensation is more work than the training
        self._dataset: AvalancheDataset | None = None
        self._groups: dict[int, GroupView] | None = None
        self._forget()

    def __repr__(self) -> str:
        return f"CondensedBuffer{repr(self.core).removeprefix('Memory')}"

    @property
    def memory(self) -> CondensedSet | None:
        """The stored images of all classes, in storage dtype; None before the first experience.

        Soft labels have a column for each class of the memory; the buffer itself stores fewer columns.
        """
        return self.core.stored

    @property
    def nbytes(self) -> int:
        """All stored bytes, as :attr:`CondensedSet.nbytes` counts them."""
        return self.core.nbytes

    @property
    def condense_s(self) -> list[float]:
        """See :class:`~condensekit.replay.memory.memory.Memory`."""
        return self.core.condense_s

    @property
    def work(self) -> list[Spent]:
        """See :class:`~condensekit.replay.memory.memory.Memory`."""
        return self.core.work

    @property
    def wall_s(self) -> float:
        """See :class:`~condensekit.replay.memory.memory.Memory`."""
        return self.core.wall_s

    @property
    def buffer(self) -> AvalancheDataset:
        """The replayed data set: decoded images, with fields and targets as in the stream; kept until a change."""
        if not len(self.core):
            return self._buffer
        if self._dataset is None:
            self._dataset = replayed(self.core.decoded, self._layout, self.transforms or self._followed.groups)
        return self._dataset

    @usual_modes()
    def pre_adapt(self, agent: Any, exp: Any) -> None:
        """Let the encoder observe the learner before its training; Avalanche's plugins do not call this.

        After ``load_state_dict`` it also finds the training transforms of the stream, which a state does not hold.
        """
        self._observe(agent, exp)
        if self._restored and self.transforms is None and len(exp.dataset):
            self._followed = follow(exp.dataset, self._followed)
            self._dataset = self._groups = None

    @usual_modes()
    def post_adapt(self, agent: Any, exp: Any) -> None:
        """Store an experience; a second call with the same experience, also by another plugin, changes nothing.

        Raises:
            DataError: A stream that cannot be condensed, or whose images do not fit those of the memory.
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
        self._observe(agent, exp)
        self._update(exp.dataset, workers_of(agent))
        self._compare_costs(agent, exp)
        self._taken.append(key)

    def update(self, strategy: Any, **kwargs: Any) -> None:
        """See :meth:`post_adapt`; Avalanche's ``ReplayPlugin`` calls this, and the method of its base class warns."""
        self.post_adapt(strategy, strategy.experience)

    @usual_modes()
    def update_from_dataset(self, new_data: Any, strategy: Any = None) -> None:
        """Store the images of a classification data set; each call counts as a new experience.

        Args:
            new_data: The data set: one of Avalanche's, or any other with ``targets``.
            strategy: The strategy whose learner the encoder observes; None: no learner.

        Raises:
            ConfigError, DataError: As in :meth:`post_adapt`.
        """
        if len(new_data):
            if strategy is not None:
                self._observe(strategy, new_data)
            known = isinstance(new_data, AvalancheDataset)
            self._update(new_data if known else as_classification_dataset(new_data), workers_of(strategy))

    def resize(self, strategy: Any, new_size: int) -> None:
        """Store at most ``new_size`` images from now on; a budget in bytes or per class stays in force, too.

        Raises:
            ConfigError: ``new_size`` is less than one image for each class; then the memory is unchanged.
        """
        self.core.resize(new_size)
        self._forget()

    @property
    def buffer_groups(self) -> dict[int, GroupView]:
        """A read-only view of each class in all its tasks, by class label, as ``ClassBalancedBuffer`` has them."""
        if self._groups is None:
            self._groups = {}
            parts = self.core.content.parts
            for label in sorted({label for _, label in parts}):
                rows = torch.nonzero(self.core.decoded.labels == label).flatten().tolist()
                stored = sum(len(part) for (_, own), part in parts.items() if own == label)
                self._groups[label] = GroupView(self.buffer.subset(rows), stored)
        return self._groups

    @property
    def buffer_datasets(self) -> list[AvalancheDataset]:
        """The replayed data set of each class."""
        return [group.buffer for group in self.buffer_groups.values()]

    def state_dict(self) -> dict[str, Any]:
        """The memory as tensors and plain values, which ``torch.load(weights_only=True)`` can read."""
        return {
            **self.core.state_dict(),
            "layout": [self._layout.tasked, str(self._layout.target or "").removeprefix("torch.")],
            "taken": [list(key) for key in self._taken],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the memory by that of a :meth:`state_dict`; images that exceed the budget of this buffer are dropped.

        The memory goes on with later data of any benchmark: only an experience with the same number and images as a
        stored experience is left out.

        Raises:
            DataError: ``state`` is not the state of a buffer.
            ConfigError: The state has another formation, or the budget is below one image per class.
        """
        try:
            tasked, target = state["layout"]
            layout = Layout(bool(tasked), getattr(torch, target) if target else None)
            taken = [(str(name), int(whole), int(number), str(told)) for name, whole, number, told in state["taken"]]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"this is not the state of a CondensedBuffer ({type(error).__name__}: {error})") from error
        self.core.load_state_dict(state)
        self._layout, self._taken, self._restored = layout, taken, True
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        """State for a checkpoint, without decoded images."""
        return {**self.__dict__, "_dataset": None, "_groups": None}

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

    def _forget(self) -> None:
        """Delete what depends on the content of the memory, which has changed."""
        self.max_size = self.core.rules.max_size(self.core.content)
        self._dataset = self._groups = None

    def _observe(self, agent: Any, exp: Any) -> None:
        rules = self.core.rules
        if rules.filler.recipe:
            filler = rules.filler.with_recipe(observed(rules.filler.recipe, agent, exp))
            self.core.rules = replace(rules, filler=filler)

    def _compare_costs(self, agent: Any, exp: Any) -> None:
        """Log one warning if a condensation is more work than the training."""
        if self.core.rules.filler.recipe and not self._warned:
            told = costlier(self.work[-1], agent, len(exp.dataset), self.core.content.spec.shape)
            self._warned = told is not None
            if told:
                log.warning("%s", told)

    def _update(self, dataset: Any, workers: int = 0) -> None:
        """Store the images of a data set, and replace the memory only if there was no error."""
        layout, data = Layout.of(dataset), class_images(dataset, self.core.spec, workers)
        check_batchable(dataset, data.spec.shape, "an image of the stream")
        followed = follow(dataset, self._followed) if self.transforms is None else self._followed
        check_replayed(data, layout, self.transforms or followed.groups)
        self.core.store(data, task_labels(dataset))
        self._layout, self._followed, self._restored = layout, followed, False
        self._forget()


def condensed(storage_policy: Any) -> CondensedBuffer | None:
    """The storage policy if it is a condensed memory; None: it is another policy."""
    return storage_policy if isinstance(storage_policy, CondensedBuffer) else None


def reach_optimisers() -> None:
    """Put the modules of torch's optimisers back into ``torch.optim``, where dill looks for them.

    Avalanche saves a strategy by dill. ``torch.optim`` deletes these modules; then dill saves the class of an optimiser
    with all objects that it refers to. After a network was compiled, this includes torch's compiler, which cannot be
    saved.
    """
    for name, module in list(sys.modules.items()):
        package, _, child = name.rpartition(".")
        if package == "torch.optim" and not hasattr(torch.optim, child):
            setattr(torch.optim, child, module)
