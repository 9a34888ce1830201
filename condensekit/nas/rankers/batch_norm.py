"""Batch norm in tests: with the statistics of real images, not of the few images of a training set."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from condensekit.data.images import ClassImages
from condensekit.rng import Draw

BATCH_IMAGES = 50  # in a batch whose statistics are averaged with those of the other batches
STATISTICS_IMAGES = 500  # real images that are enough for the statistics


def real_images(train: ClassImages, count: int) -> ClassImages:
    """About ``count`` training images, at least 1: equally many of each class, or all that a class has."""
    each = math.ceil(count / len(train.classes))
    drawn = [train.draw_indices([c], min(each, train.count(c)), Draw(0), role="statistics") for c in train.classes]
    return train.subset(torch.cat(drawn, 1)[0]).compact()


@contextlib.contextmanager
def in_evaluation(module: nn.Module, images: ClassImages | None, device: torch.device) -> Iterator[None]:
    """Put the module into evaluation for a while; its batch norm has the statistics of these images.

    Labels are not used. Afterwards the module is in training again, with the statistics it had. Running averages lag
    behind the weights, and a condensed set has other statistics than real images: small networks lose points by either.

    Args:
        module: In training; batch norm in evaluation, which the network keeps frozen, is left alone.
        images: Real training images, at least 2; None leaves all statistics as they are.
        device: Where the module is.
    """
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    norms = [norm for norm in norms if norm.training and images is not None]
    before = [({k: v.clone() for k, v in norm.named_buffers()}, norm.momentum) for norm in norms]
    module.eval()
    try:
        if norms and images is not None:
            _estimate(module, norms, images, device)
        yield
    finally:
        for norm, (buffers, momentum) in zip(norms, before, strict=True):
            for name, value in norm.named_buffers():
                value.copy_(buffers[name])
            norm.momentum = momentum
        module.train()


def _estimate(module: nn.Module, norms: Sequence[_BatchNorm], images: ClassImages, device: torch.device) -> None:
    """Give the norms the mean over batches of the statistics of their inputs."""
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over batches
        norm.train()
    order = images.order[Draw(0).permutation("statistics", len(images))]
    with torch.no_grad():
        for indices in order.tensor_split(max(1, len(order) // BATCH_IMAGES)):
            module(images.gather(indices, device))
    for norm in norms:
        norm.eval()
