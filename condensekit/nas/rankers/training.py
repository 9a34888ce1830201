"""Training of one candidate on a proxy set, and its scores on held-out images, without NNI.

Every step has a full batch, for sets of every size, and tests come at the same fractions of the steps. Rankers with the
same number of steps therefore use the same number of images, and average scores over the same part of the training.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condensekit.compute import Compute, Machine, without_subnormals
from condensekit.data.images import ClassImages, ImageSpec
from condensekit.errors import (
    ConfigError,
    DataError,
    finite,
    instance,
    positive,
    quoted,
    refuse,
    require,
    unknown,
    whole,
)
from condensekit.nas.engines.failures import TrialError
from condensekit.nas.names import SCORES
from condensekit.nas.rankers.batch_norm import in_evaluation
from condensekit.nas.trials.time_budget import OutOfTimeError
from condensekit.networks.base import FeatureNetwork
from condensekit.rng import Draw, isolated
from condensekit.sets.condensed import CondensedSet
from condensekit.training.augment import Augmentation
from condensekit.training.lessons import outputs, targets_for
from condensekit.training.train import TEST_PIXELS, class_indices

CPU_TEST_PIXELS = 128 * 32 * 32  # pixels of a test batch on a CPU: a larger batch exceeds the cache, at twice the time
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "step": lambda done: 1.0 if done < 0.5 else 0.1,
    "constant": lambda done: 1.0,
}
STOPPABLE = ("accuracy", "tse")  # scores that rank a candidate that was given up below candidates that learn
LAST_SHARE = 0.1  # fraction of the steps, at the end, over whose tests scores are averaged
LOOK_EVERY_STEPS = 20  # steps between two checks that the loss is finite
FLIP_CROP = (Augmentation(("crop",)), Augmentation(("flip",)))
"""Random crop and horizontal flip of every image, with which most published networks are trained."""


@dataclass(frozen=True, eq=False)
class ProxyData:
    """Images on which candidates are trained and scored.

    >>> import condensekit as ck
    >>> from condensekit.nas import ProxyData
    >>> train, test = ck.load("digits")
    >>> train, held = train.split(0.2, seed=0)
    >>> ProxyData(ck.select(train, "kmeans", ipc=5), held).classes[:3]
    (0, 1, 2)

    Args:
        train: A condensed or selected set, or real images.
        test: Held-out training images, perhaps without some classes of ``train``; see :attr:`classes`.
        statistics: Real training images from which batch norm gets its statistics in a test; None: batch norm keeps the
            statistics of the training.

    Raises:
        ConfigError: Arguments of another type.
        DataError: The sets have different shapes or classes.
    """

    train: CondensedSet | ClassImages
    test: ClassImages
    statistics: ClassImages | None = None

    def __post_init__(self) -> None:
        refuse(
            None
            if isinstance(self.train, CondensedSet | ClassImages)
            else f"train must be a CondensedSet or a ClassImages, got {quoted(self.train)}: pass "
            "ck.select(train, 'kmeans', ipc=5), the .set of a result, or real images",
            instance("test", self.test, ClassImages, "the second part of train.split(0.2)"),
            None
            if self.statistics is None
            else instance("statistics", self.statistics, ClassImages, "real training images, or None"),
        )
        _ = self.targets
        if self.statistics is not None:
            targets_for("the images for batch norm", self.statistics, self.test)
            if len(self.statistics) < 2:
                raise DataError(f"statistics need at least 2 images, got {len(self.statistics)}")

    @cached_property
    def classes(self) -> tuple[int, ...]:
        """The classes that outputs stand for, ascending."""
        return outputs(self.train, self.test)

    @cached_property
    def targets(self) -> Tensor:
        """(N,) int64 indices into :attr:`classes`, or (N, K) float32 probabilities."""
        return targets_for("the proxy set", self.train, self.test)

    @cached_property
    def images(self) -> Tensor | ClassImages:
        """Decoded images (N, C, H, W) normalised float32 of a condensed set; real images unchanged."""
        return self.train.training_images

    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of the parts: 16 hexadecimal digits of a SHA-256 each."""
        train = hashlib.sha256(self.targets.numpy().tobytes())
        if isinstance(self.images, ClassImages):
            train.update(self.images.fingerprint().encode())
        else:
            train.update(self.images.contiguous().numpy().tobytes())
        found = {"train": train.hexdigest()[:16], "test": self.test.fingerprint()[:16]}
        return found if self.statistics is None else {**found, "statistics": self.statistics.fingerprint()[:16]}

    def batch(self, rows: Tensor, device: torch.device) -> Tensor:
        """(n, C, H, W) normalised images of the ``rows`` (n,) of :attr:`targets`."""
        if isinstance(self.images, ClassImages):
            return self.images.gather(self.images.order[rows], device)
        return self.images[rows].to(device)


