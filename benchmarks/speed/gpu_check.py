"""Closeness of a step on a GPU to the same step on the CPU, and its time and memory there, for each published recipe.

    python benchmarks/speed/gpu_check.py --out FILE

Both devices start from equal images and equal weights, with equal batches and augmentation. ``error`` is the norm of
the difference of the changes of all images, divided by the norm of the changes on the CPU; ``error_median_image`` is
the median of the same ratio over the images, on which a single activation at the kink of ReLU has no effect.
Convolutions use no TF32 for this; ``error_tf32`` is ``error`` as torch comes. ``step_ms`` is the time of a step of a
whole run, after its first steps, and ``peak_mib`` the GPU memory of this run. The same entries with ``_graphs`` are
those of networks that are captured as CUDA graphs, of which there are ``graphs``: with 0, the log tells why not; with
null, the recipe takes none. ``minutes_20000`` is the time of 20,000 steps, as many as DM makes, at the better pace.

``training`` has a gradient step of a training on the images of a set, each way: the error of the gradient of all
weights, and its time. What FILE has already is skipped.
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
import torch.nn.functional as F
from torch import Tensor

from benchmarks.record import Record, parser, read, start, write
from benchmarks.speed.random_images import random_images
from condensekit.catalog import PUBLISHED
from condensekit.compute import Compute, Machine
from condensekit.data.images import ClassImages
from condensekit.driver import READ_EVERY, condense
from condensekit.methods import DistributionMatching, StepContext
from condensekit.methods.discrepancy import CharacteristicFunction
from condensekit.methods.encoders import Prepared
from condensekit.methods.recipe import Recipe
from condensekit.networks.base import FeatureNetwork
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw
from condensekit.training.train import DC, train_network

MANY = 10**6  # more steps than are made
CALLS = 3  # repetitions of a step, the last of which replays graphs


@dataclass(frozen=True)
class Size:
    """Size of the measurements: the public codes' by default."""

    images: int = 10_000
    classes: int = 10
    ipc: int = 10
    width: int = 128
    batch_real: int | None = None  # None: as the recipe says
    seconds: float = 2.0  # time of the steps that are timed, at least
    train_steps: int = 100  # gradient steps, four times which are timed


TINY = Size(images=80, classes=4, ipc=1, width=8, batch_real=4, seconds=0.0, train_steps=2)  # to try it on a CPU


def sized(recipe: Recipe, size: Size, data: ClassImages) -> Recipe:
    """The recipe for the data, with networks and batches of this size."""
    known = {field.name for field in fields(recipe.method)} if size.batch_real else set()  # type: ignore[arg-type]
    small = {"batch_real": size.batch_real, "batch_net": size.batch_real, "outer": 2, "inner": 1}
    method = replace(recipe.method, **{k: v for k, v in small.items() if k in known})  # type: ignore[type-var]
    short = {"count": 2, "steps": 2} if recipe.encoder.trained else {}
    encoder = recipe.encoder.replace(network=ConvNet(width=size.width), **short)
    return recipe.replace(method=method, encoder=encoder).on(data.spec)


class HostFrequencies(CharacteristicFunction):
    """The same frequencies on every device; a GPU draws others."""

    def _frequencies(self, draw: Draw, like: Tensor) -> Tensor:
        return super()._frequencies(draw, like.cpu()).to(like.device)


def comparable(recipe: Recipe) -> Recipe:
    """The recipe with the same random numbers on every device."""
    method = recipe.method
    if not isinstance(method, DistributionMatching) or not isinstance(method.discrepancy, CharacteristicFunction):
        return recipe
    return recipe.replace(method=replace(method, discrepancy=HostFrequencies(**vars(method.discrepancy))))


def changes(
    recipe: Recipe, data: ClassImages, ipc: int, module: FeatureNetwork, prepared: Prepared, machine: Machine
) -> tuple[Tensor, float, int]:
    """Changes (K * ipc, C * H * W) of the images in one step with these weights, on the host; the loss; graphs."""
    with Compute(machine, (data.spec.shape[1], data.spec.shape[2])) as compute:
        here, draw = data.to(compute.device), Draw(seed=0, step=1)
        images = here.sample(data.classes, ipc, draw.at(0), compute.device)
        there = copy.deepcopy(module).to(compute.device)
        context = StepContext(
            here,
            draw,
            there,
            compute,
            recipe.augmentation,
            factor=recipe.formation.factor,
            prepared={name: values.to(compute.device) for name, values in prepared.items()},
            encoder=recipe.encoder,
        )
        for _ in range(CALLS if machine.compiled else 1):
            for own, given in zip(there.parameters(), module.parameters(), strict=True):
                own.detach().copy_(given)  # a method may have loaded others
            state, metrics = recipe.method.step(recipe.method.init(images, context), context)
        changed = (state["images"] - images).flatten(0, 1).flatten(1).double().cpu()
        return changed, float(metrics["loss"]), compute.graphs


