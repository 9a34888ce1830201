"""Story: numbered chapters of a long command, one bar for all of them, and a sentence of verdict after each."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from condensekit.cli import show
from condensekit.progress import Progress, Stage, duration

REFRESH, LINE = 0.5, 4.0  # seconds between two looks of the bar, and between two lines where there is no terminal
TRUSTED = 3.0  # seconds of finished work after which the pace of this machine is known


@dataclass(frozen=True)
class Chapter:
    """A chapter of a story.

    Args:
        purpose: What is done, and what for.
        seconds: Its time on two cores.
        stages: Seconds of each of its stages, by the first word of the stage's name; other stages count nothing.
    """

    purpose: str
    seconds: float
    stages: Mapping[str, float] = field(default_factory=dict)


class Part(Stage):
    """A stage as a share of its chapter.

    Args:
        total: Number of steps; None: unknown.
        done: Number of finished steps.
        tell: Takes the finished share of the stage.
    """

    def __init__(self, total: int | None, done: int, tell: Callable[[float], object]) -> None:
        self.total, self.done, self.tell = total, done, tell

    def advance(self, steps: int = 1, values: Mapping[str, float] | None = None) -> None:
        """See :meth:`Stage.advance`."""
        self.done += steps
        if self.total:
            self.tell(min(1.0, self.done / self.total))


class Story(Progress):
    """Chapters in their order, with one bar on standard error; a line every few seconds if it is not a terminal.

    Args:
        chapters: The chapters.
        quiet: Whether only verdicts are shown.
        say: Prints a verdict.
    """

    def __init__(self, chapters: Sequence[Chapter], quiet: bool, say: Callable[[str], object]) -> None:
        self.chapters, self.quiet, self.say = tuple(chapters), quiet, say
        self.verdicts: list[str] = []
        self.began = time.monotonic()
        self.bar: Any = None
        self._ended_s = 0.0  # seconds on two cores of the finished stages of the chapter
        self._running_s = 0.0  # of the running stage
        self._over = threading.Event()

    @property
    def expected(self) -> float:
        """Seconds of all chapters on two cores."""
        return sum(chapter.seconds for chapter in self.chapters)

    @property
    def done(self) -> float:
        """Seconds of what is done, on two cores."""
        told = len(self.verdicts)
        before = sum(chapter.seconds for chapter in self.chapters[:told])
        if told == len(self.chapters):
            return before
        chapter = self.chapters[told]
        return before + min(chapter.seconds, self._ended_s + self._running_s)

    @contextmanager
    def told(self) -> Iterator[Story]:
        """Show the bar, or lines, until the end."""
        from tqdm import tqdm

        lines = not self.quiet and not sys.stderr.isatty()
        with tqdm(
            total=self.expected,
            bar_format="{desc} {percentage:3.0f} %|{bar}| {elapsed} passed{postfix}",
            file=sys.stderr,
            disable=self.quiet or lines,
            dynamic_ncols=True,
            leave=False,
        ) as self.bar:
            ticker = threading.Thread(target=self._tick, args=(lines,), daemon=True)
            ticker.start()
            try:
                yield self
            finally:
                self._over.set()
                ticker.join()

    def begin(self) -> None:
        """Tell what the next chapter does, and how long it takes."""
        self._ended_s = self._running_s = 0.0
        number, chapter = len(self.verdicts) + 1, self.chapters[len(self.verdicts)]
        before = self.done
        passed = time.monotonic() - self.began
        pace = passed / before if before >= TRUSTED else 1.0
        if not self.quiet:
            took = duration(max(1.0, chapter.seconds * pace))
            self._write(show.tell, f"{number} of {len(self.chapters)}: {chapter.purpose}; about {took}")

    def verdict(self, text: str) -> None:
        """End the chapter with what it found."""
        self.verdicts.append(text)
        self._write(self.say, f"   {text}")

    @contextmanager
    def stage(self, name: str, total: int | None, done: int = 0) -> Iterator[Stage]:
        """See :meth:`Progress.stage`."""
        word = name.split()[0].rstrip(",")
        seconds = self.chapters[len(self.verdicts)].stages.get(word, 0.0)

        def advanced(share: float) -> None:
            self._running_s = share * seconds

        yield Part(total, done, advanced if seconds else lambda share: None)
        if seconds:
            self._ended_s, self._running_s = self._ended_s + seconds, 0.0

    def _write(self, tell: Callable[[str], object], text: str) -> None:
        """Print a text above the bar."""
        with self.bar.external_write_mode():
            tell(text)

    def _tick(self, lines: bool) -> None:
        while not self._over.wait(LINE if lines else REFRESH):
            done, passed = self.done, time.monotonic() - self.began
            left = f"about {duration(passed / done * (self.expected - done))} left" if done >= TRUSTED else ""
            number = f"{min(len(self.verdicts) + 1, len(self.chapters))} of {len(self.chapters)}"
            if lines:
                parts = [f"{datetime.now():%H:%M:%S} {number}", f"{100 * done / self.expected:.0f} % of all"]
                show.tell(", ".join([*parts, *filter(None, [left])]))
            elif not self.bar.disable:
                self.bar.set_description_str(number, refresh=False)
                self.bar.set_postfix_str(left, refresh=False)
                self.bar.n = done
                self.bar.refresh()
