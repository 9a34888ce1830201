"""Closeness of a step on a GPU to the same step on the CPU, and its time and memory there, for each published recipe.

    python benchmarks/speed/gpu_check.py --out FILE

Both devices start from equal images and equal weights, with equal batches and augmentation. ``error`` is the norm of
the difference of the changes of all images, divided by the norm of the changes on the CPU; ``error_median_image`` is
the median of the same ratio over the images, on which a single activation at the kink of ReLU has no effect.
Convolutions use no TF32 for this; ``error_tf32`` is ``error`` as torch comes. ``step_ms`` is the time of a step of a
whole run, after its first steps, and ``peak_mib`` the GPU memory of this run. Recipes that FILE has already are
skipped.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor

from benchmarks.record import Record, parser, read, start, write
from benchmarks.speed.random_images import random_images
from condensekit.catalog import PUBLISHED
from condensekit.compute import Compute, Machine
from condensekit.data.images import ClassImages
from condensekit.driver import READ_EVERY, condense
from condensekit.methods import StepContext
from condensekit.methods.recipe import Recipe
from condensekit.networks.base import FeatureNetwork
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw

MANY = 10**6  # more steps than are made


@dataclass(frozen=True)
class Size:
    """Size of the measurements: the public codes' by default."""

    images: int = 10_000
    classes: int = 10
    ipc: int = 10
    width: int = 128
    batch_real: int | None = None  # None: as the recipe says
    seconds: float = 5.0  # time of the steps that are timed, at least


TINY = Size(images=80, classes=4, ipc=1, width=8, batch_real=4, seconds=0.0)  # to try the script on a CPU


def sized(recipe: Recipe, size: Size, data: ClassImages) -> Recipe:
    """The recipe for the data, with networks and batches of this size."""
    known = {field.name for field in fields(recipe.method)} if size.batch_real else set()  # type: ignore[arg-type]
    small = {"batch_real": size.batch_real, "batch_net": size.batch_real, "outer": 2, "inner": 1}
    method = replace(recipe.method, **{k: v for k, v in small.items() if k in known})  # type: ignore[type-var]
    encoder = recipe.encoder.replace(network=ConvNet(width=size.width))
    return recipe.replace(method=method, encoder=encoder).on(data.spec)


def changes(
    recipe: Recipe, data: ClassImages, ipc: int, module: FeatureNetwork, machine: Machine
) -> tuple[Tensor, float]:
    """Changes (K * ipc, C * H * W) of the images in one step with these weights, on the host, and the loss."""
    with Compute(machine, (data.spec.shape[1], data.spec.shape[2])) as compute:
        here, draw = data.to(compute.device), Draw(seed=0, step=1)
        images = here.sample(data.classes, ipc, draw.at(0), compute.device)
        context = StepContext(
            here,
            draw,
            copy.deepcopy(module).to(compute.device),
            compute,
            recipe.augmentation,
            factor=recipe.formation.factor,
            encoder=recipe.encoder,
        )
        state, metrics = recipe.method.step(recipe.method.init(images, context), context)
        return (state["images"] - images).flatten(0, 1).flatten(1).double().cpu(), float(metrics["loss"])


def closeness(recipe: Recipe, data: ClassImages, ipc: int, device: str) -> Record:
    """Errors of a step on the device."""
    network = recipe.encoder.network
    module = network.new(data.spec.shape, len(data.classes), Draw(0)).requires_grad_(False)
    wanted, loss = changes(recipe, data, ipc, module, Machine("cpu", compiled=False))
    found: Record = {}
    usual = torch.backends.cudnn.allow_tf32
    for name, tf32 in (("error", False), ("error_tf32", usual)):
        torch.backends.cudnn.allow_tf32 = tf32
        got, there = changes(recipe, data, ipc, module, Machine(device, compiled=False))
        found[name] = float((got - wanted).norm() / wanted.norm())
        if name == "error":
            found["error_median_image"] = float(((got - wanted).norm(dim=1) / wanted.norm(dim=1)).median())
            found["loss_error"] = abs(there - loss) / abs(loss)
    return found


def pace(recipe: Recipe, data: ClassImages, size: Size, machine: Machine) -> Record:
    """Milliseconds of a step, and the memory of the run. A GPU is read, and waited for, at both ends of the time."""
    kind = torch.device(machine.device).type
    every, on_gpu, ends = READ_EVERY.get(kind, 1), kind == "cuda", list[float]()

    def stop() -> bool:
        ends.append(time.perf_counter())
        timed = ends[every - 1 :: every]
        return len(timed) > 1 and len(ends) % every == 0 and timed[-1] - timed[0] >= size.seconds

    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    condense(data.to(machine.device), recipe, ipc=size.ipc, steps=MANY, machine=machine, stop=stop)
    return {
        "step_ms": 1000 * (ends[-1] - ends[every - 1]) / (len(ends) - every),
        "peak_mib": round(torch.cuda.max_memory_allocated() / 2**20, 1) if on_gpu else None,
    }


def main() -> None:
    """Measure the missing recipes."""
    options = parser(__doc__)
    options.add_argument("--device", default="auto")
    options.add_argument("--tiny", action="store_true", help="small networks and batches, to try the script on a CPU")
    options.add_argument("--out", type=Path, required=True, help="file to write or to extend")
    args = options.parse_args()
    size, machine = TINY if args.tiny else Size(), Machine(args.device, compiled=False).resolved()
    data = random_images(size.images, size.classes)
    rows: list[Record] = read(args.out)["rows"] if args.out.exists() else []
    for name, published in PUBLISHED.items():
        if any(row["recipe"] == name for row in rows):
            continue
        recipe = sized(published.recipe, size, data)
        row = {"recipe": name, **closeness(recipe, data, size.ipc, machine.device), **pace(recipe, data, size, machine)}
        rows.append(row)
        write(args.out, {"rows": rows, "settings": {"device": machine.device, **vars(size)}})
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    start(main)
