"""Condensed memory for class-incremental learning with Avalanche.

The names below are imported when first used: importing Avalanche takes seconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from condensekit.replay.budget import Bytes, Images
    from condensekit.replay.buffer import CondensedBuffer
    from condensekit.replay.coded import Coded
    from condensekit.replay.hybrid import Hybrid
    from condensekit.replay.learner import LearnerEncoder
    from condensekit.replay.loader import TensorLoader
    from condensekit.replay.metrics import (
        condense_seconds_metrics,
        memory_bytes_metrics,
        old_new_accuracy_metrics,
    )
    from condensekit.replay.plugins import Distillation, FineTuneOnMemory, FromScratchOnMemory
    from condensekit.replay.protocol import Online, Settings
    from condensekit.replay.runner import run_protocol
    from condensekit.replay.strategies import ERACE, CondensedReplay, DERpp

_MODULES = {
    "budget": ("Bytes", "Images"),
    "buffer": ("CondensedBuffer",),
    "coded": ("Coded",),
    "hybrid": ("Hybrid",),
    "learner": ("LearnerEncoder",),
    "loader": ("TensorLoader",),
    "metrics": ("condense_seconds_metrics", "memory_bytes_metrics", "old_new_accuracy_metrics"),
    "plugins": ("Distillation", "FineTuneOnMemory", "FromScratchOnMemory"),
    "protocol": ("Online", "Settings"),
    "runner": ("run_protocol",),
    "strategies": ("CondensedReplay", "DERpp", "ERACE"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "ERACE",
    "Bytes",
    "Coded",
    "CondensedBuffer",
    "CondensedReplay",
    "DERpp",
    "Distillation",
    "FineTuneOnMemory",
    "FromScratchOnMemory",
    "Hybrid",
    "Images",
    "LearnerEncoder",
    "Online",
    "Settings",
    "TensorLoader",
    "condense_seconds_metrics",
    "memory_bytes_metrics",
    "old_new_accuracy_metrics",
    "run_protocol",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module 'condensekit.replay' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"condensekit.replay.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
