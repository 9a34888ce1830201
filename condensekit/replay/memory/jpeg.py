"""Coded memory: more images in the same bytes, as JPEG."""

from __future__ import annotations

from dataclasses import dataclass, replace

from condensekit.data.images import ClassImages
from condensekit.errors import refuse, whole
from condensekit.replay.memory.base import Around, Filler, Job
from condensekit.replay.memory.budget import Budget
from condensekit.selection.base import stored_each
from condensekit.sets.condensed import CondensedSet, Formation
from condensekit.sets.jpeg import QUALITIES, as_jpeg, plain_bytes, taken, uncodable


@dataclass(frozen=True)
class Coded(Around):
    """Makes several images in the bytes of one of 8-bit pixels, and codes them as JPEG so that they fit.

    Args:
        images: Makes the images: ``Condensing(recipe)`` condenses, ``Selecting(selection)`` chooses real ones.
        times: How many in the bytes of one.

    Raises:
        ConfigError: ``times`` below 1, or images that come coded.
    """

    times: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse(
            whole("times", self.times, 1),
            f"the images of {self.images.name} come coded: give it without Coded" if self.images.codes else None,
        )

    @property
    def name(self) -> str:
        """``jpeg-dm-4`` and the like."""
        return f"jpeg-{self.images.name}-{self.times}"

    @property
    def codes(self) -> bool:
        """See :class:`~condensekit.replay.memory.base.Filler`."""
        return True

    @property
    def formation(self) -> Formation:
        """The packing of its images; their values are what decoding gives."""
        return replace(self.images.formation, dtype="float32")

    def with_storage(self, dtype: str) -> Filler:
        """See :class:`~condensekit.replay.memory.base.Filler`."""
        return self

    def needed(self, ipc: int) -> int:
        """See :class:`~condensekit.replay.memory.base.Filler`."""
        return self.images.needed(ipc * self.times)

    def fill(self, data: ClassImages, ipc: int, job: Job) -> CondensedSet:
        """See :class:`~condensekit.replay.memory.base.Filler`; ``ipc * times`` images of each class, or what it has.

        Raises:
            ConfigError: Images that are not 8-bit or have other than 1 or 3 channels; so many that they do not fit.
        """
        refuse(self.misfit(data, ipc))
        each = max(stored_each(data, ipc * self.times, self.formation.factor).values())
        made = self.images.with_storage("float32").fill(data, each, job)
        return as_jpeg(made, plain_bytes(data.spec.shape, ipc))

    def budget_misfit(self, budget: Budget) -> str | None:
        """See :class:`~condensekit.replay.memory.base.Filler`."""
        if not budget.in_images:
            return None
        return f"{self.name} stores several images in the bytes of one: use a budget in bytes, Bytes(per_class=30_800)"

    def misfit(self, data: ClassImages, ipc: int) -> str | None:
        """See :class:`~condensekit.replay.memory.base.Filler`; as many real images of a class, coded, must fit."""
        if problem := super().misfit(data, ipc) or uncodable(self.name, data):
            return problem
        room = plain_bytes(data.spec.shape, ipc)
        for label in data.classes:
            if taken(data.images[data.indices_of(label)[: ipc * self.times]], QUALITIES[0]) > room:
                return (
                    f"{ipc * self.times} images of class {data.spec.name_of(label)} take more bytes, coded, than {ipc} "
                    "that are not: store fewer in the bytes of one"
                )
        return None
