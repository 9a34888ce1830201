"""Training one candidate on a proxy set and scoring it on held-out images, without NNI."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condensekit.augment import Augmentation
from condensekit.compute import Compute, make_plan
from condensekit.condensed import CondensedSet
from condensekit.errors import ConfigError, refuse, unknown
from condensekit.evaluate import targets_for
from condensekit.images import ClassImages
from condensekit.networks import FeatureNetwork
from condensekit.rng import Draw, isolated
from condensekit.train import TEST_PIXELS, class_indices

SCORES = ("accuracy", "cross-entropy", "margin", "tse")
CPU_TEST_PIXELS = 128 * 32 * 32  # of the images tested at a time: more falls out of the cache, at twice the time
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "step": lambda done: 1.0 if done < 0.5 else 0.1,
    "constant": lambda done: 1.0,
}
FLIP_CROP = (Augmentation(("crop",)), Augmentation(("flip",)))
"""Random crop and horizontal flip of every image: how most published networks are trained."""


@dataclass(frozen=True, eq=False)
class ProxyData:
    """What candidates are trained on and scored on.

    Args:
        train: A condensed or selected set, or real images (a fraction of the data, or all of it).
        test: Held-out training images; outputs stand for its classes, ascending.

    Raises:
        DataError: Sets whose images or classes do not fit.
    """

    train: CondensedSet | ClassImages
    test: ClassImages

    def __post_init__(self) -> None:
        _ = self.targets

    @cached_property
    def targets(self) -> Tensor:
        """(N,) int64 places among the test classes, or (N, K) float32 probabilities."""
        return targets_for("the proxy set", self.train, self.test)

    @cached_property
    def images(self) -> Tensor | ClassImages:
        """Decoded images (N, C, H, W), normalised float32, of a condensed set; real images as they are."""
        return self.train if isinstance(self.train, ClassImages) else self.train.decode()[0]

    def batch(self, rows: Tensor, device: torch.device) -> Tensor:
        """(n, C, H, W) normalised images of some rows of :attr:`targets`."""
        if isinstance(self.images, ClassImages):
            return self.images.gather(self.images.order[rows], device)
        return self.images[rows].to(device)


@dataclass(frozen=True)
class ProxyProtocol:
    """How a candidate is trained: SGD, the same batches and augmentation for every candidate.

    Args:
        epochs: Passes over the set.
        lr: Learning rate at the start.
        batch: Images in a gradient step; the last one of an epoch may be smaller.
        augmentation: Of the training images: one, several applied one after the other (:data:`FLIP_CROP`), or
            None.
        schedule: ``cosine``, ``step`` (a tenth from half of the training on) or ``constant``.
        momentum: In [0, 1).
        nesterov: Nesterov's momentum.
        weight_decay: Of all parameters, at least 0.
        steps: Gradient steps of the whole training in place of ``epochs``; None for none. Makes training equally
            long on sets of different sizes.

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
        lengths = {"epochs": self.epochs, "batch": self.batch, "steps": self.steps}
        refuse(
            *(f"{k} must be at least 1, got {v}" for k, v in lengths.items() if v is not None and v < 1),
            None if 0 < self.lr < math.inf else f"lr must be positive and finite, got {self.lr}",
            None if 0 <= self.momentum < 1 else f"momentum must lie in [0, 1), got {self.momentum}",
            None if 0 <= self.weight_decay < math.inf else f"weight_decay must be at least 0, got {self.weight_decay}",
            "nesterov needs a momentum above 0" if self.nesterov and not self.momentum else None,
        )
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)

    def steps_on(self, images: int) -> int:
        """How many gradient steps training on that many images takes."""
        return self.steps or self.epochs * math.ceil(images / self.batch)

    def augment(self, batch: Tensor, draw: Draw) -> Tensor:
        """(n, C, H, W) images, augmented with parameters of their own."""
        chain = (self.augmentation,) if isinstance(self.augmentation, Augmentation) else self.augmentation or ()
        for place, augmentation in enumerate(chain):
            batch = augmentation.apply_batch(batch, draw, f"augment/{place}")
        return batch


