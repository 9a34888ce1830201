"""Eager functions of a network: those that a compiler or a CUDA graph computes otherwise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from condensekit.networks.base import FeatureNetwork, separable

Loss = Callable[[Tensor, Tensor], Tensor]  # (logits (n, K), targets (n, ...)) -> (n,) losses


def called(entry: str, module: FeatureNetwork, images: Tensor, low: bool) -> Tensor:
    """The result of ``forward`` or ``features`` in float32; the network computes in bfloat16 if ``low``."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=low):
        output: Tensor = module(images) if entry == "forward" else module.features(images)
    return output.float()


def embedded(module: FeatureNetwork, images: Tensor, low: bool) -> Tensor:
    """Embeddings (n, D), with a graph where gradients are wanted; a single image goes through the network twice."""
    size = max(2, len(images)) if separable(module) else len(images)
    return called("features", module, padded(images, size), low)[: len(images)]


def pulled(module: FeatureNetwork, images: Tensor, gradient: Tensor, low: bool) -> Tensor:
    """The gradient (n, C, H, W) of images, from that of their embeddings (n, D)."""
    leaf = images.detach().requires_grad_()
    return torch.autograd.grad(embedded(module, leaf, low), leaf, gradient)[0]


def learnt(
    module: FeatureNetwork, images: Tensor, targets: Tensor, loss: Loss, low: bool, count: int
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The losses summed and divided by ``count``, and the gradients of the trained parameters."""
    value = loss(called("forward", module, images, low), targets).sum() / count
    return value.detach(), torch.autograd.grad(value, trained(module), materialize_grads=True)


def trained(module: FeatureNetwork) -> list[Tensor]:
    """The parameters that need gradients."""
    return [p for p in module.parameters() if p.requires_grad]


def padded(values: Tensor, size: int) -> Tensor:
    """The values, with the last one repeated up to ``size``."""
    if len(values) == size:
        return values
    return torch.cat([values, values[-1:].expand(size - len(values), *values.shape[1:])])
