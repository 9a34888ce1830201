"""Distinct architectures: lists without two architectures that are known to compute the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nni.nas.nn.pytorch import ModelSpace

from condensekit.errors import ConfigError
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.spaces.equivalence import canonical, group
from condensekit.nas.spaces.spaces import sample_architectures


def by_key(architectures: Iterable[Architecture]) -> dict[str, Architecture]:
    """Architectures by their keys, each once."""
    return {key(a): a for a in architectures}


def distinct(space: ModelSpace, n: int, seed: int) -> list[Architecture]:
    """Draw ``n`` architectures at random, no two of which are known to compute the same.

    A smaller space gives all its architectures. A longer list from the same seed begins with the shorter list.
    """
    asked = n
    while True:
        drawn = sample_architectures(space, asked, seed)
        found: dict[str, Architecture] = {}
        for architecture in drawn:
            found.setdefault(group(space, architecture), canonical(space, architecture))
        if len(found) >= n or len(drawn) < asked:
            return list(found.values())[:n]
        asked *= 2


def listed(space: ModelSpace, strategy: str, n: int, seed: int) -> list[Architecture] | None:
    """Architectures that all rankers score under a strategy; None: the strategy searches for each ranker.

    ``grid`` gives a shuffled list of all architectures, ``random`` a list of architectures with different computations.
    """
    if strategy == "grid":
        return sample_architectures(space, n, seed)
    return distinct(space, n, seed) if strategy == "random" else None


def others(space: ModelSpace, taken: Sequence[Architecture], n: int, seed: int) -> list[Architecture]:
    """Draw ``n`` architectures at random, none of which is known to compute the same as one in ``taken``.

    Raises:
        ConfigError: The space has fewer than ``n`` further architectures.
    """
    groups = {group(space, a) for a in taken}
    left = [a for a in distinct(space, len(groups) + n, seed) if group(space, a) not in groups][:n]
    if len(left) < n:
        raise ConfigError(
            f"a regression needs {n} further architectures in addition to the {len(groups)} ranked architectures, and "
            f"the space has only {len(left)}: rank fewer architectures"
        )
    return left
