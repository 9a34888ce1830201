"""Distribution matching: make the embedded synthetic images of a class look like the embedded real ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from condensekit.discrepancy import Discrepancy, mean
from condensekit.errors import refuse
from condensekit.methods.base import SPACES, Condenser, State, StepContext, descend, keep_if


@dataclass(frozen=True)
class DistributionMatching(Condenser):
    """DM (Zhao and Bilen, "Dataset Condensation with Distribution Matching", WACV 2023).

    Each step draws a network, embeds ``batch_real`` real images and all synthetic images of every class
    under the same augmentation, and moves the synthetic images down the gradient of the summed
    discrepancies with momentum.

    Departures from the authors' code: all classes go through the network together, in chunks, where
    they loop over classes (the same sum: the network treats images one by one); each network and batch
    comes from the run's seed, where they use the clock; a step with a non-finite value changes nothing.

    Args:
        discrepancy: What is matched; :func:`condensekit.discrepancy.mean` gives DM.
        lr: Step size for normalised images; the authors use 1 for 1 to 50 images per class and 10 above.
            A mean over ipc images shrinks each image's gradient by ipc.
        momentum: Of the image updates, in [0, 1).
        space: ``normalised`` moves the images as they are; ``pixel`` does exactly SGD on pixels in [0, 1],
            clamped to that range after each step, as IDC and M3D do.
        batch_real: Real images of each class in a step.
    """

    discrepancy: Discrepancy = mean
    lr: float = 1.0
    momentum: float = 0.5
    batch_real: int = 256
    space: str = "normalised"
    name: str = "dm"
    separable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        refuse(
            None if 0 < self.lr < float("inf") else f"lr must be positive and finite, got {self.lr}",
            None if 0 <= self.momentum < 1 else f"momentum must lie in [0, 1), got {self.momentum}",
            None if self.batch_real >= 1 else f"batch_real must be at least 1, got {self.batch_real}",
            None if self.space in SPACES else f"space must be one of {', '.join(SPACES)}, got {self.space!r}",
        )

    def init(self, synthetic: Tensor, ctx: StepContext) -> State:
        """Images and their momentum, both (K, ipc, C, H, W)."""
        return {"images": synthetic, "momentum": torch.zeros_like(synthetic)}

    def step(self, state: State, ctx: StepContext) -> tuple[State, dict[str, Tensor]]:
        """One network, one batch of every class, one update of all images."""
        images, labels = state["images"], ctx.data.classes
        losses, gradients = [], []
        for rows in ctx.groups(self.batch_real + images.shape[1] * ctx.factor**2):
            real, weights = ctx.real(labels[rows], self.batch_real)
            target = ctx.features(real)

            def loss(features: Tensor, target: Tensor = target, weights: Tensor | None = weights) -> Tensor:
                return self.discrepancy(target, features, weights)

            value, gradient = ctx.gradient(images[rows], labels[rows], loss)
            losses.append(value)
            gradients.append(gradient)
        total, slope = torch.cat(losses).sum(), torch.cat(gradients)
        finite = torch.isfinite(total) & torch.isfinite(slope).all()
        velocity = self.momentum * state["momentum"] + slope
        new = {"images": descend(images, velocity, self.lr, self.space, ctx), "momentum": velocity}
        return keep_if(finite, new, state), {"loss": total, "gradient_norm": slope.norm(), "finite": finite}
