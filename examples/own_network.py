"""A network of your own: to condense with, and to train and judge; any module whose last layer is linear.

python examples/own_network.py

On the command line: --encoder-network own_network:Small, and --network own_network:Small in evaluate and replay.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

import condensekit as ck
from condensekit.catalog import protocol


class Small(nn.Module):
    """Two convolutions and a linear layer; the input of the last linear layer is the embedding."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.GroupNorm(4, 16),  # batch norm as encoder is a bad start: see the questions in the documentation
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.GroupNorm(4, 32),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.last = nn.Linear(128, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 1, H, W) images to (N, num_classes) logits."""
        logits: torch.Tensor = self.last(self.body(images))
        return logits


def main() -> None:
    """Condense with it, and judge by it and by a ConvNet."""
    train, test = ck.load("digits")

    # The class, not an object: every step draws new weights. torchvision.models.resnet18 works in the same way.
    made = ck.condense(train, ck.recipes.dm(batch_real=32, encoder_network=Small), ipc=2, steps=60)
    print(made.message)
    short = replace(protocol("short"), steps=100)
    print(ck.evaluate(made, test, train=train, network=[Small, "ConvNet-w32"], networks=1, protocol=short))


if __name__ == "__main__":
    main()
