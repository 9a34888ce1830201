"""Names of the search: engines, spaces, strategies and rankers, without NNI.

What makes something stands here as ``module:object`` and is imported when asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint
from typing import Any

from condensekit.errors import ConfigError, unknown

ENGINES = ("sequential", "pool", "nni")
SPACES = {
    "convnet": "condensekit.nas.spaces.spaces:convnet_space",
    "convnet-small": "condensekit.nas.spaces.spaces:small_convnet_space",
    "nasbench201": "condensekit.nas.spaces.spaces:nasbench201_space",
}
STRATEGIES = {name: f"condensekit.nas.trials.strategies:{name}" for name in ("random", "grid", "evolution", "tpe")}
LISTED = ("random", "grid")  # strategies for which every ranker scores one list
ZERO_COST = {name: f"condensekit.nas.rankers.zero_cost:{name}" for name in ("synflow", "nwot", "jacov", "zen")}
COUNTS = ("params", "flops")  # rankers that only count
SCORES = ("accuracy", "cross-entropy", "margin", "tse")  # of a trained candidate
EARLY, ADDITIVE = "early-stop", "additive"  # further rankers
# before a method: half of its set is real, or all of it: the images that it starts from; before rankers: a regression
HALF, START, RIDGE = "half-", "start-", "ridge:"


def imported(kind: str, name: str, table: Mapping[str, str]) -> Any:
    """What a table of ``module:object`` has under a name, imported now.

    Raises:
        ConfigError: An unknown name, or one that cannot be imported here.
    """
    if name not in table:
        raise unknown(kind, name, table)
    try:
        return EntryPoint(name, table[name], "").load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"cannot import {kind} {name!r}: {error}") from error
