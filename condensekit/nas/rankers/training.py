"""Training of one candidate on a proxy set, and its scores on held-out images, without NNI.

Every step takes a full batch, whatever the size of the set, and tests stand at equal fractions of the steps: rankers
with equally many steps pass equally many images and average their scores over the same stretch.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condensekit.compute import Compute, Machine, without_subnormals
from condensekit.data.images import ClassImages, ImageSpec
from condensekit.errors import ConfigError, DataError, refuse, require, unknown, whole
from condensekit.nas.names import SCORES
from condensekit.nas.rankers.batch_norm import in_evaluation
from condensekit.nas.trials.time_budget import OutOfTimeError
from condensekit.networks.base import FeatureNetwork
from condensekit.rng import Draw, isolated
from condensekit.sets.condensed import CondensedSet
from condensekit.training.augment import Augmentation
from condensekit.training.evaluation import outputs, targets_for
from condensekit.training.train import TEST_PIXELS, class_indices

CPU_TEST_PIXELS = 128 * 32 * 32  # of images in one test batch: a larger one falls out of the cache, at twice the time
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "step": lambda done: 1.0 if done < 0.5 else 0.1,
    "constant": lambda done: 1.0,
}
STOPPABLE = ("accuracy", "tse")  # scores by which a candidate given up early stands below candidates that learn
LAST_SHARE = 0.1  # of the steps, at the end: scores are averaged over the tests in it
LOOK_EVERY_STEPS = 20  # between looks at whether the loss is finite
FLIP_CROP = (Augmentation(("crop",)), Augmentation(("flip",)))
"""Random crop and horizontal flip of every image: how most published networks are trained."""


@dataclass(frozen=True, eq=False)
class ProxyData:
    """What candidates are trained on and scored on.

    Args:
        train: A condensed or selected set, or real images (a fraction of the data, or all of it).
        test: Held-out training images, perhaps without some classes of ``train``; see :attr:`classes`.
        statistics: Real training images whose statistics batch norm has in a test; None: the statistics of training.

    Raises:
        DataError: Sets whose images or classes do not fit.
    """

    train: CondensedSet | ClassImages
    test: ClassImages
    statistics: ClassImages | None = None

    def __post_init__(self) -> None:
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
        """(N,) int64 places among :attr:`classes`, or (N, K) float32 probabilities."""
        return targets_for("the proxy set", self.train, self.test)

    @cached_property
    def images(self) -> Tensor | ClassImages:
        """Decoded images (N, C, H, W), normalised float32, of a condensed set; real images as they are."""
        return self.train.training_images

    def fingerprints(self) -> dict[str, str]:
        """What tells these images from others: the start of a sha256 of each part."""
        train = hashlib.sha256(self.targets.numpy().tobytes())
        if isinstance(self.images, ClassImages):
            train.update(self.images.fingerprint().encode())
        else:
            train.update(self.images.contiguous().numpy().tobytes())
        found = {"train": train.hexdigest()[:16], "test": self.test.fingerprint()[:16]}
        return found if self.statistics is None else {**found, "statistics": self.statistics.fingerprint()[:16]}

    def batch(self, rows: Tensor, device: torch.device) -> Tensor:
        """(n, C, H, W) normalised images of some rows of :attr:`targets`."""
        if isinstance(self.images, ClassImages):
            return self.images.gather(self.images.order[rows], device)
        return self.images[rows].to(device)


@dataclass(frozen=True)
class ProxyProtocol:
    """How a candidate is trained: SGD, the same batches and augmentation for every candidate.

    Args:
        epochs: Passes over the set, the last one made whole by a full batch.
        lr: Learning rate at the start.
        batch: Images in every gradient step: where a pass ends inside a batch, the next one fills it, and a set of
            fewer images is passed through more than once in a step.
        augmentation: Of the training images: one, several applied one after the other (:data:`FLIP_CROP`), or
            None.
            On images that are not flippable it is used without ``flip``.
        schedule: ``cosine``, ``step`` (a tenth from half of the training on) or ``constant``.
        momentum: In [0, 1).
        nesterov: Nesterov's momentum.
        weight_decay: Of all parameters, at least 0.
        steps: Gradient steps of the whole training in place of ``epochs``; None: by epochs. With it training costs the
            same on sets of different sizes: it passes ``steps * batch`` images.

    Raises:
        ConfigError: Values out of range, all of them listed.
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
            None if 0 < self.lr < math.inf else f"lr must be positive and finite, got {self.lr}",
            None if 0 <= self.momentum < 1 else f"momentum must lie in [0, 1), got {self.momentum}",
            None if 0 <= self.weight_decay < math.inf else f"weight_decay must be at least 0, got {self.weight_decay}",
            "nesterov needs a momentum above 0" if self.nesterov and not self.momentum else None,
        )
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)

    def steps_on(self, images: int) -> int:
        """How many gradient steps training on that many images takes."""
        return self.steps or math.ceil(self.epochs * images / self.batch)

    @property
    def chain(self) -> tuple[Augmentation, ...]:
        """The augmentations that are applied one after the other."""
        return (self.augmentation,) if isinstance(self.augmentation, Augmentation) else self.augmentation or ()

    def on(self, spec: ImageSpec) -> ProxyProtocol:
        """The protocol as it is used on such data: without ``flip`` where a mirrored image shows another class."""
        used = tuple(kept for augmentation in self.chain if (kept := augmentation.on(spec)) is not None)
        return self if used == self.chain else replace(self, augmentation=used)

    def augment(self, batch: Tensor, draw: Draw) -> Tensor:
        """(n, C, H, W) images, augmented with parameters of their own."""
        for place, augmentation in enumerate(self.chain):
            batch = augmentation.apply_batch(batch, draw, f"augment/{place}")
        return batch


