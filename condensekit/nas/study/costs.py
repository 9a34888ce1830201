"""Costs of rankers: image-steps times the FLOPs of each candidate, and the preparation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from nni.nas.nn.pytorch import ModelSpace

from condensekit.compute import Spent
from condensekit.errors import DataError
from condensekit.nas.rankers.base import Combination, Ranker
from condensekit.nas.rankers.sets import Preparation
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.spaces.equivalence import twin
from condensekit.nas.spaces.spaces import build
from condensekit.nas.study.report import RankerCost
from condensekit.nas.study.truth import Truth
from condensekit.nas.trials.log import Trial
from condensekit.networks.cost import PASSES, Cost, Shape, count
from condensekit.rng import isolated

Counting = Callable[[Sequence[Architecture]], Sequence[Cost | None]]
"""Function that gives the cost of each architecture, or None for one that cannot be counted."""
OF_IMAGES = ("images", "passes")  # entries of a ranker's work that need no FLOPs


class Ledger:
    """Costs of architectures and rankers; each architecture is counted once.

    Attributes:
        counting: Function that counts architectures. The usual function builds them in this process, which is for
            spaces whose candidates are known to be safe.

    Args:
        space: Space of the architectures.
        shape: (C, H, W) of the images.
        images: Number of training images of the rankers, for work in passes over these images; None: without passes.
    """

    def __init__(self, space: ModelSpace, shape: Shape, images: int | None = None) -> None:
        self.space, self.shape, self.images = space, shape, images
        self.counting: Counting = self._here
        self._costs: dict[str, Cost | None] = {}

    def costs(self, some: Sequence[Architecture]) -> list[Cost | None]:
        """Parameters and FLOPs of each architecture; None: it cannot be counted."""
        new = {key(a): a for a in some if key(a) not in self._costs}
        self._costs |= zip(new, self.counting(list(new.values())), strict=True)
        return [self._costs[key(a)] for a in some]

    def _here(self, some: Sequence[Architecture]) -> list[Cost | None]:
        with isolated(0):  # the first forward pass of lazy layers draws their weights
            return [count(build(self.space, a), self.shape) for a in some]

    def cost(self, architecture: Architecture) -> Cost | None:
        """Parameters and FLOPs of an architecture; None: it cannot be counted."""
        return self.costs([architecture])[0]

    def share(self, prepared: Mapping[str, Preparation], some: Sequence[Architecture], candidates: int) -> float:
        """Cost of the most expensive preparation, as image-steps of each of ``candidates`` candidates.

        Args:
            prepared: Preparation of each ranker, by name.
            some: Architectures whose mean FLOPs represent a candidate.
            candidates: Number of candidates.

        Raises:
            DataError: None of these architectures can be counted.
        """
        known = [cost.flops for cost in self.costs(some) if cost is not None]
        if some and not known:
            raise DataError("equal cost needs candidates whose operations can be counted: leave this ranker out")
        mean = float(np.mean(known)) if known else 0.0
        dearest = max((p.flops for p in prepared.values()), default=0.0)
        return dearest / (PASSES * mean * candidates) if mean else 0.0

    def spent(
        self,
        one: Ranker | Combination,
        found: Mapping[str, Sequence[Trial]],
        prepared: Mapping[str, Preparation],
        extra: Sequence[Architecture],
        truth: Truth | None,
    ) -> RankerCost:
        """Cost of a ranker; for a combination, of all its parts and of the truths to which it is fitted.

        A truth costs the seconds and FLOPs of its trainings if these are known; a table does not have them. A failed
        trial counts with the cost until its failure. FLOPs are unknown if a trained candidate cannot be counted.

        Args:
            one: The ranker or combination.
            found: Trials of each single ranker, including architectures to which a regression is fitted.
            prepared: Preparation of each single ranker, by name.
            extra: Architectures to which a regression is fitted; their trials count for regressions only.
            truth: Truth of these architectures; None: there is no truth.
        """
        without = set() if one.fitted else {key(a) for a in extra}
        trials = [t for part in one.parts for t in found[part.name] if key(t.architecture) not in without]
        done = [(t.architecture, t.image_steps) for t in trials]
        truths_s: float | None = 0.0
        known = [a for a in extra if one.fitted and truth is not None and truth.holds(self.space, a)]
        if truth is not None and known:
            truths_s = truth.seconds(self.space, known)
            done += [(a, truth.image_steps.get(twin(self.space, a, truth.image_steps) or "", 0)) for a in known]
        prior = sum((prepared[part.name] for part in one.parts), Preparation())
        image_steps = sum(steps for _, steps in done)
        trained = [(a, steps) for a, steps in done if steps]
        costs = self.costs([a for a, _ in trained])
        worked = [steps * cost.flops for (_, steps), cost in zip(trained, costs, strict=True) if cost is not None]
        spent = Spent(prior.images + image_steps, prior.flops + PASSES * sum(worked))
        work: dict[str, Any] = {**asdict(spent), **(spent.passes(self.images, self.shape) if self.images else {})}
        if None in costs:
            work |= {name: None for name in work if name not in OF_IMAGES}
        seconds = sum(t.cost_s for t in trials)
        return RankerCost(prior.seconds, seconds, work["flops"], image_steps, len(known), truths_s, work)
