"""Trial log: one line for each finished trial, on disk at once, from which a killed search goes on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from condensekit.errors import require
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.runs.files import append_line, read_lines
from condensekit.runs.kept import refuse_other

FINISHED, FAILED = "finished", "failed"


@dataclass(frozen=True)
class Trial:
    """One candidate, scored by one ranker, or marked as failed.

    Args:
        ranker: Who scored it.
        architecture: What was scored.
        score: Higher is better; None for a failed trial.
        status: ``finished`` or ``failed``.
        scores: Every kind of score that the evaluator gave, higher is better.
        cost_s: Seconds that the trial took; of NNI's service with its delays, where the evaluator reports no
            ``seconds`` of its own.
        image_steps: Images passed through the network in training, forward and backward.
        seed: The evaluator's first seed.
        reason: Why it failed; empty for a finished one.
        curve: Intermediate results, oldest first. NNI's training service delivers each on its own: results that arrive
            after the end of their trial are left out. The score never depends on them.
        space: Which space it belongs to, see :func:`condensekit.nas.spaces.spaces.fingerprint`.
        stopped: Whether its training was given up as hopeless, and scored where it stood.
        recipe: How the evaluator made the score, as JSON values; empty where it does not say.
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

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that :meth:`from_json` reads back."""
        return {**asdict(self), "curve": list(self.curve)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Trial:
        """The inverse of :meth:`to_json`; unknown entries are passed over."""
        known = {name: record[name] for name in cls.__dataclass_fields__ if name in record}
        return cls(**{**known, "curve": tuple(record.get("curve", ()))})


class TrialLog:
    """An append-only file of one JSON line for each finished trial.

    Args:
        path: The file; it and its folder are made with the first trial. None keeps trials in memory only.

    Each line has a checksum; lines of version 0.1 have none. A half-written line, which a kill or a full disk leaves
    behind, is passed over. Where an architecture stands twice for a ranker, the first counts.

    Raises:
        StoreError: The file cannot be read or is damaged; in :meth:`append`, cannot be written.
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
        """The trial of this architecture by this ranker, or None."""
        return self._trials.get((ranker, key(architecture)))

    def trials(self, ranker: str | None = None) -> list[Trial]:
        """All trials, or the trials of one ranker, oldest first."""
        return [trial for trial in self._trials.values() if ranker in (None, trial.ranker)]

    def append(self, trial: Trial) -> None:
        """Add a trial; it is on disk when this returns."""
        if self.path is not None:
            append_line(self.path, trial.to_json())
        self._trials.setdefault((trial.ranker, key(trial.architecture)), trial)

    def check(self, ranker: str, space: str, recipe: Mapping[str, Any]) -> None:
        """Refuse to go on with trials of this ranker that belong to another space, or were scored otherwise.

        Raises:
            ConfigError: The text names both.
        """
        held = self.trials(ranker)
        here = f"{self.path} holds trials of {ranker!r}"
        require(all(t.space in ("", space) for t in held), f"{here} on another space: use another folder")
        for trial in (t for t in held if t.recipe != recipe):
            refuse_other(f"{here} that were scored otherwise", trial.recipe, recipe)
