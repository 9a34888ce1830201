"""Batch norm in tests: statistics of real images instead of those of a small training set."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from condensekit.data.images import ClassImages
from condensekit.rng import Draw

BATCH_IMAGES = 50  # number of images in a batch; statistics are averaged over batches
STATISTICS_IMAGES = 500  # usual number of real images for the statistics


def real_images(train: ClassImages, count: int) -> ClassImages:
    """About ``count`` training images: the same number of each class, or all images of a smaller class."""
    each = math.ceil(count / len(train.classes))
    drawn = [train.draw_indices([c], min(each, train.count(c)), Draw(0), role="statistics") for c in train.classes]
    return train.subset(torch.cat(drawn, 1)[0]).compact()


@contextlib.contextmanager
def in_evaluation(module: nn.Module, images: ClassImages | None, device: torch.device) -> Iterator[None]:
    """Context in which the module is in evaluation mode, and its batch norms have the statistics of ``images``.

    Labels are not used. At the end the module is in training mode with its former statistics. The usual statistics
    make small networks less accurate for two reasons: running averages lag behind the weights, and a condensed set has
    other statistics than real images.

    Args:
        module: Module in training mode; batch norms in evaluation mode (frozen) are not changed.
        images: Real training images, at least 2; None: no statistics are changed.
        device: Device of the module.
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
    """Set the statistics of the norms to those of their inputs, averaged over batches."""
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # average over batches with equal weights
        norm.train()
    order = images.order[Draw(0).permutation("statistics", len(images))]
    with torch.no_grad():
        for indices in order.tensor_split(max(1, len(order) // BATCH_IMAGES)):
            module(images.gather(indices, device))
    for norm in norms:
        norm.eval()
