"""ConvNet: the network of the dataset condensation papers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from condensekit.errors import ConfigError, refuse, require, whole
from condensekit.networks.base import (
    ACTIVATIONS,
    NORMS,
    POOLINGS,
    FeatureNetwork,
    Network,
    _Conv,
    check_known,
    check_sizes,
)
from condensekit.networks.cost import Shape


@dataclass(frozen=True)
class ConvNet(Network):
    """The field's ConvNet: ``depth`` blocks of 3x3 convolution, norm, activation and 2x2 pooling.

    Gidaris and Komodakis (CVPR 2018), as Zhao, Mopuri and Bilen use it (Dataset Condensation, ICLR 2021).
    At 32x32 and 10 classes: 320,010 parameters, an embedding of 2,048. As in their code, 28x28 images of
    one channel are padded to 32x32 by the first convolution.

    >>> from condensekit import ConvNet
    >>> network = ConvNet(width=32, depth=2)
    >>> network.name, sum(w.numel() for w in network.build((1, 8, 8), classes=10).parameters())
    ('ConvNet-d2-w32', 10986)

    Args:
        width: Channels of every block, at least 1.
        depth: Blocks; None fits it to the image, so that the last map is 3 to 5 pixels wide:
            1 at 8x8, 3 at 28x28 and 32x32, 4 at 64x64, 5 at 128x128. (Without pooling: the same number.)
        activation: ``relu``, ``leakyrelu`` (slope 0.01), ``sigmoid`` or ``swish``.
        norm: ``instance`` (one group per channel, affine), ``batch``, ``layer`` (over C, H and W),
            ``group`` (4 groups) or ``none``.
        pooling: ``avg``, ``max`` or ``none``.

    Raises:
        ConfigError: An unknown option or a size out of range; in ``build``, a depth with no map left.
    """

    width: int = 128
    depth: int | None = None
    activation: str = "relu"
    norm: str = "instance"
    pooling: str = "avg"

    def __post_init__(self) -> None:
        check_known("activation", self.activation, ACTIVATIONS)
        check_known("norm", self.norm, NORMS)
        check_known("pooling", self.pooling, POOLINGS)
        refuse(whole("width", self.width, 1), None if self.depth is None else whole("depth", self.depth, 1))
        ungrouped = self.norm == "group" and self.width % 4
        require(not ungrouped, f"norm='group' needs a width divisible by 4, got {self.width}")

    @property
    def name(self) -> str:
        """``ConvNet``, or say ``ConvNet-d4-w64-batch-max``."""
        options = (
            (self.depth, None, f"d{self.depth}"),
            (self.width, 128, f"w{self.width}"),
            (self.norm, "instance", "nonorm" if self.norm == "none" else self.norm),
            (self.activation, "relu", self.activation),
            (self.pooling, "avg", "nopool" if self.pooling == "none" else self.pooling),
        )
        return "-".join(["ConvNet", *(text for value, default, text in options if value != default)])

    def build(self, shape: Shape, classes: int) -> FeatureNetwork:
        """See :meth:`Network.build`."""
        check_sizes(shape, classes)
        channels, height, width = shape
        padding = 3 if shape == (1, 28, 28) else 1
        height, width = height + 2 * padding - 2, width + 2 * padding - 2
        depth = self._depth(height, width)
        layers: list[nn.Module] = []
        with torch.device("meta"):
            for block in range(depth):
                layers += [
                    _Conv(channels, self.width, 3, padding=1 if block else padding),
                    NORMS[self.norm]((self.width, height, width)),
                    ACTIVATIONS[self.activation](),
                    POOLINGS[self.pooling](),
                ]
                channels = self.width
                if self.pooling != "none":
                    height, width = height // 2, width // 2
            classifier = nn.Linear(channels * height * width, classes)
        return FeatureNetwork(nn.Sequential(*layers), classifier, shape)

    def _depth(self, height: int, width: int) -> int:
        """The number of blocks for maps of this size before the first pooling."""
        size = min(height, width)
        depth = max(1, round(math.log2(size / 4))) if self.depth is None else self.depth
        if self.pooling != "none" and size >> depth == 0:
            largest = size.bit_length() - 1
            way_out = (
                f"use a depth of at most {largest}, or pooling='none'"
                if largest
                else "pass larger images, or use pooling='none'"
            )
            raise ConfigError(f"depth={depth} leaves nothing of a {height}x{width} image: {way_out}")
        return depth
