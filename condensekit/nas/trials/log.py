"""Trial log: a file with one line for each finished trial, from which a killed search is resumed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from condensekit.errors import require
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.runs.code import refuse_edited
from condensekit.runs.files import append_line, read_lines
from condensekit.runs.kept import refuse_other

FINISHED, FAILED = "finished", "failed"


@dataclass(frozen=True)
class Trial:
    """Score of one candidate by one ranker, or the failure of this candidate.

    >>> from condensekit.nas import Trial
    >>> trial = Trial("dm", {"width": 16}, score=0.75)
    >>> Trial.from_json(trial.to_json()) == trial
    True

    Args:
        ranker: Name of the ranker.
        architecture: Architecture of the candidate.
        score: Score, higher is better; None: the trial has failed.
        status: ``finished`` or ``failed``.
        scores: All scores from the evaluator by kind, higher is better.
        cost_s: Seconds of the trial, as the evaluator reports them; without a report, the measured seconds, which
            include the delays of NNI's service.
        image_steps: Number of images that passed through the network in training, forward and backward.
        seed: First seed of the evaluator.
        reason: Reason of a failure; empty for a finished trial.
        curve: Intermediate results, oldest first. Results that NNI's training service delivers after the end of their
            trial are missing. The score does not depend on the curve.
        space: Fingerprint of the space, see :func:`condensekit.nas.spaces.spaces.fingerprint`.
        stopped: Whether the training was given up as hopeless; the score is that of this time.
        recipe: How the evaluator made the score, as JSON values; empty: unknown.
        code: Code of space, evaluator and strategy, see :func:`condensekit.runs.code.code_of`, in the first trial that
            a search runs; empty: it is that of the trials before, or all of it is installed.
    """

    ranker: str
    architecture: Architecture
    score: float | None
    status: str = FINISHED
    scores: Mapping[str, float] = field(default_factory=dict)
    cost_s: float = 0.0
    image_steps: int = 0
    seed: int = 0
    reason: str = ""
    curve: tuple[Any, ...] = ()
    space: str = ""
    stopped: bool = False
    recipe: Mapping[str, Any] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The trial as a dictionary of JSON values."""
        return {**asdict(self), "curve": list(self.curve)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Trial:
        """The inverse of :meth:`to_json`; unknown entries are ignored."""
        known = {name: record[name] for name in cls.__dataclass_fields__ if name in record}
        return cls(**{**known, "curve": tuple(record.get("curve", ()))})


class TrialLog:
    """Append-only file with one JSON line for each finished trial.

    Each line has a checksum; lines of version 0.1 have no checksum. A half-written line of a kill or a full disk is
    skipped. If a ranker has an architecture twice, the first trial counts.

    >>> from condensekit.nas import Trial, TrialLog
    >>> log = TrialLog()  # with a path: a file
    >>> log.append(Trial("dm", {"width": 16}, score=0.75))
    >>> log.get("dm", {"width": 16}).score
    0.75

    Args:
        path: The file; the first trial makes the file and its folder. None: trials are kept in memory only.

    Raises:
        StoreError: The file cannot be read or is damaged; in :meth:`append`, if it cannot be written.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._trials: dict[tuple[str, str], Trial] = {}
        if self.path is None or not os.path.lexists(self.path):
            return
        for trial in map(Trial.from_json, read_lines(self.path, Trial)):
            self._trials.setdefault((trial.ranker, key(trial.architecture)), trial)

    def __len__(self) -> int:
        return len(self._trials)

    def get(self, ranker: str, architecture: Mapping[str, Any]) -> Trial | None:
        """The trial of an architecture by a ranker; None: the log does not have it."""
        return self._trials.get((ranker, key(architecture)))

    def trials(self, ranker: str | None = None) -> list[Trial]:
        """All trials, or the trials of one ranker, oldest first."""
        return [trial for trial in self._trials.values() if ranker in (None, trial.ranker)]

    def append(self, trial: Trial) -> None:
        """Add a trial; it is on disk when this returns."""
        if self.path is not None:
            append_line(self.path, trial.to_json())
        self._trials.setdefault((trial.ranker, key(trial.architecture)), trial)

    def check(self, ranker: str, space: str, recipe: Mapping[str, Any], code: Mapping[str, str] | None = None) -> None:
        """Raise an error if trials of a ranker have another space, another recipe or other code.

        Raises:
            ConfigError: A trial has another space, recipe or code; the text names the difference.
        """
        held = self.trials(ranker)
        here = f"{self.path} holds trials of {ranker!r}"
        require(all(t.space in ("", space) for t in held), f"{here} on another space: use another folder")
        for trial in (t for t in held if t.recipe != recipe):
            refuse_other(f"{here} that were scored otherwise", trial.recipe, recipe)
        for trial in held:
            refuse_edited(f"{here} that were scored", trial.code, trial.code if code is None else code)
