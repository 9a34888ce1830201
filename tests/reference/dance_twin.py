"""DANCE's iteration class by class, as its code does it: a matching step, then a calibration step, with torch's SGD."""

import copy

import torch
import torch.nn.functional as F

from tests.reference.dm_twin import dm_loss_and_gradient


class DanceTwin:
    """Images of each class with an optimiser of their own, in float64.

    Args:
        images: (K, ipc, C, H, W), normalised.
        lr: Step size.
        momentum: Momentum.
        weight: Weight of the cross-entropy.
    """

    def __init__(self, images, lr, momentum, weight):
        self.classes = [torch.nn.Parameter(image.double()) for image in images]
        self.optimisers = [torch.optim.SGD([one], lr=lr, momentum=momentum) for one in self.classes]
        self.weight = weight

    @property
    def images(self):
        return torch.stack([one.detach() for one in self.classes])

    def step(self, ctx, batch_real):
        """One iteration under the context's step; the weights of its module are those of the trained network after."""
        _, slopes = dm_loss_and_gradient(ctx, self.images.float(), batch_real)
        for one, optimiser, slope in zip(self.classes, self.optimisers, slopes, strict=True):
            one.grad = slope
            optimiser.step()
        ctx.load_expert()
        expert = copy.deepcopy(ctx.module).double()
        for row, (one, optimiser) in enumerate(zip(self.classes, self.optimisers, strict=True)):
            optimiser.zero_grad()
            shown = ctx.augmentation.apply(one[None], ctx.augmentation.draw(ctx.draw, [ctx.data.classes[row]]))[0]
            (self.weight * F.cross_entropy(expert(shown), torch.full((len(one),), row))).backward()
            optimiser.step()
