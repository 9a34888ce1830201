"""Network interface: architectures without weights, and how to give them new random weights.

A :class:`Network` describes an architecture, without weights. It builds a module on the ``meta`` device,
and fills it with random weights, again and again in the same tensors, so that one compiled function works
for all networks of a run.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from condensekit.errors import ConfigError, refuse, unknown
from condensekit.networks.cost import Shape, count, values
from condensekit.rng import Draw

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leakyrelu": lambda: nn.LeakyReLU(0.01),
    "sigmoid": nn.Sigmoid,
    "swish": nn.SiLU,
}
NORMS: dict[str, Callable[[Shape], nn.Module]] = {
    "none": lambda shape: nn.Identity(),
    "batch": lambda shape: nn.BatchNorm2d(shape[0]),
    "layer": lambda shape: nn.LayerNorm(list(shape)),
    "instance": lambda shape: nn.GroupNorm(shape[0], shape[0]),
    "group": lambda shape: nn.GroupNorm(4, shape[0]),
}


class _Conv(nn.Conv2d):
    """A convolution that on a CPU, where no gradient is wanted, runs channels-last: a tenth faster.

    Small maps go back to the usual layout at once, because group normalisation is slow on them otherwise.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return super().forward(x)
        y = super().forward(x.contiguous(memory_format=torch.channels_last))
        return y if y.shape[-2] * y.shape[-1] >= 1024 else y.contiguous()


class _AveragePool(nn.Module):
    """2x2 average pooling. On a CPU as a depthwise convolution: the same bits in a third of the time."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return F.avg_pool2d(x, 2)
        return F.conv2d(x, x.new_full((x.shape[1], 1, 2, 2), 0.25), stride=2, groups=x.shape[1])


POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "max": lambda: nn.MaxPool2d(2),
    "avg": _AveragePool,
}


class FeatureNetwork(nn.Module):
    """A body that embeds images, and one linear layer that classifies the embedding.

    Args:
        body: (N, C, H, W) -> (N, ...) with ``classifier.in_features`` values for each image.
        classifier: The last layer.
        shape: (C, H, W) of the images.
    """

    def __init__(self, body: nn.Module, classifier: nn.Linear, shape: Shape) -> None:
        super().__init__()
        self.body = body
        self.classifier = classifier
        self.shape = shape

    @cached_property
    def flops(self) -> int:
        """Operations of one image's forward pass; see :class:`condensekit.networks.cost.Cost`."""
        return count(copy.deepcopy(self).to("meta"), self.shape).flops

    @cached_property
    def values(self) -> int:
        """Numbers that all layers give for one image, in proportion to the memory of a forward pass with its graph."""
        return values(copy.deepcopy(self).to("meta"), self.shape)

    @property
    def feature_dim(self) -> int:
        """Length of the embedding."""
        return self.classifier.in_features

    def features(self, images_NCHW: Tensor) -> Tensor:  # noqa: N803
        """(N, C, H, W) normalised float images to their (N, feature_dim) embedding."""
        embedded: Tensor = self.body(images_NCHW)
        return embedded.flatten(1)

    def forward(self, images_NCHW: Tensor) -> Tensor:  # noqa: N803
        """(N, C, H, W) normalised float images to (N, classes) logits."""
        logits: Tensor = self.classifier(self.features(images_NCHW))
        return logits


def separable(module: nn.Module) -> bool:
    """Whether each image's result is independent of its batch, so that a batch may be cut into chunks."""
    return not any(isinstance(part, _BatchNorm) for part in module.modules())


class Network(ABC):
    """An architecture without weights."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name in tables: the architecture and its options that are not defaults."""

    @abstractmethod
    def build(self, shape: Shape, classes: int) -> FeatureNetwork:
        """The module, on the ``meta`` device, for (C, H, W) images and ``classes`` outputs.

        Raises:
            ConfigError: The architecture does not fit the images.
        """

    def fill_(self, module: FeatureNetwork, draw: Draw, role: str) -> None:
        """Give ``module`` fresh random weights, in place: torch's default initialisation, norms 1 and 0.

        Raises:
            ConfigError: A layer that is not a convolution, linear layer or norm.
        """
        generator = draw.generator(role, next(module.parameters()).device)
        with torch.no_grad():
            for part in module.modules():
                _reset(part, generator)

    def new(
        self, shape: Shape, classes: int, draw: Draw, role: str = "network", device: torch.device | str = "cpu"
    ) -> FeatureNetwork:
        """A module on ``device`` with fresh weights, in training mode."""
        module = self.build(shape, classes)
        _ = module.flops, module.values  # counted while the module holds no numbers
        module = module.to_empty(device=device)
        self.fill_(module, draw, role)
        return module


def _reset(part: nn.Module, generator: torch.Generator) -> None:
    """Initialise the tensors that ``part`` itself owns."""
    if isinstance(part, _ConvNd | nn.Linear):
        bound = 1 / math.sqrt(part.weight[0].numel())  # what kaiming_uniform_(a=sqrt(5)) comes to
        for tensor in part.parameters(recurse=False):
            tensor.uniform_(-bound, bound, generator=generator)
    elif isinstance(part, _BatchNorm | nn.GroupNorm | nn.LayerNorm):
        part.reset_parameters()
    elif any(True for _ in part.parameters(recurse=False)):
        raise ConfigError(f"no fresh weights known for a layer {type(part).__name__}: override fill_ in the network")


def check_sizes(shape: Shape, classes: int) -> None:
    """Raise ConfigError for an impossible image shape or number of classes."""
    refuse(
        None if len(shape) == 3 and min(shape) >= 1 else f"image shape must be (C, H, W), all positive, got {shape}",
        None if classes >= 1 else f"a network needs at least 1 class, got {classes}",
    )


def check_known(kind: str, value: object, known: Iterable[str]) -> None:
    """Raise ConfigError for an option value that is not among the known ones."""
    known = tuple(known)
    if not isinstance(value, str) or value not in known:
        raise unknown(kind, value, known)
