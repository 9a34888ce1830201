"""Untrained rankers, which score each candidate without training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from condensekit.nas.names import needing_nni
from condensekit.nas.rankers import zero_cost
from condensekit.nas.rankers.base import Ranker, Setting
from condensekit.nas.rankers.sets import Preparation
from condensekit.rng import Draw

if TYPE_CHECKING:
    from nni.nas.evaluator import Evaluator


@dataclass(frozen=True)
class ZeroCost(Ranker):
    """Ranker that scores candidates without training.

    Args:
        name: ``params``, ``flops`` or a name of :data:`~condensekit.nas.names.ZERO_COST`.
    """

    name: str
    free: ClassVar[bool] = True

    def prepare(self, setting: Setting) -> tuple[Evaluator, Preparation]:
        """See :meth:`Ranker.prepare`."""
        with needing_nni(f"the ranker {self.name}"):
            from condensekit.nas.rankers.evaluator import ZeroCostEvaluator
        images = zero_cost.batch(setting.maker.train, Draw(setting.seed))
        return ZeroCostEvaluator(self.name, images, setting.seed), Preparation()
