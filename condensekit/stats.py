"""Statistics: paired differences, their intervals and p values."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TypeVar

ENOUGH_SETS = 3  # sets from which an interval is over sets; sets are independent, networks on one set are not
SAME = 1e-12  # differences of fractions below it are rounding

Accuracies = Sequence[Sequence[float]]
K = TypeVar("K")


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """The t interval of the mean of independent values; None for a single value."""
    if len(values) < 2:
        return None
    if max(values) - min(values) < SAME:  # scipy warns of the variance 0
        return values[0], values[0]
    from scipy.stats import ttest_1samp

    found = ttest_1samp(values, 0.0).confidence_interval(level)
    return float(found.low), float(found.high)


def paired_interval(ours: Accuracies, theirs: Accuracies) -> tuple[float, tuple[float, float] | None, str]:
    """Mean paired difference, its 95 % t interval, and the unit of that interval.

    >>> paired_interval([[0.5], [0.6], [0.7]], [[0.4], [0.5], [0.6]])[2]
    'set'

    Args:
        ours: For each set, the accuracies of its networks.
        theirs: The same for the reference; set i is paired with set i, and network j with network j. Sets and networks
            without a partner are left out.

    Returns:
        The mean of ``ours - theirs``; (lo, hi), or None for a single unit; the unit. It is ``set`` if there are at
        least three pairs of sets (the networks of a set are averaged first), else ``network``.
    """
    pairs = [[a - b for a, b in zip(x, y, strict=False)] for x, y in zip(ours, theirs, strict=False)]
    values, unit = units(pairs)
    return statistics.fmean(values), interval(values), unit


def units(values: Accuracies) -> tuple[list[float], str]:
    """A value for each independent unit, and the name of the unit: ``set`` or ``network``."""
    if len(values) >= ENOUGH_SETS:
        return [statistics.fmean(networks) for networks in values], "set"
    return [value for networks in values for value in networks], "network"


def paired_p(ours: Accuracies, theirs: Accuracies) -> float | None:
    """Two-sided p of a paired t test over sets; None for fewer than :data:`ENOUGH_SETS`, or for equal differences."""
    if len(ours) < ENOUGH_SETS:
        return None
    from scipy.stats import ttest_rel

    x, y = ([statistics.fmean(networks) for networks in values] for values in (ours, theirs))
    if len({a - b for a, b in zip(x, y, strict=True)}) == 1:
        return None
    return float(ttest_rel(x, y).pvalue)


def holm(p_values: Mapping[K, float]) -> dict[K, float]:
    """Holm's step-down correction (1979): adjusted p values, by name.

    >>> holm({"dm": 0.01, "m3d": 0.04})
    {'dm': 0.02, 'm3d': 0.04}
    """
    adjusted, worst = dict[K, float](), 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = worst
    return adjusted
