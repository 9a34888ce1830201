"""Trained rankers, which score each candidate by a short training."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from condensekit import catalog
from condensekit.errors import refuse, require
from condensekit.methods.recipe import Recipe
from condensekit.nas.names import EARLY
from condensekit.nas.rankers.base import Ranker, Setting
from condensekit.nas.rankers.sets import Made, Maker, Preparation
from condensekit.selection.base import check_sizes

if TYPE_CHECKING:
    from nni.nas.evaluator import Evaluator


@dataclass(frozen=True)
class OnSet(Ranker):
    """Base class of rankers that train candidates on a small set.

    Args:
        name: Name in tables.
        source: A recipe or its text; for :class:`Selected` the name of a selection.
        ipc: Images per class; None: the number of the setting.
    """

    name: str
    source: str | Recipe
    ipc: int | None = None

    @abstractmethod
    def make(self, maker: Maker, ipc: int) -> Made:
        """Make the set with ``ipc`` images of each class; returns it with its cost."""

    def prepare(self, setting: Setting) -> tuple[Evaluator, Preparation]:
        """See :meth:`Ranker.prepare`."""
        made, cost = self.make(setting.maker, self.ipc or setting.ipc)
        return setting.trained(made, setting.equal_train_steps if self.at_equal_cost else None), cost


@dataclass(frozen=True)
class Condensed(OnSet):
    """Ranker that trains candidates on a condensed set."""

    def check(self, setting: Setting) -> None:
        """See :meth:`Ranker.check`."""
        maker = setting.maker
        maker.recipe(self.source).check(maker.train, self.ipc or setting.ipc, maker.machine)

    def make(self, maker: Maker, ipc: int) -> Made:
        """See :meth:`OnSet.make`."""
        return maker.condensed(self.source, ipc)


@dataclass(frozen=True)
class Half(Condensed):
    """Ranker that trains candidates on a set of which half is condensed and half is real."""

    def check(self, setting: Setting) -> None:
        """See :meth:`Ranker.check`."""
        ipc = self.ipc or setting.ipc
        require(ipc >= 2, f"{self.name}: half condensed and half real needs at least 2 images per class, got ipc={ipc}")
        super().check(setting)

    def make(self, maker: Maker, ipc: int) -> Made:
        """See :meth:`OnSet.make`."""
        return maker.half(self.source, ipc)


@dataclass(frozen=True)
class Started(Condensed):
    """Ranker that trains candidates on the real images from which a condensation starts."""

    def check(self, setting: Setting) -> None:
        """See :meth:`Ranker.check`."""
        setting.maker.first(self.source)
        super().check(setting)

    def make(self, maker: Maker, ipc: int) -> Made:
        """See :meth:`OnSet.make`."""
        return maker.start(self.source, ipc)


@dataclass(frozen=True)
class Selected(OnSet):
    """Ranker that trains candidates on selected real images.

    Args:
        source: Name of the selection.
        equal: Whether trainings are longer, so that the ranker costs as much as the ranker with the most expensive
            preparation.
    """

    source: str
    equal: bool = False

    @property
    def at_equal_cost(self) -> bool:
        """See :class:`Ranker`."""
        return self.equal

    def check(self, setting: Setting) -> None:
        """See :meth:`Ranker.check`."""
        train, formation = setting.maker.train, catalog.baseline(self.source)[1]
        refuse(formation.misfit(train.spec.shape))
        check_sizes(train, self.ipc or setting.ipc, formation.factor)

    def make(self, maker: Maker, ipc: int) -> Made:
        """See :meth:`OnSet.make`."""
        return maker.selected(self.source, ipc)


@dataclass(frozen=True)
class EarlyStop(Ranker):
    """Ranker that trains candidates on all real training images for a short time.

    Args:
        name: Name in tables.
        epochs: Number of passes over the images; None: the ranker costs as much as the ranker with the most expensive
            preparation.
    """

    name: str = EARLY
    epochs: int | None = None

    @property
    def at_equal_cost(self) -> bool:
        """See :class:`Ranker`."""
        return self.epochs is None

    def prepare(self, setting: Setting) -> tuple[Evaluator, Preparation]:
        """See :meth:`Ranker.prepare`."""
        train, epochs = setting.maker.train, self.epochs
        steps = math.ceil(epochs * len(train) / setting.protocol.batch) if epochs else setting.equal_train_steps
        return setting.trained(train, steps), Preparation()
