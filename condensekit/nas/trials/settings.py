"""Settings of trials: engine, workers and limits, and the checks of every search before it begins."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from condensekit.errors import Problems, positive, refuse, unknown, whole
from condensekit.nas.names import ENGINES
from condensekit.nas.trials.time_budget import FILE, TimeBudget
from condensekit.progress import SILENT, Progress


def usual_workers() -> int:
    """Usual number of workers: two, or one on a single core."""
    return min(2, _cores())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Running:
    """How trials are run; the same for all rankers.

    >>> from pathlib import Path
    >>> from condensekit.nas import Running
    >>> Running(engine="sequential", folder=Path("runs/nas"), budget_s=3600).engine
    'sequential'

    Args:
        engine: See :func:`condensekit.nas.trials.driver.search`.
        workers: See :func:`condensekit.nas.trials.driver.search`.
        trial_limit_s: See :func:`condensekit.nas.trials.driver.search`.
        folder: Folder of ``trials.jsonl`` (trials), ``truth.jsonl`` (truths), ``candidates.jsonl`` (costs and faults of
            candidates), ``time.json`` (the time used) and ``nni`` (NNI's files). None: all results are kept in memory,
            and the engine ``nni`` cannot be used.
        port: Port of NNI's portal.
        budget_s: Seconds of all runs in this folder together, including condensation. Work that is not finished by then
            is left out, but a selection of real images runs to its end. None: no limit.
        progress: Progress display, updated after each trial.

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
                None if self.budget_s is None else positive("budget_s", self.budget_s),
            )
        problems.refuse()

    def budget(self) -> TimeBudget:
        """Time budget that counts on from the time used, which the folder stores."""
        return TimeBudget(self.budget_s, self.folder / FILE if self.folder else None)


def check_running(
    engine: str, workers: int, trial_limit_s: float | None, port: int | None, elsewhere: bool = False
) -> None:
    """Raise an error for settings with which no search can start.

    Args:
        engine: Name of the engine.
        workers: Number of trials at the same time; ``sequential`` ignores it.
        trial_limit_s: Seconds for one trial; None: no limit.
        port: Port of NNI's portal; None: it is not checked.
        elsewhere: Whether trials run on other machines, so that workers may exceed the cores of this machine.

    Raises:
        ConfigError: An unknown engine, fewer than one worker or more workers than cores, a limit that is not positive
            and finite, or a port in use.
    """
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    cores = _cores()
    most = workers if elsewhere or engine == "sequential" else cores
    refuse(
        f"workers must lie in 1 to {cores}, the number of cores, got {workers!r}"
        if whole("workers", workers, 1) or workers > most
        else None,
        None if trial_limit_s is None else positive("trial_limit_s", trial_limit_s),
    )
    if engine == "nni" and port is not None:
        from condensekit.nas.service.service import check_port

        check_port(port)
