"""Checks of candidates before their trials: short searches in workers, so that no candidate hangs or ends a contest."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence

from nni.nas.evaluator import Evaluator
from nni.nas.nn.pytorch import ModelSpace

from condensekit.nas.engines.client import WarmServer
from condensekit.nas.engines.guarded import interruptible
from condensekit.nas.spaces.architecture import Architecture
from condensekit.nas.trials import journal
from condensekit.nas.trials.driver import search
from condensekit.nas.trials.log import Trial, TrialLog
from condensekit.nas.trials.settings import Running
from condensekit.nas.trials.strategies import FixedList
from condensekit.nas.trials.time_budget import TimeBudget
from condensekit.progress import SILENT

LIMIT_S = 60.0  # largest time of a check in seconds


def check(
    name: str,
    space: ModelSpace,
    evaluator: Evaluator,
    architectures: Sequence[Architecture],
    running: Running,
    server: WarmServer | None,
    *,
    log: TrialLog | None = None,
    budget: TimeBudget | None = None,
) -> list[Trial]:
    """Run an evaluator on architectures with the workers of a contest; with the engine ``sequential`` in this process.

    No warning is logged for a failure: the caller tells what it means.

    Args:
        name: Name of the check, for the log and the progress.
        space: Space of the architectures.
        evaluator: The evaluator.
        architectures: The architectures.
        running: How the trials of the contest are run. A check has the limit of a trial, and at most a minute.
        server: Fork server of the contest; None: a new one.
        log: Log of the checks; None: they are kept in memory.
        budget: Running time budget of the contest; None: no limit.

    Returns:
        A trial for each architecture, unless the budget ended.
    """
    here, several = running.engine == "sequential", len(architectures) > 1
    limit_s = min(LIMIT_S, running.trial_limit_s or LIMIT_S)
    with (running.progress if several else SILENT).stage(name, len(architectures)) as stage, _untold():
        return search(
            space,
            evaluator,
            FixedList(architectures),
            engine="sequential" if here else "pool",
            workers=running.workers,
            budget_s=budget,
            trial_limit_s=None if here and not interruptible() else limit_s,
            log=log,
            ranker=name,
            server=server,
            on_trial=lambda trial: stage.advance(),
        )


@contextlib.contextmanager
def _untold() -> Iterator[None]:
    """Context without the warning that a search logs for each failed trial."""
    journal.log.addFilter(_no_warning)
    try:
        yield
    finally:
        journal.log.removeFilter(_no_warning)


def _no_warning(record: logging.LogRecord) -> bool:
    return record.levelno != logging.WARNING
