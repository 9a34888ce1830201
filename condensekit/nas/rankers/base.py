"""Ranker: its base class, combinations of rankers, and the setting that all rankers of a contest share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import torch

from condensekit.data.images import ClassImages
from condensekit.errors import DataError, instance, refuse, whole
from condensekit.nas.names import needing_nni
from condensekit.nas.rankers.batch_norm import STATISTICS_IMAGES, real_images
from condensekit.nas.rankers.sets import Maker, Preparation
from condensekit.nas.rankers.training import ProxyData, ProxyProtocol, check_score
from condensekit.sets.condensed import CondensedSet

if TYPE_CHECKING:
    from nni.nas.evaluator import Evaluator


@dataclass(frozen=True, eq=False)
class Setting:
    """Data and settings that all rankers of a contest share.

    >>> import condensekit as ck
    >>> from condensekit.nas import Maker, ProxyProtocol, Setting
    >>> train, test = ck.load("digits")
    >>> train, held = train.split(0.2, seed=0)
    >>> Setting(Maker(train), held, ProxyProtocol(steps=24), ipc=5).train_steps
    24

    Args:
        maker: Makes the sets of the rankers from the training images; candidates are trained on its machine.
        held: Held-out training images, on which candidates are scored; the maker must not have them.
        protocol: Training protocol of a candidate; all rankers have the same number of steps, see :attr:`train_steps`.
        ipc: Images per class of a set, unless its ranker has another number.
        score: Name of the score by which trained candidates are ranked, see :data:`condensekit.nas.names.SCORES`.
        seeds: Number of trainings of each candidate.
        seed: Seed of the first training; the same for all candidates.
        last: Number of tests in the last tenth of the steps, over which scores are averaged.
        checks: Number of tests before the last tenth.
        hopeless: See :func:`~condensekit.nas.rankers.training.train_candidate`.
        recalibrate: Approximate number of real training images from which batch norm gets its statistics in a test; 0:
            batch norm keeps the statistics of the training.
        extra: Further image-steps of each candidate, over all its trainings, for a ranker at equal cost: its share of
            the most expensive preparation.

    Raises:
        ConfigError: An unknown score, a score that does not work with ``hopeless``, or a number below 0.
        DataError: A held-out image is also a training image.
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
        refuse(
            instance("maker", self.maker, Maker, "Maker(train)"),
            instance("held", self.held, ClassImages, "the second part of train.split(0.2)"),
            instance("protocol", self.protocol, ProxyProtocol, "ProxyProtocol()"),
            whole("ipc", self.ipc, 1),
            whole("recalibrate", self.recalibrate, 0),
        )
        check_score(self.score, self.hopeless)
        train = self.maker.train
        if train.images.data_ptr() == self.held.images.data_ptr() and bool(
            torch.isin(train.order, self.held.order).any()
        ):
            raise DataError("an image is both trained on and held out: split the training images first")

    @property
    def train_steps(self) -> int:
        """Number of gradient steps of a training, each with a full batch."""
        return self.protocol.steps_on(self.ipc * len(self.maker.train.classes))

    @property
    def equal_train_steps(self) -> int:
        """Number of gradient steps of a training at equal cost: :attr:`train_steps` and its part of ``extra``."""
        return self.train_steps + round(self.extra / (self.seeds * self.protocol.batch))

    @cached_property
    def _test(self) -> ClassImages:
        """The held-out images in an array of their own, so that workers do not receive other images."""
        return self.held.compact()

    @cached_property
    def _statistics(self) -> ClassImages | None:
        return real_images(self.maker.train, self.recalibrate) if self.recalibrate else None

    def trained(self, on: CondensedSet | ClassImages, train_steps: int | None = None) -> Evaluator:
        """Evaluator that trains candidates on a set; ``train_steps`` None: the number of steps of all rankers."""
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
    """Base class of rankers, which score candidates.

    Attributes:
        name: Name in tables.
        free: Whether the ranker scores without training.
        combines: Whether the ranker combines scores of other rankers.
        fitted: Whether the ranker is fitted to truths.
    """

    name: str
    free: ClassVar[bool] = False
    combines: ClassVar[bool] = False
    fitted: ClassVar[bool] = False

    @property
    def parts(self) -> tuple[Ranker, ...]:
        """The rankers whose scores this ranker needs: itself."""
        return (self,)

    @property
    def at_equal_cost(self) -> bool:
        """Whether the cost of this ranker is made equal to the cost of the most expensive other ranker."""
        return False

    def check(self, setting: Setting) -> None:  # noqa: B027 - most need no check
        """Raise an error if :meth:`prepare` cannot work, before any work is done.

        Raises:
            ConfigError: Wrong options.
            DataError: A class with too few images.
        """

    @abstractmethod
    def prepare(self, setting: Setting) -> tuple[Evaluator, Preparation]:
        """Make the evaluator that scores candidates; returns it with the cost of its preparation."""


@dataclass(frozen=True)
class Combination:
    """Ranker that combines the scores of other rankers.

    Args:
        name: Name in tables.
        parts: The combined rankers; empty: the additive model, which uses the architecture only.
        fitted: Whether the combination is a regression that is fitted to the truths of a few further architectures;
            the cost of these truths counts. False: it is the sum of ranks.
    """

    name: str
    parts: tuple[Ranker, ...] = ()
    fitted: bool = False
    combines: ClassVar[bool] = True
