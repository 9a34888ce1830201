"""Architecture search on NNI, in which candidates are ranked on a condensed set.

The names below are imported at their first use. The import of this package does not import NNI.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from condensekit import lazy
from condensekit.nas.names import needing_nni

if TYPE_CHECKING:
    from condensekit.nas.engines.client import WarmServer
    from condensekit.nas.rankers.base import Setting
    from condensekit.nas.rankers.by_name import ranker
    from condensekit.nas.rankers.evaluator import ProxyEvaluator
    from condensekit.nas.rankers.sets import Maker
    from condensekit.nas.rankers.training import ProxyData, ProxyProtocol, TrialResult, train_candidate
    from condensekit.nas.spaces.architecture import Architecture, key
    from condensekit.nas.spaces.spaces import build, convnet_space, enumerate_architectures, sample_architectures, space
    from condensekit.nas.study.contest import Contest
    from condensekit.nas.study.full_training import FullTraining, Winner, load_winner, retrain
    from condensekit.nas.study.report import RankingRow
    from condensekit.nas.study.result import SearchResult
    from condensekit.nas.study.truth import Truth, read_table
    from condensekit.nas.trials.driver import Portal, search
    from condensekit.nas.trials.log import Trial, TrialLog
    from condensekit.nas.trials.settings import Running
    from condensekit.nas.trials.strategies import FixedList, strategy
    from condensekit.nas.trials.time_budget import TimeBudget

# At its first import NNI warns about classes that torch has added after this version of NNI.
warnings.filterwarnings("ignore", ".*is found to be not a nn.Module", RuntimeWarning, r"nni\.")

_MODULES = {
    "engines.client": ("WarmServer",),
    "rankers.base": ("Setting",),
    "rankers.by_name": ("ranker",),
    "rankers.evaluator": ("ProxyEvaluator",),
    "rankers.sets": ("Maker",),
    "rankers.training": ("ProxyData", "ProxyProtocol", "TrialResult", "train_candidate"),
    "spaces.architecture": ("Architecture", "key"),
    "spaces.spaces": ("build", "convnet_space", "enumerate_architectures", "sample_architectures", "space"),
    "study.contest": ("Contest",),
    "study.full_training": ("FullTraining", "Winner", "load_winner", "retrain"),
    "study.report": ("RankingRow",),
    "study.result": ("SearchResult",),
    "study.truth": ("Truth", "read_table"),
    "trials.driver": ("Portal", "search"),
    "trials.log": ("Trial", "TrialLog"),
    "trials.settings": ("Running",),
    "trials.strategies": ("FixedList", "strategy"),
    "trials.time_budget": ("TimeBudget",),
}
_lazily, __dir__ = lazy(__name__, _MODULES)


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    with needing_nni(f"condensekit.nas.{name}"):
        return _lazily(name)


__all__ = [
    "Architecture",
    "Contest",
    "FixedList",
    "FullTraining",
    "Maker",
    "Portal",
    "ProxyData",
    "ProxyEvaluator",
    "ProxyProtocol",
    "RankingRow",
    "Running",
    "SearchResult",
    "Setting",
    "TimeBudget",
    "Trial",
    "TrialLog",
    "TrialResult",
    "Truth",
    "WarmServer",
    "Winner",
    "build",
    "convnet_space",
    "enumerate_architectures",
    "key",
    "load_winner",
    "ranker",
    "read_table",
    "retrain",
    "sample_architectures",
    "search",
    "space",
    "strategy",
    "train_candidate",
]
