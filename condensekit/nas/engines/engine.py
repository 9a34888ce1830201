"""Engine: the base class of engines that run trials, and the engine that runs trials in this process."""

from __future__ import annotations

import time

from nni.nas.execution import ExecutionEngine, SequentialExecutionEngine

POLL_S = 0.02  # seconds between two checks of trials without an event to wait for


class Engine(ExecutionEngine):  # type: ignore[misc]
    """NNI engine that can wait for trials, and that raises an error if a process that trials need has ended.

    Attributes:
        grace_s: Seconds for which metrics may arrive after the end of their trial.
    """

    grace_s = 0.0

    def check(self) -> None:
        """Raise CondensekitError if a process that all trials need has ended."""

    def pump(self, timeout_s: float) -> None:
        """Let trials continue for at most ``timeout_s`` seconds, and handle their events."""
        time.sleep(min(timeout_s, POLL_S))


class SequentialEngine(Engine, SequentialExecutionEngine):  # type: ignore[misc]
    """NNI's engine that runs a trial as soon as it is submitted."""
