"""Costs of rankers: image-steps times the FLOPs of each candidate, and the preparation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
from nni.nas.nn.pytorch import ModelSpace

from condensekit.compute import Spent
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


class Ledger:
    """Costs of architectures and rankers; each architecture is counted once.

    Args:
        space: Space of the architectures.
        shape: (C, H, W) of the images.
        images: Number of training images of the rankers, for work in passes over these images; None: without passes.
    """

    def __init__(self, space: ModelSpace, shape: Shape, images: int | None = None) -> None:
        self.space, self.shape, self.images = space, shape, images
        self._costs: dict[str, Cost] = {}

    def cost(self, architecture: Architecture) -> Cost:
        """Parameters and FLOPs; 0 for an architecture that cannot be built, whose trials fail, too."""
        name = key(architecture)
        if name not in self._costs:
            try:
                with isolated(0):  # the first forward pass of lazy layers draws their weights
                    self._costs[name] = count(build(self.space, architecture), self.shape)
            except Exception:
                self._costs[name] = Cost(0, 0)
        return self._costs[name]

    def share(self, prepared: Mapping[str, Preparation], some: Sequence[Architecture], candidates: int) -> float:
        """Cost of the most expensive preparation, as image-steps of each of ``candidates`` candidates.

        Args:
            prepared: Preparation of each ranker, by name.
            some: Architectures whose mean FLOPs represent a candidate.
            candidates: Number of candidates.
        """
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
        """Cost of a ranker; for a combination, of all its parts and of the truths to which it is fitted.

        A truth costs the seconds and FLOPs of its trainings if these are known; a table does not have them. A failed
        trial counts with the cost until its failure.

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
