"""Batch norm tested with the statistics of real images instead of those of the few that a candidate was trained on."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from condensekit.data.images import ClassImages
from condensekit.rng import Draw

BATCH = 50  # images whose statistics are averaged with those of the other batches
IMAGES = 500  # that are enough for them


def real_images(train: ClassImages, count: int) -> ClassImages:
    """About ``count``, at least 1, of the training images: equally many of each class, all of one that has fewer."""
    each = math.ceil(count / len(train.classes))
    drawn = [train.draw_indices([c], min(each, train.count(c)), Draw(0), role="statistics") for c in train.classes]
    return train.subset(torch.cat(drawn, 1)[0]).compact()


@contextlib.contextmanager
def in_evaluation(module: nn.Module, images: ClassImages | None, device: torch.device) -> Iterator[None]:
    """For as long as it lasts, the module is in evaluation, and its batch norm has the statistics of these images.

    Labels are not used. Afterwards the module is in training again, with the statistics it had. Running averages lag
    behind the weights, and those of a condensed set are no real images': small networks lose points by either.

    Args:
        module: In training; batch norm that is not, because the network keeps it frozen, is left alone.
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
        for indices in order.tensor_split(max(1, len(order) // BATCH)):
            module(images.gather(indices, device))
    for norm in norms:
        norm.eval()
