"""Filler: the base class of the objects that make the images of a replay memory."""

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
from condensekit.sets.codecs import JPEG
from condensekit.sets.coding import LABEL
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import DTYPES, Formation

CHECKPOINT_STEPS = 100  # steps between checkpoints of a condensation that has a folder


@dataclass(frozen=True)
class Job:
    """Settings of one filling of a memory that are not part of a recipe.

    Args:
        seed: Seed of all random numbers.
        steps: Number of matching steps of a condensation; None: :func:`usual_steps`.
        machine: Device, precision and workers of the networks.
        saving: Run folder of a condensation, from which it can be resumed; None: nothing is saved.
        progress: Progress display, updated after each step.
        room: Bytes of each class for coded images; None: those of uncoded images.
    """

    seed: int = 0
    steps: int | None = None
    machine: Machine = Machine()  # noqa: RUF009 - frozen
    saving: Saving | None = None
    progress: Progress = SILENT
    room: int | None = None

    def on(self, data: ClassImages) -> Job:
        """The job with a number of steps."""
        return self if self.steps else replace(self, steps=usual_steps(data))

    def compute(self, data: ClassImages) -> Compute:
        """A :class:`Compute` on the job's machine for images of the size of ``data``."""
        return Compute(self.machine, (data.spec.shape[1], data.spec.shape[2]))


def usual_steps(data: ClassImages) -> int:
    """Number of matching steps that fits the data: one for each image of the largest class, from 100 to 500."""
    return min(500, max(100, max(map(data.count, data.classes))))


class DivergedError(CondensekitError):
    """A condensation or a learner ended with values that are not finite; the memory is unchanged."""

    exit_code = 3


class Interrupted(Signalled):
    """A signal ended a condensation; its checkpoint is kept and the memory is unchanged.

    Args:
        message: What was interrupted, and where.
        signum: Number of the signal.
        way_out: How to continue.
    """

    def __init__(self, message: str, signum: int, way_out: str) -> None:
        super().__init__(signum)
        self.message = message
        self.args = (f"{message}: {way_out}",)

    def __reduce__(self) -> tuple[type[Interrupted], tuple[str, int, str]]:
        """For other processes, which get the arguments."""
        return type(self), (self.message, self.signum, str(self).removeprefix(f"{self.message}: "))


class Filler(ABC):
    """Base class of objects that make the stored images of the classes of one experience.

    Your own filler is a frozen dataclass with a field ``formation``, or it overrides :meth:`with_storage`.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the filler in tables."""

    @abstractmethod
    def fill(self, data: ClassImages, ipc: int, job: Job) -> CondensedSet:
        """Make ``ipc`` stored images of each class of ``data``, the most important first, stored as :attr:`formation`.

        At least one class has ``needed(ipc)`` real images; a smaller class stores what it has, see
        :func:`condensekit.selection.base.stored_each`. The result depends on the arguments only.
        """

    @property
    def formation(self) -> Formation:
        """Packing factor and dtype of the stored images."""
        return Formation()

    @property
    def stored(self) -> Formation:
        """The form of the stored images, also of coded images."""
        return replace(self.formation, dtype=JPEG) if self.codes else self.formation

    @property
    def recipe(self) -> Recipe | None:
        """The recipe of the synthetic images; None: all images are real."""
        return None

    @property
    def codes(self) -> bool:
        """Whether the images are coded as JPEG: then their bytes are known only after the memory is filled."""
        return False

    @property
    def soft(self) -> bool:
        """Whether the images have soft labels, which only trainings on the memory alone can use."""
        return False

    @property
    def networks(self) -> Sequence[Network]:
        """The networks that embed images."""
        return ()

    def with_storage(self, dtype: str) -> Filler:
        """The same filler that stores values as ``dtype``; a filler of coded images returns itself."""
        return dataclasses.replace(self, formation=replace(self.formation, dtype=dtype))  # type: ignore[type-var]

    def with_recipe(self, recipe: Recipe) -> Filler:
        """The same filler with another recipe; a filler of real images returns itself."""
        return self

    def needed(self, ipc: int) -> int:
        """Number of real images of a class that ``ipc`` stored images are made from, at least."""
        return ipc * self.formation.factor**2

    def bytes_each(self, spec: ImageSpec, pixels: bool) -> int:
        """Size of one stored image in bytes.

        Args:
            spec: Shape of the image.
            pixels: Whether the real images are 8-bit pixels.

        Returns:
            Bytes of its values, its label and, if it has ranges, its ranges; of a coded image, the bytes of its
            pixels before coding and of its label.
        """
        if self.codes:
            return math.prod(spec.shape) + LABEL
        ranges = 2 * 4 * spec.shape[0] if self.formation.dtype == "uint8" else 0
        return math.prod(spec.shape) * DTYPES[self.formation.dtype].itemsize + ranges + LABEL

    def least(self, data: ClassImages, seeds: Sequence[int]) -> tuple[int, int]:
        """The largest size in bytes of the first image of a class, over all ``seeds``, and the label of that class."""
        return self.bytes_each(data.spec, data.whole_bytes), data.classes[0]

    def budget_misfit(self, budget: Budget) -> str | None:
        """The reason why the filler cannot fill this budget; None: it can."""
        return None

    def misfit(self, data: ClassImages, ipc: int) -> str | None:
        """The reason why the filler cannot make ``ipc`` stored images of each class; None: it can."""
        return self.formation.misfit(data.spec.shape)


@dataclass(frozen=True)
class Around(Filler):
    """Base class of fillers that change the images of another filler.

    Args:
        images: The filler that makes the images.

    Raises:
        ConfigError: ``images`` is not a filler.
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
