"""Avalanche metrics of a replay memory: its bytes, the seconds it took, old and new classes apart."""

from __future__ import annotations

from typing import Any


def memory_bytes_metrics() -> list[Any]:
    """Bytes of the condensed memories of a strategy after each experience, raw and losslessly coded."""
    raise NotImplementedError


def condense_seconds_metrics() -> list[Any]:
    """Wall seconds that filling the memory took in each experience."""
    raise NotImplementedError


def old_new_accuracy_metrics() -> list[Any]:
    """After each evaluation: accuracy on old and on new classes, share of old images taken for a new class."""
    raise NotImplementedError
