"""Search driver: runs a strategy on a search space through an engine."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nni
from nni.common.serializer import is_traceable
from nni.nas.evaluator import Evaluator, MutableEvaluator
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import SimplifiedModelSpace
from nni.nas.strategy import RegularizedEvolution, Strategy

from condensekit.errors import Problems, refuse, whole
from condensekit.nas.engines.client import WarmServer
from condensekit.nas.engines.engine import Engine, SequentialEngine
from condensekit.nas.engines.fresh import check_fresh
from condensekit.nas.engines.guarded import Guarded, interruptible
from condensekit.nas.engines.pool import PoolEngine
from condensekit.nas.engines.worker import Job
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.spaces.equivalence import networks, ours
from condensekit.nas.spaces.spaces import check_choices, choices, fingerprint, plain
from condensekit.nas.trials import strategies
from condensekit.nas.trials.contexts import explained, quiet, restored_trial, untold
from condensekit.nas.trials.journal import Journal, Terms
from condensekit.nas.trials.log import Trial, TrialLog
from condensekit.nas.trials.settings import check_running, usual_workers
from condensekit.nas.trials.time_budget import FILE, TimeBudget
from condensekit.runs.code import code_of

log = logging.getLogger(__name__)

MAX_PICKLED_BYTES = 1 << 30  # largest size of a space from the user's main script, which NNI pickles by value


@dataclass(frozen=True)
class Portal:
    """Settings of NNI's training service for the engine ``nni``.

    >>> from pathlib import Path
    >>> from condensekit.nas import Portal
    >>> Portal(Path("runs/nas/nni"), port=8081).port
    8081

    Args:
        folder: Folder of its files.
        port: Port of its portal and REST server.
        training_service: NNI's configuration of a training service on other machines, such as a ``RemoteConfig``. Each
            of its trials starts a Python process with all imports, and must be able to reach NNI's manager. None: the
            local service.
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
    fault: Callable[[Architecture], str] = lambda architecture: "",
) -> list[Trial]:
    """Search a space. A killed search is resumed by the same call with the same log.

    A resumed search starts the same strategy again from its seed, and takes finished trials from the log instead of
    running them again. It gives the same trials as an uninterrupted search if the strategy does not depend on results,
    or if there is one worker.

    >>> import nni
    >>> from nni.nas.evaluator import FunctionalEvaluator
    >>> from condensekit.nas import search, space
    >>> def score(network):
    ...     nni.report_final_result(-float(sum(weight.numel() for weight in network.parameters())))
    >>> smallest = search(
    ...     space("convnet-small", (1, 8, 8), 10), FunctionalEvaluator(score), "random", trials=3, engine="sequential"
    ... )
    >>> len(smallest)
    3

    Args:
        space: The search space.
        evaluator: NNI evaluator that scores a candidate. Its final result is a finite number, higher is better, or a
            dictionary with such a number as ``default``. The dictionary may also have the entries ``scores`` (a
            dictionary of numbers), ``seconds`` and ``image_steps`` (the cost of the trial, at least 0), ``stopped``
            (whether the training was given up as hopeless), and ``failed`` (the reason why the candidate has no score;
            an empty text is ignored). Another result, or an exception, makes a failed trial. The attribute ``recipe``
            of the evaluator, JSON values, is stored with each trial; trials of another recipe raise an error. So do
            trials by other code: the definitions of space, evaluator and strategy are stored, outside installed
            packages, with all that they use.
        strategy: A new NNI strategy, or a name of :data:`~condensekit.nas.names.STRATEGIES`.
        trials: Largest number of different networks, including those in the log; None: the strategy decides. An
            architecture that is the same network as an earlier one is not run again, except one of a
            :class:`~condensekit.nas.trials.strategies.FixedList`.
        engine: ``sequential`` (in this process), ``pool`` (in processes forked from a warm server) or ``nni`` (NNI's
            training service, with its portal). A candidate can hang or end its worker, but not the search; one of a
            space that is not condensekit's own has a worker of its own. With ``sequential`` it ends the search if it
            ends the process; a limit interrupts Python code only; what it changes in the process may change later
            trials; and every exception counts as a failure of the candidate, except a KeyboardInterrupt where Ctrl-C
            raises one.
        workers: Number of trials at the same time; None: two, or one on a single core; ``sequential`` has one.
        seed: Seed of a strategy that is given by name.
        budget_s: Seconds of all calls together that have a budget and a log in the same folder, which stores the time
            used; or a running :class:`~condensekit.nas.trials.time_budget.TimeBudget` that other work shares. At the
            end, running trials are cut off; a call with a larger budget runs them again. With ``sequential`` outside
            the main thread, the last trial cannot be cut off and runs to its end, with a warning. None: no limit.
        trial_limit_s: Seconds for one trial; a longer trial is ended and marked as failed. Not possible with
            ``sequential`` outside the main thread. None: no limit.
        log: Log to which each finished trial is appended at once; None: trials are kept in memory.
        ranker: Name of the ranker in the log.
        portal: Settings of the engine ``nni``.
        server: A fork server that is used and not ended, for several searches; None: the search starts its own.
        on_trial: Function that is called with each finished trial, including trials from the log.
        fault: Function that tells before the trial of an architecture why it would fail; empty: the trial is run. An
            architecture with a fault is a failed trial.

    Returns:
        The trials in the order in which the strategy proposed them, including failed trials.

    Raises:
        ConfigError: Values out of range, more workers than cores, a limit that cannot be kept, a port in use, a log of
            another space, recipe or code, a strategy that cannot search this space, an evolution whose population is
            not larger than its number of workers, choices that JSON changes, an evaluator that cannot be made again
            for each trial, or a space or evaluator that cannot be sent to workers.
        DataError: An architecture of a given list does not belong to the space.
        StoreError: The log cannot be written.
    """
    workers = usual_workers() if workers is None else workers
    _check(evaluator, engine, workers, trials, trial_limit_s, portal)
    book = TrialLog() if log is None else log
    check_choices(space)
    recipe = getattr(evaluator, "recipe", {})
    code = code_of(space, evaluator, strategy)
    book.check(ranker, fingerprint(space), recipe, code)
    if isinstance(strategy, str):
        with quiet():
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
        name = key if isinstance(strategy, strategies.FixedList) else _network(space)
        terms = Terms(
            ranker, fingerprint(space), counted, trials, budget.deadline, trial_limit_s, recipe, code, name, fault
        )

        def journal(below: Engine) -> Journal:
            return Journal(below, book, terms, on_trial)

        stack.enter_context(quiet())
        stack.enter_context(untold())
        if engine == "sequential":
            return _here(space, evaluator, strategy, terms, journal)
        if portal is not None and portal.training_service is not None:
            return _served(space, Guarded(evaluator), strategy, portal, workers, terms, journal, None)
        server = server or stack.enter_context(WarmServer())
        simplified = SimplifiedModelSpace.from_model(space, None)
        job = Job(nni.dump(simplified, pickle_size_limit=MAX_PICKLED_BYTES), Guarded(evaluator))
        number = stack.enter_context(server.working_on(job))
        if engine == "nni" and portal is not None:
            return _served(space, evaluator, strategy, portal, workers, terms, journal, server, number)
        return _explore(
            space, evaluator, strategy, journal(PoolEngine(server, number, workers, trial_limit_s, ours(space)))
        )


