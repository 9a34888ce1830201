"""How the trials of a comparison are run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from condensekit.errors import refuse, unknown
from condensekit.nas.search import ENGINES
from condensekit.progress import SILENT, Progress


@dataclass(frozen=True)
class Running:
    """How trials are run, the same for every ranker.

    Args:
        engine: See :func:`condensekit.nas.search.search`; ``workers`` and ``trial_limit_s`` likewise.
        workers: See there.
        trial_limit_s: See there.
        folder: Trials go to ``trials.jsonl`` and truths to ``truth.jsonl`` in it, NNI's files to ``nni``. None: trials
            stay in memory, and there is no engine ``nni``.
        port: Of NNI's portal.
        budget_s: Seconds for everything; what is not done then is left out. A set that is being made is finished.
        progress: Told about each trial.

    Raises:
        ConfigError: See :func:`check_engine`.
    """

    engine: str = "pool"
    workers: int = 2
    trial_limit_s: float | None = None
    folder: Path | None = None
    port: int = 8080
    budget_s: float | None = None
    progress: Progress = SILENT

    def __post_init__(self) -> None:
        check_engine(self.engine, self.workers, self.folder, self.port)


def check_engine(engine: str, workers: int, folder: Path | None, port: int) -> None:
    """Refuse what no search could start with, before anything is spent on preparing rankers.

    Raises:
        ConfigError: An unknown engine, more workers than cores, a port that is in use, ``nni`` without a folder.
    """
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    refuse(
        None if 1 <= workers <= cores else f"workers must lie in 1 to {cores}, the cores here, got {workers}",
        "engine 'nni' needs a folder for its files" if engine == "nni" and folder is None else None,
    )
    if engine == "nni":
        from condensekit.nas.service import check_port

        check_port(port)
