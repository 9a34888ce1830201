"""Budget: how long a condensation goes on, the seconds it has used, and the pace of its steps."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from condensekit.errors import refuse
from condensekit.progress import Progress, cost, duration

ENTRIES = ("steps", "minutes")  # of a run's ``config.json``, which a resumed run may change
TIMED = 10  # first steps of a call, or two slow ones, whose times tell what the others will cost
SLOW = 2.0  # seconds after the first step, in which the warm-up of a second step no longer matters
TOLD_FROM = 5.0  # seconds; the cost of shorter work is not told
TRAINING = 1 / 3  # of the minutes, for the training of encoders
SHARE = 0.25  # of the minutes, for the choice of the first images, and again for a compiler


@dataclass
class Seconds:
    """Wall time that a run has used, also before a resume.

    Args:
        preparation: Before the first step: trained encoders, first images, samplers.
        steps: In the steps.
        writing: For checkpoints and pictures.
        last_step: Of the last step.
        last_file: Of the last checkpoint.
    """

    preparation: float = 0.0
    steps: float = 0.0
    writing: float = 0.0
    last_step: float = 0.0
    last_file: float = 0.0

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Seconds:
        """The seconds that a checkpoint tells."""
        return cls(
            float(manifest["preparation_s"]), float(manifest["elapsed_s"]), float(manifest.get("writing_s", 0.0))
        )

    def told(self) -> dict[str, float]:
        """The entries of a checkpoint; the inverse of :meth:`of`."""
        return {"preparation_s": self.preparation, "elapsed_s": self.steps, "writing_s": self.writing}

    @property
    def used(self) -> float:
        """All seconds together."""
        return self.preparation + self.steps + self.writing

    def __str__(self) -> str:
        before = f" ({self.preparation:.1f} s of it before the first step)" if self.preparation >= 1 else ""
        return f"{self.used:.1f} s{before}"


@dataclass(frozen=True)
class Budget:
    """How long a run goes on; one of both is given.

    Args:
        steps: Number of steps.
        minutes: Wall time of the whole run.
    """

    steps: int | None
    minutes: float | None

    @property
    def seconds(self) -> float:
        """The wall time; infinite if the steps are given."""
        return math.inf if self.minutes is None else 60 * self.minutes

    @property
    def share(self) -> float:
        """Seconds for each other part of the preparation."""
        return SHARE * self.seconds

    @property
    def training(self) -> float:
        """Seconds for the training of encoders."""
        return TRAINING * self.seconds

    def over(self, step: int, seconds: Seconds) -> bool:
        """Whether the run ends after ``step``: of minutes, if another step and its checkpoint would exceed them."""
        if self.steps is not None:
            return step >= self.steps
        return step > 0 and seconds.used + seconds.last_step + seconds.last_file >= self.seconds

    def done(self, step: int, seconds: Seconds) -> float:
        """How much of the run is over after ``step``, 0 to 1; of minutes, those after the preparation count."""
        if self.steps is not None:
            return step / self.steps
        return min(1.0, (seconds.steps + seconds.writing) / max(self.seconds - seconds.preparation, 1e-9))

    def left(self, step: int, seconds: Seconds, pace: float) -> float:
        """About how many steps are left after ``step``, if each takes ``pace`` seconds."""
        return self.steps - step if self.steps is not None else max(0.0, self.seconds - seconds.used) / max(pace, 1e-9)

    def told(self, seconds: Seconds) -> dict[str, float]:
        """What is left, beside the metrics of a step; of a number of steps the stage itself tells it."""
        return {} if self.minutes is None else {"min left": max(0.0, self.seconds - seconds.used) / 60}

    def extends(self, step: int, former: Mapping[str, Any]) -> bool:
        """Whether a run that finished at ``step``, with the checkpoint ``former``, goes on with this budget."""
        return step < self.steps if self.steps is not None else former.get("minutes", self.minutes) != self.minutes

    def check(self, path: Path, step: int, former: Mapping[str, Any], sees_end: str = "") -> None:
        """Raise ConfigError if the run in ``path`` has used more than this budget after ``step``, or had another one.

        Args:
            path: The run folder.
            step: Steps made.
            former: The manifest of its checkpoint.
            sees_end: The parts of its recipe that depend on the budget, which must be the same; empty: none does.
        """
        ours = {"steps": self.steps, "minutes": self.minutes}
        other = [name for name, value in ours.items() if former.get(name, value) != value]
        refuse(
            *(
                f"the run in {path} has {name}={former[name]}, on which its images depend by {sees_end}, got "
                f"{name}={ours[name]}: give the same, or use another folder"
                for name in other
                if sees_end
            )
        )
        used, rest = Seconds.of(former).used, "give at least as many, or use another folder"
        shorter = self.minutes is not None and self.extends(step, former) and self.seconds < used
        refuse(
            f"the run in {path} has made {step} steps, got steps={self.steps}: {rest}"
            if self.steps is not None and self.steps < step
            else None,
            f"the run in {path} has used {duration(used)}, got minutes={self.minutes}: {rest}" if shorter else None,
        )


class Pace:
    """Seconds and image passes of a step: the medians of the first :data:`TIMED` steps of a call but the first.

    Of slow steps fewer are timed: as many as take :data:`SLOW` seconds, at least one.
    """

    def __init__(self) -> None:
        self.marks: list[tuple[float, int]] = []

    def mark(self, images: int) -> bool:
        """Note that a step has ended after ``images`` image passes; whether the pace has just become known."""
        if self.known:
            return False
        self.marks.append((time.perf_counter(), images))
        return self.known

    @property
    def known(self) -> bool:
        """Whether enough steps have ended."""
        return len(self.marks) > 1 and (len(self.marks) >= TIMED or self.marks[-1][0] - self.marks[0][0] >= SLOW)

    def tell(self, budget: Budget, step: int, seconds: Seconds, where: str, progress: Progress) -> None:
        """Tell what the steps after ``step`` will cost, unless that is little."""
        steps = [(after - before, more - fewer) for (before, fewer), (after, more) in pairwise(self.marks)]
        pace, images = (median(each) for each in zip(*steps, strict=True))
        left = budget.left(step, seconds, pace)
        if left * pace >= TOLD_FROM:
            told = cost(left * images, left * pace, where)
            progress.tell(f"{left:,.0f} more steps: {told}")
