"""Training one candidate on a proxy set and scoring it on held-out images, without NNI."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from condensekit.augment import Augmentation
from condensekit.condensed import CondensedSet
from condensekit.images import ClassImages

SCORES = ("accuracy", "cross-entropy", "margin", "tse")


@dataclass(frozen=True, eq=False)
class ProxyData:
    """What candidates are trained on and scored on.

    Args:
        train: A condensed or selected set, or real images (a fraction of the data, or all of it).
        test: Held-out training images; outputs stand for its classes, ascending.
    """

    train: CondensedSet | ClassImages
    test: ClassImages


@dataclass(frozen=True)
class ProxyProtocol:
    """How a candidate is trained: SGD, the same batches and augmentation for every candidate.

    Args:
        epochs: Passes over the set.
        lr: Learning rate at the start.
        batch: Images in a gradient step.
        augmentation: Of the training images; None for none.
        schedule: ``cosine``, ``step`` (a tenth from half of the training on) or ``constant``.
        momentum: In [0, 1).
        nesterov: Nesterov's momentum.
        weight_decay: Of all parameters, at least 0.
        steps: Gradient steps of the whole training in place of ``epochs``; None for none.
    """

    epochs: int = 100
    lr: float = 0.025
    batch: int = 64
    augmentation: Augmentation | None = Augmentation()  # noqa: RUF009 - frozen
    schedule: str = "cosine"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    steps: int | None = None


@dataclass(frozen=True)
class TrialResult:
    """What training one candidate gave.

    Args:
        scores: Score by kind (:data:`SCORES`), higher is better: accuracy, minus cross-entropy and margin on the
            held-out images, averaged over the last epochs; minus the sum of the training losses.
        curve: A dictionary for each time it was tested: ``epoch`` and the scores at that time.
        seconds: Wall time, testing included.
        image_steps: Images passed through in training.
        finite: False where the loss left the finite numbers; then ``scores`` is empty.
        stopped: Whether it was given up as hopeless before the end.
    """

    scores: Mapping[str, float]
    curve: tuple[Mapping[str, float], ...] = ()
    seconds: float = 0.0
    image_steps: int = 0
    finite: bool = True
    stopped: bool = False
    losses: tuple[float, ...] = field(default=(), repr=False)


def train_candidate(
    make: Callable[[], nn.Module],
    data: ProxyData,
    protocol: ProxyProtocol,
    *,
    seed: int = 0,
    last: int = 5,
    checks: int = 4,
    hopeless: float | None = None,
    device: str = "cpu",
    report: Callable[[Mapping[str, float]], None] = lambda _: None,
) -> TrialResult:
    """Train a fresh candidate and score it.

    Args:
        make: Builds the module, with fresh weights from torch's global generator.
        data: Training and held-out images.
        protocol: The recipe.
        seed: Initial weights, batches and augmentation follow from it and from nothing else.
        last: Epochs at the end over whose tests the scores are averaged.
        checks: Tests spread over the training before those, for the curve.
        hopeless: Give up at a test before the last epochs where the accuracy is below this many times chance; None never.
        device: ``cpu`` (one thread), ``cuda``.
        report: Told the scores of each test at once.
    """
    raise NotImplementedError
