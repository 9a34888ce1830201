"""Contrasts: condensed memories against real ones, the primary comparison named beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from condensekit.replay.study.memories import EQUAL_BYTES, MemoryKind
from condensekit.stats import Accuracies, holm, paired_interval, paired_p

RANDOM = "random"
Pair = tuple[str, str]  # a condensed memory, and the real memory that it is compared with


@dataclass(frozen=True)
class Contrast:
    """A condensed memory against real images.

    Args:
        regime: How both were used.
        memory: The condensed one.
        against: The real one.
        same: Further real memories that did exactly the same, as random images in equal number and at equal bytes
            often do: they are one comparison and count once.
        difference: Of the final accuracies, on average.
        ci95: Its t interval over ``unit``; None for a single unit.
        unit: ``set`` or ``network``, see :func:`condensekit.stats.paired_interval`.
        p: Paired t test over sets; None for fewer than three.
        p_holm: The same, corrected by Holm for the number of contrasts; None for the primary one.
        primary: Whether it was named before anything was measured.
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
    """The primary contrast of a run, from the order in which its memories were named.

    The first condensed memory against random images at equal bytes, or in equal number where those are not there, or
    else against the first memory of real images; None where either is missing. What was found plays no part.
    """
    learnt = [kind.name for kind in memories if kind.learnt]
    real = [kind.name for kind in memories if kind.control]
    if not learnt or not real:
        return None
    return learnt[0], next((name for name in (EQUAL_BYTES, RANDOM) if name in real), real[0])


def contrasts(
    regime: str, finals: Mapping[str, Accuracies], learnt: Sequence[str], real: Sequence[str], primary: Pair
) -> Iterator[Contrast]:
    """Each condensed memory against each kind of real images; first the pair that was named beforehand.

    Args:
        regime: How all of them were used.
        finals: Final accuracies by memory, a list for each independent set, paired between memories.
        learnt: The condensed memories.
        real: The real ones.
        primary: The contrast that was named before anything was measured, see :func:`named_pair`.
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
    """The first of the names that have equal accuracies, and with it the others."""
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        same = next((known for known in found if finals[known] == finals[name]), None)
        if same is None:
            found[name] = []
        else:
            found[same].append(name)
    return found