@dataclass(frozen=True)
class ProxyProtocol:
    """Training protocol of a candidate: SGD, with the same batches and augmentation for every candidate.

    >>> from condensekit.nas import ProxyProtocol
    >>> ProxyProtocol(steps=150, batch=50).steps_on(500), ProxyProtocol(epochs=10, batch=50).steps_on(500)
    (150, 100)

    Args:
        epochs: Number of passes over the set, rounded up to full batches.
        lr: Learning rate at the start, above 0.
        batch: Number of images in every gradient step. If a pass ends inside a batch, the next pass fills the batch; a
            smaller set has several passes in a step.
        augmentation: Augmentation of the training images, or several that are applied in a row (:data:`FLIP_CROP`);
            None: no augmentation. Images that are not flippable are not flipped.
        schedule: Learning rate over time: ``cosine``, ``step`` (a tenth in the second half) or ``constant``.
        momentum: Momentum of SGD, in [0, 1).
        nesterov: Whether the momentum is Nesterov's.
        weight_decay: Weight decay of all parameters, at least 0.
        steps: Number of gradient steps of the whole training, instead of ``epochs``; None: ``epochs`` decides. With
            it, trainings on sets of different sizes have the same cost, ``steps * batch`` images.

    Raises:
        ConfigError: Values out of range; the error lists all of them.
    """

    epochs: int = 100
    lr: float = 0.025
    batch: int = 64
    augmentation: Augmentation | tuple[Augmentation, ...] | None = Augmentation()  # noqa: RUF009 - frozen
    schedule: str = "cosine"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    steps: int | None = None

    def __post_init__(self) -> None:
        refuse(
            whole("epochs", self.epochs, 1),
            whole("batch", self.batch, 1),
            None if self.steps is None else whole("steps", self.steps, 1),
            positive("lr", self.lr),
            None
            if finite(self.momentum) and 0 <= self.momentum < 1
            else f"momentum must lie in [0, 1), got {self.momentum!r:.60}",
            positive("weight_decay", self.weight_decay, zero=True),
            instance("nesterov", self.nesterov, bool, "True or False"),
            None
            if self.augmentation is None
            or isinstance(self.augmentation, Augmentation)
            or (isinstance(self.augmentation, tuple) and all(isinstance(a, Augmentation) for a in self.augmentation))
            else f"augmentation must be an Augmentation, a tuple of them or None, got {quoted(self.augmentation)}: "
            "pass Augmentation()",
        )
        require(not self.nesterov or self.momentum > 0, "nesterov needs a momentum above 0")
        if not isinstance(self.schedule, str) or self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)

    def steps_on(self, images: int) -> int:
        """Number of gradient steps of a training on a set of ``images``."""
        return self.steps or math.ceil(self.epochs * images / self.batch)

    @property
    def chain(self) -> tuple[Augmentation, ...]:
        """The augmentations, in the order in which they are applied."""
        return (self.augmentation,) if isinstance(self.augmentation, Augmentation) else self.augmentation or ()

    def on(self, spec: ImageSpec) -> ProxyProtocol:
        """The protocol for data with this spec: without ``flip`` if a mirrored image may show another class."""
        used = tuple(kept for augmentation in self.chain if (kept := augmentation.on(spec)) is not None)
        return self if used == self.chain else replace(self, augmentation=used)

    def augment(self, batch: Tensor, draw: Draw) -> Tensor:
        """(n, C, H, W) augmented images; each image has its own random parameters."""
        for place, augmentation in enumerate(self.chain):
            batch = augmentation.apply_batch(batch, draw, f"augment/{place}")
        return batch


