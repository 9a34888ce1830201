"""Pool engine: warm worker processes, in which a trial costs milliseconds and not seconds to start."""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from nni.nas.execution.event import FinalMetricEvent, IntermediateMetricEvent, TrainingEndEvent
from nni.nas.space import ExecutableModelSpace, ModelStatus

from condensekit.nas.engines.client import WarmServer
from condensekit.nas.engines.engine import Engine

MAX_MESSAGES = 1000  # read at a look: more than a pipe holds, and an end for a trial that never stops reporting


@dataclass(eq=False)
class _Worker:
    pid: int
    pipe: Connection
    model: ExecutableModelSpace | None = None
    deadline: float | None = None


class PoolEngine(Engine):
    """Runs frozen models in worker processes, one model at a time in each.

    It has no thread: events are dispatched inside :meth:`pump`, which every way to wait calls.

    Args:
        server: Which has the job.
        workers: Processes at most, forked when there is work.
        limit_s: Seconds for one trial; a worker that takes longer is killed.
    """

    def __init__(self, server: WarmServer, workers: int, limit_s: float | None = None) -> None:
        super().__init__()
        self.server, self.workers, self.limit_s = server, workers, limit_s
        self._workers: list[_Worker] = []
        self._waiting: deque[ExecutableModelSpace] = deque()
        self._models: list[ExecutableModelSpace] = []

    def submit_models(self, *models: ExecutableModelSpace) -> None:
        """Start them where workers are idle; others wait."""
        for model in models:
            self._models.append(model)
            model.status = ModelStatus.Training
            self._waiting.append(model)
        self._start()

    def _start(self) -> None:
        while self._waiting:
            worker = next((w for w in self._workers if w.model is None), None)
            if worker is None:
                if len(self._workers) >= self.workers:
                    return
                worker = _Worker(*self.server.fork())
                self._workers.append(worker)
            model = self._waiting.popleft()
            worker.model = model
            worker.deadline = None if self.limit_s is None else time.monotonic() + self.limit_s
            with contextlib.suppress(BrokenPipeError):  # it died: found when its pipe is read
                worker.pipe.send_bytes(json.dumps(model.sample).encode())

    def pump(self, timeout_s: float) -> None:
        """Dispatch what workers report; wait for it at most so long."""
        busy = {worker.pipe: worker for worker in self._workers if worker.model is not None}
        ends = [worker.deadline for worker in busy.values() if worker.deadline is not None]
        left = min([timeout_s, *(end - time.monotonic() for end in ends)])
        for pipe in wait(list(busy), max(0.0, left)):
            self._drain(busy[pipe])  # type: ignore[index]
        for worker in busy.values():
            if worker.model is not None and worker.deadline is not None and time.monotonic() > worker.deadline:
                self._drop(worker, f"over its limit of {self.limit_s:g} s")
        self._start()

    def _drain(self, worker: _Worker) -> None:
        """Read what is in the pipe, so that a trial that ended in time is not over its limit; then limits count."""
        for _ in range(MAX_MESSAGES):
            if worker.model is None or not worker.pipe.poll():
                return
            self._read(worker)

    def _read(self, worker: _Worker) -> None:
        try:
            message = json.loads(worker.pipe.recv_bytes())
        except (EOFError, OSError):  # it died, perhaps in the middle of a message
            self._drop(worker, None)
            return
        model, value = worker.model, message["value"]
        if message["type"] == "PERIODICAL":
            self.dispatch_model_event(IntermediateMetricEvent(model, value))
        elif message["type"] == "FINAL":
            self.dispatch_model_event(FinalMetricEvent(model, value))
        else:
            worker.model = None
            self._ended(model, ModelStatus.Trained if value else ModelStatus.Failed)

    def _drop(self, worker: _Worker, why: str | None) -> None:
        """End a worker that died, or must die: its trial has failed."""
        if why is not None:
            self.server.kill(worker.pid)
        self._workers.remove(worker)
        worker.pipe.close()
        end = self.server.end_of(worker.pid)
        model, worker.model = worker.model, None
        self.dispatch_model_event(FinalMetricEvent(model, {"failed": why or end}))
        self._ended(model, ModelStatus.Failed)

    def _ended(self, model: Any, status: ModelStatus) -> None:
        self.dispatch_model_event(TrainingEndEvent(model, status))

    def list_models(self, status: ModelStatus | None = None) -> Iterable[ExecutableModelSpace]:
        """All submitted models, or the models of one status."""
        return [model for model in self._models if status is None or model.status == status]

    def idle_worker_available(self) -> bool:
        """Whether a model submitted now would start now."""
        return not self._waiting and sum(worker.model is not None for worker in self._workers) < self.workers

    def budget_available(self) -> bool:
        """Always: budgets are the journal's."""
        return True

    def shutdown(self) -> None:
        """Kill all workers."""
        self._waiting.clear()
        for worker in self._workers:
            self.server.kill(worker.pid)
            worker.pipe.close()
        self._workers.clear()
