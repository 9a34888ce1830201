"""How much a replay memory may hold: in stored images or in stored bytes, in all or for each class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from condensekit.errors import ConfigError, refuse


@dataclass(frozen=True)
class Budget(ABC):
    """A size in the subclass's unit: exactly one of ``total`` and ``per_class``.

    Args:
        total: Of the whole memory. Each class gets the same part: of the classes announced to the buffer, or else
            of those seen so far, so that the part shrinks as classes arrive.
        per_class: Of each class; the memory grows with the classes.

    Raises:
        ConfigError: Both or none, or a size below 1.
    """

    total: int | None = None
    per_class: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        kind, sizes = type(self).__name__, {"total": self.total, "per_class": self.per_class}
        refuse(
            f"{kind} takes a total or per_class, exactly one of them, got {self.total} and {self.per_class}"
            if (self.total is None) == (self.per_class is None)
            else None,
            *(
                f"{kind} {name} must be an integer of at least 1, got {size!r}"
                for name, size in sizes.items()
                if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1)
            ),
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
        unit = bytes_each if isinstance(self, Bytes) else 1
        return str(type(self)(unit * classes) if self.total is not None else type(self)(per_class=unit))


@dataclass(frozen=True)
class Images(Budget):
    """A budget in stored images: ``Images(2000)`` in all, ``Images(per_class=20)`` for each class.

    A stored image counts once, however many smaller ones a formation factor has packed into it.
    """

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
