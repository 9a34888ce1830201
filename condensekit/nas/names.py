"""Names of the search: engines, spaces, strategies and rankers, without NNI.

What makes an object stands here as ``module:object`` and is imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
LISTED = ("random", "grid")  # strategies under which every ranker scores the same list
ZERO_COST = {name: f"condensekit.nas.rankers.zero_cost:{name}" for name in ("synflow", "nwot", "jacov", "zen")}
COUNTS = ("params", "flops")  # rankers that only count
SCORES = ("accuracy", "cross-entropy", "margin", "tse")  # of a trained candidate
EARLY, ADDITIVE = "early-stop", "additive"  # further rankers
HALF, START = "half-", "start-"  # before a recipe: half of the set is real; all of it is where a condensation starts
RIDGE = "ridge:"  # before rankers: a regression on their scores
EQUAL = "-equal"  # after a selection: trained on for longer, by what the dearest preparation costs


def imported(kind: str, name: str, table: Mapping[str, str]) -> Any:
    """What a table of ``module:object`` has under a name, imported now.

    Raises:
        ConfigError: An unknown name, or an object that cannot be imported here.
    """
    if name not in table:
        raise unknown(kind, name, table)
    with needing_nni(f"{kind} {name!r}"):
        return EntryPoint(name, table[name], "").load()


@contextmanager
def needing_nni(what: str) -> Iterator[None]:
    """Imports of ``what``; where NNI is missing, a ConfigError says so in one line."""
    try:
        yield
    except ImportError as error:
        if not str(error.name or error).startswith("nni"):
            raise
        raise ConfigError(f"{what} needs NNI, which is not installed: pip install 'nni>=3.0,<4'") from error
