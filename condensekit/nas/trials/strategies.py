"""Strategies of a search: NNI's strategies by name, and a list of given architectures."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, cast

import nni
import nni.nas.strategy as stock
from nni.mutable import Mutable
from nni.nas.execution import ExecutionEngine
from nni.nas.space import ExecutableModelSpace
from nni.nas.strategy import GridSearch, Random, RegularizedEvolution, Strategy

from condensekit.errors import ConfigError, DataError, refuse, require, several
from condensekit.nas.names import STRATEGIES, imported
from condensekit.nas.spaces.architecture import Architecture, key

log = logging.getLogger(__name__)


class FixedList(Strategy):  # type: ignore[misc]
    """Strategy that proposes given architectures, in their order, each once.

    >>> from condensekit.nas import FixedList, sample_architectures, space
    >>> FixedList(sample_architectures(space("nasbench201"), n=5, seed=0)).extra_repr()
    '5 architectures'

    Args:
        architectures: Architectures of the space. An architecture of another space raises a DataError when the search
            starts.
    """

    def __init__(self, architectures: Iterable[Architecture]) -> None:
        super().__init__()
        refuse(several("architectures", architectures, "a list of dictionaries"))
        self.architectures = list({key(architecture): architecture for architecture in architectures}.values())

    def extra_repr(self) -> str:
        """Text for NNI's log."""
        return f"{len(self.architectures)} architectures"

    def _initialize(self, model_space: ExecutableModelSpace, engine: ExecutionEngine) -> ExecutableModelSpace:
        for architecture in self.architectures:
            problem = model_space.check_contains(architecture)
            if problem is not None:
                raise DataError(f"{key(architecture)} is not an architecture of this space: {problem}")
        return model_space

    def _run(self) -> None:
        for architecture in self.architectures:
            if not self.wait_for_resource():
                return
            self.engine.submit_models(self.model_space.freeze(architecture))


class Evolution(RegularizedEvolution):  # type: ignore[misc]
    """NNI's regularised evolution; it draws at random while no candidate has a score, where NNI's class fails."""

    def new_individual(self) -> ExecutableModelSpace:
        """A mutation of the best of a few candidates, or a random candidate."""
        return super().new_individual() if self._population else self.random()


class TPE(stock.TPE):  # type: ignore[misc]
    """NNI's TPE, without the pause of one second before each candidate."""

    def _run(self) -> None:
        self.tuner.update_search_space(_legacy(self.model_space))
        while self.wait_for_resource():
            try:
                sample = self.tuner.generate_parameters(self._model_count)
            except nni.NoMoreTrialError:
                log.info("TPE has no more candidates")
                return
            model = self.model_space.freeze(cast(dict[str, Any], sample))
            self._model_to_id[model] = self._model_count
            self._model_count += 1
            self.engine.submit_models(model)


def _legacy(space: Mutable) -> dict[str, Any]:
    """Choices in the format of NNI's tuners. Raises NotImplementedError for kinds that this format does not have."""
    return {label: mutable.as_legacy_dict() for label, mutable in space.simplify().items()}


def unsearchable(name: str, error: NotImplementedError) -> ConfigError:
    """Make the error for a strategy that cannot use a kind of choice; NNI's error names neither of them."""
    return ConfigError(
        f"{name} cannot search this space ({str(error) or 'NNI gives no reason'}): use another strategy, such as "
        "random, or other choices"
    )


def check_searchable(name: str, space: Mutable) -> None:
    """Raise an error for a space that the strategy cannot search: only TPE cannot use every kind of choice.

    Args:
        name: Name of :data:`~condensekit.nas.names.STRATEGIES`.
        space: The search space.

    Raises:
        ConfigError: The strategy is ``tpe``, and the space has constraints or mutables other than single choices.
    """
    if name != "tpe":
        return
    try:
        _legacy(space)
    except NotImplementedError as error:
        raise unsearchable(name, error) from error


def strategy(name: str, seed: int, trials: int | None = None) -> Strategy:
    """Make one of NNI's strategies, for scores of which higher is better.

    >>> from condensekit.nas import strategy
    >>> type(strategy("evolution", seed=0, trials=40)).__name__
    'Evolution'

    Args:
        name: Name of :data:`~condensekit.nas.names.STRATEGIES`.
        seed: Seed of its random numbers.
        trials: Number of trials of the search, which decides sizes such as the population; None: 100.

    Raises:
        ConfigError: An unknown name.
    """
    made: Strategy = imported("strategy", name, STRATEGIES)(seed, trials or 100)
    return made


def random(seed: int, trials: int) -> Strategy:
    """NNI's random search."""
    return Random(seed=seed)


def grid(seed: int, trials: int) -> Strategy:
    """NNI's grid search, shuffled."""
    return GridSearch(seed=seed)


def population(trials: int) -> int:
    """Population of the strategy ``evolution`` for this number of trials: a quarter of them, from 5 to 100."""
    return min(100, max(5, trials // 4))


def check_population(size: int, workers: int) -> None:
    """Raise an error for a population with which an evolution would wait without end.

    Args:
        size: Size of the population, at least 1.
        workers: Number of trials at the same time, at least 1.

    Raises:
        ConfigError: The population is not larger than the number of workers.
    """
    enough = f"use fewer workers, or at least {4 * (workers + 1)} trials"
    require(size > workers, f"evolution needs a population above its {workers} workers, got {size}: {enough}")


def evolution(seed: int, trials: int) -> Strategy:
    """NNI's regularised evolution with the population of :func:`population`."""
    size = population(trials)
    return Evolution(population_size=size, sample_size=max(2, size // 4), mutation_prob=0.2, seed=seed)


def tpe(seed: int, trials: int) -> Strategy:
    """NNI's TPE, which starts with random candidates: a fifth of the trials, at least 5."""
    return TPE(optimize_mode="maximize", seed=seed, tpe_args={"n_startup_jobs": max(5, trials // 5)})
