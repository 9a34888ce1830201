"""Trial log: one line for each finished trial, on disk at once, from which a killed search goes on."""

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
from condensekit.runs.files import regular, staged
from condensekit.runs.kept import refuse_other

log = logging.getLogger(__name__)
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

    A half-written line, which a kill or a full disk leaves behind, is passed over. Where an architecture stands
    twice for a ranker, the first counts.

    Raises:
        StoreError: The file cannot be read; in :meth:`append`, written.
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
        """The trial of this architecture by this ranker, or None."""
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
                    self._torn = True  # until the line is whole
                    _write(file, data)
                if new:
                    with _synced(self.path.parent, os.O_RDONLY | os.O_DIRECTORY):
                        pass
            self._torn = False
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

    def _read(self) -> Iterator[Trial]:
        if self.path is None or not self.path.exists():
            return
        with staged(self.path, "read"):
            regular(self.path)
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
    """A file or folder that is on disk when this is left."""
    file = os.open(path, flags, 0o666)
    try:
        yield file
        os.fsync(file)
    finally:
        os.close(file)


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
