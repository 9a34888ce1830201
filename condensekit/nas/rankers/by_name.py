"""Rankers by name."""

from __future__ import annotations

from condensekit import catalog
from condensekit.errors import ConfigError, unknown
from condensekit.nas.names import ADDITIVE, COUNTS, EARLY, HALF, RIDGE, START, ZERO_COST
from condensekit.nas.rankers.base import Combination, Ranker
from condensekit.nas.rankers.trained import EarlyStop, OnSet, _is_selection, _method_of
from condensekit.nas.rankers.untrained import ZeroCost

EQUAL = "-equal"  # after a selection: trained on longer, by what the dearest preparation costs
FREE_SETS = (f"random{EQUAL}", f"{catalog.PACKED}random{EQUAL}")  # other selections have a preparation of their own


def ranker(name: str) -> Ranker | Combination:
    """The ranker called ``name``.

    Args:
        name: A method of the catalog (``dm``), a selection (``random``, ``packed-random``), ``half-`` and a method,
            ``start-`` and a method (the real images that it starts from), ``random-equal`` or ``packed-random-equal``,
            trained on longer by its share of the dearest preparation; each of these with ``@N`` for N images per class;
            ``early-stop``, with ``@N`` for N epochs; ``params``, ``flops``, ``synflow``, ``nwot``, ``jacov``, ``zen``;
            several of them joined by ``+`` for the sum of their ranks, ``ridge:`` before that for a regression; or
            ``additive``, a regression on the choices alone.

    Raises:
        ConfigError: An unknown name.
    """
    if name == ADDITIVE:
        return Combination(name, fitted=True)
    if name.startswith(RIDGE) or "+" in name:
        parts = tuple(_single(part) for part in name.removeprefix(RIDGE).split("+"))
        return Combination(name, parts, name.startswith(RIDGE))
    return _single(name)


def _single(name: str) -> Ranker:
    kind, at, number = name.partition("@")
    if at and not (number.isdecimal() and int(number)):
        raise ConfigError(f"ranker {name!r}: after @ comes a number of at least 1")
    size = int(number) if at else None
    if kind == EARLY:
        return EarlyStop(name, size)
    if kind in (*COUNTS, *ZERO_COST):
        if at:
            raise ConfigError(f"ranker {name!r}: {kind} takes no number")
        return ZeroCost(kind)
    if kind in FREE_SETS:
        return OnSet(name, kind.removesuffix(EQUAL), size, equal=True)
    plain = _method_of(kind)
    if plain in catalog.METHODS or ":" in plain:
        catalog.method(plain)
    elif not _is_selection(kind):
        sets = [*catalog.METHODS, *catalog.SELECTIONS, *_prefixed(), *FREE_SETS]
        known = [EARLY, ADDITIVE, *COUNTS, *ZERO_COST, *sets]
        raise unknown("ranker", name, known)
    return OnSet(name, kind, size)


def _prefixed() -> list[str]:
    return [*(f"{before}{name}" for before in (HALF, START) for name in catalog.METHODS), *catalog.PACKED_SELECTIONS]
