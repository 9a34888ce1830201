"""Seeds of networks, the same in the study and in the plugins."""

from __future__ import annotations

from condensekit.rng import Draw


def network_draw(seed: int, classes: int) -> Draw:
    """Random numbers of the network that is trained after ``classes`` classes have been seen."""
    return Draw(Draw(seed).key(f"from-scratch/{classes}"))
