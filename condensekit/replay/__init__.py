"""Condensed replay memory for class-incremental learning with Avalanche.

The names below are imported at their first use, because the import of Avalanche takes seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from condensekit import lazy

if TYPE_CHECKING:
    from condensekit.replay.adapters.buffer import CondensedBuffer
    from condensekit.replay.adapters.loader import TensorLoader
    from condensekit.replay.adapters.metrics import (
        condense_seconds_metrics,
        memory_bytes_metrics,
        old_new_accuracy_metrics,
    )
    from condensekit.replay.adapters.plugins import Distillation, FineTuneOnMemory, FromScratchOnMemory
    from condensekit.replay.adapters.strategies import ERACE, CondensedReplay, DERpp
    from condensekit.replay.memory.budget import Bytes, Images
    from condensekit.replay.memory.hybrid import Hybrid
    from condensekit.replay.memory.jpeg import Coded
    from condensekit.replay.memory.learner import LearnerEncoder
    from condensekit.replay.memory.memory import Memory
    from condensekit.replay.study.memories import Making
    from condensekit.replay.study.protocol import Online, Settings
    from condensekit.replay.study.results import ReplayResult
    from condensekit.replay.study.runner import run_protocol

_MODULES = {
    "memory.budget": ("Bytes", "Images"),
    "adapters.buffer": ("CondensedBuffer",),
    "memory.jpeg": ("Coded",),
    "memory.hybrid": ("Hybrid",),
    "memory.learner": ("LearnerEncoder",),
    "memory.memory": ("Memory",),
    "adapters.loader": ("TensorLoader",),
    "adapters.metrics": ("condense_seconds_metrics", "memory_bytes_metrics", "old_new_accuracy_metrics"),
    "adapters.plugins": ("Distillation", "FineTuneOnMemory", "FromScratchOnMemory"),
    "study.memories": ("Making",),
    "study.protocol": ("Online", "Settings"),
    "study.results": ("ReplayResult",),
    "study.runner": ("run_protocol",),
    "adapters.strategies": ("CondensedReplay", "DERpp", "ERACE"),
}
__getattr__, __dir__ = lazy(__name__, _MODULES)

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
    "Making",
    "Memory",
    "Online",
    "ReplayResult",
    "Settings",
    "TensorLoader",
    "condense_seconds_metrics",
    "memory_bytes_metrics",
    "old_new_accuracy_metrics",
    "run_protocol",
]
