"""A published method as its paper runs it: the method, and what ``condense`` is given beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from condensekit.methods import Condenser
from condensekit.methods.encoders import Encoder, Fresh
from condensekit.selection.base import Noise, Selection
from condensekit.selection.classic import Random
from condensekit.training.augment import Augmentation

CHOICES = (
    *("init", "sampling", "factor", "nested", "encoder", "keep", "network", "compiled"),
    *("discrepancy", "augment", "soft-labels"),
)


@dataclass(frozen=True)
class Preset:
    """What a method is run with unless the user says otherwise.

    Args:
        method: The configured method; its ``name`` is the preset's.
        paper: Where it was published.
        cost: ``light``, ``medium`` or ``heavy``; see :data:`COSTS`.
        encoder: Where its networks come from.
        augmentation: Siamese augmentation, before the data set's own limits; None for none.
        init: Where the images start.
        factor: Packing of the images.
        unfit: Those of :data:`CHOICES` that make no sense with it, each with the reason.
    """

    method: Condenser
    paper: str
    cost: str
    encoder: Encoder = field(default_factory=Fresh)
    augmentation: Augmentation | None = Augmentation()  # noqa: RUF009 - frozen
    init: Selection | Noise = Random()  # noqa: RUF009 - frozen
    factor: int = 1
    unfit: Mapping[str, str] = field(default_factory=dict)

    @property
    def fitting(self) -> tuple[str, ...]:
        """The :data:`CHOICES` that the user may make."""
        return tuple(choice for choice in CHOICES if choice not in self.unfit)


COSTS = {
    "light": "real images once forward, synthetic ones forward and back",
    "medium": "light, and a linear solve for all classes",
    "heavy": "second derivatives, and a network trained on the set along the way",
}
