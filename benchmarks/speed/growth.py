"""Growth of the time of one DM step with classes, images per class, size, batch, width and workers.

    python benchmarks/speed/growth.py --out FILE

One value at a time differs from the base: 10 classes, 10 images per class, 32 x 32 pixels, 64 real images of each
class in a step, a ConvNet of width 32, all workers. Each round runs every value for some steps; the figures are medians
over the rounds of the median step. ``error`` is the distance from a straight line through the first and the last value,
as a share of the line. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from benchmarks.record import Record, parser, start, write
from benchmarks.speed.random_images import random_images
from condensekit.compute import Machine
from condensekit.driver import condense
from condensekit.methods import DistributionMatching
from condensekit.methods.encoders import Fresh
from condensekit.methods.recipe import Recipe
from condensekit.networks.convnet import ConvNet

BASE = {"classes": 10, "ipc": 10, "size": 32, "batch": 64, "width": 32, "workers": torch.get_num_threads()}
VALUES = {
    "classes": (10, 50, 100),
    "ipc": (1, 10, 50, 100),
    "size": (32, 48, 64),
    "batch": (64, 128, 256),
    "width": (32, 64, 128),
    "workers": tuple(range(1, BASE["workers"] + 1)),
}
GROWS = {"size": 2, "width": 2, "workers": -1}  # power of the value that the work is in proportion to, if not 1
WARM_UP = 2  # first steps of a run that do not count


def step_s(values: Mapping[str, int], steps: int, compiled: bool) -> float:
    """Median seconds of a step."""
    data = random_images(
        values["classes"] * max(values["batch"], values["ipc"], 100), values["classes"], values["size"]
    )
    recipe = Recipe(DistributionMatching(batch_real=values["batch"]), Fresh(ConvNet(width=values["width"])))
    machine = Machine("cpu", compiled=compiled, workers=values["workers"])
    history = condense(data, recipe, ipc=values["ipc"], steps=steps + WARM_UP, machine=machine).history
    return statistics.median(row["seconds"] for row in history[WARM_UP:])


def rows(seconds: Mapping[tuple[str, int], list[float]]) -> list[Record]:
    """A row for each value, with its error of the line through the first and the last value of the same name."""
    found: list[Record] = []
    for name, values in VALUES.items():
        work = [value ** GROWS.get(name, 1) for value in values]
        took = [statistics.median(seconds[name, value]) for value in values]
        slope = (took[-1] - took[0]) / (work[-1] - work[0]) if len(values) > 1 else 0.0
        for value, x, y in zip(values, work, took, strict=True):
            line = took[0] + slope * (x - work[0])
            found.append({"name": name, "value": value, "growth_s": y, "times": y / took[0], "error": y / line - 1})
    return found


def main() -> None:
    """Measure all values in each round, and write the rows after it."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--steps", type=int, default=5, help="steps of each run that count")
    options.add_argument("--compiled", action=argparse.BooleanOptionalAction, default=True, help="default: yes")
    options.add_argument("--out", type=Path, required=True, help="file to write")
    args = options.parse_args()
    seconds: dict[tuple[str, int], list[float]] = {(name, v): [] for name, values in VALUES.items() for v in values}
    for done in range(1, args.rounds + 1):
        for (name, value), took in seconds.items():
            took.append(step_s({**BASE, name: value}, args.steps, args.compiled))
        settings = {"base": BASE, "rounds": done, "steps": args.steps, "compiled": args.compiled}
        write(args.out, {"rows": rows(seconds), "settings": settings})
        print(f"round {done} of {args.rounds}", flush=True)


if __name__ == "__main__":
    start(main)
