"""Descriptions of configured objects as JSON values, for run folders, provenance and table rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any


def describe(value: Any) -> Any:
    """Describe an object as JSON values: a dataclass by its class name and fields, a function by its name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: describe(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {str(k): describe(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Integral):  # a NumPy integer, which JSON does not know
        return int(value)
    if isinstance(value, Path):
        return str(value)
    if callable(value) and hasattr(value, "__name__"):
        return value.__name__
    return {"type": type(value).__name__}
