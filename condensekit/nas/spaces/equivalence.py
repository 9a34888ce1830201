"""Equivalence: which architectures compute the same."""

from __future__ import annotations

from nni.nas.nn.pytorch import ModelSpace

from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.spaces.nasbench201 import NasBench201Space, computation


def canonical(space: ModelSpace, architecture: Architecture) -> Architecture:
    """The architecture that stands in a table for this one, and for others that differ in edges without effect.

    In NAS-Bench-201 an edge that the input does not reach, or from which the output is not reached, might as well hold
    ``none``: 9,445 of the 15,625 cells are left. Elsewhere each stands for itself.
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
    """The name of all architectures that compute the same thing, as far as that is known."""
    return computation(architecture) if isinstance(space, NasBench201Space) else key(architecture)
