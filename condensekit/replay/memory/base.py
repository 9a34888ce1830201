"""Filler: the interface of what makes the images of a replay memory."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

from condensekit.compute import Compute, Machine
from condensekit.data.images import ClassImages, ImageSpec
from condensekit.driver import Saving
from condensekit.errors import CondensekitError, instance, refuse
from condensekit.interrupt import Signalled
from condensekit.methods.recipe import Recipe
from condensekit.networks.base import Network
from condensekit.progress import SILENT, Progress
from condensekit.replay.memory.budget import Budget
from condensekit.sets.condensed import DTYPES, CondensedSet, Formation
from condensekit.sets.jpeg import LABEL

CHECKPOINT_STEPS = 100  # steps between checkpoints of a condensation that has a folder


@dataclass(frozen=True)
class Job:
    """What a memory adds to a recipe each time it is filled.

    Args:
        seed: Everything random follows from it.
        steps: Matching steps of a condensation.
        machine: Where networks run.
        saving: Run folder of a condensation, for a resume; None keeps everything in memory.
        progress: Told about each step.
    """

    seed: int = 0
    steps: int = 500
    machine: Machine = Machine()  # noqa: RUF009 - frozen
    saving: Saving | None = None
    progress: Progress = SILENT

    def compute(self, data: ClassImages) -> Compute:
        """A :class:`Compute` for images of this size."""
        return Compute(self.machine, (data.spec.shape[1], data.spec.shape[2]))


class DivergedError(CondensekitError):
    """A condensation, or a learner, ended with values that are not finite; the memory is as it was before."""

    exit_code = 3


class Interrupted(Signalled):
    """A signal ended a condensation; its checkpoint stands and the memory is as it was before.

    Args:
        message: What to do next.
        signum: The signal.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(signum)
        self.args = (message,)


class Filler(ABC):
    """Makes the memory of the classes of one experience.

    A filler of your own is a frozen dataclass with a field ``formation``, or it overrides :meth:`with_storage`.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """What tables call it."""

    @abstractmethod
    def fill(self, data: ClassImages, ipc: int, job: Job) -> CondensedSet:
        """``ipc`` stored images of each class of ``data``, the most important first, in :attr:`formation`.

        At least one class has ``needed(ipc)`` real images; a smaller one takes what it has, see
        :func:`condensekit.selection.base.stored_each`. A pure function of its arguments.
        """

    @property
    def formation(self) -> Formation:
        """How its images are stored."""
        return Formation()

    @property
    def recipe(self) -> Recipe | None:
        """The recipe of its synthetic images; None where all images are real."""
        return None

    @property
    def codes(self) -> bool:
        """Whether its images are coded, so that only a filled memory knows their bytes."""
        return False

    @property
    def soft(self) -> bool:
        """Whether its images have soft labels, which only training from scratch takes."""
        return False

    @property
    def networks(self) -> Sequence[Network]:
        """What embeds its images."""
        return ()

    def with_storage(self, dtype: str) -> Filler:
        """The same with values stored as ``dtype``; itself where its images are coded."""
        return dataclasses.replace(self, formation=replace(self.formation, dtype=dtype))  # type: ignore[type-var]

    def with_recipe(self, recipe: Recipe) -> Filler:
        """The same with another recipe; itself where all images are real."""
        return self

    def needed(self, ipc: int) -> int:
        """How many real images of a class it takes to make ``ipc`` stored ones."""
        return ipc * self.formation.factor**2

    def bytes_each(self, spec: ImageSpec, pixels: bool) -> int:
        """What one stored image takes.

        Args:
            spec: Its shape.
            pixels: Whether the real images are pixels of 8 bits.

        Returns:
            Bytes of its values, ranges where there are any, and label; of its pixels where it is coded.
        """
        if self.codes:
            return math.prod(spec.shape) + LABEL
        ranges = 2 * 4 * spec.shape[0] if self.formation.dtype == "uint8" else 0
        return math.prod(spec.shape) * DTYPES[self.formation.dtype].itemsize + ranges + LABEL

    def least(self, data: ClassImages, seeds: Sequence[int]) -> tuple[int, int]:
        """The most bytes that the first image of a class takes under any of the seeds, and that class."""
        return self.bytes_each(data.spec, data.whole_bytes), data.classes[0]

    def budget_misfit(self, budget: Budget) -> str | None:
        """Why it cannot fill such a budget; None where it can."""
        return None

    def misfit(self, data: ClassImages, ipc: int) -> str | None:
        """Why it cannot make ``ipc`` stored images of each class; None where it can."""
        return self.formation.misfit(data.spec.shape)


@dataclass(frozen=True)
class Around(Filler):
    """Changes the images of another filler.

    Args:
        images: Makes the images.

    Raises:
        ConfigError: Something else than a filler.
    """

    images: Filler

    def __post_init__(self) -> None:
        refuse(instance("images", self.images, Filler, "Condensing(recipes.dm()) or Selecting(Random())"))

    @property
    def formation(self) -> Formation:
        """See :class:`Filler`."""
        return self.images.formation

    @property
    def recipe(self) -> Recipe | None:
        """See :class:`Filler`."""
        return self.images.recipe

    @property
    def soft(self) -> bool:
        """See :class:`Filler`."""
        return self.images.soft

    @property
    def networks(self) -> Sequence[Network]:
        """See :class:`Filler`."""
        return self.images.networks

    def with_storage(self, dtype: str) -> Filler:
        """See :class:`Filler`."""
        return replace(self, images=self.images.with_storage(dtype))

    def with_recipe(self, recipe: Recipe) -> Filler:
        """See :class:`Filler`."""
        return replace(self, images=self.images.with_recipe(recipe))
