"""Trial log: a file with one line for each finished trial, from which a killed search is resumed."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from condensekit.errors import require
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.runs.files import staged
from condensekit.runs.kept import refuse_other

log = logging.getLogger(__name__)
FINISHED, FAILED = "finished", "failed"


@dataclass(frozen=True)
class Trial:
    """Score of one candidate by one ranker, or the failure of this candidate.

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
        """The trial as a dictionary of JSON values."""
        return {**asdict(self), "curve": list(self.curve)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Trial:
        """The inverse of :meth:`to_json`; unknown entries are ignored."""
        known = {name: record[name] for name in cls.__dataclass_fields__ if name in record}
        return cls(**{**known, "curve": tuple(record.get("curve", ()))})


class TrialLog:
    """Append-only file with one JSON line for each finished trial.

    An incomplete line, which a kill or a full disk leaves behind, is ignored. If an architecture has two lines of the
    same ranker, the first line counts.

    Args:
        path: The file; the first trial makes the file and its folder. None: trials are kept in memory only.

    Raises:
        StoreError: The file cannot be read; in :meth:`append`, if it cannot be written.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._trials: dict[tuple[str, str], Trial] = {}
        self._torn = False
        for trial in self._read():
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
            line = json.dumps(trial.to_json(), separators=(",", ":")) + "\n"
            with staged(self.path, "append"):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                new = not self.path.exists()
                with _synced(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW) as file:
                    data = ("\n" * self._torn + line).encode()
                    self._torn = True  # until the line is complete
                    _write(file, data)
                if new:
                    with _synced(self.path.parent, os.O_RDONLY | os.O_DIRECTORY):
                        pass
            self._torn = False
        self._trials.setdefault((trial.ranker, key(trial.architecture)), trial)

    def check(self, ranker: str, space: str, recipe: Mapping[str, Any]) -> None:
        """Raise an error if trials of a ranker have another space or another recipe.

        Raises:
            ConfigError: A trial has another space or recipe; the text names the difference.
        """
        held = self.trials(ranker)
        here = f"{self.path} holds trials of {ranker!r}"
        require(all(t.space in ("", space) for t in held), f"{here} on another space: use another folder")
        for trial in (t for t in held if t.recipe != recipe):
            refuse_other(f"{here} that were scored otherwise", trial.recipe, recipe)

    def _read(self) -> Iterator[Trial]:
        if self.path is None or not self.path.exists():
            return
        with staged(self.path, "read"):
            data = self.path.read_bytes()
        self._torn = bool(data) and not data.endswith(b"\n")
        for number, line in enumerate(data.splitlines(), 1):
            try:
                yield Trial.from_json(json.loads(line))
            except (ValueError, TypeError, AttributeError):
                if line:
                    log.warning("%s: line %d is no whole trial and is passed over", self.path, number)


@contextlib.contextmanager
def _synced(path: Path, flags: int) -> Iterator[int]:
    """Context of an open file or folder, which is synchronised to disk at the end."""
    file = os.open(path, flags, 0o666)
    try:
        yield file
        os.fsync(file)
    finally:
        os.close(file)


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
