"""Found: what a run folder holds, each part read on its own, and a list of what lacks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from condensekit.errors import CondensekitError, DataError
from condensekit.nas.spaces.architecture import key
from condensekit.nas.study import result as search_result
from condensekit.nas.study.result import SearchResult
from condensekit.nas.trials.log import Trial, TrialLog
from condensekit.networks.cost import Cost
from condensekit.replay.study import results as replay_results
from condensekit.replay.study.results import ReplayResult
from condensekit.report.cells import Matrices, matrices
from condensekit.runs.files import read_bytes, read_json
from condensekit.runs.folder import ENV, RunDir, metric_rows
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.found import SET
from condensekit.sets.grid import Pixels, read_grid
from condensekit.training import evaluation as evaluations
from condensekit.training.evaluation import Evaluation

CONFIG, METRICS, SNAPSHOTS = "config.json", "metrics.csv", "snapshots"
TRIALS, CANDIDATES = "trials.jsonl", "candidates.jsonl"
INNER = ("replay", "search")  # folders of a demo that are runs of their own
MOST_SEEDS = 50  # whose files are read
MAX_SNAPSHOT = 64 << 20  # bytes
T = TypeVar("T")


@dataclass(eq=False)
class Member:
    """One seed of a run, or the run itself.

    Args:
        path: Its folder.
        config: Its ``config.json``.
        env: Its ``env.json``.
        set: Its set.
        metrics: The rows of its ``metrics.csv``.
        start: The step and the images of the first picture in ``snapshots``, a list for each class.
    """

    path: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, Any] = field(default_factory=dict)
    set: CondensedSet | None = None
    metrics: list[dict[str, float]] = field(default_factory=list)
    start: tuple[int, list[list[Pixels]]] | None = None


@dataclass(eq=False)
class Found:
    """What a run folder holds. None, and an empty list: the part is missing or cannot be read.

    Args:
        path: The folder.
        members: Its seeds; of a folder of one run, the run itself.
        evaluation: Its ``evaluation.json``.
        replay: Its ``replay.json``.
        matrices: Accuracies of its replay by experience and classes.
        search: Its ``search.json``; of an unfinished search, its trials.
        sizes: Parameters and operations of the candidates of its search, by key.
        lacks: What is missing, damaged or unfinished, a clause for each.
        faults: The errors among them.
    """

    path: Path
    members: list[Member] = field(default_factory=list)
    evaluation: Evaluation | None = None
    replay: ReplayResult | None = None
    matrices: Matrices = field(default_factory=dict)
    search: SearchResult | None = None
    sizes: Mapping[str, Cost] = field(default_factory=dict)
    lacks: list[str] = field(default_factory=list)
    faults: list[CondensekitError] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        parts = (self.evaluation, self.replay, self.search, self.matrices)
        told = any(m.config or m.set is not None or m.metrics for m in self.members)
        return not told and not any(part for part in parts)

    def read(self, make: Callable[[], T]) -> T | None:
        """A part; None, with the reason in :attr:`lacks`, if it cannot be read."""
        try:
            return make()
        except CondensekitError as error:
            self.faults.append(error)
            self.lacks.append(str(error))
        return None

    def file(self, path: Path, make: Callable[[Path], T]) -> T | None:
        """A part from its file; None if there is no file, or it cannot be read."""
        return self.read(lambda: make(path)) if os.path.lexists(path) else None


def find(path: Path) -> list[Found]:
    """What is in a run folder, and in the runs inside it; of a set's file, the set.

    Nothing is raised: what cannot be read is told in :attr:`Found.lacks`.
    """
    found = Found(path)
    if path.suffix == ".safetensors" and path.is_file():
        found.members = [Member(path.parent, set=found.read(lambda: CondensedSet.load(path)))]
        return [found]
    if not path.is_dir():
        found.read(lambda: _missing(path))
        return [found]
    own = any(os.path.lexists(path / name) for name in (CONFIG, SET, METRICS))
    seeds = sorted((f for f in path.glob("seed-*") if f.is_dir()), key=lambda f: (len(f.name), f.name))
    found.members = [_member(found, folder) for folder in ([path] if own or not seeds else seeds[:MOST_SEEDS])]
    if not own and len(seeds) > MOST_SEEDS:
        found.lacks.append(f"{path}: the first {MOST_SEEDS} of {len(seeds):,} seeds are read")
    found.evaluation = found.file(path / evaluations.FILE, Evaluation.load)
    found.replay = found.file(path / replay_results.FILE, ReplayResult.load)
    found.matrices = found.read(lambda: matrices(path / "cells")) or {}
    found.search = found.file(path / search_result.FILE, SearchResult.load) or found.file(path / TRIALS, _unfinished)
    found.sizes = found.file(path / CANDIDATES, _sizes) or {}
    inner = [path / name for name in INNER if not own and os.path.lexists(path / name / CONFIG)]
    parts = [] if found.empty and inner and not found.lacks else [found]
    return [*parts, *(one for folder in inner for one in find(folder))]


def _missing(path: Path) -> None:
    what = "it is a file, and no set" if path.exists() else "there is no such folder"
    raise DataError(f"{path} is no run folder: {what}")


def _member(found: Found, folder: Path) -> Member:
    made = Member(folder)
    made.config = found.file(folder / CONFIG, lambda _: RunDir.read(folder).config) or {}
    made.env = found.file(folder / ENV, _record) or {}
    made.set = found.file(folder / SET, CondensedSet.load)
    made.metrics = found.file(folder / METRICS, metric_rows) or []
    if made.config:
        found.file(folder / METRICS, lambda _: RunDir.read(folder).metrics())  # compares them with the checkpoint
    pictures = sorted((folder / SNAPSHOTS).glob("step-*.png"), key=lambda file: (len(file.name), file.name))
    if pictures and made.set is not None:
        made.start = found.read(lambda: _start(pictures[0], made.set))
    return made


def _record(path: Path) -> dict[str, Any]:
    return dict(read_json(path, dict))


def _start(path: Path, final: CondensedSet | None) -> tuple[int, list[list[Pixels]]]:
    """The step and the images of a picture of a set like ``final``."""
    assert final is not None
    if path.is_file() and path.stat().st_size > MAX_SNAPSHOT:
        raise DataError(f"{path} has more than {MAX_SNAPSHOT:,} bytes")
    counts = [count * final.formation.factor**2 for count in final.counts]
    try:
        return int(path.stem.removeprefix("step-")), read_grid(read_bytes(path), final.spec.shape, counts)
    except (DataError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error


def _unfinished(path: Path) -> SearchResult:
    """The trials of a search that has no result yet."""
    return SearchResult(None, tuple(TrialLog(path).trials()), (), None, {})


def _sizes(path: Path) -> dict[str, Cost]:
    return {key(trial.architecture): cost for trial in TrialLog(path).trials() if (cost := _size(trial)) is not None}


def _size(trial: Trial) -> Cost | None:
    """The size of a candidate as its inspection found it."""
    told = trial.curve[-1] if trial.curve and isinstance(trial.curve[-1], Mapping) else {}
    params, flops = told.get("params"), told.get("flops")
    return Cost(params, flops) if isinstance(params, int) and isinstance(flops, int) and flops > 0 else None
