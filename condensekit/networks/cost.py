"""Network cost: parameters and floating-point operations, counted on the network itself.

NNI's own profilers know no LeakyReLU, Tanh or NAS-Bench-201 and fail on spaces that have them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

Shape = tuple[int, int, int]

PASSES = 3  # forward passes that one forward and backward pass costs


@dataclass(frozen=True)
class Cost:
    """The size of one network.

    Args:
        params: Parameters that are trained.
        flops: Operations of one image's forward pass: two for each multiply-add of convolutions, linear layers
            and matrix products, nothing for norms and activations.
    """

    params: int
    flops: int


def count(module: nn.Module, shape: Shape) -> Cost:
    """The cost of a network for one (C, H, W) image; its state is left as it is."""
    training = {name: part.training for name, part in module.named_modules()}
    parameter = next(module.parameters(), None)
    images = torch.zeros(1, *shape, device="cpu" if parameter is None else parameter.device)
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module.eval()(images)
    finally:
        for name, part in module.named_modules():
            part.training = training[name]
    params = sum(p.numel() for p in module.parameters() if p.requires_grad)  # lazy layers have theirs by now
    return Cost(params, counter.get_total_flops())


def values(module: nn.Module, shape: Shape) -> int:
    """The numbers that all layers of a network give for one (C, H, W) image."""
    found: list[int] = []

    def note(layer: nn.Module, given: object, output: object) -> None:
        found.append(output.numel() if isinstance(output, torch.Tensor) else 0)

    hooks = [part.register_forward_hook(note) for part in module.modules() if not list(part.children())]
    try:
        count(module, shape)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(found)
