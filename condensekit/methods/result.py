"""Result of a condensation: the set, how the run ended, and its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import torch

from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError
from condensekit.methods.base import State
from condensekit.methods.recipe import Recipe
from condensekit.sets.condensed import CondensedSet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Status(Enum):
    """How a run ended."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    DIVERGED = "diverged"


@dataclass(frozen=True, eq=False)
class CondenseResult:
    """The result of :func:`condensekit.condense`.

    Args:
        set: The condensed images; of a run that diverged, the last finite images.
        status: How the run ended.
        message: One sentence: what happened and what to do next.
        history: One dictionary of metrics for each step of this call.
        signum: The signal that asked the program to end, or None. The run may have finished all the same, where the
            signal came in its last step: then the caller ends.
        work: ``preparation`` and ``condensing``: the work of networks in images, operations and passes over the data.
    """

    set: CondensedSet
    status: Status
    message: str
    history: list[dict[str, float]] = field(default_factory=list)
    signum: int | None = None
    work: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"CondenseResult({self.status.value}, {self.set!r}: {self.message})"

    def _repr_html_(self) -> str:
        from condensekit.html import standalone
        from condensekit.html.layout import charts, paragraph
        from condensekit.html.metrics import curves

        drawn = curves({"": self.history})
        return standalone(paragraph(f"{self.set.name}: {self.message}."), self.set.grid(), charts(drawn))

    def show(self) -> Figure:
        """The images as a matplotlib figure, see :meth:`CondensedSet.show`."""
        return self.set.show()

    def plot(self) -> Figure:
        """The metrics of each step of this call as a matplotlib figure.

        Raises:
            ConfigError: This call made no step.
        """
        from condensekit.figures.metrics import metrics

        return metrics({self.set.name: self.history})


def set_of(
    state: State, recipe: Recipe, data: ClassImages, each: Mapping[int, int], provenance: Mapping[str, Any]
) -> CondensedSet:
    """The images of a state of all classes as a set, with the soft labels that the method learnt, if any.

    They are stored as the recipe's formation says; as float32 if they have too large values for that.

    Args:
        state: With ``images`` (K, ipc, C, H, W) of the classes of ``data``.
        recipe: How the state was made.
        data: The real images.
        each: Number of images of each class, at most ipc; further ones repeat them.
        provenance: Where the set comes from.
    """
    images, wanted = state["images"], recipe.formation
    flat, ipc = images.flatten(0, 1), images.shape[1]
    formation = wanted if wanted.fits(flat) else replace(wanted, dtype="float32")
    labels = torch.tensor(data.classes, dtype=torch.int64).repeat_interleave(ipc)
    made = CondensedSet.from_images(flat, labels, data.spec, formation=formation, provenance=dict(provenance))
    soft = recipe.method.soft_labels(state)
    made = made if soft is None else made.with_soft_labels(soft, data.classes)
    rows = [torch.arange(count) + k * ipc for k, count in enumerate(each.values())]
    return made.take(torch.cat(rows)) if min(each.values()) < ipc else made


def stored(made: CondensedSet, recipe: Recipe, message: str) -> tuple[CondensedSet, str]:
    """A set of :func:`set_of` in the storage through which it was learnt, and the message, which says what failed."""
    if made.formation != recipe.formation:
        message += f"; stored as float32, because values are too large for {recipe.formation.dtype}"
    if recipe.through is None:
        return made, message
    try:
        return recipe.through.stored(made), message
    except ConfigError as error:  # the images are worth more than their storage
        return made, f"{message}; stored as float32, because {error}"
