"""Contexts of a search: what NNI prints, logs and keeps in this process."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Iterator

import nni
from nni.nas.strategy import Strategy
from nni.runtime import log as nni_logging

from condensekit.nas.trials import strategies

TELLING = {
    "nni.nas.execution.sequential": logging.ERROR,
    "nni.nas.strategy.evolution": logging.WARNING,
    "nni.nas.strategy.utils": logging.WARNING,
}
"""NNI's loggers that tell of failed trials and of the end of a space, and the level at which they do."""


@contextlib.contextmanager
def explained(strategy: Strategy) -> Iterator[None]:
    """Context that raises :func:`~condensekit.nas.trials.strategies.unsearchable` for NNI's NotImplementedError.

    A NotImplementedError from other code, such as a user's strategy or ``on_trial``, passes unchanged. One from an
    evaluator does not get here: :class:`~condensekit.nas.engines.guarded.Guarded` makes it a failed trial.
    """
    try:
        yield
    except NotImplementedError as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if not frame.f_globals["__name__"].startswith("nni."):
            raise
        raise strategies.unsearchable(type(strategy).__name__, error) from error


@contextlib.contextmanager
def restored_trial() -> Iterator[None]:
    """Context that restores NNI's current trial, which its sequential engine changes."""
    before = nni.trial._params, nni.trial._intermediate_seq
    try:
        yield
    finally:
        nni.trial._params, nni.trial._intermediate_seq = before


@contextlib.contextmanager
def untold() -> Iterator[None]:
    """Context without NNI's messages on failed trials and spaces without further candidates: we tell of both."""

    def below(record: logging.LogRecord) -> bool:  # a filter of its own, because contexts may be nested
        return record.levelno < TELLING[record.name]

    for name in TELLING:
        logging.getLogger(name).addFilter(below)
    try:
        yield
    finally:
        for name in TELLING:
            logging.getLogger(name).removeFilter(below)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Context in which NNI's messages go to the logger ``nni`` only, and not to standard output."""
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
