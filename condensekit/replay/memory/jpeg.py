"""A memory whose images are coded: more of them in the same bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from condensekit.data.images import ClassImages
from condensekit.errors import refuse, whole
from condensekit.methods import Condenser
from condensekit.replay.memory.fillers import Filling, coded, filler
from condensekit.selection.base import Selection
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.jpeg import QUALITIES, as_jpeg, plain_bytes, taken, uncodable


@dataclass(frozen=True)
class Coded:
    """Makes several images for one of 8-bit pixels, and codes them as JPEG so that they take its bytes.

    Args:
        method: Condenses the images, or chooses real ones.
        times: How many for one.

    Raises:
        ConfigError: ``times`` below 1, or a selection whose images come coded.
    """

    method: Condenser | Selection
    times: int = 4
    codes: ClassVar[bool] = True  # its images are stored as they are coded

    def __post_init__(self) -> None:
        refuse(
            whole("times", self.times, 1),
            f"the images of {self.method.name} come coded: give it without Coded" if coded(self.method) else None,
        )

    @property
    def name(self) -> str:
        """``jpeg-dm-4`` and the like."""
        return f"jpeg-{self.method.name}-{self.times}"

    def fill(self, data: ClassImages, ipc: int, how: Filling) -> CondensedSet:
        """See :class:`~condensekit.replay.memory.fillers.Filler`; ``ipc * times`` images of each class.

        Raises:
            ConfigError: Images that are not 8-bit or have other than 1 or 3 channels; so many that they do not fit.
        """
        refuse(self.misfit(data, ipc))
        plain = replace(how, formation=replace(how.formation, dtype="float32"))
        made = filler(self.method).fill(data, ipc * self.times, plain)
        return as_jpeg(made, plain_bytes(data.spec.shape, ipc))

    def misfit(self, data: ClassImages, ipc: int) -> str | None:
        """What is wrong where as many real images of a class do not fit either, coded; None if they all do."""
        if problem := uncodable(self.name, data):
            return problem
        room = plain_bytes(data.spec.shape, ipc)
        for label in data.classes:
            if taken(data.images[data.indices_of(label)[: ipc * self.times]], QUALITIES[0]) > room:
                return (
                    f"{ipc * self.times} images of class {data.spec.name_of(label)} take more bytes, coded, than {ipc} "
                    "that are not: store fewer in the bytes of one"
                )
        return None
