"""Contrasts: comparisons of condensed memories with real memories; the primary contrast is named before the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from condensekit.replay.study.memories import EQUAL_BYTES, MemoryKind
from condensekit.stats import Accuracies, holm, paired_interval, paired_p

RANDOM = "random"
Pair = tuple[str, str]  # names of a condensed memory and of the real memory that it is compared with


@dataclass(frozen=True)
class Contrast:
    """Comparison of a condensed memory with a memory of real images.

    Args:
        regime: Regime in which both were used.
        memory: Name of the condensed memory.
        against: Name of the real memory.
        same: Names of further real memories with exactly the same accuracies as ``against``, as random images in equal
            number and at equal bytes often have. They belong to this comparison and do not count again.
        difference: Mean difference of the final accuracies, condensed minus real, a fraction.
        ci95: 95 % t interval of the difference over ``unit``; None: there is only one unit.
        unit: ``set`` or ``network``, see :func:`condensekit.stats.paired_interval`.
        p: p-value of the paired t test over sets; None: there are fewer than three sets.
        p_holm: p-value after Holm's correction for the number of contrasts; None for the primary contrast.
        primary: Whether the contrast was named before the run.
    """

    regime: str
    memory: str
    against: str
    same: list[str]
    difference: float
    ci95: list[float] | None
    unit: str
    p: float | None
    p_holm: float | None
    primary: bool


def named_pair(memories: Sequence[MemoryKind]) -> Pair | None:
    """The primary contrast of a run, decided by the order of its memories and not by any result.

    It compares the first condensed memory with random images at equal bytes; if the run does not have these, with
    random images in equal number; if it does not have these either, with the first memory of real images. None: the
    run has no condensed memory or no real memory.
    """
    learnt = [kind.name for kind in memories if kind.learnt]
    real = [kind.name for kind in memories if kind.control]
    if not learnt or not real:
        return None
    return learnt[0], next((name for name in (EQUAL_BYTES, RANDOM) if name in real), real[0])


def contrasts(
    regime: str, finals: Mapping[str, Accuracies], learnt: Sequence[str], real: Sequence[str], primary: Pair
) -> Iterator[Contrast]:
    """Compare each condensed memory with each real memory; the primary contrast comes first.

    Args:
        regime: Regime in which the memories were used.
        finals: Final accuracies by memory, a list for each independent set, paired between memories.
        learnt: Names of the condensed memories.
        real: Names of the real memories.
        primary: The contrast that was named before the run, see :func:`named_pair`.
    """
    twins = _twins(finals, [name for name in (primary[1], *real) if name in finals])
    first = [name for name in (primary[0], *learnt) if name in finals]
    pairs = list(product(dict.fromkeys(first), twins))
    p = {pair: paired_p(finals[pair[0]], finals[pair[1]]) for pair in pairs}
    corrected = holm({pair: value for pair, value in p.items() if pair != primary and value is not None})
    for pair in pairs:
        difference, interval, unit = paired_interval(finals[pair[0]], finals[pair[1]])
        yield Contrast(
            regime,
            memory=pair[0],
            against=pair[1],
            same=twins[pair[1]],
            difference=difference,
            ci95=None if interval is None else list(interval),
            unit=unit,
            p=p[pair],
            p_holm=corrected.get(pair),
            primary=pair == primary,
        )


def _twins(finals: Mapping[str, Accuracies], names: Sequence[str]) -> dict[str, list[str]]:
    """For each different result the first name with this result, and the further names with the same result."""
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        same = next((known for known in found if finals[known] == finals[name]), None)
        if same is None:
            found[name] = []
        else:
            found[same].append(name)
    return found
