"""Equivalence of architectures that build the same network or compute the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from nni.nas.nn.pytorch import ModelSpace

from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.spaces.convnets import ConvNetSpace
from condensekit.nas.spaces.identity import identity
from condensekit.nas.spaces.nasbench201 import NasBench201Space, computation

Identify = Callable[[ModelSpace, Sequence[Architecture]], Sequence[str | None]]
"""Function that builds architectures and gives the identity of each network, or None where it cannot be built."""
Grouping = Callable[[ModelSpace, Sequence[Architecture]], list[str]]
"""Function that gives a text for each architecture: :func:`networks` or :func:`groups`."""


def identities(space: ModelSpace, architectures: Sequence[Architecture]) -> list[str | None]:
    """Identities of the networks that are built of architectures, in this process; None: it cannot be built."""
    return [_identity(space, architecture) for architecture in architectures]


def _identity(space: ModelSpace, architecture: Architecture) -> str | None:
    try:
        return identity(space, architecture)
    except Exception:
        return None  # its trials fail, and say why


@dataclass
class _Known:
    """Networks of a space that were compared: their identities by key of the architecture."""

    identify: Identify = identities
    networks: dict[str, str] = field(default_factory=dict)


_KNOWN: WeakKeyDictionary[ModelSpace, _Known] = WeakKeyDictionary()


def identified_by(space: ModelSpace, identify: Identify) -> None:
    """Build architectures of a space by this function from now on, such as a function that builds them in workers."""
    _known(space).identify = identify


def _known(space: ModelSpace) -> _Known:
    return _KNOWN.setdefault(space, _Known())


def ours(space: ModelSpace) -> bool:
    """Whether a space is condensekit's own: its architectures are different networks, and no candidate misbehaves."""
    return type(space) in (ConvNetSpace, NasBench201Space)


def networks(space: ModelSpace, architectures: Sequence[Architecture]) -> list[str]:
    """Texts that are the same for architectures of which the same network is built.

    Optional blocks make such architectures: choices inside a block that is not built differ. The networks are built to
    compare them, each once; of condensekit's own spaces each architecture is another network.
    """
    names = [key(a) for a in architectures]
    if ours(space):
        return names
    known = _known(space)
    new = {name: a for name, a in zip(names, architectures, strict=True) if name not in known.networks}
    found = known.identify(space, list(new.values())) if new else []
    known.networks |= {name: network or name for name, network in zip(new, found, strict=True)}
    return [known.networks[name] for name in names]


def counted(space: ModelSpace) -> tuple[int, int]:
    """Number of architectures whose networks were built and compared so far, and number of these networks."""
    known = _known(space).networks
    return len(known), len(set(known.values()))


def unlike(space: ModelSpace, architectures: Sequence[Architecture]) -> list[Architecture]:
    """The first architecture of each network."""
    found: dict[str, Architecture] = {}
    for name, architecture in zip(networks(space, architectures), architectures, strict=True):
        found.setdefault(name, architecture)
    return list(found.values())


def twin(space: ModelSpace, architecture: Architecture, keys: Mapping[str, object]) -> str | None:
    """The key among ``keys`` of this architecture, or of one that builds the same network; None: there is neither."""
    name = key(canonical(space, architecture))
    if name in keys or ours(space):
        return name if name in keys else None
    (network,) = networks(space, [architecture])
    theirs = networks(space, [json.loads(each) for each in keys])
    return dict(zip(reversed(theirs), reversed(list(keys)), strict=True)).get(network)


def canonical(space: ModelSpace, architecture: Architecture) -> Architecture:
    """The representative of all architectures that differ from this one only in edges without effect.

    In NAS-Bench-201 an edge has no effect if the input does not reach it or it does not reach the output; the
    representative has ``none`` there. 9,445 of the 15,625 cells are representatives. In other spaces each architecture
    is its own representative.
    """
    if not isinstance(space, NasBench201Space):
        return architecture
    edges = {(int(label[-3]), int(label[-1])): label for label in architecture}
    live = [edge for edge, label in edges.items() if architecture[label] != "none"]
    reached, reaching = {0}, {3}
    for before, node in sorted(live, key=lambda edge: edge[1]):
        reached |= {node} if before in reached else set()
    for before, node in sorted(live, key=lambda edge: -edge[0]):
        reaching |= {before} if node in reaching else set()
    return {
        label: architecture[label] if before in reached and node in reaching else "none"
        for (before, node), label in edges.items()
    }


def groups(space: ModelSpace, architectures: Sequence[Architecture]) -> list[str]:
    """Texts that are the same for architectures that are known to compute the same."""
    if isinstance(space, NasBench201Space):
        return [computation(architecture) for architecture in architectures]
    return networks(space, architectures)
