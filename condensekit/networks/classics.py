"""Classic networks in the field's small-image forms, to which condensed sets should transfer.

As in the code of Zhao, Mopuri and Bilen (Dataset Condensation, ICLR 2021), whose layers these are; the sizes
follow the image, where theirs are fixed for 28x28 and 32x32. Images of 28x28 and one channel are padded to
32x32 by the first convolution, as in :class:`~condensekit.networks.convnet.ConvNet`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from condensekit.errors import ConfigError
from condensekit.networks.base import NORMS, FeatureNetwork, Network, check_known, check_sizes
from condensekit.networks.cost import Shape

VGG11_WIDTHS = ((64,), (128,), (256, 256), (512, 512), (512, 512))  # a 2x2 max-pooling after each group


class _Classic(Network):
    """A stack of convolutions, hidden linear layers, and a last layer; their sizes follow the image."""

    hidden: ClassVar[tuple[int, ...]] = ()

    @property
    def name(self) -> str:
        """The class's name."""
        return type(self).__name__

    @abstractmethod
    def _stack(self, channels: int, padding: int) -> nn.Sequential:
        """The convolutions for images of so many channels; ``padding`` is added to that of the first."""

    def build(self, shape: Shape, classes: int) -> FeatureNetwork:
        """See :meth:`Network.build`."""
        check_sizes(shape, classes)
        with torch.device("meta"):
            body = self._stack(shape[0], 2 if shape == (1, 28, 28) else 0).append(nn.Flatten())
            try:
                length = body(torch.empty(2, *shape)).shape[1]
            except (RuntimeError, ValueError):  # a map smaller than a kernel, or of one pixel before a norm
                size = f"{shape[1]}x{shape[2]}"
                raise ConfigError(f"{self.name} leaves nothing of a {size} image: use larger images") from None
            for width in self.hidden:
                body.extend([nn.Linear(length, width), nn.ReLU(inplace=True)])
                length = width
            return FeatureNetwork(body, nn.Linear(length, classes), shape)


@dataclass(frozen=True)
class MLP(_Classic):
    """Two hidden layers of 128 on the pixels (118,282 parameters for 28x28 grey images and 10 classes)."""

    hidden: ClassVar[tuple[int, ...]] = (128, 128)

    def _stack(self, channels: int, padding: int) -> nn.Sequential:
        return nn.Sequential()


@dataclass(frozen=True)
class LeNet(_Classic):
    """LeNet-5 (LeCun et al., 1998) with ReLU and max-pooling; the embedding is its last hidden layer."""

    hidden: ClassVar[tuple[int, ...]] = (120, 84)

    def _stack(self, channels: int, padding: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=padding),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )


@dataclass(frozen=True)
class AlexNet(_Classic):
    """AlexNet (Krizhevsky et al., NeurIPS 2012) for small images: five convolutions, one linear layer."""

    def _stack(self, channels: int, padding: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, 128, 5, padding=2 + padding),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(128, 192, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(192, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 192, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(192, 192, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )


@dataclass(frozen=True)
class VGG11(_Classic):
    """VGG-11 (Simonyan and Zisserman, ICLR 2015) for small images: eight convolutions, one linear layer.

    Args:
        norm: ``instance``, which leaves the network separable, or ``batch``.
    """

    norm: str = "instance"

    def __post_init__(self) -> None:
        check_known("norm", self.norm, ("instance", "batch"))

    @property
    def name(self) -> str:
        """``VGG11`` or ``VGG11-batch``."""
        return "VGG11" if self.norm == "instance" else "VGG11-batch"

    def _stack(self, channels: int, padding: int) -> nn.Sequential:
        layers = nn.Sequential()
        before = channels
        for group in VGG11_WIDTHS:
            for width in group:
                margin = 1 if layers else 1 + padding
                norm = NORMS[self.norm]((width, 0, 0))
                layers.extend([nn.Conv2d(before, width, 3, padding=margin), norm, nn.ReLU(inplace=True)])
                before = width
            layers.append(nn.MaxPool2d(2))
        return layers
