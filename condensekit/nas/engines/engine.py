"""Engine interface of a search, and the engine that runs trials in this process."""

from __future__ import annotations

import time

from nni.nas.execution import ExecutionEngine, SequentialExecutionEngine

POLL_S = 0.02  # between looks at trials that cannot be waited for


class Engine(ExecutionEngine):  # type: ignore[misc]
    """An NNI engine that can be waited for, and that notices when what its trials need is gone.

    Attributes:
        grace_s: Seconds for which metrics may come in after the end of their trial.
    """

    grace_s = 0.0

    def check(self) -> None:
        """Raise CondensekitError where the end of a trial is not its own: what trials need is gone."""

    def pump(self, timeout_s: float) -> None:
        """Let trials go on for a moment, at most so long."""
        time.sleep(min(timeout_s, POLL_S))


class SequentialEngine(Engine, SequentialExecutionEngine):  # type: ignore[misc]
    """NNI's engine that runs a trial as soon as it is submitted."""
