"""Condensed memory for class-incremental learning with Avalanche.

The names below are imported when first used: importing Avalanche takes seconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from condensekit.replay.budget import Bytes, Images
    from condensekit.replay.buffer import CondensedBuffer
    from condensekit.replay.loader import TensorLoader
    from condensekit.replay.memories import Hybrid, LearnerEncoder
    from condensekit.replay.metrics import (
        condense_seconds_metrics,
        memory_bytes_metrics,
        old_new_accuracy_metrics,
    )
    from condensekit.replay.plugins import CondensedReplay, Distillation, FineTuneOnMemory
    from condensekit.replay.protocol import run_protocol
    from condensekit.replay.strategies import ERACE, DERpp, FromScratchOnMemory

_MODULES = {
    "budget": ("Bytes", "Images"),
    "buffer": ("CondensedBuffer",),
    "loader": ("TensorLoader",),
    "memories": ("Hybrid", "LearnerEncoder"),
    "metrics": ("condense_seconds_metrics", "memory_bytes_metrics", "old_new_accuracy_metrics"),
    "plugins": ("CondensedReplay", "Distillation", "FineTuneOnMemory"),
    "protocol": ("run_protocol",),
    "strategies": ("DERpp", "ERACE", "FromScratchOnMemory"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "ERACE",
    "Bytes",
    "CondensedBuffer",
    "CondensedReplay",
    "DERpp",
    "Distillation",
    "FineTuneOnMemory",
    "FromScratchOnMemory",
    "Hybrid",
    "Images",
    "LearnerEncoder",
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
