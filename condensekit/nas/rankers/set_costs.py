"""What making a set costs, in operations of all networks involved: images times passes, estimated on no machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from condensekit.data.images import ClassImages
from condensekit.methods import Condenser
from condensekit.methods.encoders import Encoder
from condensekit.methods.gradient import GradientMatching
from condensekit.methods.sampling import Clustered, Importance, Sampling
from condensekit.methods.scorer import TrainedEmbedding
from condensekit.methods.trained_encoders import Trained
from condensekit.networks.base import Network
from condensekit.networks.cost import PASSES, count
from condensekit.rng import Draw
from condensekit.selection.base import Noise, Selection
from condensekit.selection.embeddings import Embedding
from condensekit.training.train import TrainProtocol


def choosing_flops(selection: Selection | Noise, data: ClassImages) -> float:
    """Operations of embedding the images among which a selection chooses; 0 for one that does not embed."""
    looked_at = getattr(selection, "candidates", 0)
    images = sum(min(data.count(label), looked_at or data.count(label)) for label in data.classes)
    return _embedding(getattr(selection, "embedding", None), data, images)


def condensing_flops(method: Condenser, how: Mapping[str, Any], data: ClassImages, ipc: int, iterations: int) -> float:
    """Operations of a condensation: its start, its encoders' and samplings' networks, and its matching steps.

    Args:
        method: What matches.
        how: The other arguments of ``condense``. Encoders, samplings and selections of your own are counted as far as
            they look like those of the package.
        data: The real images.
        ipc: Synthetic images per class, decoded.
        iterations: Matching steps.
    """
    encoder: Encoder = how["encoder"]
    before = choosing_flops(how["init"], data) + _encoders(encoder, data)
    matching = iterations * _matching(method, encoder.network, data, ipc)
    return before + _samplers(how["sampling"], data, iterations) + matching


def _matching(method: Condenser, encoder: Network, data: ClassImages, ipc: int) -> float:
    """One matching step: real images forward, synthetic ones forward and back, and once more for calibration.

    Gradient matching takes gradients of both, second derivatives of the synthetic ones (counted as another forward
    and backward pass), and trains its network on the synthetic images between the steps.
    """
    real = getattr(method, "batch_real", 0) * len(data.classes)
    synthetic = ipc * len(data.classes)
    if not isinstance(method, GradientMatching):
        passes = PASSES * (2 if getattr(method, "calibration", 0) else 1)
        return _forward(encoder, data) * (real + passes * synthetic)
    outer, inner = method.schedule(ipc)
    trained = inner * (outer - 1) / outer
    return _forward(encoder, data) * PASSES * (real + 2 * synthetic + trained * synthetic)


def _encoders(encoder: Encoder, data: ClassImages) -> float:
    """Training them; untrained ones cost nothing."""
    if not isinstance(encoder, Trained):
        return 0.0
    return encoder.count * _training(encoder.network, encoder.protocol, data, encoder.steps)


def _samplers(sampling: Sampling, data: ClassImages, iterations: int) -> float:
    """Scoring or clustering all images, anew as often as the sampling does."""
    if isinstance(sampling, Importance):
        each = _training(sampling.network, sampling.protocol, data) + len(data) * _forward(sampling.network, data)
    elif isinstance(sampling, Clustered):
        each = _embedding(sampling.embedding, data, len(data))
    else:
        return 0.0
    return math.ceil(iterations / sampling.refresh) * each


def _embedding(embedding: Embedding | None, data: ClassImages, images: int) -> float:
    """The features of so many images; those of pixels cost nothing."""
    network: Network | None = getattr(embedding, "network", None)
    if network is None:
        return 0.0
    trained = _training(network, embedding.protocol, data) if isinstance(embedding, TrainedEmbedding) else 0.0
    return trained + images * _forward(network, data)


def _training(network: Network, protocol: TrainProtocol, data: ClassImages, steps: int = 0) -> float:
    """Forward and back for each image of each gradient step; 0 steps: as many as the protocol says."""
    passed = (steps or protocol.steps_on(len(data))) * min(protocol.batch, len(data))
    return PASSES * passed * _forward(network, data)


def _forward(network: Network, data: ClassImages) -> float:
    """One image's forward pass."""
    module = network.new(data.spec.shape, len(data.classes), Draw(0), "flops", "cpu")
    return float(count(module, data.spec.shape).flops)