@dataclass(frozen=True)
class TrialResult:
    """Result of the training of one candidate.

    >>> from condensekit.nas import TrialResult
    >>> TrialResult({"accuracy": 0.75}, image_steps=1200).scores["accuracy"]
    0.75

    Args:
        scores: Scores by kind (:data:`SCORES`), higher is better. On the held-out images, averaged over the tests in
            the last tenth: the accuracy; minus the cross-entropy; the margin, which is the probability of the right
            class minus the largest other probability. ``tse``: minus the training loss, averaged over all steps (Ru
            et al., "Speedy performance estimation for neural architecture search", NeurIPS 2021, use the sum, which
            ranks in the same way for equal steps). Empty: the training diverged.
        curve: A dictionary for each test: ``step`` and the scores at this step.
        seconds: Wall time in seconds, including tests.
        image_steps: Number of images that passed through the network in training.
        stopped: Whether the training was given up as hopeless.
        problem: Reason of a failure; empty: there was no failure.
    """

    scores: Mapping[str, float]
    curve: tuple[Mapping[str, float], ...] = ()
    seconds: float = 0.0
    image_steps: int = 0
    stopped: bool = False
    problem: str = ""


def check_score(score: str, hopeless: float | None) -> None:
    """Raise an error for an unknown score, and for a score that ranks candidates that were given up first.

    Args:
        score: Name of the score by which candidates are ranked.
        hopeless: See :func:`train_candidate`.

    Raises:
        ConfigError: An unknown score, or ``hopeless`` with a score outside :data:`STOPPABLE`.
    """
    if score not in SCORES:
        raise unknown("score", score, SCORES)
    require(
        hopeless is None or score in STOPPABLE,
        f"hopeless={hopeless} with score {score!r} would rank candidates that are given up first: they are scored "
        "before they become overconfident, other candidates afterwards; leave hopeless out, or use score "
        f"{' or '.join(STOPPABLE)}",
    )


