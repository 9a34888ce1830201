"""Names of the search: engines, spaces, strategies and rankers, without NNI.

The tables hold ``module:object`` for each name; :func:`imported` imports the object.
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
LISTED = ("random", "grid")  # strategies in which all rankers score the same list of architectures
ZERO_COST = {name: f"condensekit.nas.rankers.zero_cost:{name}" for name in ("synflow", "nwot", "jacov", "zen")}
COUNTS = ("params", "flops")  # rankers that count a property of the architecture
SCORES = ("accuracy", "cross-entropy", "margin", "tse")  # scores of a trained candidate
EARLY, ADDITIVE = "early-stop", "additive"  # names of further rankers
HALF, START = "half-", "start-"  # prefixes of a recipe: half of the set is real; the set is the recipe's first images
RIDGE = "ridge:"  # prefix of rankers: a regression on their scores
EQUAL = "-equal"  # suffix of a selection: longer trainings, which cost as much as the most expensive preparation


def imported(kind: str, name: str, table: Mapping[str, str]) -> Any:
    """Import the object that a table of ``module:object`` has for a name.

    Raises:
        ConfigError: An unknown name, or an object that needs NNI when NNI is not installed.
    """
    if name not in table:
        raise unknown(kind, name, table)
    with needing_nni(f"{kind} {name!r}"):
        return EntryPoint(name, table[name], "").load()


@contextmanager
def needing_nni(what: str) -> Iterator[None]:
    """Context of imports for ``what``: raises a ConfigError of one line if NNI is not installed."""
    try:
        yield
    except ImportError as error:
        if not str(error.name or error).startswith("nni"):
            raise
        raise ConfigError(f"{what} needs NNI, which is not installed: pip install 'nni>=3.0,<4'") from error
