"""Search driver: the one call that runs any strategy over any space through any engine."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nni
from nni.nas.evaluator import Evaluator, MutableEvaluator
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import SimplifiedModelSpace
from nni.nas.strategy import RegularizedEvolution, Strategy
from nni.runtime import log as nni_logging

from condensekit.errors import Problems, refuse, whole
from condensekit.nas.engines.client import WarmServer
from condensekit.nas.engines.engine import Engine, SequentialEngine
from condensekit.nas.engines.guarded import Guarded, interruptible
from condensekit.nas.engines.pool import PoolEngine
from condensekit.nas.engines.worker import Job
from condensekit.nas.spaces.spaces import check_choices, fingerprint
from condensekit.nas.trials import strategies
from condensekit.nas.trials.journal import Journal, Terms
from condensekit.nas.trials.log import Trial, TrialLog
from condensekit.nas.trials.settings import check_running, usual_workers
from condensekit.nas.trials.time_budget import FILE, TimeBudget

log = logging.getLogger(__name__)

MAX_PICKLED_BYTES = 1 << 30  # of a space of the user's main script, which NNI pickles by value


@dataclass(frozen=True)
class Portal:
    """How the ``nni`` engine runs NNI's training service.

    Args:
        folder: For its files.
        port: Of its portal and REST server.
        training_service: NNI's configuration of another service than the local one, say a ``RemoteConfig``; its
            trials start a Python each and import what they need, and the manager has to be reachable for them.
    """

    folder: Path
    port: int = 8080
    training_service: Any = None


def search(
    space: ModelSpace,
    evaluator: Evaluator,
    strategy: Strategy | str,
    *,
    trials: int | None = None,
    engine: str = "pool",
    workers: int | None = None,
    seed: int = 0,
    budget_s: float | TimeBudget | None = None,
    trial_limit_s: float | None = None,
    log: TrialLog | None = None,
    ranker: str = "proxy",
    portal: Portal | None = None,
    server: WarmServer | None = None,
    on_trial: Callable[[Trial], None] | None = None,
) -> list[Trial]:
    """Search a space; kill it at any time and call it again with the same log to go on.

    A resumed search starts the same strategy again from its seed, and architectures in the log are answered from
    it: nothing finished is run twice. It has the trials of an uninterrupted search where the strategy does not
    look at results, or where there is one worker.

    Args:
        space: Where to search.
        evaluator: Scores a candidate: any NNI evaluator that reports a final result, a finite number or a dictionary
            with one as ``default``; higher is better. The dictionary may hold as well ``scores`` (a dictionary of
            numbers), ``seconds`` and ``image_steps`` (what the trial took, 0 or more), ``stopped`` (whether training
            was given up as hopeless), and ``failed`` (why the candidate has no score; an empty text says nothing).
            An evaluator that reports anything else there, or raises, makes a failed trial. What its attribute
            ``recipe`` says, JSON values, is kept with each trial, and trials of another recipe are refused.
        strategy: A fresh NNI strategy, or a name of :data:`~condensekit.nas.names.STRATEGIES`.
        trials: Distinct architectures to score at most, those in the log included; None leaves it to the strategy.
        engine: ``sequential`` (in this process), ``pool`` (warm worker processes) or ``nni`` (its training
            service, with portal). In ``sequential`` a SystemExit is taken for the candidate's, and fails it: a handler
            of signals that shall end the search raises KeyboardInterrupt.
        workers: Trials at a time; None: two, or one on a single core; ``sequential`` has one.
        seed: Of a strategy given by name.
        budget_s: Seconds in all, over every call with a budget and a log in the same folder, which keeps the time
            used; or a running :class:`~condensekit.nas.trials.time_budget.TimeBudget` that is shared with other
            work. What still runs at the end is cut off, and run again by a call with more. ``sequential`` outside
            the main thread cannot cut off: the search ends with the trial that runs then, and a warning says so.
        trial_limit_s: Seconds for one trial; a longer one is ended and marked as failed. Not for ``sequential``
            outside the main thread, which could not end it.
        log: Finished trials are appended to it at once; None keeps them in memory.
        ranker: The name under which they stand there.
        portal: For ``nni``.
        server: A started fork server to use and leave running, for several searches in a row; None starts one.
        on_trial: Told each trial as it is known, those from the log included.

    Returns:
        The trials in the order in which the strategy asked for them, failed ones included.

    Raises:
        ConfigError: Values out of range, more workers than cores, a limit that cannot be kept, a port in use, a log of
            another space or recipe, a strategy that cannot search this space, an evolution with a population not above
            its workers, choices that do not survive JSON, a space or evaluator that cannot be sent to workers.
        DataError: An architecture of a given list that the space does not have.
        StoreError: The log cannot be written.
    """
    workers = usual_workers() if workers is None else workers
    _check(evaluator, engine, workers, trials, trial_limit_s, portal)
    book = TrialLog() if log is None else log
    check_choices(space)
    recipe = getattr(evaluator, "recipe", {})
    book.check(ranker, fingerprint(space), recipe)
    if isinstance(strategy, str):
        with _quiet():
            strategy = strategies.strategy(strategy, seed, trials)
    workers = 1 if engine == "sequential" else workers
    if isinstance(strategy, RegularizedEvolution):
        strategies.check_population(strategy.population_size, workers)
    with contextlib.ExitStack() as stack:
        if isinstance(budget_s, TimeBudget):
            budget = budget_s
        else:
            kept = book.path.with_name(FILE) if book.path and budget_s else None
            budget = stack.enter_context(TimeBudget(budget_s, kept))
        counted = getattr(evaluator, "seed", seed)
        terms = Terms(ranker, fingerprint(space), counted, trials, budget.deadline, trial_limit_s, recipe)

        def journal(below: Engine) -> Journal:
            return Journal(below, book, terms, on_trial)

        stack.enter_context(_quiet())
        if engine == "sequential":
            return _here(space, evaluator, strategy, terms, journal)
        if portal is not None and portal.training_service is not None:
            return _served(space, Guarded(evaluator), strategy, portal, workers, terms, journal, None)
        server = server or stack.enter_context(WarmServer())
        simplified = SimplifiedModelSpace.from_model(space, None)
        server.prepare(Job(nni.dump(simplified, pickle_size_limit=MAX_PICKLED_BYTES), Guarded(evaluator)))
        if engine == "nni" and portal is not None:
            return _served(space, evaluator, strategy, portal, workers, terms, journal, server)
        return _explore(space, evaluator, strategy, journal(PoolEngine(server, workers, trial_limit_s)))


def _check(
    evaluator: Evaluator,
    engine: str,
    workers: int,
    trials: int | None,
    trial_limit_s: float | None,
    portal: Portal | None,
) -> None:
    choosing = isinstance(evaluator, MutableEvaluator) and evaluator.is_mutable()
    elsewhere = portal is not None and portal.training_service is not None
    endless = engine == "sequential" and trial_limit_s is not None and not interruptible()
    problems = Problems()
    with problems:
        check_running(engine, workers, trial_limit_s, None if portal is None else portal.port, elsewhere)
    with problems:
        refuse(
            None if trials is None else whole("trials", trials, 1),
            "engine='nni' needs portal=Portal(folder)" if engine == "nni" and portal is None else None,
            "portal is for engine='nni' only" if engine != "nni" and portal is not None else None,
            "an evaluator with choices of its own cannot be searched: put them into the space" if choosing else None,
            f"engine 'sequential' cannot end a trial outside the main thread, got trial_limit_s={trial_limit_s}: "
            "use engine 'pool', or search in the main thread"
            if endless
            else None,
        )
    problems.refuse()


def _here(
    space: ModelSpace,
    evaluator: Evaluator,
    strategy: Strategy,
    terms: Terms,
    journal: Callable[[Engine], Journal],
) -> list[Trial]:
    """Run a strategy and its trials in this thread."""
    if terms.deadline is not None and not interruptible():
        log.warning("outside the main thread the budget cannot cut off a trial that runs: use engine 'pool' for that")
    guarded = Guarded(evaluator, terms.limit_s, terms.deadline)
    guarded.prepare()
    with _restored_trial(), _untraced():
        return _explore(space, guarded, strategy, journal(SequentialEngine(continue_on_failure=True)))


def _explore(space: ModelSpace, evaluator: Evaluator, strategy: Strategy, journal: Journal) -> list[Trial]:
    """Run a strategy in this thread."""
    try:
        with _explained(strategy):
            strategy(SimplifiedModelSpace.from_model(space, evaluator), journal)
        journal.wait_models()
    finally:
        journal.shutdown()
    return journal.trials()


def _served(
    space: ModelSpace,
    evaluator: Evaluator,
    strategy: Strategy,
    portal: Portal,
    workers: int,
    terms: Terms,
    make: Callable[[Engine], Journal],
    server: WarmServer | None,
) -> list[Trial]:
    """Run a strategy on NNI's training service."""
    from condensekit.nas.service.service import Service

    if server is None:
        warning = (
            "NNI's manager listens on all interfaces at port %d and has no login: anyone who reaches it can run "
            "commands as you; let only the machines of the training service through the firewall"
        )
        log.warning(warning, portal.port)
    made: list[Journal] = []

    def journal(engine: Engine) -> Journal:
        made.append(make(engine))
        return made[0]

    service = Service(
        space,
        evaluator,
        strategy,
        folder=portal.folder,
        workers=workers,
        limit_s=terms.limit_s,
        journal=journal,
        server=server,
        training_service=portal.training_service,
    )
    with _explained(strategy):
        service.explore(portal.port)
    return made[0].trials()


