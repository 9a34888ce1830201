"""Batch norm tested with the statistics of real images instead of those of the few that a candidate was trained on."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from condensekit.images import ClassImages
from condensekit.rng import Draw

BATCH = 50  # images whose statistics are averaged with those of the other batches
IMAGES = 500  # that are enough for them


def real_images(train: ClassImages, count: int) -> ClassImages:
    """About ``count`` of the training images, equally many of each class as far as it has them."""
    each = math.ceil(count / len(train.classes))
    drawn = [train.draw_indices([c], min(each, train.count(c)), Draw(0), role="statistics") for c in train.classes]
    return train.subset(torch.cat(drawn, 1)[0]).compact()


@contextlib.contextmanager
def statistics_of(module: nn.Module, images: ClassImages, device: torch.device) -> Iterator[None]:
    """For as long as it lasts, every batch norm of the module in evaluation has the statistics of these images.

    Labels are not used. Afterwards the module has its own again and is as it was. Running averages lag behind the
    weights, and those of a condensed set are no real images': small networks trained on one lose points by either.

    Args:
        module: In evaluation; without batch norm it stays as it is.
        images: Real training images, at least 2.
        device: Where the module is.
    """
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    before = [({k: v.clone() for k, v in norm.named_buffers()}, norm.momentum) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over batches
        norm.train()
    try:
        if norms:
            order = images.order[Draw(0).permutation("statistics", len(images))]
            with torch.no_grad():
                for indices in order.tensor_split(max(1, len(order) // BATCH)):
                    module(images.gather(indices, device))
        for norm in norms:
            norm.eval()
        yield
    finally:
        for norm, (buffers, momentum) in zip(norms, before, strict=True):
            for name, value in norm.named_buffers():
                value.copy_(buffers[name])
            norm.momentum = momentum
