"""Scorer: a lightly trained network, which measures how hard and how similar real images are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from condensekit.compute import Compute
from condensekit.data.images import ClassImages
from condensekit.networks.base import FeatureNetwork, Network
from condensekit.networks.convnet import ConvNet
from condensekit.progress import SILENT, Progress
from condensekit.rng import Draw
from condensekit.selection.embeddings import BLOCK, Embed, Embedding, embed_with
from condensekit.training.train import TrainProtocol, class_indices, train_network

LIGHT = TrainProtocol("light", epochs=1, full_epochs=1, batch=64, steps=100, augmentation=None)
"""100 steps of plain SGD: seconds on a CPU; enough to separate hard from easy images, too few to fit the images."""

NARROW = ConvNet(width=32)


def lightly_trained(
    data: ClassImages,
    network: Network,
    protocol: TrainProtocol,
    draw: Draw,
    compute: Compute,
    progress: Progress = SILENT,
) -> FeatureNetwork:
    """Train a network on all listed images of ``data``; returns it without gradients and in evaluation mode.

    Args:
        data: The images. The network classifies only their classes, so it knows nothing of later classes of a stream.
        network: The architecture.
        protocol: How the network is trained.
        draw: Random numbers for weights and batches.
        compute: Runs the network.
        progress: Receives each gradient step.
    """
    with progress.stage(f"train a {network.name} on the real images", protocol.steps_on(len(data))) as stage:
        targets = class_indices(data.labels[data.order], data.classes)
        module = train_network(
            data, targets, network, protocol, Draw(draw.key("scorer")), compute, len(data.classes), stage
        )
    return module.requires_grad_(False).eval()


def cross_entropies(module: FeatureNetwork, data: ClassImages, compute: Compute) -> Tensor:
    """(N,) float64 losses, at least 0, of the listed images in the order of ``data.order``."""
    targets = class_indices(data.labels[data.order], data.classes)
    logits = [compute.logits(module, data.gather(block, compute.device)).cpu() for block in data.order.split(BLOCK)]
    return F.cross_entropy(torch.cat(logits).double(), targets, reduction="none")


@dataclass(frozen=True)
class TrainedEmbedding(Embedding):
    """The features of one lightly trained network, which has seen all classes.

    Args:
        network: The architecture.
        protocol: How the network is trained.
    """

    network: Network = field(default_factory=lambda: NARROW)
    protocol: TrainProtocol = LIGHT
    separable: ClassVar[bool] = False

    def prepare(self, data: ClassImages, draw: Draw, compute: Compute) -> Embed:
        """See :meth:`condensekit.selection.embeddings.Embedding.prepare`."""
        module = lightly_trained(data, self.network, self.protocol, draw, compute)
        return embed_with(module, data, compute)
