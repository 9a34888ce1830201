"""Distinct architectures: lists in which no two are known to compute the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nni.nas.nn.pytorch import ModelSpace

from condensekit.errors import ConfigError
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.spaces.equivalence import canonical, group
from condensekit.nas.spaces.spaces import sample_architectures


def by_key(architectures: Iterable[Architecture]) -> dict[str, Architecture]:
    """Architectures by key, each once."""
    return {key(a): a for a in architectures}


def distinct(space: ModelSpace, n: int, seed: int) -> list[Architecture]:
    """``n`` architectures drawn at random, no two of which are known to compute the same; all, where there are fewer.

    A longer list from the same seed begins with a shorter one.
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
    """The architectures that all rankers score under a strategy; None where the strategy searches for each ranker.

    ``grid`` is a shuffled list of the space as it is, ``random`` one of architectures that differ in what they compute.
    """
    if strategy == "grid":
        return sample_architectures(space, n, seed)
    return distinct(space, n, seed) if strategy == "random" else None


def others(space: ModelSpace, taken: Sequence[Architecture], n: int, seed: int) -> list[Architecture]:
    """``n`` random architectures, none of which is known to compute what one of those ``taken`` does.

    Raises:
        ConfigError: The space has no more.
    """
    groups = {group(space, a) for a in taken}
    left = [a for a in distinct(space, len(groups) + n, seed) if group(space, a) not in groups][:n]
    if len(left) < n:
        raise ConfigError(
            f"a regression is fitted on {n} architectures beside the {len(groups)} ranked ones, and the space has only "
            f"{len(left)} more: rank fewer"
        )
    return left
