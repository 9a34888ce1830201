"""Settings of trials: how they are run, and the checks that every search makes before anything is spent."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from condensekit.errors import Problems, refuse, unknown
from condensekit.nas.names import ENGINES
from condensekit.nas.trials.time_budget import FILE, TimeBudget
from condensekit.progress import SILENT, Progress


def usual_workers() -> int:
    """Two, or one on a single core."""
    return min(2, _cores())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Running:
    """How trials are run, the same for every ranker.

    Args:
        engine: See :func:`condensekit.nas.trials.driver.search`.
        workers: See there.
        trial_limit_s: See there.
        folder: Trials go to ``trials.jsonl`` and truths to ``truth.jsonl`` in it, the time used to ``time.json``,
            NNI's files to ``nni``. None: all stays in memory, and there is no engine ``nni``.
        port: Of NNI's portal.
        budget_s: Seconds for everything, condensation included, over all runs in this folder; what is not done then
            is left out. Only a selection of real images that is being made is finished.
        progress: Told about each trial.

    Raises:
        ConfigError: See :func:`check_running`.
    """

    engine: str = "pool"
    workers: int = field(default_factory=usual_workers)
    trial_limit_s: float | None = None
    folder: Path | None = None
    port: int = 8080
    budget_s: float | None = None
    progress: Progress = SILENT

    def __post_init__(self) -> None:
        problems = Problems()
        with problems:
            check_running(self.engine, self.workers, self.trial_limit_s, self.port)
        with problems:
            refuse(
                "engine 'nni' needs a folder for its files" if self.engine == "nni" and self.folder is None else None,
                None
                if self.budget_s is None or self.budget_s > 0
                else f"budget_s must be positive, got {self.budget_s}",
            )
        problems.refuse()

    def budget(self) -> TimeBudget:
        """What is left of the time; the folder keeps how much was used."""
        return TimeBudget(self.budget_s, self.folder / FILE if self.folder else None)


def check_running(
    engine: str, workers: int, trial_limit_s: float | None, port: int | None, elsewhere: bool = False
) -> None:
    """Refuse what no search could start with.

    Args:
        engine: Its name.
        workers: Trials at a time; ``sequential`` has one, whatever it is told.
        trial_limit_s: Seconds for one trial.
        port: Of NNI's portal.
        elsewhere: Whether trials run on other machines, so that the cores here do not count.

    Raises:
        ConfigError: An unknown engine, fewer than one worker or more than cores, a limit that is not positive, a port
            that is in use.
    """
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    cores = _cores()
    most = workers if elsewhere or engine == "sequential" else cores
    refuse(
        None if 1 <= workers <= most else f"workers must lie in 1 to {cores}, the cores here, got {workers}",
        None if trial_limit_s is None or trial_limit_s > 0 else f"trial_limit_s must be positive, got {trial_limit_s}",
    )
    if engine == "nni" and port is not None:
        from condensekit.nas.service.service import check_port

        check_port(port)
