"""Progress: reports of long work. The library reports, and the caller decides what to show."""

from __future__ import annotations

import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

FIRST_LINE, NEXT_LINE = 10.0, 60.0  # seconds until the first line about a stage, and between later lines
ENOUGH = 10  # steps, or half of fewer steps, from which the time left is foreseen: the first may be the dearest
UNFORESEEN = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"  # a bar of tqdm before
TICK = 1.0  # seconds between two looks at the time while a stage reports nothing


class Stage:
    """A running piece of work; a subclass may show it."""

    def advance(self, steps: int = 1, values: Mapping[str, float] | None = None) -> None:
        """Report that ``steps`` more steps are done; ``values`` are the newest metrics, such as ``{"loss": 1.2}``."""


class Shared(Stage):
    """A stage that several workers share; when one worker fails, the others stop."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.lock = threading.Lock()
        self.failure: BaseException | None = None

    def advance(self, steps: int = 1, values: Mapping[str, float] | None = None) -> None:
        """Advance the stage; raises the error of another worker."""
        with self.lock:
            if self.failure:
                raise self.failure
            self.stage.advance(steps, values)

    @contextmanager
    def ending_all(self) -> Iterator[None]:
        """Make an error raised inside, or Ctrl-C, stop all workers at their next step."""
        try:
            yield
        except BaseException as error:
            self.failure = self.failure or error
            raise


class Progress:
    """Silent progress; subclass and override :meth:`stage` to show a bar."""

    @contextmanager
    def stage(self, name: str, total: int | None, done: int = 0) -> Iterator[Stage]:
        """Begin a piece of work with ``total`` steps (None: unknown), of which ``done`` are finished already."""
        yield Stage()

    def tell(self, text: str) -> None:
        """Say one sentence about the work, such as what it will cost; silent progress says nothing."""


SILENT = Progress()


class Part(Progress):
    """Progress of one part of a longer work; its stages are named after the part.

    Args:
        whole: Progress of the whole work.
        title: Name and number of the part: ``set 2 of 5``.
    """

    def __init__(self, whole: Progress, title: str) -> None:
        self.whole, self.title = whole, title

    @contextmanager
    def stage(self, name: str, total: int | None, done: int = 0) -> Iterator[Stage]:
        """See :meth:`Progress.stage`."""
        with self.whole.stage(f"{self.title}: {name}", total, done) as stage:
            yield stage

    def tell(self, text: str) -> None:
        """See :meth:`Progress.tell`."""
        self.whole.tell(f"{self.title}: {text}")


def enough(done: int, total: int) -> bool:
    """Whether ``done`` of ``total`` steps tell how long the others take."""
    return done > 1 and done >= min(ENOUGH, total / 2)


def told(values: Mapping[str, float]) -> dict[str, str]:
    """Metrics as people read them: an accuracy in percent, as in tables."""
    return {name: f"{100 * value:.1f} %" if name == "accuracy" else f"{value:.4g}" for name, value in values.items()}


class Bar(Stage):
    """A stage shown as a bar of tqdm with its newest metrics, and with the remaining time after :func:`enough` steps.

    Args:
        bar: The bar.
        left: Number of steps; None: unknown.
    """

    def __init__(self, bar: Any, left: int | None) -> None:
        self.bar, self.left, self.done = bar, left, 0
        bar.bar_format = None if left is None else UNFORESEEN

    def advance(self, steps: int = 1, values: Mapping[str, float] | None = None) -> None:
        """See :meth:`Stage.advance`."""
        if values:
            self.bar.set_postfix(told(values), refresh=False)
        self.done += steps
        if self.left is not None and enough(self.done, self.left):
            self.bar.bar_format = None
        self.bar.update(steps)


class Bars(Progress):
    """A bar for each stage, with the remaining time: on standard error if it is a terminal, or in a notebook."""

    @contextmanager
    def stage(self, name: str, total: int | None, done: int = 0) -> Iterator[Stage]:
        """See :meth:`Progress.stage`."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "IProgress not found")  # a notebook without ipywidgets has text bars
            from tqdm.auto import tqdm

        shown: Any = {} if in_notebook() else {"file": sys.stderr, "disable": None}
        with (
            tqdm(total=total, initial=done, desc=name, dynamic_ncols=True, **shown) as bar,
            ticking(bar.refresh if not bar.disable else None),
        ):
            yield Bar(bar, None if total is None else total - done)

    def tell(self, text: str) -> None:
        """See :meth:`Progress.tell`."""
        from tqdm.auto import tqdm

        if in_notebook() or sys.stderr.isatty():
            tqdm.write(text, file=sys.stderr)


