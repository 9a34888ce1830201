"""Rankers that train each candidate for a short time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nni.nas.evaluator import Evaluator

from condensekit import catalog
from condensekit.errors import ConfigError, refuse
from condensekit.nas.names import EARLY, HALF, START
from condensekit.nas.rankers.base import Ranker, Setting
from condensekit.nas.rankers.sets import Preparation
from condensekit.selection.base import Noise, check_sizes


@dataclass(frozen=True)
class OnSet(Ranker):
    """Trains candidates on a small set.

    Args:
        name: What tables call it.
        kind: A method, a selection (``packed-`` before it allowed), or ``half-`` or ``start-`` and a method.
        ipc: Images per class; None takes the setting's.
        equal: Whether candidates get their share of the dearest preparation among the rankers as further steps, so that
            all cost the same.
    """

    name: str
    kind: str
    ipc: int | None = None
    equal: bool = False

    def check(self, setting: Setting) -> None:
        """See :meth:`Ranker.check`."""
        maker, ipc = setting.maker, self.ipc or setting.ipc
        if self.kind.startswith(HALF) and ipc < 2:
            raise ConfigError(f"{self.name}: half condensed and half real needs at least 2 images per class, got {ipc}")
        if _is_selection(self.kind):
            formation = catalog.baseline(self.kind)[1]
        else:
            how = maker.build(_method_of(self.kind))[1]
            formation = how["formation"]
            if self.kind.startswith(START) and isinstance(how["init"], Noise):
                raise ConfigError(f"{self.name}: a condensation from noise starts from no images; give another init")
        refuse(formation.misfit(maker.train.spec.shape))
        check_sizes(maker.train, ipc, formation.factor)

    def prepare(self, setting: Setting) -> tuple[Evaluator, Preparation]:
        """See :meth:`Ranker.prepare`."""
        maker, ipc = setting.maker, self.ipc or setting.ipc
        if self.kind.startswith(HALF):
            made, cost = maker.half(_method_of(self.kind), ipc)
        elif self.kind.startswith(START):
            made, cost = maker.start(_method_of(self.kind), ipc)
        elif _is_selection(self.kind):
            made, cost = maker.selected(self.kind, ipc)
        else:
            made, cost = maker.condensed(self.kind, ipc)
        return setting.trained(made, setting.equal_steps if self.equal else None), cost


@dataclass(frozen=True)
class EarlyStop(Ranker):
    """Trains candidates on all real training images, but not for long.

    Args:
        name: What tables call it.
        epochs: Passes; None gives it as many image-steps as the others, and its share of the dearest preparation
            among them on top.
    """

    name: str = EARLY
    epochs: int | None = None

    def prepare(self, setting: Setting) -> tuple[Evaluator, Preparation]:
        """See :meth:`Ranker.prepare`."""
        train = setting.maker.train
        steps = math.ceil(self.epochs * len(train) / setting.protocol.batch) if self.epochs else setting.equal_steps
        return setting.trained(train, steps), Preparation()


def at_equal_cost(one: Ranker) -> bool:
    """Whether what the ranker may spend depends on what others spend."""
    return one.equal if isinstance(one, OnSet) else isinstance(one, EarlyStop) and one.epochs is None


def _method_of(kind: str) -> str:
    """The method in ``half-`` or ``start-`` and a method; anything else as it is."""
    before = next((prefix for prefix in (HALF, START) if kind.startswith(prefix)), "")
    return kind.removeprefix(before)


def _is_selection(kind: str) -> bool:
    return kind in catalog.SELECTIONS or kind in catalog.PACKED_SELECTIONS
