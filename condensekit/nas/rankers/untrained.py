"""Rankers that score each candidate without training."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import nni
from nni.nas.evaluator import Evaluator
from torch import Tensor, nn

from condensekit.nas.engines.failures import TrialError
from condensekit.nas.names import COUNTS
from condensekit.nas.rankers import zero_cost
from condensekit.nas.rankers.base import Ranker, Setting
from condensekit.nas.rankers.sets import Preparation
from condensekit.networks.cost import count
from condensekit.rng import Draw, isolated


@dataclass(frozen=True)
class ZeroCost(Ranker):
    """Scores candidates without training.

    Args:
        name: ``params``, ``flops`` or one of :data:`condensekit.ZERO_COST`.
    """

    name: str

    def prepare(self, setting: Setting) -> tuple[Evaluator, Preparation]:
        """See :meth:`Ranker.prepare`."""
        images = zero_cost.batch(setting.maker.train, Draw(setting.seed))
        return ZeroCostEvaluator(self.name, images, setting.seed), Preparation()


class ZeroCostEvaluator(Evaluator):  # type: ignore[misc]
    """The NNI evaluator of :class:`ZeroCost`.

    Args:
        kind: The score's name.
        images_NCHW: A batch of normalised float32 images.
        seed: Initial weights follow from it.
    """

    def __init__(self, kind: str, images_NCHW: Tensor, seed: int = 0) -> None:  # noqa: N803
        self.kind, self.images, self.seed = kind, images_NCHW, seed

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """See :attr:`ProxyEvaluator.recipe`."""
        images = hashlib.sha256(self.images.numpy().tobytes()).hexdigest()[:16]
        return {"kind": self.kind, "seed": self.seed, "images": images}

    def evaluate(self, model: Callable[[], nn.Module]) -> float:
        """Score what ``model`` makes, and report to NNI.

        Raises:
            TrialError: The score is not finite.
        """
        start = time.perf_counter()
        draw = Draw(self.seed)
        channels, height, width = self.images.shape[1:]
        with isolated(draw.key("weights")):
            module = model()
            cost = count(module, (channels, height, width))  # a forward pass, from which lazy layers learn their size
        if self.kind in COUNTS:
            found: float | None = getattr(cost, self.kind)
        else:
            found = zero_cost.score(self.kind, module, self.images, draw.key("zero-cost"))
        steps = zero_cost.image_steps(self.kind, len(self.images))
        if found is None:
            raise TrialError(f"{self.kind} is not finite", steps)
        nni.report_final_result(
            {
                "default": float(found),
                "scores": {self.kind: float(found)},
                "seconds": time.perf_counter() - start,
                "image_steps": steps,
                "stopped": False,
            }
        )
        return found

    def _execute(self, model: Any) -> Any:
        """Called by NNI with a frozen space."""
        return self.evaluate(model.executable_model)
