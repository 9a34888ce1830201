"""Limit of one step on a CPU: the time of its convolutions alone, each as fast as this processor does it by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from condensekit.compute import Machine
from condensekit.networks.base import Network
from condensekit.networks.cost import Shape
from condensekit.rng import Draw

CHUNKS = (2, 4, 8, 16)  # images of a call; the fastest counts
SECONDS = 0.5  # of one measurement
BOTH_WAYS = 2  # the gradient of the images costs as much as the forward pass


def convolutions_alone(network: Network, shape: Shape, real: int, synthetic: int, machine: Machine) -> float:
    """Seconds of the convolutions of one step on all workers of a CPU.

    Args:
        network: The architecture.
        shape: (C, H, W) of the images.
        real: Real images of a step, which go forward.
        synthetic: Synthetic images of a step, which go forward and back.
        machine: Workers and precision.
    """
    machine = machine.resolved((shape[1], shape[2]))
    low, back = kinds(machine)
    workers = max(1, machine.workers or 0)
    rate = {kind: images_per_second(network, shape, kind, workers) for kind in {low, back}}
    return real / rate[low] + BOTH_WAYS * synthetic / rate[back]


def kinds(machine: Machine) -> tuple[torch.dtype, torch.dtype]:
    """The types in which real and synthetic images go through a network."""
    low = torch.bfloat16 if machine.precision in ("mixed", "bf16") else torch.float32
    return low, torch.bfloat16 if machine.precision == "bf16" else torch.float32


def images_per_second(network: Network, shape: Shape, kind: torch.dtype, workers: int) -> float:
    """Images whose forward convolutions all workers do in a second, channels-last, in this type."""
    module = network.new(shape, 10, Draw(0)).requires_grad_(False)
    taken: list[tuple[nn.Conv2d, Shape]] = []
    hooks = [
        part.register_forward_pre_hook(lambda part, given: taken.append((part, tuple(given[0].shape[1:]))))
        for part in module.modules()
        if isinstance(part, nn.Conv2d)
    ]
    module.features(torch.zeros(2, *shape))
    for hook in hooks:
        hook.remove()
    return 1 / sum(1 / max(_rate(part, size, chunk, kind, workers) for chunk in CHUNKS) for part, size in taken)


def _rate(part: nn.Conv2d, size: Shape, chunk: int, kind: torch.dtype, workers: int) -> float:
    """Images per second of one convolution in calls of ``chunk`` images."""
    weight = part.weight.to(kind, memory_format=torch.channels_last)
    bias = None if part.bias is None else part.bias.to(kind)
    counts = [0] * workers

    def work(number: int, until: float, convolve: Callable[[], Tensor]) -> None:
        torch.set_num_threads(1)
        while time.perf_counter() < until:
            convolve()
            counts[number] += 1

    def on(images: Tensor) -> Callable[[], Tensor]:
        return lambda: torch.conv2d(images, weight, bias, part.stride, part.padding)

    given = [torch.randn(chunk, *size).to(kind, memory_format=torch.channels_last) for _ in range(workers)]
    start = time.perf_counter()
    threads = [threading.Thread(target=work, args=(n, start + SECONDS, on(x))) for n, x in enumerate(given)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) * chunk / (time.perf_counter() - start)
