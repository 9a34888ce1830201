"""Filler of JPEG images: more images in the same number of bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from condensekit.data.images import ClassImages
from condensekit.errors import refuse, whole
from condensekit.replay.memory.base import Around, Filler, Job
from condensekit.replay.memory.budget import Budget
from condensekit.selection.base import stored_each
from condensekit.selection.jpeg_random import uncodable
from condensekit.sets.codecs import CODECS, JPEG
from condensekit.sets.coding import plain_bytes, taken
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import Formation


@dataclass(frozen=True)
class Coded(Around):
    """Filler that stores several JPEG images in the bytes of one image of 8-bit pixels.

    >>> from condensekit.replay import Coded
    >>> from condensekit.replay.memory.fillers import Selecting
    >>> from condensekit import Random
    >>> Coded(Selecting(Random()), times=9).name
    'jpeg-random-9'

    Args:
        images: The filler that makes the images, such as ``Condensing(recipe)`` or ``Selecting(selection)``.
        times: Number of JPEG images in the bytes of one uncoded image.

    Raises:
        ConfigError: ``times`` is below 1, or the images are coded already.
    """

    times: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse(
            whole("times", self.times, 1),
            f"the images of {self.images.name} are coded already: use it without Coded" if self.images.codes else None,
        )

    @property
    def name(self) -> str:
        """Name such as ``jpeg-dm-4``: method and ``times``."""
        return f"jpeg-{self.images.name}-{self.times}"

    @property
    def codes(self) -> bool:
        """See :class:`~condensekit.replay.memory.base.Filler`."""
        return True

    @property
    def formation(self) -> Formation:
        """The packing of the images; decoded values are float32."""
        return replace(self.images.formation, dtype="float32")

    def with_storage(self, dtype: str) -> Filler:
        """See :class:`~condensekit.replay.memory.base.Filler`."""
        return self

    def needed(self, ipc: int) -> int:
        """See :class:`~condensekit.replay.memory.base.Filler`."""
        return self.images.needed(ipc * self.times)

    def fill(self, data: ClassImages, ipc: int, job: Job) -> CondensedSet:
        """See :class:`~condensekit.replay.memory.base.Filler`; makes ``ipc * times`` images of each class, or fewer.

        If the bytes of a class are given by ``job.room``, there are ``times`` images in those of one uncoded image.

        Raises:
            ConfigError: The images are not 8-bit, have neither 1 nor 3 channels, or do not fit into the bytes.
        """
        refuse(self.misfit(data, ipc))
        room = job.room or plain_bytes(data.spec.shape, ipc)
        wanted = max(1, room * self.times // plain_bytes(data.spec.shape, 1))
        each = max(stored_each(data, wanted, self.formation.factor).values())
        return self.images.with_storage("float32").fill(data, each, job).stored_as(JPEG, room=room)

    def budget_misfit(self, budget: Budget) -> str | None:
        """See :class:`~condensekit.replay.memory.base.Filler`."""
        if not budget.in_images:
            return None
        return (
            f"{self.name} stores several images in the bytes of one image: use a budget in bytes, such as "
            "Bytes(per_class=30_800)"
        )

    def misfit(self, data: ClassImages, ipc: int) -> str | None:
        """See :class:`~condensekit.replay.memory.base.Filler`; equally many coded real images of a class must fit."""
        if problem := super().misfit(data, ipc) or uncodable(self.name, data):
            return problem
        room, codec = plain_bytes(data.spec.shape, ipc), CODECS[JPEG]
        for label in data.classes:
            images = data.images[data.indices_of(label)[: ipc * self.times]]
            if taken(codec.code(images, codec.qualities[0]), codec) > room:
                return (
                    f"{ipc * self.times} JPEG images of class {data.spec.name_of(label)} are larger than {ipc} uncoded "
                    f"images: lower times={self.times}"
                )
        return None
