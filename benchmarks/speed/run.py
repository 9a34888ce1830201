"""Time of one DM step compared with the public DM code, both with their whole loops, in turn in one process.

    python benchmarks/speed/run.py --reference PATH --ipc 10 --classes 10 --pairs 5 --out FILE

Both loops run unchanged on the same random images, one step of each in turn, and each step is timed separately.
``ratio`` is the time of the public code divided by our time, for each pair of steps. ``gradient_rel_error`` compares
our image gradient of one step with the gradient in float64 through the public network, with the same weights, images
and augmentation parameters; one image at the kink of a ReLU decides it, so ``gradient_rel_error_median`` is that of the
median image. ``limit_ratio`` is the ratio of a code that would do nothing but its convolutions, each as fast as this
processor does it alone, measured in the same run; ``share_of_limit`` is how much of it is reached.

With ``MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=268435456`` in the
environment, both loops have an allocator that keeps large blocks, which makes the public code about twice as fast.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor

from benchmarks.record import Record, parser, start, write
from benchmarks.speed.limit import convolutions_alone
from benchmarks.speed.public_dm import PublicDM
from benchmarks.speed.random_images import random_images
from condensekit.compute import PRECISIONS, Compute, Machine
from condensekit.data.images import ClassImages
from condensekit.driver import condense
from condensekit.methods import DistributionMatching, State, StepContext
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw
from condensekit.training.augment import Augmentation

STEPS = 20_000  # length of our loop, more steps than are timed
WARM_UP = 2  # number of first pairs that do not count


class Enough(Exception):  # noqa: N818 - the expected end, not an error
    """Both loops have run enough steps."""


class Turns:
    """Synchronisation of two loops that run one step each in turn, and the seconds of each step."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.seconds: dict[str, list[float]] = {"reference": [], "ours": []}
        self.gates = {"reference": threading.Semaphore(0), "ours": threading.Semaphore(0)}
        self.began: dict[str, float] = {}
        self.failure: BaseException | None = None

    def lap(self, who: str, other: str) -> None:
        """Store the seconds of the last step of ``who``, let ``other`` run a step, and wait for the next turn."""
        if who in self.began:
            self.seconds[who].append(_now() - self.began[who])
        self.gates[other].release()
        self.gates[who].acquire()
        if self.failure or min(map(len, self.seconds.values())) >= self.rounds:
            self.gates[other].release()
            raise Enough
        self.began[who] = _now()


GradientErrors = dict[str, float]  # "whole", "median_image", "worst_image"


@dataclass(frozen=True)
class InTurn(DistributionMatching):
    """Distribution matching that waits for its turn at the beginning of a step."""

    turns: Turns = field(default_factory=lambda: Turns(0))

    def step(self, state: State, ctx: StepContext) -> tuple[State, dict[str, Tensor]]:
        """See :meth:`DistributionMatching.step`."""
        self.turns.lap("ours", "reference")
        return super().step(state, ctx)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def take_turns(public: PublicDM, data: ClassImages, ipc: int, batch: int, machine: Machine, pairs: int) -> Turns:
    """Run ``pairs`` steps of each loop in turn after the warm-up; our loop runs in the calling thread."""
    turns = Turns(pairs + WARM_UP)
    threads = torch.get_num_threads()

    def reference() -> None:
        torch.set_num_threads(threads)  # the setting belongs to a thread, so that our one-thread workers keep theirs
        try:
            public.run(data, ipc, batch, lambda: turns.lap("reference", "ours"))
        except Enough:
            return
        except BaseException as error:
            turns.failure = error
            turns.gates["ours"].release()

    thread = threading.Thread(target=reference, daemon=True)
    thread.start()
    turns.gates["ours"].acquire()
    try:
        method = InTurn(batch_real=batch, turns=turns)
        result = condense(data, method, ipc=ipc, steps=STEPS, machine=machine)
        turns.failure = RuntimeError(result.message)  # an interrupt ended our loop too early
    except Enough:
        pass
    except BaseException as error:
        turns.failure = error
    turns.gates["reference"].release()
    thread.join()
    if turns.failure:
        raise turns.failure
    return turns


