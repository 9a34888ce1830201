"""The one call that runs any strategy over any space through any engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nni.nas.evaluator import Evaluator
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.strategy import Strategy

from condensekit.nas.trials import Trial, TrialLog

ENGINES = ("sequential", "pool", "nni")


def search(
    space: ModelSpace,
    evaluator: Evaluator,
    strategy: Strategy | str,
    *,
    trials: int,
    engine: str = "pool",
    workers: int = 2,
    seed: int = 0,
    budget_s: float | None = None,
    trial_limit_s: float | None = None,
    log: TrialLog | None = None,
    ranker: str = "proxy",
    folder: Path | None = None,
    port: int = 8080,
    on_trial: Callable[[Trial], None] | None = None,
) -> list[Trial]:
    """Search a space.

    Args:
        space: Where to search.
        evaluator: Scores one candidate; any NNI evaluator that reports a final result.
        strategy: An NNI strategy, or one of :data:`condensekit.nas.strategies.NAMES`.
        trials: Distinct architectures to score at most; those already in ``log`` count.
        engine: ``sequential`` (in this process), ``pool`` (warm worker processes) or ``nni`` (its training
            service, with portal).
        workers: Trials at a time.
        seed: Of a strategy given by name.
        budget_s: Seconds for the whole call.
        trial_limit_s: Seconds for one trial; a longer one is killed and marked as failed.
        log: Finished trials are appended to it at once, and those in it are not run again.
        ranker: Under which name.
        folder: Where the ``nni`` engine keeps its files.
        port: Of its portal.
        on_trial: Told each trial, those from the log included.

    Returns:
        The trials in the order in which the strategy asked for them.
    """
    raise NotImplementedError
