"""Pool engine: trials in processes forked from a warm server, which start in milliseconds instead of seconds."""

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

MAX_MESSAGES = 1000  # messages read in a row: more than a pipe holds, but finite for a trial that reports without end


@dataclass(eq=False)
class _Worker:
    pid: int
    pipe: Connection
    model: ExecutableModelSpace | None = None
    deadline: float | None = None


class PoolEngine(Engine):
    """Engine that runs frozen models in worker processes, one model at a time in each process.

    It has no thread of its own: :meth:`pump` dispatches the events, and every method that waits calls it.

    Args:
        server: Fork server.
        job: Number of the server's job that the models belong to.
        workers: Largest number of processes.
        limit_s: Seconds after which the worker of a trial is killed; None: no limit.
        lasting: Whether a process runs several models, one after the other. Otherwise each model has a process of its
            own, and what a candidate changes in its process does not last.
    """

    def __init__(
        self, server: WarmServer, job: int, workers: int, limit_s: float | None = None, lasting: bool = False
    ) -> None:
        super().__init__()
        self.server, self.job, self.workers, self.limit_s, self.lasting = server, job, workers, limit_s, lasting
        self._workers: list[_Worker] = []
        self._waiting: deque[ExecutableModelSpace] = deque()
        self._models: list[ExecutableModelSpace] = []

    def submit_models(self, *models: ExecutableModelSpace) -> None:
        """Start models; further models wait for the end of others."""
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
                worker = _Worker(*self.server.fork(self.job))
                self._workers.append(worker)
            worker.model = self._waiting.popleft()
            worker.deadline = None if self.limit_s is None else time.monotonic() + self.limit_s
            with contextlib.suppress(BrokenPipeError):  # a dead worker is found when its pipe is read
                worker.pipe.send_bytes(json.dumps(worker.model.sample).encode())

    def pump(self, timeout_s: float) -> None:
        """Dispatch the reports of workers; wait for reports at most ``timeout_s`` seconds."""
        busy = {worker.pipe: worker for worker in self._workers if worker.model is not None}
        ends = [worker.deadline for worker in busy.values() if worker.deadline is not None]
        left = min([timeout_s, *(end - time.monotonic() for end in ends)])
        for pipe in wait(list(busy), max(0.0, left)):
            self._drain(busy[pipe])  # type: ignore[index]
        for worker in busy.values():
            if worker.model is not None and worker.deadline is not None and time.monotonic() > worker.deadline:
                self._fail(worker, f"over its limit of {self.limit_s:g} s")
        self._start()

    def _drain(self, worker: _Worker) -> None:
        """Read all messages in the pipe before limits are checked: a trial that ended in time is not over its limit."""
        for _ in range(MAX_MESSAGES):
            if worker.model is None or not worker.pipe.poll():
                return
            self._read(worker)

    def _read(self, worker: _Worker) -> None:
        try:
            message = json.loads(worker.pipe.recv_bytes())
        except (EOFError, OSError):  # it died, perhaps in the middle of a message
            self._fail(worker, None)
            return
        model, value = worker.model, message["value"]
        if message["type"] == "PERIODICAL":
            self.dispatch_model_event(IntermediateMetricEvent(model, value))
        elif message["type"] == "FINAL":
            self.dispatch_model_event(FinalMetricEvent(model, value))
        else:
            worker.model = None
            if not self.lasting:
                self.server.kill(worker.pid)
                self._remove(worker)
            self._ended(model, ModelStatus.Trained if value else ModelStatus.Failed)

    def _fail(self, worker: _Worker, why: str | None) -> None:
        """End the trial of a worker that has died, or that is killed for the reason ``why``."""
        if why is not None:
            self.server.kill(worker.pid)
        end = self._remove(worker)
        model, worker.model = worker.model, None
        self.dispatch_model_event(FinalMetricEvent(model, {"failed": why or end}))
        self._ended(model, ModelStatus.Failed)

    def _remove(self, worker: _Worker) -> str:
        """Remove a worker that has died or is killed; returns a text that says how it ended."""
        self._workers.remove(worker)
        worker.pipe.close()
        return self.server.end_of(worker.pid)

    def _ended(self, model: Any, status: ModelStatus) -> None:
        self.dispatch_model_event(TrainingEndEvent(model, status))

    def list_models(self, status: ModelStatus | None = None) -> Iterable[ExecutableModelSpace]:
        """All submitted models, or the submitted models of one status."""
        return [model for model in self._models if status is None or model.status == status]

    def idle_worker_available(self) -> bool:
        """Whether a model that is submitted now starts at once."""
        return not self._waiting and sum(worker.model is not None for worker in self._workers) < self.workers

    def budget_available(self) -> bool:
        """True: the journal keeps the budgets."""
        return True

    def shutdown(self) -> None:
        """Kill all workers."""
        self._waiting.clear()
        for worker in self._workers:
            self.server.kill(worker.pid)
            worker.pipe.close()
        self._workers.clear()