@dataclass(frozen=True)
class TrialResult:
    """What training one candidate gave.

    Args:
        scores: By kind (:data:`SCORES`), higher is better: accuracy, minus cross-entropy and margin (probability of
            the class minus the largest other) on the held-out images, averaged over the tests of the last tenth;
            ``tse``, minus the mean over all steps of the training loss (Ru et al., "Speedy performance estimation
            for neural architecture search", NeurIPS 2021, take the sum: the same for equally many steps). Empty for
            a training that diverged.
        curve: A dictionary for each test: ``step`` and the scores at that time.
        seconds: Wall time, tests included.
        image_steps: Images passed through in training.
        stopped: Given up as hopeless before the end.
        problem: What went wrong; empty where nothing did.
    """

    scores: Mapping[str, float]
    curve: tuple[Mapping[str, float], ...] = ()
    seconds: float = 0.0
    image_steps: int = 0
    stopped: bool = False
    problem: str = ""


def check_score(score: str, hopeless: float | None) -> None:
    """Refuse an unknown score, and a score by which candidates that are given up would come first.

    Args:
        score: Which score of a trained candidate counts.
        hopeless: See :func:`train_candidate`.

    Raises:
        ConfigError: An unknown score; ``hopeless`` with a score outside :data:`STOPPABLE`.
    """
    if score not in SCORES:
        raise unknown("score", score, SCORES)
    require(
        hopeless is None or score in STOPPABLE,
        f"hopeless={hopeless} with score {score!r} would rank candidates that are given up first: they are scored "
        "before they become overconfident, and the others after; leave hopeless out, or score by "
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
    """Train a fresh candidate and score it.

    Args:
        make: Builds the module, with fresh weights from torch's global generator.
        data: Training and held-out images.
        protocol: How it is trained.
        seed: Initial weights, batches and augmentation follow from it and from nothing else.
        last: Tests in the last tenth of the steps, over which the scores are averaged.
        checks: Tests spread over the training before those, for the curve.
        hopeless: Give up at a check where the accuracy is below this many times chance; None: never. Then the
            scores of that check count, and only some of them may rank: :func:`check_score`.
        machine: Where; on a CPU in one thread.
        report: Told each entry of the curve at once.
        stop: Asked before each step whether to give everything up.

    Raises:
        OutOfTimeError: ``stop`` said so.
        ConfigError: Numbers out of range, a device that is not here.
    """
    refuse(
        whole("last", last, 1),
        whole("checks", checks, 0),
        None if hopeless is None or hopeless > 0 else f"hopeless must be positive, got {hopeless}",
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
    missing = lesson.steps - lesson.done  # of a training given up: they count as its last ones
    scores["tse"] = -(lesson.losses + missing * recent) / lesson.steps
    if not all(map(math.isfinite, scores.values())):
        return TrialResult({}, tuple(curve), _since(start), lesson.seen, problem="diverged: outputs not finite")
    return TrialResult(scores, tuple(curve), _since(start), lesson.seen, stopped)


class _Uncounted(Compute):
    """Networks of any kind; what candidates cost is told by their image-steps."""

    def count(self, module: nn.Module, images: int, passes: int) -> None:
        """Nothing."""


class _Lesson:
    """One module in training."""

    def __init__(
        self, module: nn.Module, data: ProxyData, protocol: ProxyProtocol, draw: Draw, compute: Compute
    ) -> None:
        self.module = cast(FeatureNetwork, module)  # all that is used of it is forward and parameters
        self.data, self.protocol, self.draw, self.compute = data, protocol, draw, compute
        self.targets = data.targets.to(compute.device)
        self.steps = protocol.steps_on(len(self.targets))
        self.done = self.passes = 0
        self.losses = 0.0  # the sum over steps of the mean loss of a batch
        self.queue = torch.zeros(0, dtype=torch.int64)  # rows of the pass that is under way
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
        """Images passed through so far."""
        return self.done * self.protocol.batch

    def learn(self, until: int, stop: Callable[[], bool]) -> bool:
        """Train until that many steps are done; False as soon as the loss is found not to be finite."""
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
        """(batch,) rows of the next step: passes in a new order each, one after the other without a gap."""
        while len(self.queue) < self.protocol.batch:
            order = self.draw.at(self.passes).permutation("shuffle", len(self.targets))
            self.queue, self.passes = torch.cat([self.queue, order]), self.passes + 1
        rows, self.queue = self.queue[: self.protocol.batch], self.queue[self.protocol.batch :]
        return rows

    def test(self) -> dict[str, float]:
        """Scores on the held-out images at this time."""
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
    """Sums over a batch: right answers, cross-entropy, margins of the probabilities."""
    right = (logits.argmax(1) == wanted).sum()
    probabilities = logits.softmax(1)
    own = probabilities.gather(1, wanted[:, None])[:, 0]
    others = probabilities.scatter(1, wanted[:, None], -1.0).amax(1)
    return right, F.cross_entropy(logits, wanted, reduction="sum"), (own - others).sum()


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """(N,) losses for class indices (N,) or probabilities (N, K)."""
    return F.cross_entropy(logits, targets, reduction="none")


def tested_after(steps: int, last: int, checks: int) -> tuple[list[int], list[int]]:
    """The steps after which there are tests: those spread before the last tenth, and those in it whose scores count.

    They stand at the same fractions of every number of steps, as far as there are enough.
    """
    late = {max(1, round(steps * (1 - LAST_SHARE * i / last))) for i in range(last)}
    early = {round(steps * (1 - LAST_SHARE) * (i + 1) / (checks + 1)) for i in range(checks)}
    return sorted({step for step in early if 1 <= step < min(late)}), sorted(late)


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 3)


@contextlib.contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """On a CPU: the same sums whatever else runs, and no threads that fight the threads of other workers."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
