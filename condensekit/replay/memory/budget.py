"""Budget of a replay memory: a number of images or of bytes, for the whole memory or for each class.

A class here is a pair of a task and a class: one label in several tasks counts once for each task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from condensekit.errors import refuse, whole


@dataclass(frozen=True)
class Budget(ABC):
    """Size limit in images or bytes, given as exactly one of ``total`` and ``per_class``.

    Attributes:
        in_images: Whether the unit is images; False: the unit is bytes.

    Args:
        total: Size of the whole memory. Each class gets an equal part, and the first classes one image more, until the
            memory is full. The number of parts is the number of classes announced to the memory, or else of the classes
            seen so far; then the parts shrink as classes arrive.
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

    def counts(self, present: int, classes: int, bytes_each: int) -> list[int]:
        """Number of stored images of each class, in the order in which the classes appeared.

        Args:
            present: Number of classes that have appeared.
            classes: Number of classes that share the budget, at least ``present``.
            bytes_each: Bytes of a stored image.
        """
        unit = 1 if self.in_images else bytes_each
        each = self.share(classes) // unit
        more = 0 if self.total is None else self.total // unit - each * classes
        return [each + (place < more) for place in range(present)]

    def fitting(self, sizes: Sequence[Tensor], classes: int) -> list[int]:
        """Number of the stored images of each class, counted from the first, that fit.

        Args:
            sizes: (n,) int64 bytes of the stored images of each class, in the order in which the classes appeared.
            classes: Number of classes that share the budget.
        """
        units = [torch.ones_like(each) if self.in_images else each for each in sizes]
        share = self.share(classes)
        found = [int((torch.cumsum(each, 0) <= share).sum()) for each in units]
        if self.total is None:
            return found
        used = sum(int(each[:n].sum()) for each, n in zip(units, found, strict=True))
        every = {int(size) for each in units for size in each.unique()}
        unit = every.pop() if len(every) == 1 else 1
        kept = share // unit * unit  # what a class to come can use
        left = self.total - used - kept * (classes - len(sizes))
        for place, (each, n) in enumerate(zip(units, found, strict=True)):
            if n < len(each) and int(each[n]) <= left:
                found[place] += 1
                left -= int(each[n])
        return found

    def least(self, classes: int, bytes_each: int) -> Budget:
        """The smallest budget of this kind with one image of ``bytes_each`` bytes for each of ``classes`` classes."""
        unit = 1 if self.in_images else bytes_each
        return type(self)(unit * classes) if self.total is not None else type(self)(per_class=unit)

    @abstractmethod
    def max_size(self, classes: int) -> int:
        """Largest number of stored images of ``classes`` classes together; 0: the budget is in bytes."""

    def resized(self, size: int) -> Budget:
        """The budget with a total of ``size`` images; a budget in bytes or per class returns itself."""
        return self


@dataclass(frozen=True)
class Images(Budget):
    """Budget in stored images: ``Images(2000)`` for all classes together, ``Images(per_class=20)`` for each class.

    A stored image counts as one image, also if several smaller images are packed into it.

    >>> from condensekit.replay import Images
    >>> Images(2000).max_size(classes=10), Images(per_class=20).max_size(classes=10)
    (2000, 200)
    """

    in_images: ClassVar[bool] = True

    def max_size(self, classes: int) -> int:
        """See :meth:`Budget.max_size`."""
        return self.total if self.total is not None else self.share(1) * classes

    def resized(self, size: int) -> Budget:
        """See :meth:`Budget.resized`."""
        return Images(size) if self.shrinks else self


@dataclass(frozen=True)
class Bytes(Budget):
    """Budget in bytes of images, ranges, labels and soft labels, as :attr:`condensekit.CondensedSet.nbytes` counts.

    >>> from condensekit.replay import Bytes, Memory
    >>> memory = Memory(Bytes(10_000), "random", classes=10)
    """

    def max_size(self, classes: int) -> int:
        """See :meth:`Budget.max_size`."""
        return 0
