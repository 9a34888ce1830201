"""Networks of candidates, built in worker processes to find which candidates are the same network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nni
from nni.nas.evaluator import Evaluator
from nni.nas.nn.pytorch import ModelSpace

from condensekit.nas.engines.guarded import interruptible
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.spaces.equivalence import Identify
from condensekit.nas.spaces.identity import identity_of
from condensekit.nas.trials.driver import search
from condensekit.nas.trials.settings import Running
from condensekit.nas.trials.strategies import FixedList
from condensekit.rng import Draw, isolated

LIMIT_S = 60.0  # largest time to build a candidate twice in seconds
NETWORKS = "networks"  # name of the search


class Identification(Evaluator):  # type: ignore[misc]
    """Evaluator that builds a candidate and reports its identity as the intermediate result ``network``."""

    def _execute(self, model: Any) -> Any:
        def make(seed: int) -> Any:
            with isolated(Draw(seed).key("weights")):
                return model.executable_model()

        nni.report_intermediate_result({"default": 0.0, "network": identity_of(make)})
        nni.report_final_result(0.0)


def identifying(running: Running) -> Identify:
    """Function that finds the networks of architectures with the engine and workers of a contest.

    With the engines ``pool`` and ``nni`` candidates are built in workers, so that they can neither hang nor end the
    contest. A candidate that cannot be built, or not within a minute, is a network of its own.
    """
    here = running.engine == "sequential"

    def identify(space: ModelSpace, architectures: Sequence[Architecture]) -> list[str | None]:
        with running.progress.stage(NETWORKS, len(architectures)) as stage:
            trials = search(
                space,
                Identification(),
                FixedList(architectures),
                engine="sequential" if here else "pool",
                workers=running.workers,
                trial_limit_s=None if here and not interruptible() else LIMIT_S,
                ranker=NETWORKS,
                on_trial=lambda trial: stage.advance(),
            )
        found = {key(t.architecture): t.curve[0]["network"] for t in trials if t.score is not None}
        return [found.get(key(architecture)) for architecture in architectures]

    return identify