def train_candidate(
    make: Callable[[], nn.Module],
    data: ProxyData,
    protocol: ProxyProtocol,
    *,
    seed: int = 0,
    last: int = 5,
    checks: int = 4,
    hopeless: float | None = None,
    machine: Machine = Machine(),  # noqa: B008 - frozen
    report: Callable[[Mapping[str, float]], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> TrialResult:
    """Train a new candidate and score it.

    >>> import torch, condensekit as ck
    >>> from condensekit.nas import ProxyData, ProxyProtocol, train_candidate
    >>> train, test = ck.load("digits")
    >>> train, held = train.split(0.2, seed=0)
    >>> def make():
    ...     return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> data = ProxyData(ck.select(train, "kmeans", ipc=5), held)
    >>> result = train_candidate(make, data, ProxyProtocol(steps=20, augmentation=None))
    >>> result.image_steps
    1280

    Args:
        make: Function that builds the module, with new weights from torch's global generator.
        data: Training and held-out images.
        protocol: Training protocol.
        seed: Seed of initial weights, batches and augmentation.
        last: Number of tests in the last tenth of the steps, over which scores are averaged.
        checks: Number of tests before the last tenth, for the curve.
        hopeless: Multiple of the accuracy of chance: at a test with a lower accuracy the training is given up, and the
            scores of this test count. Only some scores may then rank, see :func:`check_score`. None: never.
        machine: Device and precision; on a CPU the training has one thread.
        report: Function that is called at once with each entry of the curve.
        stop: Function that is called before each step and returns whether the time is over.

    Returns:
        The scores, the curve and the cost. A training that diverges is a result without scores.

    Raises:
        OutOfTimeError: ``stop`` returned True.
        TrialError: The outputs are not those of :func:`check_outputs`.
        ConfigError: Numbers out of range, or a device that this machine does not have.
    """
    refuse(
        whole("last", last, 1),
        whole("checks", checks, 0),
        None if hopeless is None else positive("hopeless", hopeless),
    )
    start = time.perf_counter()
    draw = Draw(seed)
    protocol = protocol.on(data.test.spec)
    running = _Uncounted(replace(machine, workers=1), data.test.spec.shape[1:])
    with running as compute, _one_thread(compute.device), without_subnormals(), isolated(draw.key("candidate")):
        with torch.random.fork_rng(devices=[]):
            module = make().to(compute.device).train()
        lesson = _Lesson(module, data, protocol, draw, compute)
        curve: list[Mapping[str, float]] = []
        stopped, recent = False, 0.0
        early, late = tested_after(lesson.steps, last, checks)
        for step in sorted({*early, *late}):
            before, losses = lesson.done, lesson.losses
            if not lesson.learn(step, stop):
                problem = f"diverged by step {lesson.done} of {lesson.steps}: loss not finite"
                return TrialResult({}, tuple(curve), _since(start), lesson.seen, problem=problem)
            recent = (lesson.losses - losses) / (lesson.done - before)
            curve.append({"step": step, **lesson.test()})
            report(curve[-1])
            if step not in late and hopeless and curve[-1]["accuracy"] * len(data.classes) < hopeless:
                stopped = True
                break
    kept = curve[-1:] if stopped else curve[-len(late) :]
    scores = {kind: sum(entry[kind] for entry in kept) / len(kept) for kind in SCORES}
    missing = lesson.steps - lesson.done  # steps after giving up count with the recent mean loss
    scores["tse"] = -(lesson.losses + missing * recent) / lesson.steps
    if not all(map(math.isfinite, scores.values())):
        return TrialResult({}, tuple(curve), _since(start), lesson.seen, problem="diverged: outputs not finite")
    return TrialResult(scores, tuple(curve), _since(start), lesson.seen, stopped)


class _Uncounted(Compute):
    """Compute for modules of any kind, which counts no FLOPs: image-steps measure the cost of candidates."""

    def count(self, module: nn.Module, images: int, passes: int) -> None:
        """Do nothing."""


class _Lesson:
    """Training of one module, in parts between tests."""

    def __init__(
        self, module: nn.Module, data: ProxyData, protocol: ProxyProtocol, draw: Draw, compute: Compute
    ) -> None:
        checked = _Checked(module, len(data.classes))
        self.module = cast(FeatureNetwork, checked)  # only its forward pass and parameters are used
        self.data, self.protocol, self.draw, self.compute = data, protocol, draw, compute
        self.targets = data.targets.to(compute.device)
        self.steps = protocol.steps_on(len(self.targets))
        self.done = self.passes = 0
        self.losses = 0.0  # sum of the mean batch losses of all steps
        self.queue = torch.zeros(0, dtype=torch.int64)  # remaining rows of the current pass
        parameters = [p for p in module.parameters() if p.requires_grad]
        if not parameters:
            raise ConfigError("the candidate has no parameters to train")
        self.optimiser = torch.optim.SGD(
            parameters,
            protocol.lr,
            momentum=protocol.momentum,
            weight_decay=protocol.weight_decay,
            nesterov=protocol.nesterov,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda step: SCHEDULES[protocol.schedule](step / self.steps)
        )

    @property
    def seen(self) -> int:
        """Number of images that passed through the module so far."""
        return self.done * self.protocol.batch

    def learn(self, until: int, stop: Callable[[], bool]) -> bool:
        """Train until ``until`` steps are done; returns False if the loss is not finite."""
        device = self.compute.device
        while self.done < until:
            total, end = torch.zeros((), device=device), min(until, self.done + LOOK_EVERY_STEPS)
            while self.done < end:
                if stop():
                    raise OutOfTimeError(f"out of time after {self.done} of {self.steps} training steps")
                rows = self._rows()
                batch = self.protocol.augment(self.data.batch(rows, device), self.draw.at(self.done))
                self.optimiser.zero_grad()
                total += self.compute.backprop(self.module, batch, self.targets[rows.to(device)], _cross_entropy)
                self.optimiser.step()
                self.schedule.step()
                self.done += 1
            self.losses += float(total)
            if not math.isfinite(self.losses):
                return False
        return True

    def _rows(self) -> Tensor:
        """(batch,) rows of the next step; each pass has a new order, and passes follow without a gap."""
        while len(self.queue) < self.protocol.batch:
            order = self.draw.at(self.passes).permutation("shuffle", len(self.targets))
            self.queue, self.passes = torch.cat([self.queue, order]), self.passes + 1
        rows, self.queue = self.queue[: self.protocol.batch], self.queue[self.protocol.batch :]
        return rows

    def test(self) -> dict[str, float]:
        """Scores on the held-out images at this step."""
        images, device = self.data.test, self.compute.device
        pixels = CPU_TEST_PIXELS if device.type == "cpu" else TEST_PIXELS
        size = max(2, pixels // (images.spec.shape[1] * images.spec.shape[2]))
        sums = torch.zeros(3, dtype=torch.float64)
        with in_evaluation(self.module, self.data.statistics, device):
            for indices in images.order.split(size):
                logits = self.compute.logits(self.module, images.gather(indices, device))
                wanted = class_indices(images.labels[indices], self.data.classes).to(device)
                sums += torch.stack(_held_out(logits, wanted)).double().cpu()
        accuracy, entropy, margin = (sums / len(images)).tolist()
        return {"accuracy": accuracy, "cross-entropy": -entropy, "margin": margin, "tse": -self.losses / self.done}


def _held_out(logits: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over a batch: number of right answers, cross-entropy, margins of the probabilities."""
    right = (logits.argmax(1) == wanted).sum()
    probabilities = logits.softmax(1)
    own = probabilities.gather(1, wanted[:, None])[:, 0]
    others = probabilities.scatter(1, wanted[:, None], -1.0).amax(1)
    return right, F.cross_entropy(logits, wanted, reduction="sum"), (own - others).sum()


def check_outputs(outputs: Any, images: int, classes: int) -> Tensor:
    """The outputs of a candidate, (images, K) with K at least ``classes``: further outputs stand for no class.

    Raises:
        TrialError: Other outputs; the text says what they are and what is expected.
    """
    expected = f"expected a tensor ({images}, {classes}): one output for each class"
    if not isinstance(outputs, Tensor):
        raise TrialError(f"its forward returns a {type(outputs).__name__}, {expected}, without auxiliary outputs")
    dense = outputs.is_floating_point() and outputs.layout is torch.strided
    if outputs.ndim != 2 or len(outputs) != images or outputs.shape[1] < classes or not dense:
        kinds = (outputs.dtype, *([] if outputs.layout is torch.strided else [outputs.layout]))
        got = f"{tuple(outputs.shape)} of {' '.join(str(kind).removeprefix('torch.') for kind in kinds)}"
        raise TrialError(f"its outputs are {got}, {expected}")
    return outputs


class _Checked(nn.Module):
    """A candidate whose outputs are checked."""

    def __init__(self, candidate: nn.Module, classes: int) -> None:
        super().__init__()
        self.candidate, self.classes = candidate, classes

    def forward(self, images_NCHW: Tensor) -> Tensor:  # noqa: N803
        return check_outputs(self.candidate(images_NCHW), len(images_NCHW), self.classes)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Losses (N,) for targets that are class indices (N,) or probabilities (N, K) of the first K outputs."""
    if targets.ndim == 2:
        targets = F.pad(targets, (0, logits.shape[1] - targets.shape[1]))
    return F.cross_entropy(logits, targets, reduction="none")


def tested_after(steps: int, last: int, checks: int) -> tuple[list[int], list[int]]:
    """Numbers of the steps after which there are tests: ``checks`` before the last tenth, and ``last`` in it.

    The tests come at the same fractions of the training for every number of steps. Few steps give fewer tests.
    """
    late = {max(1, round(steps * (1 - LAST_SHARE * i / last))) for i in range(last)}
    early = {round(steps * (1 - LAST_SHARE) * (i + 1) / (checks + 1)) for i in range(checks)}
    return sorted({step for step in early if 1 <= step < min(late)}), sorted(late)


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 3)


@contextlib.contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Context with one thread on a CPU: sums are reproducible, and workers do not compete for cores."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
