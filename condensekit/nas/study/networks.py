"""Networks of candidates, built in worker processes to find which candidates are the same network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nni
from nni.nas.evaluator import Evaluator
from nni.nas.nn.pytorch import ModelSpace

from condensekit.nas.engines.client import WarmServer
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.spaces.equivalence import Identify
from condensekit.nas.spaces.identity import identity_of
from condensekit.nas.study.checks import check
from condensekit.nas.trials.settings import Running
from condensekit.rng import Draw, isolated

NETWORKS = "networks"  # name of the check


class Identification(Evaluator):  # type: ignore[misc]
    """Evaluator that builds a candidate and reports its identity as the intermediate result ``network``."""

    def _execute(self, model: Any) -> Any:
        def make(seed: int) -> Any:
            with isolated(Draw(seed).key("weights")):
                return model.executable_model()

        nni.report_intermediate_result({"default": 0.0, "network": identity_of(make)})
        nni.report_final_result(0.0)


def identifying(running: Running, server: WarmServer | None = None) -> Identify:
    """Function that finds the networks of architectures with the engine and workers of a contest.

    With the engines ``pool`` and ``nni`` candidates are built in workers, so that they can neither hang nor end the
    contest. A candidate that cannot be built, or not in the time of a check, is a network of its own.

    Args:
        running: How the trials of the contest are run.
        server: Fork server of the contest; None: a new one for each call.
    """

    def identify(space: ModelSpace, architectures: Sequence[Architecture]) -> list[str | None]:
        trials = check(NETWORKS, space, Identification(), architectures, running, server)
        found = {key(t.architecture): t.curve[0]["network"] for t in trials if t.score is not None}
        return [found.get(key(architecture)) for architecture in architectures]

    return identify