def captures(recipe: Recipe, data: ClassImages, device: str) -> bool:
    """Whether the networks of a recipe can be captured there."""
    if torch.device(device).type != "cuda":
        return False
    return not any(recipe.method.misfits(data, recipe, Machine(device, compiled=True)))


def closeness(recipe: Recipe, data: ClassImages, ipc: int, device: str) -> Record:
    """Errors of a step on the device."""
    network = recipe.encoder.network
    module = network.new(data.spec.shape, len(data.classes), Draw(0)).requires_grad_(False)
    recipe, host = comparable(recipe), Machine("cpu", compiled=False)
    with Compute(host) as compute:
        prepared = recipe.encoder.prepare(data, Draw(0), compute)
    wanted, loss, _ = changes(recipe, data, ipc, module, prepared, host)
    found: Record = {"error_graphs": None, "graphs": None}
    usual, able = torch.backends.cudnn.allow_tf32, captures(recipe, data, device)
    ways = (("error", False, False), ("error_tf32", usual, False), *([("error_graphs", False, True)] * able))
    for name, tf32, compiled in ways:
        torch.backends.cudnn.allow_tf32 = tf32
        got, there, graphs = changes(recipe, data, ipc, module, prepared, Machine(device, compiled=compiled))
        torch.backends.cudnn.allow_tf32 = usual
        found[name] = float((got - wanted).norm() / wanted.norm())
        if compiled:
            found["graphs"] = graphs
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


def paces(recipe: Recipe, data: ClassImages, size: Size, machine: Machine) -> Record:
    """The paces of a recipe without and with graphs."""
    found: Record = {**pace(recipe, data, size, machine), "step_ms_graphs": None, "peak_mib_graphs": None}
    if captures(recipe, data, machine.device):
        there = pace(recipe, data, size, replace(machine, compiled=True))
        found |= {f"{name}_graphs": value for name, value in there.items()}
    best = min(filter(None, (found["step_ms"], found["step_ms_graphs"])))
    return {**found, "minutes_20000": round(best * 20_000 / 60_000, 2)}


def training(data: ClassImages, size: Size, machine: Machine) -> Record:
    """The error of the gradient in a training on the images of one set, and milliseconds of a step."""
    network, count = ConvNet(width=size.width), len(data.classes)
    images = data.sample(data.classes, size.ipc, Draw(0)).flatten(0, 1)
    targets = torch.arange(count).repeat_interleave(size.ipc)

    def gradient(compute: Compute) -> Tensor:
        module = network.new(data.spec.shape, count, Draw(0)).to(compute.device)
        for _ in range(CALLS):
            module.zero_grad()
            compute.backprop(module, images.to(compute.device), targets.to(compute.device), _cross_entropy)
        return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]).double().cpu()

    def seconds(compute: Compute, steps: int) -> float:
        start = time.perf_counter()
        train_network(images, targets, network, replace(DC, steps=steps), Draw(0), compute, count)  # reads the loss
        return time.perf_counter() - start

    usual = torch.backends.cudnn.allow_tf32
    with Compute(Machine("cpu", compiled=False)) as host, Compute(machine) as there:
        wanted = gradient(host)
        torch.backends.cudnn.allow_tf32 = False
        got = gradient(there)
        torch.backends.cudnn.allow_tf32 = usual
        first = seconds(there, size.train_steps)
        first = min(first, seconds(there, size.train_steps))
        return {
            "compiled": machine.compiled,
            "gradient_error": float((got - wanted).norm() / wanted.norm()),
            "step_ms": 1000 * (seconds(there, 5 * size.train_steps) - first) / (4 * size.train_steps),
        }


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits, targets, reduction="none")


def main() -> None:
    """Measure the missing recipes, and the training."""
    options = parser(__doc__)
    options.add_argument("--device", default="auto")
    options.add_argument("--tiny", action="store_true", help="small networks and batches, to try the script on a CPU")
    options.add_argument("--out", type=Path, required=True, help="file to write or to extend")
    args = options.parse_args()
    size, machine = TINY if args.tiny else Size(), Machine(args.device, compiled=False).resolved()
    data = random_images(size.images, size.classes)
    known: Record = read(args.out) if args.out.exists() else {"rows": [], "training": []}
    rows, trained = known["rows"], known["training"]
    settings = {"device": machine.device, **vars(size)}

    def keep(where: list[Record], row: Record) -> None:
        where.append(row)
        write(args.out, {"rows": rows, "training": trained, "settings": settings})
        print(json.dumps(row), flush=True)

    for compiled in (False, True)[len(trained) : 1 + (torch.device(machine.device).type == "cuda")]:
        keep(trained, training(data, size, replace(machine, compiled=compiled)))
    for name, published in PUBLISHED.items():
        if any(row["recipe"] == name for row in rows):
            continue
        recipe = sized(published.recipe, size, data)
        close = closeness(recipe, data, size.ipc, machine.device)
        keep(rows, {"recipe": name, **close, **paces(recipe, data, size, machine)})


if __name__ == "__main__":
    start(main)
