"""Small search spaces for digits (1x8x8, ten classes), some with candidates that hang or end their process."""

import os
import time

import nni
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableConv2d, MutableLinear, Repeat
from torch import nn


class Hidden(ModelSpace):
    """One hidden layer."""

    def __init__(self):
        super().__init__()
        width = nni.choice("width", [4, 8, 16])
        self.first, self.last = MutableLinear(64, width), MutableLinear(width, 10)

    def forward(self, x):
        return self.last(torch.relu(self.first(x.flatten(1))))


class Hang(nn.Module):
    def forward(self, x):
        time.sleep(3600)
        return x


class Exit(nn.Module):
    def forward(self, x):
        os._exit(9)


class Hanging(Hidden):
    """Every second architecture hangs in its forward pass."""

    def __init__(self):
        super().__init__()
        self.end = LayerChoice({"fine": nn.Identity(), "hangs": Hang()}, label="end")

    def forward(self, x):
        return self.end(super().forward(x))


class Dying(Hidden):
    """Every second architecture ends its process, as a segmentation fault or the system's memory killer does."""

    def __init__(self):
        super().__init__()
        self.end = LayerChoice({"fine": nn.Identity(), "dies": Exit()}, label="end")

    def forward(self, x):
        return self.end(super().forward(x))


class Blocks(ModelSpace):
    """One to three blocks with a choice in each: 2 + 4 + 8 = 14 networks, 3 * 2 * 2 * 2 = 24 combinations of labels."""

    def __init__(self):
        super().__init__()
        self.blocks = Repeat(
            lambda i: LayerChoice({"tanh": nn.Tanh(), "linear": nn.Linear(64, 64)}, label=f"block{i}"),
            (1, 3),
            label="depth",
        )
        self.last = nn.Linear(64, 10)

    def forward(self, x):
        return self.last(self.blocks(x.flatten(1)))


class FlatNorm(ModelSpace):
    """One hidden layer with BatchNorm1d."""

    def __init__(self):
        super().__init__()
        width = nni.choice("width", [4, 8, 16])
        self.first, self.norm, self.last = MutableLinear(64, width), nn.LazyBatchNorm1d(), MutableLinear(width, 10)

    def forward(self, x):
        return self.last(torch.relu(self.norm(self.first(x.flatten(1)))))


class Coloured(ModelSpace):
    """A small CNN for 3x8x8 images."""

    def __init__(self):
        super().__init__()
        width = nni.choice("width", [8, 16])
        self.stem = MutableConv2d(3, width, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.last = MutableLinear(width * 16, 10)

    def forward(self, x):
        return self.last(self.pool(torch.relu(self.stem(x))).flatten(1))
