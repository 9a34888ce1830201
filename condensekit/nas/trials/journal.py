"""Journal: the layer between strategy and engine that logs finished trials and ends a search at its budget."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nni.nas.execution.engine import Middleware
from nni.nas.execution.event import (
    FinalMetricEvent,
    IntermediateMetricEvent,
    ModelEvent,
    ModelEventType,
    TrainingEndEvent,
)
from nni.nas.space import ExecutableModelSpace, ModelStatus

from condensekit.nas.engines.engine import Engine
from condensekit.nas.engines.failures import reason
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.spaces.spaces import choices, plain
from condensekit.nas.trials.log import FAILED, FINISHED, Trial, TrialLog
from condensekit.nas.trials.metrics import as_json, failure, score_of, usable

log = logging.getLogger(__name__)

MAX_REPEATED_PROPOSALS = 50  # repeated proposals in a row, after which the search ends


@dataclass(frozen=True)
class Terms:
    """Limits of a search, and the entries that all its trials share in the log.

    Args:
        ranker: Name of the ranker.
        space: Fingerprint of the space.
        seed: Seed of the evaluator.
        trials: Largest number of different architectures; None: no limit.
        deadline: Value of ``time.monotonic()`` at which the search ends; None: no limit.
        limit_s: Seconds for one trial; a longer trial without a result has failed. None: no limit.
        recipe: How the evaluator makes a score, as JSON values.
        code: Code of space, evaluator and strategy.
        name: Function that gives a text for a sample: samples of the same text are one candidate.
        fault: Function that tells why a trial would fail; empty: it is run.
    """

    ranker: str
    space: str
    seed: int
    trials: int | None = None
    deadline: float | None = None
    limit_s: float | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)
    name: Callable[[Mapping[str, Any]], str] = key
    fault: Callable[[Architecture], str] = lambda architecture: ""


@dataclass(eq=False)
class _Running:
    """A trial that runs in the engine, and the models that wait for its result."""

    models: list[ExecutableModelSpace]
    start: float
    metric: Any = None
    curve: list[Any] = field(default_factory=list)
    ended: tuple[float, ModelStatus] | None = None


class Journal(Middleware):  # type: ignore[misc]
    """Layer that takes known trials from the log, appends finished trials to it, and ends the search at its budget.

    The strategy receives events in its own thread and one at a time, also if the engine receives them in another
    thread; NNI's strategies need this. Engines differ only in the order in which models end.

    Args:
        engine: Engine that runs architectures that are not in the log.
        log: Log of finished trials.
        terms: Names and limits.
        on_trial: Function that is called once with each trial.
    """

    def __init__(
        self, engine: Engine, log: TrialLog, terms: Terms, on_trial: Callable[[Trial], None] | None = None
    ) -> None:
        self.log, self.terms, self.on_trial = log, terms, on_trial
        self.asked: dict[str, Architecture] = {}
        self._running: dict[str, _Running] = {}
        self._models: list[ExecutableModelSpace] = []
        self._events: queue.SimpleQueue[ModelEvent] = queue.SimpleQueue()
        self._repeats = 0
        self._told = self._closed = False
        super().__init__(engine)

    def set_engine(self, engine: Engine) -> None:
        """Set the engine, and receive its events."""
        super().set_engine(engine)
        for kind in ModelEventType:
            engine.register_model_event_callback(kind, self._receive)

    def _receive(self, event: ModelEvent) -> None:
        event.prevent_default()
        self._events.put(event)

    def submit_models(self, *models: ExecutableModelSpace) -> None:
        """Answer each model from the log, or run it."""
        for model in models:
            self._models.append(model)
            self._submit(model)
            self._deliver()

    def _submit(self, model: ExecutableModelSpace) -> None:
        name = self._name(model)
        known = name in self.asked
        if not known and not self.budget_available():
            model.status = ModelStatus.Interrupted
            return
        self._repeats = self._repeats + 1 if known else 0
        architecture = self.asked.setdefault(name, plain(choices(model), model.sample))
        found = self.log.get(self.terms.ranker, architecture)
        if found is not None:
            if not known and self.on_trial is not None:
                self.on_trial(found)
            self._answer(model, found)
        elif name in self._running:
            model.status = ModelStatus.Training
            self._running[name].models.append(model)
        elif why := self.terms.fault(architecture):
            self._finish(_Running([model], time.monotonic(), {"failed": why, "seconds": 0}), ModelStatus.Failed)
        else:
            self._running[name] = _Running([model], time.monotonic())
            self.engine.submit_models(model)

    def _name(self, model: ExecutableModelSpace) -> str:
        return self.terms.name(model.sample)

    def _deliver(self) -> None:
        """Handle the events that have arrived."""
        while not self._events.empty():
            event = self._events.get()
            trial = self._running.get(self._name(event.model))
            if trial is None or self._closed:
                continue
            if isinstance(event, TrainingEndEvent):
                trial.ended = (time.monotonic(), event.status)
            elif isinstance(event, (FinalMetricEvent, IntermediateMetricEvent)):
                self._note(trial, event)
        for trial in list(self._running.values()):
            if trial.ended is None:
                continue
            at, status = trial.ended
            if trial.metric is not None or time.monotonic() >= at + self.engine.grace_s:
                self._end(trial, status)

    def _note(self, trial: _Running, event: FinalMetricEvent | IntermediateMetricEvent) -> None:
        """Keep a metric; a metric that JSON cannot hold makes the trial fail."""
        try:
            metric = as_json(event.metric, isinstance(event, FinalMetricEvent))
        except Exception as error:  # the conversion of a foreign object to a number may raise any exception
            trial.metric = {"failed": f"a metric is no number, and not made of numbers and texts: {reason(error)}"}
            return
        if isinstance(event, IntermediateMetricEvent):
            trial.curve.append(metric)
            self.dispatch_model_event(IntermediateMetricEvent(event.model, metric))
        elif not failure(trial.metric):
            trial.metric = metric

    def _end(self, running: _Running, status: ModelStatus) -> None:
        del self._running[self._name(running.models[0])]
        if status != ModelStatus.Trained and self._spent():
            return  # the budget ended: the trial is unfinished and has not failed
        if running.metric is None:
            self.engine.check()  # the trial may have ended because the fork server or NNI's manager has ended
        trial = self._finish(running, status)
        if trial.reason:
            log.warning("%s: %s failed: %s", trial.ranker, key(trial.architecture), trial.reason)

    def _finish(self, running: _Running, status: ModelStatus) -> Trial:
        """Log the trial of models, and tell their strategy its result."""
        trial = self._judge(running, status)
        self.log.append(trial)
        self._told = True
        if self.on_trial is not None:
            self.on_trial(trial)
        for model in running.models:
            self._answer(model, trial)
        return trial

    def _judge(self, running: _Running, status: ModelStatus) -> Trial:
        """The log entry of a trial that has ended."""
        metric, unusable = usable(running.metric if isinstance(running.metric, dict) else {"default": running.metric})
        took = (running.ended[0] if running.ended else time.monotonic()) - running.start
        score = score_of(metric)
        problem = failure(metric) or unusable
        # NNI's manager sometimes confuses the ends of two trials: a result that has arrived counts in any case.
        if not problem and score is None and status != ModelStatus.Trained:
            late = self.terms.limit_s is not None and took >= self.terms.limit_s
            problem = f"over its limit of {self.terms.limit_s:g} s" if late else "it crashed: see the engine's own log"
        elif not problem and running.metric is None:
            problem = "it reported no final result: the evaluator must call nni.report_final_result"
        elif not problem and score is None:
            problem = f"its final result is no finite number: {metric.get('default')!r:.100}"
        return Trial(
            self.terms.ranker,
            self.asked[self._name(running.models[0])],
            None if problem else score,
            FAILED if problem else FINISHED,
            {} if problem else metric.get("scores", {}),
            round(metric.get("seconds", took), 3),
            metric.get("image_steps", 0),
            self.terms.seed,
            problem,
            tuple(running.curve),
            self.terms.space,
            bool(metric.get("stopped", False)),
            self.terms.recipe,
            {} if self._told else self.terms.code,
        )

    def _answer(self, model: ExecutableModelSpace, trial: Trial) -> None:
        """Send the result of a trial to the strategy."""
        if trial.score is not None:
            self.dispatch_model_event(FinalMetricEvent(model, trial.score))
        status = ModelStatus.Trained if trial.status == FINISHED else ModelStatus.Failed
        self.dispatch_model_event(TrainingEndEvent(model, status))

    def idle_worker_available(self) -> bool:
        """Wait until a model can be submitted; False: the budget is spent, and no model can be submitted."""
        while self.budget_available():
            if self.engine.idle_worker_available():
                return True
            self._wait()
        return False

    def budget_available(self) -> bool:
        """Whether the strategy may propose another architecture."""
        self._deliver()
        full = self.terms.trials is not None and len(self.asked) >= self.terms.trials
        return not (full or self._spent() or self._repeats >= MAX_REPEATED_PROPOSALS)

    def _spent(self) -> bool:
        return self._closed or (self.terms.deadline is not None and time.monotonic() >= self.terms.deadline)

    def wait_models(self, *models: ExecutableModelSpace) -> None:
        """Wait until the models (without arguments: all models) have ended, or the time is over."""
        self._deliver()
        while self._running and not self._spent():
            if models and all(model.status.completed() for model in models):
                return
            self._wait()

    def _wait(self) -> None:
        """Let the engine work for at most a second."""
        left = 1.0 if self.terms.deadline is None else max(0.0, self.terms.deadline - time.monotonic())
        self.engine.pump(min(left, 1.0))
        self._deliver()

    def list_models(self, status: ModelStatus | None = None) -> Iterable[ExecutableModelSpace]:
        """All models that the strategy submitted, or the submitted models of one status."""
        return [model for model in self._models if status is None or model.status == status]

    def trials(self) -> list[Trial]:
        """The trials of all proposed architectures, in the order of the proposals."""
        found = (self.log.get(self.terms.ranker, architecture) for architecture in self.asked.values())
        return [trial for trial in found if trial is not None]

    def close(self) -> None:
        """Accept no more results: running trials stay unfinished."""
        self._closed = True

    def shutdown(self) -> None:
        """Close the journal and end the engine."""
        self.close()
        self.engine.shutdown()

    def state_dict(self) -> dict[str, Any]:
        """Empty: the log is the state."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing, see :meth:`state_dict`."""