def in_notebook() -> bool:
    """Whether this is the process of a notebook, whose standard error is no terminal and shows bars all the same."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in shell.config


class Line(Stage):
    """A stage that is told in lines.

    The time left is that of the steps after the first, which may also load libraries, start workers or read data.

    Args:
        name: Name of the stage.
        total: Number of steps; None: unknown.
        done: Number of finished steps.
        tell: Prints one line.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        name: str,
        total: int | None,
        done: int,
        tell: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.total, self.done, self.tell, self.clock = name, total, done, tell, clock
        self.began, self.before = clock(), done
        self.due = self.began + FIRST_LINE
        self.first: tuple[float, int] | None = None  # when the first step had ended, and the number of steps then
        self.values: Mapping[str, float] = {}
        self.lock = threading.Lock()

    def advance(self, steps: int = 1, values: Mapping[str, float] | None = None) -> None:
        """See :meth:`Stage.advance`."""
        self.done += steps
        self.values = values or {}
        if steps and self.first is None:
            self.first = self.clock(), self.done
        self.tick()

    def tick(self) -> None:
        """Tell a line if it is time to, also where no step has ended."""
        with self.lock:
            now = self.clock()
            if now < self.due:
                return
            self.due = now + NEXT_LINE
        numbers = [f"{self.done}" if self.total is None else f"{self.done} of {self.total}"]
        numbers += [f"{name} {value}" for name, value in told(self.values).items()]
        if self.first is None:
            numbers.append(f"for {duration(now - self.began)}")
        elif self.total is not None and enough(self.done - self.before, self.total - self.before):
            since, first = self.first
            if self.done > first:
                left = (now - since) / (self.done - first) * (self.total - self.done)
                numbers.append(f"{duration(left)} left")
        self.tell(f"{datetime.now():%H:%M:%S} {self.name}: {', '.join(numbers)}")


class Lines(Progress):
    """A line about each running stage after some seconds, and then every minute: for logs and clusters.

    Args:
        say: Prints one line.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        self.say = say

    @contextmanager
    def stage(self, name: str, total: int | None, done: int = 0) -> Iterator[Stage]:
        """See :meth:`Progress.stage`."""
        line = Line(name, total, done, self.say)
        with ticking(line.tick):
            yield line

    def tell(self, text: str) -> None:
        """See :meth:`Progress.tell`."""
        self.say(text)


@contextmanager
def ticking(tick: Callable[[], object] | None, seconds: float = TICK) -> Iterator[None]:
    """Call ``tick`` from another thread, always after so many ``seconds``; None: call nothing."""
    if tick is None:
        yield
        return
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            tick()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def cost(passes: float, seconds: float, where: str) -> str:
    """What work will cost, for people: ``about 5,200,000 image passes, about 3 min 20 s on this machine (2 workers)``.

    Args:
        passes: Images put through a network; told with two digits.
        seconds: Time of the work.
        where: The workers or the device.
    """
    return f"about {float(f'{passes:.2g}'):,.0f} image passes, about {duration(seconds)} on this machine ({where})"


def duration(seconds: float) -> str:
    """A time for people: ``42 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
