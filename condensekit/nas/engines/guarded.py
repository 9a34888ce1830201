"""Guarded evaluator: reports to the search why a trial failed, with every evaluator and engine."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import nni
import torch
from nni.nas.evaluator import Evaluator

from condensekit.interrupt import Signalled
from condensekit.nas.engines.failures import TrialError, reason
from condensekit.nas.engines.fresh import fresh
from condensekit.nas.spaces.architecture import key
from condensekit.rng import isolated, key_of

log = logging.getLogger(__name__)

INTERRUPT_AGAIN_S = 1.0  # seconds to a second interrupt: an exception in a finaliser or garbage collection is lost


def _folder() -> str | None:
    """The current folder; None: it is deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _return(folder: str | None) -> None:
    if folder is not None:
        os.chdir(folder)


SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, torch.set_default_device),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (_folder, _return),  # a search may write into a relative folder
)
"""Settings of the whole process that a candidate may change: functions that get and set each of them."""


def interruptible() -> bool:
    """Whether a timer signal can interrupt this thread: signals reach the main thread only."""
    return threading.current_thread() is threading.main_thread()


def interrupted(error: BaseException) -> bool:
    """Whether a signal to this process raised the exception, and not a candidate.

    Commands and workers handle SIGINT in their own ways, which raise no plain KeyboardInterrupt.
    """
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return isinstance(error, Signalled) or (isinstance(error, KeyboardInterrupt) and usual)


@contextlib.contextmanager
def unchanged() -> Iterator[None]:
    """Context that restores :data:`SETTINGS` and warnings, and in which a candidate prints to standard error."""
    before = [get() for get, _ in SETTINGS]
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            yield
    finally:
        for (get, restore), value in zip(SETTINGS, before, strict=True):
            if get() != value:
                restore(value)


class _TimeOverError(BaseException):
    """The time is over. Not an ``Exception``, because a trial or logger that catches all of these would continue."""


class Guarded(Evaluator):  # type: ignore[misc]
    """Evaluator that runs another evaluator and reports its exception as ``{"failed": reason}`` before the trial ends.

    Each trial has a :func:`~condensekit.nas.engines.fresh.fresh` evaluator.

    Args:
        evaluator: The evaluator of the trials.
        limit_s: Seconds after which a timer signal interrupts a trial; None: no limit, or the engine kills the trial.
            Outside the main thread there is no interrupt.
        deadline: Value of ``time.monotonic()`` at which a trial is interrupted in the same way; None: no deadline.
    """

    def __init__(self, evaluator: Evaluator, limit_s: float | None = None, deadline: float | None = None) -> None:
        self.evaluator, self.limit_s, self.deadline = evaluator, limit_s, deadline

    def prepare(self) -> None:
        """Load the data that the evaluator shares between trials."""
        if hasattr(self.evaluator, "prepare"):
            self.evaluator.prepare()

    def evaluate(self, model: Any) -> Any:
        """Not used by the search: NNI calls ``_execute`` with a frozen space."""
        return self.evaluator.evaluate(model)

    def _dump(self) -> dict[str, Any]:
        return {"evaluator": self.evaluator}

    @staticmethod
    def _load(**made: Any) -> Guarded:
        return Guarded(**made)

    def _execute(self, model: Any) -> Any:
        start = time.perf_counter()
        try:
            with unchanged(), isolated(key_of(key(model.sample))), self._timed():
                return fresh(self.evaluator)._execute(model)
        except BaseException as error:
            if interrupted(error):
                raise
            log.debug("the trial failed", exc_info=True)
            steps = error.image_steps if isinstance(error, TrialError) else 0
            spent = {"seconds": time.perf_counter() - start, "image_steps": steps}
            nni.report_final_result({"failed": reason(error), **spent})
            raise TrialError(reason(error)) from error

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        """Context that raises TrialError in its body when the time is over, if this thread can be interrupted."""
        ends = []
        if self.limit_s is not None:
            ends.append((self.limit_s, f"over its limit of {self.limit_s:g} s"))
        if self.deadline is not None:
            ends.append((self.deadline - time.monotonic(), "cut off at the end of the budget"))
        if not ends or not interruptible():
            yield
            return
        seconds, text = min(ends)

        def expired(*_: object) -> None:
            raise _TimeOverError

        before = signal.signal(signal.SIGALRM, expired)
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), INTERRUPT_AGAIN_S)
        try:
            yield
        except _TimeOverError:
            raise TrialError(text) from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
