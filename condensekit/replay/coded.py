"""A memory of condensed images that are coded: more of them in the same bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from condensekit.coding import LABEL, coded
from condensekit.condensed import CondensedSet
from condensekit.errors import refuse, whole
from condensekit.images import ClassImages
from condensekit.methods import Condenser
from condensekit.replay.filler import Condensing, Filling


@dataclass(frozen=True)
class Coded:
    """Condenses several images for one of 8-bit pixels, and codes them as JPEG so that they take its bytes.

    Args:
        method: Makes the images.
        times: How many for one.

    Raises:
        ConfigError: ``times`` below 1.
    """

    method: Condenser
    times: int = 4
    codes: ClassVar[bool] = True  # its images are stored as they are coded

    def __post_init__(self) -> None:
        refuse(whole("times", self.times, 1))

    @property
    def name(self) -> str:
        """``jpeg-dm-4`` and the like."""
        return f"jpeg-{self.method.name}-{self.times}"

    def fill(self, data: ClassImages, ipc: int, how: Filling) -> CondensedSet:
        """See :class:`~condensekit.replay.filler.Filler`; ``ipc * times`` images of each class.

        Raises:
            ConfigError: So many images that they do not fit; streams and methods that :class:`Condensing` refuses.
        """
        plain = replace(how, formation=replace(how.formation, dtype="float32"))
        made = Condensing(self.method).fill(data, ipc * self.times, plain)
        return coded(made, ipc * (math.prod(data.spec.shape) + LABEL))
