"""The NNI evaluator that scores a candidate by training it on a proxy set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nni.nas.evaluator import Evaluator

from condensekit.nas.training import ProxyData, ProxyProtocol, TrialResult, train_candidate

__all__ = ["ProxyData", "ProxyEvaluator", "ProxyProtocol", "TrialResult", "train_candidate"]


class ProxyEvaluator(Evaluator):  # type: ignore[misc]
    """Trains each candidate from scratch on a proxy set; reports scores on held-out training images.

    Args:
        data: The images, or a function without arguments that loads them (then the evaluator itself stays
            small; needed for NNI's remote services).
        protocol: The recipe.
        score: Which of :data:`condensekit.nas.training.SCORES` is the final result.
        seeds: Trainings of each candidate, with seeds ``seed``, ``seed + 1``, ...; scores are averaged.
        seed: Of the first training; the same for all candidates.
        last: Epochs at the end over whose tests scores are averaged.
        checks: Tests before those.
        hopeless: Give candidates up whose accuracy stays below this many times chance; None never.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(
        self,
        data: ProxyData | Callable[[], ProxyData],
        protocol: ProxyProtocol = ProxyProtocol(),  # noqa: B008 - frozen
        *,
        score: str = "accuracy",
        seeds: int = 1,
        seed: int = 0,
        last: int = 5,
        checks: int = 4,
        hopeless: float | None = None,
        device: str = "cpu",
    ) -> None:
        self.data, self.protocol, self.score = data, protocol, score
        self.seeds, self.seed, self.last, self.checks = seeds, seed, last, checks
        self.hopeless, self.device = hopeless, device

    def evaluate(self, model: Any) -> Any:
        """Train a module or the modules that a function makes, and report to NNI."""
        raise NotImplementedError
