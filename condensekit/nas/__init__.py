"""Architecture search on NNI, with candidates ranked on a condensed set.

Importing it imports nni; ``import condensekit`` does not. The names below are imported when first used.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from condensekit.nas.budget import TimeBudget
    from condensekit.nas.compare import Comparison, Contest
    from condensekit.nas.cost import Cost, count
    from condensekit.nas.evaluator import ProxyEvaluator
    from condensekit.nas.full import FullTraining, retrain
    from condensekit.nas.proxies import Setting, ranker
    from condensekit.nas.proxy_sets import Maker
    from condensekit.nas.report import table
    from condensekit.nas.running import Running
    from condensekit.nas.search import Portal, search
    from condensekit.nas.spaces import build, convnet_space, enumerate_architectures, sample_architectures, space
    from condensekit.nas.strategies import FixedList, strategy
    from condensekit.nas.training import ProxyData, ProxyProtocol, TrialResult, train_candidate
    from condensekit.nas.trials import Architecture, Trial, TrialLog, key
    from condensekit.nas.truth import Truth, read_table
    from condensekit.nas.warm import WarmServer

with warnings.catch_warnings(), contextlib.suppress(ImportError):  # training and statistics work without it
    warnings.simplefilter("ignore")  # at its first import nni warns about classes that torch has added since
    importlib.import_module("nni.nas.nn.pytorch")

_MODULES = {
    "budget": ("TimeBudget",),
    "compare": ("Comparison", "Contest"),
    "cost": ("Cost", "count"),
    "evaluator": ("ProxyEvaluator",),
    "full": ("FullTraining", "retrain"),
    "proxies": ("Setting", "ranker"),
    "proxy_sets": ("Maker",),
    "report": ("table",),
    "running": ("Running",),
    "search": ("Portal", "search"),
    "spaces": ("build", "convnet_space", "enumerate_architectures", "sample_architectures", "space"),
    "strategies": ("FixedList", "strategy"),
    "training": ("ProxyData", "ProxyProtocol", "TrialResult", "train_candidate"),
    "trials": ("Architecture", "Trial", "TrialLog", "key"),
    "truth": ("Truth", "read_table"),
    "warm": ("WarmServer",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Architecture",
    "Comparison",
    "Contest",
    "Cost",
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
    "count",
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


class _Package(ModuleType):
    """This package: importing the module ``search`` must not hide the function of that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _HOME.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module 'condensekit.nas' has no attribute {name!r}")
    return getattr(importlib.import_module(f"condensekit.nas.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
