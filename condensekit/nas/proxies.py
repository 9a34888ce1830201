"""Competing rankers: ways to say, more cheaply than full training, which architecture is the better one.

Each says how it scores one candidate (an NNI evaluator, so that every engine, the log and resuming work alike) and
what it costs beforehand. Trained ones pass equally many images through a candidate, in equally many full batches,
whatever they train on.
"""

from __future__ import annotations

import hashlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import nni
import torch
from nni.nas.evaluator import Evaluator
from torch import Tensor, nn

from condensekit import catalog
from condensekit.catalog import ADDITIVE, COUNTS, EARLY, HALF, RIDGE, START, ZERO_COST
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, DataError, refuse, unknown, whole
from condensekit.nas import zero_cost
from condensekit.nas.cost import count
from condensekit.nas.evaluator import ProxyEvaluator
from condensekit.nas.failures import TrialError
from condensekit.nas.proxy_sets import Maker, Preparation
from condensekit.nas.recalibrate import IMAGES, real_images
from condensekit.nas.training import ProxyData, ProxyProtocol, check_score
from condensekit.rng import Draw, isolated
from condensekit.selection.base import Noise, check_sizes
from condensekit.sets.condensed import CondensedSet

EQUAL = "-equal"  # after a selection: trained on longer, by what the dearest preparation costs
FREE_SETS = (f"random{EQUAL}", f"{catalog.PACKED}random{EQUAL}")  # other selections have a preparation of their own


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
        hopeless: See :func:`~condensekit.nas.training.train_candidate`.
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


@dataclass(frozen=True)
class ZeroCost(Ranker):
    """Scores candidates without training.

    Args:
        name: ``params``, ``flops`` or one of :data:`condensekit.catalog.ZERO_COST`.
    """

    name: str

    def prepare(self, setting: Setting) -> tuple[Evaluator, Preparation]:
        """See :meth:`Ranker.prepare`."""
        images = zero_cost.batch(setting.maker.train, Draw(setting.seed))
        return ZeroCostEvaluator(self.name, images, setting.seed), Preparation()


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


def at_equal_cost(one: Ranker) -> bool:
    """Whether what the ranker may spend depends on what others spend."""
    return one.equal if isinstance(one, OnSet) else isinstance(one, EarlyStop) and one.epochs is None


class ZeroCostEvaluator(Evaluator):  # type: ignore[misc]
    """The NNI evaluator of :class:`ZeroCost`.

    Args:
        kind: The score's name.
        images_NCHW: A batch of normalised float32 images.
        seed: Initial weights follow from it.
    """

    def __init__(self, kind: str, images_NCHW: Tensor, seed: int = 0) -> None:  # noqa: N803
        self.kind, self.images, self.seed = kind, images_NCHW, seed

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """See :attr:`ProxyEvaluator.recipe`."""
        images = hashlib.sha256(self.images.numpy().tobytes()).hexdigest()[:16]
        return {"kind": self.kind, "seed": self.seed, "images": images}

    def evaluate(self, model: Callable[[], nn.Module]) -> float:
        """Score what ``model`` makes, and report to NNI.

        Raises:
            TrialError: The score is not finite.
        """
        start = time.perf_counter()
        draw = Draw(self.seed)
        channels, height, width = self.images.shape[1:]
        with isolated(draw.key("weights")):
            module = model()
            cost = count(module, (channels, height, width))  # a forward pass, from which lazy layers learn their size
        if self.kind in COUNTS:
            found: float | None = getattr(cost, self.kind)
        else:
            found = zero_cost.score(self.kind, module, self.images, draw.key("zero-cost"))
        steps = zero_cost.image_steps(self.kind, len(self.images))
        if found is None:
            raise TrialError(f"{self.kind} is not finite", steps)
        nni.report_final_result(
            {
                "default": float(found),
                "scores": {self.kind: float(found)},
                "seconds": time.perf_counter() - start,
                "image_steps": steps,
                "stopped": False,
            }
        )
        return found

    def _execute(self, model: Any) -> Any:
        """Called by NNI with a frozen space."""
        return self.evaluate(model.executable_model)


def ranker(name: str) -> Ranker | Combination:
    """The ranker called ``name``.

    Args:
        name: A method of the catalog (``dm``), a selection (``random``, ``packed-random``), ``half-`` and a method,
            ``start-`` and a method (the real images that it starts from), ``random-equal`` or ``packed-random-equal``,
            trained on longer by its share of the dearest preparation; each of these with ``@N`` for N images per class;
            ``early-stop``, with ``@N`` for N epochs; ``params``, ``flops``, ``synflow``, ``nwot``, ``jacov``, ``zen``;
            several of them joined by ``+`` for the sum of their ranks, ``ridge:`` before that for a regression; or
            ``additive``, a regression on the choices alone.

    Raises:
        ConfigError: An unknown name.
    """
    if name == ADDITIVE:
        return Combination(name, fitted=True)
    if name.startswith(RIDGE) or "+" in name:
        parts = tuple(_single(part) for part in name.removeprefix(RIDGE).split("+"))
        return Combination(name, parts, name.startswith(RIDGE))
    return _single(name)


def _single(name: str) -> Ranker:
    kind, at, number = name.partition("@")
    if at and not (number.isdecimal() and int(number)):
        raise ConfigError(f"ranker {name!r}: after @ comes a number of at least 1")
    size = int(number) if at else None
    if kind == EARLY:
        return EarlyStop(name, size)
    if kind in (*COUNTS, *ZERO_COST):
        if at:
            raise ConfigError(f"ranker {name!r}: {kind} takes no number")
        return ZeroCost(kind)
    if kind in FREE_SETS:
        return OnSet(name, kind.removesuffix(EQUAL), size, equal=True)
    plain = _method_of(kind)
    if plain in catalog.METHODS or ":" in plain:
        catalog.method(plain)
    elif not _is_selection(kind):
        sets = [*catalog.METHODS, *catalog.SELECTIONS, *_prefixed(), *FREE_SETS]
        known = [EARLY, ADDITIVE, *COUNTS, *ZERO_COST, *sets]
        raise unknown("ranker", name, known)
    return OnSet(name, kind, size)


def _prefixed() -> list[str]:
    return [*(f"{before}{name}" for before in (HALF, START) for name in catalog.METHODS), *catalog.PACKED_SELECTIONS]


def _method_of(kind: str) -> str:
    """The method in ``half-`` or ``start-`` and a method; anything else as it is."""
    before = next((prefix for prefix in (HALF, START) if kind.startswith(prefix)), "")
    return kind.removeprefix(before)


def _is_selection(kind: str) -> bool:
    return kind in catalog.SELECTIONS or kind in catalog.PACKED_SELECTIONS
