"""Costs of rankers: image-steps times the candidate's operations, and the preparation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
from nni.nas.nn.pytorch import ModelSpace

from condensekit.compute import Spent
from condensekit.nas.rankers.base import Combination, Ranker
from condensekit.nas.rankers.sets import Preparation
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.spaces.equivalence import canonical
from condensekit.nas.spaces.spaces import build
from condensekit.nas.study.report import RankerCost
from condensekit.nas.study.truth import Truth
from condensekit.nas.trials.log import Trial
from condensekit.networks.cost import PASSES, Cost, Shape, count
from condensekit.rng import isolated


class Ledger:
    """Counts every architecture once.

    Args:
        space: Of the architectures.
        shape: (C, H, W) of the images.
        images: Training images of the rankers, by which work is told in passes; None: it is not.
    """

    def __init__(self, space: ModelSpace, shape: Shape, images: int | None = None) -> None:
        self.space, self.shape, self.images = space, shape, images
        self._costs: dict[str, Cost] = {}

    def cost(self, architecture: Architecture) -> Cost:
        """Parameters and operations; 0 for an architecture that cannot be built, whose trials fail as well."""
        name = key(architecture)
        if name not in self._costs:
            try:
                with isolated(0):  # lazy layers draw their weights when they are counted
                    self._costs[name] = count(build(self.space, architecture), self.shape)
            except Exception:
                self._costs[name] = Cost(0, 0)
        return self._costs[name]

    def share(self, prepared: Mapping[str, Preparation], some: Sequence[Architecture], candidates: int) -> float:
        """Image-steps for each of so many candidates, like ``some``, that the dearest preparation is worth."""
        mean = float(np.mean([self.cost(a).flops for a in some])) if some else 0.0
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
        """The cost of a ranker, or of all parts of a combination and the truths that it was told.

        Real evaluations are counted with what their training took, in seconds and operations, as far as that is known:
        a table does not say. Failed trials cost what they took.

        Args:
            one: The ranker.
            found: Trials by single ranker, with those that a regression is fitted on.
            prepared: Preparations by single ranker.
            extra: The architectures that a regression is fitted on; their trials count for regressions alone.
            truth: Where their truths come from.
        """
        without = set() if one.fitted else {key(a) for a in extra}
        trials = [t for part in one.parts for t in found[part.name] if key(t.architecture) not in without]
        done = [(t.architecture, t.image_steps) for t in trials]
        truths_s: float | None = 0.0
        known = [a for a in extra if one.fitted and truth is not None and truth.holds(self.space, a)]
        if truth is not None and known:
            truths_s = truth.seconds(self.space, known)
            done += [(a, truth.image_steps.get(key(canonical(self.space, a)), 0)) for a in known]
        prior = sum((prepared[part.name] for part in one.parts), Preparation())
        image_steps = sum(steps for _, steps in done)
        flops = prior.flops + PASSES * sum(steps * self.cost(a).flops for a, steps in done if steps)
        spent = Spent(prior.images + image_steps, flops)
        passes = spent.passes(self.images, self.shape) if self.images else {}
        return RankerCost(
            prior.seconds,
            sum(t.cost_s for t in trials),
            flops,
            image_steps,
            len(known),
            truths_s,
            {**asdict(spent), **passes},
        )
