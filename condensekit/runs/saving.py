"""Saving: where and how often a run is saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from condensekit.errors import instance, path, positive, refuse, whole


@dataclass(frozen=True)
class Saving:
    """Where and how often a run is saved.

    >>> import tempfile, condensekit as ck
    >>> from pathlib import Path
    >>> train, test = ck.load("digits")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = Path(folder) / "run"
    ...     first = ck.condense(train, "dm", ipc=1, steps=2, saving=ck.Saving(run))
    ...     again = ck.condense(train, "dm", ipc=1, steps=2, saving=ck.Saving(run, resume=True))
    >>> first.set.images.equal(again.set.images)
    True

    Args:
        out: The run folder. It is made if missing; it is an error if it holds a run and ``resume`` is off.
        resume: Continue from the newest valid checkpoint in ``out``; without a checkpoint, start from step 1.
        every: Steps between checkpoints; None: only ``minutes`` decides.
        minutes: Minutes between checkpoints.
        snapshot_every: Steps between PNG pictures of the images; None: only one of the first images, if it is small.
    """

    out: Path
    resume: bool = False
    every: int | None = None
    minutes: float = 5.0
    snapshot_every: int | None = None

    def __post_init__(self) -> None:
        refuse(
            path("out", self.out, "the folder of the run"),
            instance("resume", self.resume, bool, "True or False"),
            None if self.every is None else whole("every", self.every, 1),
            positive("minutes", self.minutes, zero=True),
            None if self.snapshot_every is None else whole("snapshot_every", self.snapshot_every, 1),
        )
        object.__setattr__(self, "out", Path(self.out))
