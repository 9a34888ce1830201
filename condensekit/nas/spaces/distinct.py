"""Distinct architectures: lists without two architectures that are known to compute the same."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from nni.nas.nn.pytorch import ModelSpace

from condensekit.errors import ConfigError
from condensekit.nas.names import LISTED
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.spaces.equivalence import Grouping, counted, groups, networks
from condensekit.nas.spaces.spaces import sample_architectures

log = logging.getLogger(__name__)

MAX_KNOWN = 1_000  # largest number of draws in a row that give no new group


def by_key(architectures: Iterable[Architecture]) -> dict[str, Architecture]:
    """Architectures by their keys, each once."""
    return {key(a): a for a in architectures}


def distinct(space: ModelSpace, n: int, seed: int, by: Grouping = groups) -> list[Architecture]:
    """Draw ``n`` architectures at random, no two of which are of the same group.

    A smaller space gives an architecture of each of its groups. A longer list from the same seed begins with the
    shorter list. The search for further groups ends after 1,000 draws of known groups.

    Args:
        space: Space of the architectures.
        n: Number of architectures.
        seed: Seed of the draws.
        by: Groups of architectures: those that are known to compute the same, or those that are the same network.
    """
    asked = n
    while True:
        drawn = sample_architectures(space, asked, seed)
        names = by(space, drawn)
        first = {name: i for i, name in reversed(list(enumerate(names)))}
        found = sorted(first.values())
        if len(found) >= n or len(drawn) < asked or len(drawn) - found[-1] > MAX_KNOWN:
            combinations, different = counted(space)
            if different < combinations:
                log.info("%d architectures of the space are %d different networks", combinations, different)
            return [drawn[i] for i in found[:n]]
        asked *= 2


def listed(space: ModelSpace, strategy: str, n: int, seed: int) -> list[Architecture] | None:
    """Architectures that all rankers score under a strategy; None: the strategy searches for each ranker.

    ``grid`` gives a shuffled list of all different networks, ``random`` a list of architectures with different
    computations.
    """
    if strategy not in LISTED:
        return None
    return distinct(space, n, seed, networks if strategy == "grid" else groups)


def others(space: ModelSpace, taken: Sequence[Architecture], n: int, seed: int) -> list[Architecture]:
    """Draw ``n`` architectures at random, none of which is known to compute the same as one in ``taken``.

    Raises:
        ConfigError: The space has fewer than ``n`` further architectures.
    """
    theirs = set(groups(space, taken))
    drawn = distinct(space, len(theirs) + n, seed)
    left = [a for a, name in zip(drawn, groups(space, drawn), strict=True) if name not in theirs][:n]
    if len(left) < n:
        raise ConfigError(
            f"a regression needs {n} further architectures in addition to the {len(theirs)} ranked architectures, and "
            f"the space has only {len(left)}: rank fewer architectures"
        )
    return left
