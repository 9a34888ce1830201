"""Budget of a replay memory: stored images or stored bytes, in all or for each class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from condensekit.errors import ConfigError, refuse, whole


@dataclass(frozen=True)
class Budget(ABC):
    """A size in the subclass's unit: exactly one of ``total`` and ``per_class``.

    Attributes:
        in_images: Whether the unit is images, and not bytes.

    Args:
        total: Of the whole memory. Each class gets the same part: of the classes announced to the buffer, or else
            of those seen so far, so that the part shrinks as classes arrive.
        per_class: Of each class; the memory grows with the classes.

    Raises:
        ConfigError: Both or neither, or a size below 1.
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
        """Whether a class's part gets smaller when more classes share the budget."""
        return self.total is not None

    def share(self, classes: int) -> int:
        """What each of ``classes`` classes gets, in the budget's unit; 0 where the total does not reach."""
        return self.per_class if self.per_class is not None else (self.total or 0) // max(1, classes)

    def images(self, classes: int, bytes_each: int) -> int:
        """How many stored images of ``bytes_each`` bytes each of ``classes`` classes gets; at least 1.

        Raises:
            ConfigError: Not even one.
        """
        found = self._count(self.share(classes), bytes_each)
        if found < 1:
            raise ConfigError(
                f"{self} is less than one image of {bytes_each:,} bytes for each of {classes} classes: "
                f"use at least {self._least(classes, bytes_each)}"
            )
        return found

    def max_size(self, classes: int) -> int:
        """Stored images that ``classes`` classes have room for; 0 where that depends on their bytes."""
        return 0

    def resized(self, size: int) -> Budget:
        """The same budget for at most ``size`` stored images, where it is a total in images."""
        return self

    @abstractmethod
    def fitting(self, classes: int, sizes: Tensor) -> int:
        """How many of one class's stored images, from the first, its part has room for.

        Args:
            classes: How many share the budget.
            sizes: (n,) int64 bytes of each stored image.
        """

    @abstractmethod
    def _count(self, share: int, bytes_each: int) -> int:
        """How many images of ``bytes_each`` bytes a part of ``share`` units has room for."""

    def _least(self, classes: int, bytes_each: int) -> str:
        unit = 1 if self.in_images else bytes_each
        return str(type(self)(unit * classes) if self.total is not None else type(self)(per_class=unit))


@dataclass(frozen=True)
class Images(Budget):
    """A budget in stored images: ``Images(2000)`` in all, ``Images(per_class=20)`` for each class.

    A stored image counts once, however many smaller images are packed into it.
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
    """A budget in bytes as :attr:`condensekit.CondensedSet.nbytes` counts them: images, ranges, labels, soft labels."""

    def fitting(self, classes: int, sizes: Tensor) -> int:
        """See :meth:`Budget.fitting`."""
        return int((torch.cumsum(sizes, 0) <= self.share(classes)).sum())

    def _count(self, share: int, bytes_each: int) -> int:
        return share // bytes_each
