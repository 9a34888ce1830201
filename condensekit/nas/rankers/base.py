"""Ranker interface, combinations of rankers, and the setting that all rankers of a contest share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import torch

from condensekit.data.images import ClassImages
from condensekit.errors import DataError, refuse, whole
from condensekit.nas.names import needing_nni
from condensekit.nas.rankers.batch_norm import STATISTICS_IMAGES, real_images
from condensekit.nas.rankers.sets import Maker, Preparation
from condensekit.nas.rankers.training import ProxyData, ProxyProtocol, check_score
from condensekit.sets.condensed import CondensedSet

if TYPE_CHECKING:
    from nni.nas.evaluator import Evaluator


@dataclass(frozen=True, eq=False)
class Setting:
    """What all rankers of a contest share.

    Args:
        maker: Makes their sets from the training images; candidates are trained on its machine.
        held: Held-out training images, on which candidates are scored; the maker has none of them.
        protocol: How a candidate is trained; its number of steps is the same for all rankers, see :attr:`train_steps`.
        ipc: Images per class of a set whose ranker names no other number.
        score: Which score of a trained candidate counts.
        seeds: Trainings of each candidate.
        seed: Of the first training; the same for all candidates.
        last: Tests in the last tenth of the steps, over which scores are averaged.
        checks: Tests before those.
        hopeless: See :func:`~condensekit.nas.rankers.training.train_candidate`.
        recalibrate: Real training images, about as many, whose statistics batch norm has in a test; 0: the
            statistics of training.
        extra: Image-steps that a ranker without a preparation gets for each candidate, over all its trainings, to cost
            as much as a ranker with a preparation.

    Raises:
        ConfigError: An unknown score, or a score that goes ill with ``hopeless``; a number below 0.
        DataError: An image that is both trained on and held out.
    """

    maker: Maker
    held: ClassImages
    protocol: ProxyProtocol = ProxyProtocol()  # noqa: RUF009 - frozen
    ipc: int = 10
    score: str = "accuracy"
    seeds: int = 1
    seed: int = 0
    last: int = 5
    checks: int = 4
    hopeless: float | None = None
    recalibrate: int = STATISTICS_IMAGES
    extra: float = 0.0

    def __post_init__(self) -> None:
        check_score(self.score, self.hopeless)
        refuse(whole("recalibrate", self.recalibrate, 0))
        train = self.maker.train
        if train.images.data_ptr() == self.held.images.data_ptr() and bool(
            torch.isin(train.order, self.held.order).any()
        ):
            raise DataError("an image is both trained on and held out: split the training images first")

    @property
    def train_steps(self) -> int:
        """Gradient steps on each candidate, each with a full batch."""
        return self.protocol.steps_on(self.ipc * len(self.maker.train.classes))

    @property
    def equal_train_steps(self) -> int:
        """The same, and each training's part of the steps that a preparation would have cost."""
        return self.train_steps + round(self.extra / (self.seeds * self.protocol.batch))

    @cached_property
    def _test(self) -> ClassImages:
        """The held-out images without the others in their array, which would be sent to every worker."""
        return self.held.compact()

    @cached_property
    def _statistics(self) -> ClassImages | None:
        return real_images(self.maker.train, self.recalibrate) if self.recalibrate else None

    def trained(self, on: CondensedSet | ClassImages, train_steps: int | None = None) -> Evaluator:
        """Training on a set, for as many steps as every other ranker takes, unless told otherwise."""
        with needing_nni("a ranker that trains candidates"):
            from condensekit.nas.rankers.evaluator import ProxyEvaluator
        return ProxyEvaluator(
            ProxyData(on, self._test, self._statistics),
            replace(self.protocol, steps=train_steps or self.train_steps),
            score=self.score,
            seeds=self.seeds,
            seed=self.seed,
            last=self.last,
            checks=self.checks,
            hopeless=self.hopeless,
            machine=self.maker.machine,
        )


class Ranker(ABC):
    """A way to score candidates.

    Attributes:
        name: What tables call it.
        free: Whether it scores without training.
        combines: Whether it is made of other rankers' scores.
        fitted: Whether it is told truths.
    """

    name: str
    free: ClassVar[bool] = False
    combines: ClassVar[bool] = False
    fitted: ClassVar[bool] = False

    @property
    def parts(self) -> tuple[Ranker, ...]:
        """The rankers whose scores it needs: itself."""
        return (self,)

    @property
    def at_equal_cost(self) -> bool:
        """Whether what it may spend depends on what the other rankers spend."""
        return False

    def check(self, setting: Setting) -> None:  # noqa: B027 - most need no check
        """Refuse what :meth:`prepare` could not make, before anything is spent.

        Raises:
            ConfigError: Options that make no sense.
            DataError: Classes too small.
        """

    @abstractmethod
    def prepare(self, setting: Setting) -> tuple[Evaluator, Preparation]:
        """What scores a candidate, and what making it took."""


@dataclass(frozen=True)
class Combination:
    """Scores made of other rankers' scores, as soon as those are there.

    Args:
        name: What tables call it.
        parts: The rankers it is made of; empty for the additive model, which looks at the architecture alone.
        fitted: Whether it is a regression on a few architectures whose truth is known (they are not
            ranked themselves, and what their truths cost is counted), or the plain sum of ranks.
    """

    name: str
    parts: tuple[Ranker, ...] = ()
    fitted: bool = False
    combines: ClassVar[bool] = True
