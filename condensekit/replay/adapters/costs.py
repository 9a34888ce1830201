"""Costs of a memory: the work of a condensation beside that of the training on the same experience."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

from condensekit.compute import Spent
from condensekit.networks.cost import PASSES, Shape, count


def costlier(spent: Spent, agent: Any, images: int, shape: Shape) -> str | None:
    """The sentence that a condensation was more work than the training of the experience; None: it was not.

    Args:
        spent: The work of the condensation.
        agent: Avalanche strategy that trains its ``model`` for ``train_epochs`` on the experience.
        images: Number of real images of the experience.
        shape: (C, H, W) of the images.

    Without a number of epochs, or with a model whose operations cannot be counted, there is no comparison.
    """
    epochs, training = getattr(agent, "train_epochs", None), 0
    if isinstance(epochs, int):
        with suppress(Exception):  # of the model
            training = epochs * images * PASSES * count(copy.deepcopy(agent.model), shape).flops
    if not 0 < training < spent.flops:
        return None
    return (
        f"to condense an experience took {spent.flops / training:.1f} times the operations of {epochs} epochs of "
        "training on it: pass fewer steps=, a recipe with a lower batch_real, or a selection such as 'herding'"
    )
