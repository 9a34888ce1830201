"""Equivalence of architectures that compute the same."""

from __future__ import annotations

from nni.nas.nn.pytorch import ModelSpace

from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.spaces.nasbench201 import NasBench201Space, computation


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


def group(space: ModelSpace, architecture: Architecture) -> str:
    """Text that is the same for all architectures that are known to compute the same."""
    return computation(architecture) if isinstance(space, NasBench201Space) else key(architecture)
