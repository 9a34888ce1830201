"""How the real images of a step are drawn from each class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from condensekit.compute import Compute
from condensekit.images import ClassImages
from condensekit.progress import SILENT, Progress
from condensekit.rng import Draw


class Sampler(ABC):
    """Draws real batches; holds whatever was worked out from the data beforehand."""

    @abstractmethod
    def draw(self, data: ClassImages, labels: Sequence[int], n: int, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """Source indices (L, n) int64 of n images of each class, and weights (L, n) float32 with mean 1, or None."""


class Sampling(ABC):
    """A recipe for a :class:`Sampler`. ``name`` is what tables call it."""

    name: str

    @abstractmethod
    def sampler(
        self,
        data: ClassImages,
        draw: Draw,
        compute: Compute,
        before: Sampler | None = None,
        progress: Progress = SILENT,
    ) -> Sampler:
        """The sampler of step ``draw.step``: a function of data, seed and step alone, so that a resume makes it again.

        Args:
            data: The real images.
            draw: The randomness of the step; the first is 1.
            compute: Runs networks.
            before: The sampler of the step before, returned as it is where nothing is due; None at a start.
            progress: Told about training and clustering.
        """


@dataclass(frozen=True)
class Uniform(Sampling, Sampler):
    """Every image of a class equally likely, none twice before all have been drawn once."""

    name: str = "uniform"

    def sampler(
        self,
        data: ClassImages,
        draw: Draw,
        compute: Compute,
        before: Sampler | None = None,
        progress: Progress = SILENT,
    ) -> Sampler:
        """Itself: there is nothing to prepare."""
        return self

    def draw(self, data: ClassImages, labels: Sequence[int], n: int, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """See :class:`Sampler`; no weights."""
        return data.draw_indices(labels, n, draw), None
