"""Breakdown of one step of a recipe into stages, with the limit of each: its convolutions alone.

    python benchmarks/speed/stages.py --recipe "dm" --ipc 10 --out FILE

The seconds are medians over the steps, on random 32x32 images. The limit is the time of the stage's convolutions, each
as fast as this processor does it alone, measured in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from torch import Tensor

from benchmarks.record import Record, parser, start, write
from benchmarks.speed.limit import images_per_second, kinds
from benchmarks.speed.random_images import random_images
from condensekit import Recipe
from condensekit.compute import PRECISIONS, Compute, Machine
from condensekit.driver import condense
from condensekit.methods.base import StepContext

WARM_UP = 3  # first steps that do not count
CLASSES, SIZE = 10, 32


class Clock:
    """Seconds of each stage in each step; a stage inside another one does not count for the outer one."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self._inner = [0.0]

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its time added to the stage of the present step."""

        def call(*args: Any, **options: Any) -> Any:
            self._inner.append(0.0)
            began = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                took = time.perf_counter() - began
                self.steps[-1][stage] += took - self._inner.pop()
                self._inner[-1] += took

        return call

    def begin(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """The step of a method as a new step of the clock; what no stage takes is the rest."""

        def call(*args: Any) -> Any:
            self.steps.append(defaultdict(float))
            return self.timed("loss, update and the rest", method)(*args)

        return call

    def median(self) -> dict[str, float]:
        """Median seconds of each stage after the warm-up."""
        counted = self.steps[WARM_UP:]
        return {stage: statistics.median(step[stage] for step in counted) for stage in counted[-1]}


def stages(recipe: str, ipc: int, steps: int, machine: Machine) -> dict[str, float]:
    """Median seconds of each stage of a step."""
    clock, made = Clock(), Recipe.parse(recipe)
    pullback = Compute.pullback

    def both(compute: Compute, module: Any, images: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        features, pull = clock.timed("synthetic: network forward", pullback)(compute, module, images)
        return features, clock.timed("synthetic: network backward", pull)

    with ExitStack() as stack:
        for owner, name, new in (
            (type(made.method), "step", clock.begin(type(made.method).step)),
            (StepContext, "real", clock.timed("real: read and augment", StepContext.real)),
            (StepContext, "features", clock.timed("real: network", StepContext.features)),
            (StepContext, "gradient", clock.timed("synthetic: unpack, augment and back; loss", StepContext.gradient)),
            (Compute, "pullback", both),
        ):
            stack.enter_context(mock.patch.object(owner, name, new))
        condense(random_images(50_000, CLASSES, SIZE), made, ipc=ipc, steps=steps + WARM_UP, machine=machine)
    return clock.median()


def measure(recipe: str, ipc: int, steps: int, machine: Machine) -> list[Record]:
    """A row for each stage, and one for the whole step."""
    found, made = stages(recipe, ipc, steps, machine), Recipe.parse(recipe)
    low, back = kinds(machine)
    rate = {
        kind: images_per_second(made.encoder.network, (3, SIZE, SIZE), kind, machine.resolved().workers or 1)
        for kind in {low, back}
    }
    synthetic = CLASSES * ipc * made.formation.factor**2 / rate[back]
    limits = {
        "real: network": CLASSES * made.method.batch_real / rate[low],  # type: ignore[attr-defined]
        "synthetic: network forward": synthetic,
        "synthetic: network backward": synthetic,
    }
    whole = {"the whole step": sum(found.values())}
    return [
        {
            "recipe": recipe,
            "ipc": ipc,
            "precision": machine.precision,
            "stage": stage,
            "stage_s": took,
            "share": took / whole["the whole step"],
            "limit_s": sum(limits.values()) if stage in whole else limits.get(stage, 0.0),
        }
        for stage, took in {**found, **whole}.items()
    ]


def main() -> None:
    """Measure the given precisions and write the rows."""
    options = parser(__doc__)
    options.add_argument("--recipe", default="dm", help="text of a recipe that matches distributions")
    options.add_argument("--ipc", type=int, default=10, help="synthetic images per class")
    options.add_argument("--steps", type=int, default=10, help="steps that count")
    options.add_argument("--precision", default="fp32", help=f"any of {','.join(PRECISIONS)}, separated by commas")
    options.add_argument("--compiled", action=argparse.BooleanOptionalAction, default=True, help="default: yes")
    options.add_argument("--out", type=Path, required=True, help="file to write")
    args = options.parse_args()
    record: Record = {"rows": [], "settings": {"compiled": args.compiled, "steps": args.steps}}
    for precision in args.precision.split(","):
        machine = Machine("cpu", precision, args.compiled)
        record["rows"] += measure(args.recipe, args.ipc, args.steps, machine)
        write(args.out, record)
    for row in record["rows"]:
        print(f"{row['stage']:45} {row['stage_s']:.4f} s  {row['share']:4.0%}  limit {row['limit_s']:.4f} s")


if __name__ == "__main__":
    start(main)