@contextlib.contextmanager
def _explained(strategy: Strategy) -> Iterator[None]:
    """Name the strategy that does not know a kind of choice, and the way out: NNI's NotImplementedError names neither.

    Any other, as of a user's strategy or ``on_trial``, passes unchanged; an evaluator's has become a failed trial in
    :class:`~condensekit.nas.engines.guarded.Guarded`.
    """
    try:
        yield
    except NotImplementedError as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if not frame.f_globals["__name__"].startswith("nni."):
            raise
        raise strategies.unsearchable(type(strategy).__name__, error) from error


@contextlib.contextmanager
def _restored_trial() -> Iterator[None]:
    """NNI's sequential engine leaves its last trial behind as the current one."""
    before = nni.trial._params, nni.trial._intermediate_seq
    try:
        yield
    finally:
        nni.trial._params, nni.trial._intermediate_seq = before


@contextlib.contextmanager
def _untraced() -> Iterator[None]:
    """NNI's sequential engine logs a traceback for each trial that fails; here the journal says why in one line."""
    told = logging.getLogger("nni.nas.execution.sequential")
    told.addFilter(_no_error)
    try:
        yield
    finally:
        told.removeFilter(_no_error)


def _no_error(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """NNI prints its messages to standard output; here they go to the logger ``nni`` only."""
    nothing, nni_log = logging.NullHandler(), logging.getLogger("nni")
    printing = "_stdout_" in nni_logging._handlers
    nni.silence_stdout()
    nni_log.addHandler(nothing)
    try:
        yield
    finally:
        nni_log.removeHandler(nothing)
        if printing:
            nni_logging.start_stdout_logging()
