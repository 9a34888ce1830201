"""Seeds that the study and the plugins share."""

from __future__ import annotations

from condensekit.rng import Draw


def network_draw(seed: int, classes: int) -> Draw:
    """The randomness of the network that is trained when ``classes`` classes have been seen."""
    return Draw(Draw(seed).key(f"from-scratch/{classes}"))
