"""Metrics: results that evaluators report, as JSON values."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any


def as_json(metric: Any, final: bool) -> Any:
    """A metric as JSON values; raises any exception for a metric that JSON cannot hold.

    A number that is not finite is None in an intermediate result, as of a training that diverges for some steps.
    """
    return json.loads(json.dumps(metric, default=float), parse_constant=float if final else _nothing)


def _nothing(constant: str) -> None:
    """The value of a number that is not finite."""


def score_of(metric: Any) -> float | None:
    """The score in a metric (a number, or a dictionary with ``default``); None: the metric has no finite score."""
    value: Any = metric.get("default") if isinstance(metric, dict) else metric
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def failure(metric: Any) -> str:
    """Reason of a failure in a final result; empty: the result has none."""
    why = metric.get("failed") if isinstance(metric, dict) else None
    return why if isinstance(why, str) else ""


def _scores(value: Any) -> dict[str, float]:
    scores = {kind: float(score) for kind, score in dict(value).items()}
    if not all(map(math.isfinite, scores.values())):
        raise ValueError
    return scores


def _amount(value: Any) -> float:
    amount = float(value)
    if not 0 <= amount < math.inf:
        raise ValueError
    return amount


ENTRIES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "scores": (_scores, "a dictionary of finite numbers"),
    "seconds": (_amount, "a finite number, 0 or more"),
    "image_steps": (lambda value: int(_amount(value)), "a finite number, 0 or more"),
}
"""Further entries of a final result: the function that reads the value, and a description of valid values."""


def usable(metric: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """A final result with its entries read and without its invalid entries, and the problem of an invalid entry."""
    kept, wrong = dict(metric), ""
    for name, (read, expected) in ENTRIES.items():
        if name in metric:
            try:
                kept[name] = read(metric[name])
            except (TypeError, ValueError, OverflowError):
                del kept[name]
                wrong = f"its final result has {metric[name]!r:.100} as {name!r}: report {expected}, or leave it out"
    return kept, wrong
