"""What fills a replay memory from one experience: a condenser, a selection, or anything with ``fill``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from condensekit.augment import Augmentation
from condensekit.condense import Noise, Saving
from condensekit.condensed import CondensedSet, Formation
from condensekit.encoders import Encoder
from condensekit.images import ClassImages
from condensekit.methods import Condenser
from condensekit.progress import SILENT, Progress
from condensekit.sampling import Sampling, Uniform
from condensekit.selection import Selection


@dataclass(frozen=True)
class Filling:
    """How one experience is made into memory: what :func:`condensekit.condense` is given beside data and method.

    Args:
        seed: Everything random follows from it.
        iterations: Matching steps of a condenser.
        init: Where a condenser's images start; None: random real images.
        encoder: Where its embedding networks come from; None: a new ConvNet each step.
        augmentation: Siamese augmentation while condensing; None for none.
        sampling: How its real batches are drawn.
        formation: How the images are stored.
        nested: Whether the first k images of a class shall be a set of their own for each k.
        device: Where to compute.
        saving: Run folder of a condenser, for a resume; None keeps everything in memory.
        progress: Told about each step.
    """

    seed: int = 0
    iterations: int = 1000
    init: Selection | Noise | None = None
    encoder: Encoder | None = None
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    sampling: Sampling = Uniform()  # noqa: RUF009 - frozen
    formation: Formation = Formation(dtype="uint8")  # noqa: RUF009 - frozen
    nested: bool = False
    device: str = "auto"
    saving: Saving | None = None
    progress: Progress = SILENT


@runtime_checkable
class Filler(Protocol):
    """Makes the memory of the classes of one experience."""

    @property
    def name(self) -> str:
        """What tables call it."""

    def fill(self, data: ClassImages, ipc: int, how: Filling) -> CondensedSet:
        """``ipc`` stored images of each class of ``data``, the most important first, in ``how.formation``.

        Every class has at least ``ipc * factor**2`` real images. A pure function of its arguments.
        """


def filler(method: Condenser | Selection | Filler) -> Filler:
    """The one seam: a condenser or a selection as a :class:`Filler`; a filler as it is."""
    raise NotImplementedError
