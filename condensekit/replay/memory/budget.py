"""Budget of a replay memory: a number of images or of bytes, for the whole memory or for each class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from condensekit.errors import ConfigError, refuse, whole


@dataclass(frozen=True)
class Budget(ABC):
    """Size limit in images or bytes, given as exactly one of ``total`` and ``per_class``.

    Attributes:
        in_images: Whether the unit is images; False: the unit is bytes.

    Args:
        total: Size of the whole memory. Each class gets an equal part. The number of parts is the number of classes
            announced to the buffer, or else of the classes seen so far; then the parts shrink as classes arrive.
        per_class: Size of the part of each class; the memory grows with the classes.

    Raises:
        ConfigError: Both sizes or no size are given, or a size is below 1.
    """

    in_images: ClassVar[bool] = False
    total: int | None = None
    per_class: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        kind, sizes = type(self).__name__, {"total": self.total, "per_class": self.per_class}
        refuse(
            f"{kind} takes a total or per_class, exactly one of them, got {self.total} and {self.per_class}"
            if (self.total is None) == (self.per_class is None)
            else None,
            *(whole(f"{kind} {name}", size, 1) for name, size in sizes.items() if size is not None),
        )

    def __str__(self) -> str:
        size = f"{self.total}" if self.total is not None else f"per_class={self.per_class}"
        return f"{type(self).__name__}({size})"

    @property
    def shrinks(self) -> bool:
        """Whether the part of a class gets smaller when more classes share the budget."""
        return self.total is not None

    def share(self, classes: int) -> int:
        """Part of each of ``classes`` classes, in images or bytes; 0: the total is smaller than ``classes``."""
        return self.per_class if self.per_class is not None else (self.total or 0) // max(1, classes)

    def images(self, classes: int, bytes_each: int) -> int:
        """Number of stored images of ``bytes_each`` bytes for each of ``classes`` classes; at least 1.

        Raises:
            ConfigError: The part of a class is smaller than one image.
        """
        found = self._count(self.share(classes), bytes_each)
        if found < 1:
            raise ConfigError(
                f"{self} is less than one image of {bytes_each:,} bytes for each of {classes} classes: "
                f"use at least {self._least(classes, bytes_each)}"
            )
        return found

    def max_size(self, classes: int) -> int:
        """Largest number of stored images of ``classes`` classes together; 0: the budget is in bytes."""
        return 0

    def resized(self, size: int) -> Budget:
        """The budget with a total of ``size`` images; a budget in bytes or per class returns itself."""
        return self

    @abstractmethod
    def fitting(self, classes: int, sizes: Tensor) -> int:
        """Number of stored images of one class, counted from the first, that fit into the part of the class.

        Args:
            classes: Number of classes that share the budget.
            sizes: (n,) int64 bytes of each stored image.
        """

    @abstractmethod
    def _count(self, share: int, bytes_each: int) -> int:
        """Number of images of ``bytes_each`` bytes that fit into ``share`` images or bytes."""

    def _least(self, classes: int, bytes_each: int) -> str:
        unit = 1 if self.in_images else bytes_each
        return str(type(self)(unit * classes) if self.total is not None else type(self)(per_class=unit))


@dataclass(frozen=True)
class Images(Budget):
    """Budget in stored images: ``Images(2000)`` for all classes together, ``Images(per_class=20)`` for each class.

    A stored image counts as one image, also if several smaller images are packed into it.
    """

    in_images: ClassVar[bool] = True

    def max_size(self, classes: int) -> int:
        """See :meth:`Budget.max_size`."""
        return self.total if self.total is not None else self.share(1) * classes

    def resized(self, size: int) -> Budget:
        """See :meth:`Budget.resized`."""
        return Images(size) if self.shrinks else self

    def fitting(self, classes: int, sizes: Tensor) -> int:
        """See :meth:`Budget.fitting`."""
        return min(len(sizes), self.share(classes))

    def _count(self, share: int, bytes_each: int) -> int:
        return share


@dataclass(frozen=True)
class Bytes(Budget):
    """Budget in bytes of images, ranges, labels and soft labels, as :attr:`condensekit.CondensedSet.nbytes` counts."""

    def fitting(self, classes: int, sizes: Tensor) -> int:
        """See :meth:`Budget.fitting`."""
        return int((torch.cumsum(sizes, 0) <= self.share(classes)).sum())

    def _count(self, share: int, bytes_each: int) -> int:
        return share // bytes_each
