"""Pool engine: trials in processes forked from a warm server, which start in milliseconds instead of seconds."""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from nni.nas.execution.event import FinalMetricEvent, IntermediateMetricEvent, TrainingEndEvent
from nni.nas.space import ExecutableModelSpace, ModelStatus

from condensekit.nas.engines.client import WarmServer
from condensekit.nas.engines.engine import Engine

MAX_MESSAGES = 1000  # messages read in a row: more than a pipe holds, but finite for a trial that reports without end


@dataclass(eq=False)
class _Worker:
    pid: int
    pipe: Connection
    model: ExecutableModelSpace
    deadline: float | None


class PoolEngine(Engine):
    """Engine that runs each frozen model in a worker process of its own, so that no candidate changes another's trial.

    It has no thread of its own: :meth:`pump` dispatches the events, and every method that waits calls it.

    Args:
        server: Fork server.
        job: Number of the server's job that the models belong to.
        workers: Largest number of processes.
        limit_s: Seconds after which the worker of a trial is killed; None: no limit.
    """

    def __init__(self, server: WarmServer, job: int, workers: int, limit_s: float | None = None) -> None:
        super().__init__()
        self.server, self.job, self.workers, self.limit_s = server, job, workers, limit_s
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
        while self._waiting and len(self._workers) < self.workers:
            pid, pipe = self.server.fork(self.job)
            deadline = None if self.limit_s is None else time.monotonic() + self.limit_s
            worker = _Worker(pid, pipe, self._waiting.popleft(), deadline)
            self._workers.append(worker)
            with contextlib.suppress(BrokenPipeError):  # a dead worker is found when its pipe is read
                pipe.send_bytes(json.dumps(worker.model.sample).encode())

    def pump(self, timeout_s: float) -> None:
        """Dispatch the reports of workers; wait for reports at most ``timeout_s`` seconds."""
        busy = {worker.pipe: worker for worker in self._workers}
        ends = [worker.deadline for worker in busy.values() if worker.deadline is not None]
        left = min([timeout_s, *(end - time.monotonic() for end in ends)])
        for pipe in wait(list(busy), max(0.0, left)):
            self._drain(busy[pipe])  # type: ignore[index]
        for worker in list(self._workers):
            if worker.deadline is not None and time.monotonic() > worker.deadline:
                self._end(worker, ModelStatus.Failed, f"over its limit of {self.limit_s:g} s")
        self._start()

    def _drain(self, worker: _Worker) -> None:
        """Read all messages in the pipe before limits are checked: a trial that ended in time is not over its limit."""
        for _ in range(MAX_MESSAGES):
            if worker not in self._workers or not worker.pipe.poll():
                return
            self._read(worker)

    def _read(self, worker: _Worker) -> None:
        try:
            message = json.loads(worker.pipe.recv_bytes())
        except (EOFError, OSError):  # it died, perhaps in the middle of a message
            self._end(worker, ModelStatus.Failed, None)
            return
        model, value = worker.model, message["value"]
        if message["type"] == "PERIODICAL":
            self.dispatch_model_event(IntermediateMetricEvent(model, value))
        elif message["type"] == "FINAL":
            self.dispatch_model_event(FinalMetricEvent(model, value))
        else:
            self._end(worker, ModelStatus.Trained if value else ModelStatus.Failed)

    def _end(self, worker: _Worker, status: ModelStatus, why: str | None = "") -> None:
        """Remove the worker of a trial that has ended.

        Args:
            worker: The worker.
            status: How the trial has ended.
            why: Reason for which it has failed; None: its worker has died; empty: the worker has told the reason.
        """
        self._workers.remove(worker)
        worker.pipe.close()
        if why is not None:
            self.server.kill(worker.pid)
        end = self.server.end_of(worker.pid)
        if why != "":
            self.dispatch_model_event(FinalMetricEvent(worker.model, {"failed": why or end}))
        self.dispatch_model_event(TrainingEndEvent(worker.model, status))

    def list_models(self, status: ModelStatus | None = None) -> Iterable[ExecutableModelSpace]:
        """All submitted models, or the submitted models of one status."""
        return [model for model in self._models if status is None or model.status == status]

    def idle_worker_available(self) -> bool:
        """Whether a model that is submitted now starts at once."""
        return not self._waiting and len(self._workers) < self.workers

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
