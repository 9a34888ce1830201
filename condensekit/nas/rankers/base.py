"""Ranker interface, and what all rankers of a comparison share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from nni.nas.evaluator import Evaluator

from condensekit.data.images import ClassImages
from condensekit.errors import DataError, refuse, whole
from condensekit.nas.rankers.batch_norm import IMAGES, real_images
from condensekit.nas.rankers.evaluator import ProxyEvaluator
from condensekit.nas.rankers.sets import Maker, Preparation
from condensekit.nas.rankers.training import ProxyData, ProxyProtocol, check_score
from condensekit.sets.condensed import CondensedSet


@dataclass(frozen=True, eq=False)
class Setting:
    """What all rankers of a comparison share.

    Args:
        maker: Makes their sets from the training images.
        held: Held-out training images, on which candidates are scored; none of them is the maker's.
        protocol: How a candidate is trained; its number of steps is the same for all rankers, see :attr:`steps`.
        ipc: Images per class of a set whose ranker names no other number.
        score: Which score of a trained candidate counts.
        seeds: Trainings of each candidate.
        seed: Of the first; the same for all candidates.
        last: Tests in the last tenth of the steps, over which scores are averaged.
        checks: Tests before those.
        hopeless: See :func:`~condensekit.nas.rankers.training.train_candidate`.
        device: Where candidates are trained.
        recalibrate: Real training images, about as many, whose statistics batch norm has in a test; 0: those of
            training.
        extra: Image-steps that a ranker without a preparation gets for each candidate, over all its trainings, to cost
            as much as one with.

    Raises:
        ConfigError: An unknown score, or one that goes ill with ``hopeless``; a number below 0.
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
    device: str = "cpu"
    recalibrate: int = IMAGES
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
    def steps(self) -> int:
        """Gradient steps on each candidate, each with a full batch."""
        return self.protocol.steps_on(self.ipc * len(self.maker.train.classes))

    @property
    def equal_steps(self) -> int:
        """The same, and each training's part of those that a preparation would have cost."""
        return self.steps + round(self.extra / (self.seeds * self.protocol.batch))

    @cached_property
    def _test(self) -> ClassImages:
        """The held-out images without the others in their array, which would be sent to every worker."""
        return self.held.compact()

    @cached_property
    def _statistics(self) -> ClassImages | None:
        return real_images(self.maker.train, self.recalibrate) if self.recalibrate else None

    def trained(self, on: CondensedSet | ClassImages, steps: int | None = None) -> ProxyEvaluator:
        """Training on a set, for as many steps as every other ranker takes, unless told otherwise."""
        return ProxyEvaluator(
            ProxyData(on, self._test, self._statistics),
            replace(self.protocol, steps=steps or self.steps),
            score=self.score,
            seeds=self.seeds,
            seed=self.seed,
            last=self.last,
            checks=self.checks,
            hopeless=self.hopeless,
            device=self.device,
        )


class Ranker(ABC):
    """A way to score candidates."""

    name: str

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
    """Scores made of other rankers' scores, once those are there.

    Args:
        name: What tables call it.
        parts: The rankers it is made of; none for the additive model, which looks at the architecture alone.
        fitted: Whether it is a regression on a few architectures whose truth is known (they are not among those that
            are ranked, and what their truths cost is counted), or the plain sum of ranks.
    """

    name: str
    parts: tuple[Ranker, ...] = field(default=())
    fitted: bool = False