def gradient_errors(public: PublicDM, data: ClassImages, ipc: int, batch: int, machine: Machine) -> GradientErrors:
    """Relative errors of our image gradient of one step, compared with float64 through the public network.

    Some of the millions of activations are so close to 0, the kink of ReLU, that the last bit decides. Their images
    have errors of about 1e-3 in every float32 code. The result therefore also has the median and the worst image.
    """
    draw, labels, augmentation = Draw(seed=0, step=1), data.classes, Augmentation()
    with Compute(machine, (data.spec.shape[1], data.spec.shape[2])) as compute:
        module = ConvNet().new(data.spec.shape, len(labels), draw, device=compute.device).requires_grad_(False)
        start = data.sample(labels, ipc, draw.at(0), compute.device)
        context = StepContext(data, draw, module, compute, augmentation)
        method = DistributionMatching(batch_real=batch)
        state, _ = method.step(method.init(start, context), context)
        ours = state["momentum"].double()  # after one step the momentum is the gradient

    exact: Any = public.network(data).to(compute.device).double().requires_grad_(False)
    for theirs, mine in zip(exact.parameters(), module.parameters(), strict=True):
        theirs.copy_(mine)

    def embedded_mean(images: Tensor, label: int) -> Tensor:
        """Mean embedding in float64 of augmented images that are rounded to float32, on whose last bit ReLUs depend."""
        parameters = augmentation.draw(draw, [label])
        augmented = augmentation.apply(images.double(), parameters)
        rounding = augmentation.apply(images.detach().float(), parameters).double() - augmented.detach()
        mean: Tensor = exact.embed((augmented + rounding)[0]).mean(0)
        return mean

    wanted = torch.empty_like(ours)
    for row, label in enumerate(labels):
        synthetic = start[row : row + 1].double().requires_grad_()
        target = embedded_mean(data.sample([label], batch, draw, compute.device), label)
        loss = (embedded_mean(synthetic, label) - target).square().sum()
        wanted[row] = torch.autograd.grad(loss, synthetic)[0][0]
    images = ((ours - wanted).flatten(2).norm(dim=2) / wanted.flatten(2).norm(dim=2)).flatten()
    whole = (ours - wanted).norm() / wanted.norm()
    return {"whole": float(whole), "median_image": float(images.median()), "worst_image": float(images.max())}


def measure(
    public: PublicDM, data: ClassImages, ipc: int, batch: int, machine: Machine, pairs: int
) -> tuple[Record, GradientErrors]:
    """Row of the table, and all gradient errors."""
    seconds = take_turns(public, data, ipc, batch, machine, pairs).seconds
    theirs, ours = (seconds[who][WARM_UP:][:pairs] for who in ("reference", "ours"))
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    errors = gradient_errors(public, data, ipc, batch, machine)
    classes, median = len(data.classes), statistics.median(ratios)
    limit = None
    if machine.resolved().device == "cpu":
        floor = convolutions_alone(ConvNet(), data.spec.shape, classes * batch, classes * ipc, machine)
        limit = statistics.median(theirs) / floor
    row = {
        "precision": machine.precision,
        "ipc": ipc,
        "ratio_min": min(ratios),
        "ratio_median": median,
        "ratio_max": max(ratios),
        "reference_s": statistics.median(theirs),
        "ours_s": statistics.median(ours),
        "limit_ratio": limit,
        "share_of_limit": None if limit is None else median / limit,
        "gradient_rel_error": errors["whole"],
        "gradient_rel_error_median": errors["median_image"],
    }
    return row, errors


def main() -> None:
    """Measure the given precisions and write the rows."""
    options = parser(__doc__)
    options.add_argument("--reference", type=Path, required=True, help="a checkout of VICO-UoE/DatasetCondensation")
    options.add_argument("--ipc", type=int, default=10, help="synthetic images per class")
    options.add_argument("--classes", type=int, default=10)
    options.add_argument("--pairs", type=int, default=5, help="steps of each loop that count")
    options.add_argument("--real-batch", type=int, default=256, help="real images of each class in a step")
    options.add_argument("--images", type=int, default=50_000, help="random 32x32 images to condense")
    options.add_argument("--precision", default="fp32", help=f"any of {','.join(PRECISIONS)}, separated by commas")
    options.add_argument(
        "--compiled", action=argparse.BooleanOptionalAction, default=True, help="compile our network (default: yes)"
    )
    options.add_argument("--out", type=Path, required=True, help="file to write")
    args = options.parse_args()
    record: Record = {
        "rows": [],
        "gradient_rel_errors": {},
        "settings": {
            "classes": args.classes,
            "real_batch": args.real_batch,
            "pairs": args.pairs,
            "images": args.images,
            "compiled": args.compiled,
            "allocator": {name: os.environ[name] for name in sorted(os.environ) if name.startswith("MALLOC_")},
        },
    }
    public = PublicDM(args.reference)
    data = random_images(args.images, args.classes)
    for precision in args.precision.split(","):
        machine = Machine(precision=precision, compiled=args.compiled)
        row, errors = measure(public, data, args.ipc, args.real_batch, machine, args.pairs)
        record["rows"].append(row)
        record["gradient_rel_errors"][precision] = errors
        write(args.out, record)
        print(json.dumps(row))


if __name__ == "__main__":
    start(main)
