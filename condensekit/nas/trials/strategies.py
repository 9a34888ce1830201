"""Strategies: NNI's by name, and a given list of architectures."""

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

from condensekit.errors import ConfigError, DataError, require
from condensekit.nas.names import STRATEGIES, imported
from condensekit.nas.spaces.architecture import Architecture, key

log = logging.getLogger(__name__)


class FixedList(Strategy):  # type: ignore[misc]
    """Scores given architectures, in order, each once.

    Args:
        architectures: Of the space that is searched; when the search starts, a DataError names an architecture
            that is not.
    """

    def __init__(self, architectures: Iterable[Architecture]) -> None:
        super().__init__()
        self.architectures = list({key(architecture): architecture for architecture in architectures}.values())

    def extra_repr(self) -> str:
        """For the log."""
        return f"{len(self.architectures)} architectures"

    def _initialize(self, model_space: ExecutableModelSpace, engine: ExecutionEngine) -> ExecutableModelSpace:
        for architecture in self.architectures:
            problem = model_space.check_contains(architecture)
            if problem is not None:
                raise DataError(f"{key(architecture)} is no architecture of this space: {problem}")
        return model_space

    def _run(self) -> None:
        for architecture in self.architectures:
            if not self.wait_for_resource():
                return
            self.engine.submit_models(self.model_space.freeze(architecture))


class Evolution(RegularizedEvolution):  # type: ignore[misc]
    """NNI's regularised evolution; where no candidate has a score yet it draws at random instead of crashing."""

    def new_individual(self) -> ExecutableModelSpace:
        """A mutation of the best of a few."""
        return super().new_individual() if self._population else self.random()


class TPE(stock.TPE):  # type: ignore[misc]
    """NNI's TPE without its pause of a second before each candidate."""

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
    """The choices as NNI's tuners know them; a NotImplementedError for unknown kinds."""
    return {label: mutable.as_legacy_dict() for label, mutable in space.simplify().items()}


def unsearchable(name: str, error: NotImplementedError) -> ConfigError:
    """What to raise where a strategy does not know a kind of choice: NNI's own error names neither it nor a way out."""
    return ConfigError(
        f"{name} cannot search this space ({str(error) or 'it does not say why'}): use another strategy, say random, "
        "or other choices"
    )


def check_searchable(name: str, space: Mutable) -> None:
    """Refuse a space with choices that TPE does not know; all others know every kind that NNI has.

    Args:
        name: Of :data:`~condensekit.nas.names.STRATEGIES`.
        space: To search.

    Raises:
        ConfigError: It is ``tpe``, and the space has constraints, or other mutables than single choices.
    """
    if name != "tpe":
        return
    try:
        _legacy(space)
    except NotImplementedError as error:
        raise unsearchable(name, error) from error


def strategy(name: str, seed: int, trials: int | None = None) -> Strategy:
    """One of NNI's strategies, seeded; higher scores are better.

    Args:
        name: Of :data:`~condensekit.nas.names.STRATEGIES`.
        seed: What it draws follows from it.
        trials: How many it will be given.

    Raises:
        ConfigError: Another name.
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
    """Of an evolution by name that is given so many trials."""
    return min(100, max(5, trials // 4))


def check_population(size: int, workers: int) -> None:
    """Refuse a population that an evolution would wait for without end.

    Args:
        size: At least 1.
        workers: Trials at a time, at least 1.

    Raises:
        ConfigError: The population is not larger than the number of workers.
    """
    enough = f"use fewer workers, or at least {4 * (workers + 1)} trials"
    require(size > workers, f"evolution needs a population above its {workers} workers, got {size}: {enough}")


def evolution(seed: int, trials: int) -> Strategy:
    """NNI's regularised evolution with a quarter of the trials, 5 to 100, as population."""
    size = population(trials)
    return Evolution(population_size=size, sample_size=max(2, size // 4), mutation_prob=0.2, seed=seed)


def tpe(seed: int, trials: int) -> Strategy:
    """NNI's TPE with a fifth of the trials, at least 5, as random start."""
    return TPE(optimize_mode="maximize", seed=seed, tpe_args={"n_startup_jobs": max(5, trials // 5)})