@dataclass(frozen=True)
class TrialResult:
    """What training one candidate gave.

    Args:
        scores: By kind (:data:`SCORES`), higher is better: accuracy, minus cross-entropy and margin (probability of
            the class minus the largest other) on the held-out images, averaged over the tests of the last epochs;
            ``tse``, minus the sum over epochs of the mean training loss (Ru et al., "Speedy performance estimation
            for neural architecture search", NeurIPS 2021). Empty for a training that diverged.
        curve: A dictionary for each test: ``epoch`` and the scores at that time.
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
        hopeless: Give up at one of the checks where the accuracy is below this many times chance; None never.
        device: ``cpu`` (one thread), ``cuda``.
        report: Told each entry of the curve at once.

    Raises:
        ConfigError: Numbers out of range, a device that is not here.
    """
    refuse(
        None if last >= 1 else f"last must be at least 1, got {last}",
        None if checks >= 0 else f"checks must be at least 0, got {checks}",
        None if hopeless is None or hopeless > 0 else f"hopeless must be positive, got {hopeless}",
    )
    start = time.perf_counter()
    draw = Draw(seed)
    plan = make_plan(data.test.spec.shape[1:], device=device, workers=1)
    with _one_thread(plan.device), Compute(plan) as compute, isolated(draw.key("candidate")):
        with torch.random.fork_rng(devices=[]):
            module = make().to(compute.device).train()
        lesson = _Lesson(module, data, protocol, draw, compute)
        curve: list[Mapping[str, float]] = []
        stopped = False
        tested = _tested(lesson.epochs, last, checks)
        for epoch in range(1, lesson.epochs + 1):
            before = lesson.losses
            if not lesson.learn(epoch - 1):
                return TrialResult(
                    {}, tuple(curve), _since(start), lesson.seen, problem=f"diverged in epoch {epoch}: loss not finite"
                )
            if epoch not in tested:
                continue
            curve.append({"epoch": epoch, **lesson.test()})
            report(curve[-1])
            early = epoch <= lesson.epochs - last
            if early and hopeless and curve[-1]["accuracy"] * len(data.test.classes) < hopeless:
                stopped = True
                break
    kept = curve[-1:] if stopped else curve[-min(last, lesson.epochs) :]
    scores = {kind: sum(entry[kind] for entry in kept) / len(kept) for kind in SCORES}
    missing = lesson.epochs - int(curve[-1]["epoch"])  # of a training given up: they count as its last epoch
    scores["tse"] = curve[-1]["tse"] - missing * (lesson.losses - before)
    if not all(map(math.isfinite, scores.values())):
        return TrialResult({}, tuple(curve), _since(start), lesson.seen, problem="diverged: outputs not finite")
    return TrialResult(scores, tuple(curve), _since(start), lesson.seen, stopped)


class _Lesson:
    """One module in training."""

    def __init__(
        self, module: nn.Module, data: ProxyData, protocol: ProxyProtocol, draw: Draw, compute: Compute
    ) -> None:
        self.module = cast(FeatureNetwork, module)  # all that is used of it is forward and parameters
        self.data, self.protocol, self.draw, self.compute = data, protocol, draw, compute
        self.targets = data.targets.to(compute.device)
        self.steps = protocol.steps_on(len(self.targets))
        self.epochs = math.ceil(self.steps / math.ceil(len(self.targets) / protocol.batch))
        self.done = self.seen = 0
        self.losses = 0.0
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

    def learn(self, epoch: int) -> bool:
        """One pass; whether its loss was finite."""
        device = self.compute.device
        total, count = torch.zeros((), device=device), 0
        order = self.draw.at(epoch).permutation("shuffle", len(self.targets))
        for rows in order.split(self.protocol.batch)[: self.steps - self.done]:
            batch = self.protocol.augment(self.data.batch(rows, device), self.draw.at(self.done))
            self.optimiser.zero_grad()
            wanted = self.targets[rows.to(device)]
            total += self.compute.backprop(self.module, batch, wanted, _cross_entropy) * len(rows)
            self.optimiser.step()
            self.schedule.step()
            self.done, count = self.done + 1, count + len(rows)
        self.seen += count
        self.losses += float(total) / count
        return math.isfinite(self.losses)

    def test(self) -> dict[str, float]:
        """Scores on the held-out images at this time."""
        images, device = self.data.test, self.compute.device
        pixels = CPU_TEST_PIXELS if device.type == "cpu" else TEST_PIXELS
        size = max(2, pixels // (images.spec.shape[1] * images.spec.shape[2]))
        sums = torch.zeros(3, dtype=torch.float64)
        self.module.eval()
        for indices in images.order.split(size):
            logits = self.compute.logits(self.module, images.gather(indices, device))
            wanted = class_indices(images.labels[indices], images.classes).to(device)
            sums += torch.stack(_held_out(logits, wanted)).double().cpu()
        self.module.train()
        accuracy, entropy, margin = (sums / len(images)).tolist()
        return {"accuracy": accuracy, "cross-entropy": -entropy, "margin": margin, "tse": -self.losses}


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


def _tested(epochs: int, last: int, checks: int) -> set[int]:
    """The epochs after which there is a test: the last ones, and some spread evenly before."""
    before = max(0, epochs - last)
    early = {round(before * (i + 1) / (checks + 1)) for i in range(checks)}
    return {epoch for epoch in early if epoch >= 1} | set(range(before + 1, epochs + 1))


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 3)


@contextlib.contextmanager
def _one_thread(device: str) -> Iterator[None]:
    """On a CPU: the same sums whatever else runs, and no threads that fight those of other workers."""
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