def _network(space: ModelSpace) -> Callable[[Mapping[str, Any]], str]:
    """Function that names the network of a sample."""
    labels = choices(space)
    return lambda sample: networks(space, [plain(labels, sample)])[0]


def _check(
    evaluator: Evaluator,
    engine: str,
    workers: int,
    trials: int | None,
    trial_limit_s: float | None,
    portal: Portal | None,
) -> None:
    mutable = isinstance(evaluator, MutableEvaluator)
    choosing = mutable and is_traceable(evaluator) and evaluator.is_mutable()
    elsewhere = portal is not None and portal.training_service is not None
    endless = engine == "sequential" and trial_limit_s is not None and not interruptible()
    problems = Problems()
    with problems:
        check_running(engine, workers, trial_limit_s, None if portal is None else portal.port, elsewhere)
    with problems:
        check_fresh(evaluator)
    with problems:
        refuse(
            None if trials is None else whole("trials", trials, 1),
            "engine='nni' needs portal=Portal(folder)" if engine == "nni" and portal is None else None,
            "portal is for engine='nni' only" if engine != "nni" and portal is not None else None,
            f"evaluator {type(evaluator).__name__} has no trace, which NNI needs: write @nni.trace above its class"
            if mutable and not is_traceable(evaluator)
            else None,
            "an evaluator with its own choices cannot be searched: put these into the space" if choosing else None,
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
        log.warning("outside the main thread the budget cannot cut off a running trial: use engine 'pool' for that")
    guarded = Guarded(evaluator, terms.limit_s, terms.deadline)
    guarded.prepare()
    with restored_trial():
        return _explore(space, guarded, strategy, journal(SequentialEngine(continue_on_failure=True)))


def _explore(space: ModelSpace, evaluator: Evaluator, strategy: Strategy, journal: Journal) -> list[Trial]:
    """Run a strategy in this thread."""
    try:
        with explained(strategy):
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
    job: int = 0,
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
        job=job,
        training_service=portal.training_service,
    )
    with explained(strategy):
        service.explore(portal.port)
    return made[0].trials()
