"""Distribution matching: make the embedded synthetic images of a class look like the embedded real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from condensekit.data.images import ClassImages
from condensekit.errors import function, instance, positive, refuse
from condensekit.methods.base import Condenser, State, StepContext, descend, descent_misfits, keep_if, space_misfit
from condensekit.methods.discrepancy import Discrepancy, mean

if TYPE_CHECKING:
    from condensekit.compute import Machine
    from condensekit.methods.recipe import Recipe


@dataclass(frozen=True)
class DistributionMatching(Condenser):
    """DM (Zhao and Bilen, "Dataset Condensation with Distribution Matching", WACV 2023).

    Each step draws a network, embeds ``batch_real`` real images and all synthetic images of every class
    under the same augmentation, and moves the synthetic images down the gradient of the summed
    discrepancies with momentum.

    Departures from the authors' code: all classes go through the network together, in chunks, where
    they loop over classes (the same sum: the network treats images one by one); each network and batch
    comes from the run's seed, where they use the clock; a step with a non-finite value changes nothing.

    M3D (Zhang et al., AAAI 2024; arXiv 2312.15927, whose first version is titled ECHO) is this with
    ``MMD()``, ``per_image``, ``space="pixel"``, ``batch_real=128``, a network kept for 5 steps and two by
    two images packed into one: the preset ``m3d`` of :mod:`condensekit.catalog`. ``echo`` is the same
    preset under the first version's name; :class:`~condensekit.methods.discrepancy.Moments` is its finite-order
    form. Its authors step the optimiser after every class, so that momentum fades over the steps of the
    other classes; here one step moves all classes and momentum lasts from step to step, which travels as
    far. Their augmentation applies colour, crop and cutout to every batch; here one of the three is drawn
    for each class, as in DM. Their packing shrinks by nearest neighbour, ours with antialiasing.

    Args:
        discrepancy: What is matched; :func:`condensekit.methods.discrepancy.mean` gives DM.
        lr: Step size; the authors use 1 for 1 to 50 images per class and 10 above.
        momentum: Of the image updates, in [0, 1).
        batch_real: Real images of each class in a step.
        per_image: Multiply the step by the images of a class that take part, as M3D does: their mean
            shrinks the gradient of each by as much.
        space: ``normalised`` moves the images as they are; ``pixel`` does exactly SGD on pixels in [0, 1],
            clamped to that range after each step, as IDC and M3D do.
        calibration: Weight, at least 0, of the synthetic images' cross-entropy under a trained network (DANCE,
            Zhang et al., IJCAI 2024), summed over the classes like the discrepancies. It needs an encoder of
            trained networks, :class:`condensekit.methods.trained_encoders.Trained`.
        name: What run folders and tables call it.
    """

    discrepancy: Discrepancy = mean
    lr: float = 1.0
    momentum: float = 0.5
    batch_real: int = 256
    per_image: bool = False
    space: str = "normalised"
    calibration: float = 0.0
    name: str = "dm"
    separable: ClassVar[bool] = True
    features_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        refuse(
            *descent_misfits(self.lr, self.momentum, self.space, self.batch_real),
            positive("calibration", self.calibration, zero=True),
            instance("per_image", self.per_image, bool, "True or False"),
            function("discrepancy", self.discrepancy, "MMD()"),
        )

    def misfits(self, data: ClassImages, recipe: Recipe, machine: Machine) -> Sequence[str | None]:
        """Pixel space for images that are no pixels; calibration with an encoder of untrained networks."""
        return (
            space_misfit(self.name, self.space, data),
            f"calibration={self.calibration} needs networks that classify, and {type(recipe.encoder).__name__} draws "
            "untrained ones: use encoder=Trained()"
            if self.calibration and not recipe.encoder.trained
            else None,
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
        if self.calibration:
            extra, steeper = _calibrate(images, ctx)
            total, slope = total + self.calibration * extra, slope + self.calibration * steeper
        finite = torch.isfinite(total) & torch.isfinite(slope).all()
        share = (ctx.prefix or images.shape[1]) if self.per_image else 1
        velocity = self.momentum * state["momentum"] + share * slope
        new = {"images": descend(images, velocity, self.lr, self.space, ctx), "momentum": velocity}
        return keep_if(finite, new, state), {"loss": total, "gradient_norm": slope.norm(), "finite": finite}


def _calibrate(images: Tensor, ctx: StepContext) -> tuple[Tensor, Tensor]:
    """Each class's mean cross-entropy under a trained network, summed over the classes, and its image gradient.

    The trained weights take the place of those in ``ctx.module``.
    """
    ctx.load_expert()
    losses, gradients = [], []
    for rows in ctx.groups(images.shape[1] * ctx.factor**2):
        wanted = torch.arange(rows.start, rows.stop, device=images.device)[:, None]

        def loss(features: Tensor, wanted: Tensor = wanted) -> Tensor:
            logits = ctx.module.classifier(features)  # (L, m, K)
            return F.cross_entropy(logits.mT, wanted.expand(logits.shape[:2]), reduction="none").mean(1)

        value, gradient = ctx.gradient(images[rows], ctx.data.classes[rows], loss)
        losses.append(value)
        gradients.append(gradient)
    return torch.cat(losses).sum(), torch.cat(gradients)
