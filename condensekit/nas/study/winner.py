"""Winner: the best architecture of a contest, trained on all images by the engine of the contest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nni
from nni.nas.evaluator import Evaluator
from nni.nas.nn.pytorch import ModelSpace

from condensekit.errors import CondensekitError, StoreError
from condensekit.nas.engines.client import WarmServer
from condensekit.nas.spaces.architecture import Architecture
from condensekit.nas.study.full_training import FullTraining, retrain
from condensekit.nas.trials.driver import MAX_PICKLED_BYTES, search
from condensekit.nas.trials.settings import Running
from condensekit.nas.trials.strategies import FixedList
from condensekit.nas.trials.time_budget import OutOfTimeError

WINNER = "retraining"  # name of the search, which has one trial


class Retraining(Evaluator):  # type: ignore[misc]
    """Evaluator that retrains its candidate, writes the weights, and reports the accuracy on the test images.

    Args:
        space: Space of the candidate, as text from ``nni.dump``.
        full: Data, protocol and machine.
        seed: Seed of weights, batches and augmentation.
        path: ``.safetensors`` file for the weights.
    """

    def __init__(self, space: str, full: FullTraining, seed: int, path: Path) -> None:
        self.space, self.full, self.seed, self.path = space, full, seed, path

    def _execute(self, model: Any) -> Any:
        _, accuracy = retrain(nni.load(self.space), dict(model.sample), self.full, self.seed, self.path)
        nni.report_final_result(accuracy)


def retrained(
    space: ModelSpace,
    architecture: Architecture,
    full: FullTraining,
    seed: int,
    path: Path,
    running: Running,
    *,
    limit_s: float | None = None,
    server: WarmServer | None = None,
) -> float:
    """Retrain the winner of a contest; see :func:`~condensekit.nas.study.full_training.retrain`.

    With the engines ``pool`` and ``nni`` it is trained in a worker process, so that it can neither hang nor end the
    contest; the rest of the budget holds for it.

    Args:
        space: Space of the architecture.
        architecture: The winner.
        full: Data, protocol and machine.
        seed: Seed of weights, batches and augmentation.
        path: ``.safetensors`` file for the weights.
        running: How the trials of the contest were run.
        limit_s: Largest time of the training in seconds; None: no limit.
        server: Fork server of the contest; None: a new one.

    Returns:
        The accuracy on the test images in [0, 1].

    Raises:
        CondensekitError: The training failed; the text says why.
        OutOfTimeError: The budget ended before the training.
        StoreError: The file cannot be written.
    """
    with running.budget() as budget, running.progress.stage(WINNER, 1) as stage:
        trials = search(
            space,
            Retraining(nni.dump(space, pickle_size_limit=MAX_PICKLED_BYTES), full, seed, path.absolute()),
            FixedList([architecture]),
            engine="sequential" if running.engine == "sequential" else "pool",
            workers=1,
            budget_s=budget,
            trial_limit_s=limit_s,
            ranker=WINNER,
            server=server,
            on_trial=lambda trial: stage.advance(),
        )
    if not trials:
        raise OutOfTimeError("the budget ended before it was trained")
    (trial,) = trials
    if trial.score is None:
        kind, _, why = trial.reason.partition(": ")
        if kind == StoreError.__name__:
            raise StoreError(why)
        raise CondensekitError(why if kind == CondensekitError.__name__ else f"retraining the winner: {trial.reason}")
    return trial.score
