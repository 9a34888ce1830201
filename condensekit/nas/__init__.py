"""Architecture search on NNI, with candidates ranked on a condensed set.

Importing it imports nni; ``import condensekit`` does not. The names below are imported when first used.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from typing import TYPE_CHECKING

from condensekit import lazy

if TYPE_CHECKING:
    from condensekit.nas.engines.client import WarmServer
    from condensekit.nas.rankers.base import Setting
    from condensekit.nas.rankers.by_name import ranker
    from condensekit.nas.rankers.evaluator import ProxyEvaluator
    from condensekit.nas.rankers.sets import Maker
    from condensekit.nas.rankers.training import ProxyData, ProxyProtocol, TrialResult, train_candidate
    from condensekit.nas.spaces.architecture import Architecture, key
    from condensekit.nas.spaces.spaces import build, convnet_space, enumerate_architectures, sample_architectures, space
    from condensekit.nas.study.contest import Comparison, Contest
    from condensekit.nas.study.full_training import FullTraining, retrain
    from condensekit.nas.study.report import table
    from condensekit.nas.study.truth import Truth, read_table
    from condensekit.nas.trials.driver import Portal, search
    from condensekit.nas.trials.log import Trial, TrialLog
    from condensekit.nas.trials.settings import Running
    from condensekit.nas.trials.strategies import FixedList, strategy
    from condensekit.nas.trials.time_budget import TimeBudget

with warnings.catch_warnings(), contextlib.suppress(ImportError):  # training and statistics work without it
    warnings.simplefilter("ignore")  # at its first import nni warns about classes that torch has added since
    importlib.import_module("nni.nas.nn.pytorch")

_MODULES = {
    "engines.client": ("WarmServer",),
    "rankers.base": ("Setting",),
    "rankers.by_name": ("ranker",),
    "rankers.evaluator": ("ProxyEvaluator",),
    "rankers.sets": ("Maker",),
    "rankers.training": ("ProxyData", "ProxyProtocol", "TrialResult", "train_candidate"),
    "spaces.architecture": ("Architecture", "key"),
    "spaces.spaces": ("build", "convnet_space", "enumerate_architectures", "sample_architectures", "space"),
    "study.contest": ("Comparison", "Contest"),
    "study.full_training": ("FullTraining", "retrain"),
    "study.report": ("table",),
    "study.truth": ("Truth", "read_table"),
    "trials.driver": ("Portal", "search"),
    "trials.log": ("Trial", "TrialLog"),
    "trials.settings": ("Running",),
    "trials.strategies": ("FixedList", "strategy"),
    "trials.time_budget": ("TimeBudget",),
}
__getattr__, __dir__ = lazy(__name__, _MODULES)

__all__ = [
    "Architecture",
    "Comparison",
    "Contest",
    "FixedList",
    "FullTraining",
    "Maker",
    "Portal",
    "ProxyData",
    "ProxyEvaluator",
    "ProxyProtocol",
    "Running",
    "Setting",
    "TimeBudget",
    "Trial",
    "TrialLog",
    "TrialResult",
    "Truth",
    "WarmServer",
    "build",
    "convnet_space",
    "enumerate_architectures",
    "key",
    "ranker",
    "read_table",
    "retrain",
    "sample_architectures",
    "search",
    "space",
    "strategy",
    "table",
    "train_candidate",
]
