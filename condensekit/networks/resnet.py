"""ResNet18: the residual network for small images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condensekit.errors import ConfigError, refuse, whole
from condensekit.networks.base import NORMS, FeatureNetwork, Network, check_known, check_sizes
from condensekit.networks.cost import Shape


class _Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., CVPR 2016, the basic block)."""

    def __init__(self, before: int, width: int, stride: int, norm: Callable[[Shape], nn.Module]) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(before, width, 3, stride, padding=1, bias=False),
            norm((width, 0, 0)),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            norm((width, 0, 0)),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or before != width:
            self.shortcut.extend([nn.Conv2d(before, width, 1, stride, bias=False), norm((width, 0, 0))])

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.main(x) + self.shortcut(x))


@dataclass(frozen=True)
class ResNet18(Network):
    """ResNet-18 for small images: 3x3 stem, no max-pooling (11,173,962 parameters for 3 channels, 10 classes).

    Where the authors of Dataset Condensation pool 4x4 windows at the end, this takes the mean of the whole
    map: the same at 32x32, and right at any other size.

    >>> from condensekit import ResNet18
    >>> network = ResNet18(width=8)
    >>> network.name, tuple(network.build((3, 32, 32), classes=10).classifier.weight.shape)
    ('ResNet18-w8', (10, 64))

    Args:
        norm: ``batch``, or ``instance``, which leaves the network separable.
        width: Channels of the first stage; the others have 2, 4 and 8 times as many.

    Raises:
        ConfigError: An unknown norm, a width below 1; in ``build``, instance norm on images below 9x9,
            whose last maps are one pixel: normalising that leaves nothing.
    """

    norm: str = "batch"
    width: int = 64

    def __post_init__(self) -> None:
        check_known("norm", self.norm, ("batch", "instance"))
        refuse(whole("width", self.width, 1))

    @property
    def name(self) -> str:
        """``ResNet18``, or say ``ResNet18-w16-instance``."""
        shown = [] if self.width == 64 else [f"w{self.width}"]
        return "-".join(["ResNet18", *shown, *([] if self.norm == "batch" else [self.norm])])

    def build(self, shape: Shape, classes: int) -> FeatureNetwork:
        """See :meth:`Network.build`."""
        check_sizes(shape, classes)
        if self.norm == "instance" and max(shape[1:]) < 9:
            raise ConfigError(f"ResNet18 with norm='instance' needs images of 9x9 or more, got {shape[1]}x{shape[2]}")
        norm, width = NORMS[self.norm], self.width
        with torch.device("meta"):
            body = nn.Sequential(
                nn.Conv2d(shape[0], width, 3, padding=1, bias=False), norm((width, 0, 0)), nn.ReLU(inplace=True)
            )
            for stage, before in enumerate((width, width, 2 * width, 4 * width)):
                after = width << stage
                body.extend([_Residual(before, after, 2 if stage else 1, norm), _Residual(after, after, 1, norm)])
            body.append(nn.AdaptiveAvgPool2d(1))
            classifier = nn.Linear(8 * width, classes)
        return FeatureNetwork(body, classifier, shape)
