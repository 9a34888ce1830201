"""Distribution matching as one would write it on a blackboard: class by class, whole batches, float64."""

import copy

import torch


def dm_loss_and_gradient(ctx, images, batch_real):
    """Summed loss and image gradient of one DM step on (K, ipc, C, H, W) images.

    Draws the same real images and augmentation as the context; network and images in float64.
    """
    net = copy.deepcopy(ctx.module).double()
    loss, gradients = 0.0, []
    for row, label in enumerate(ctx.data.classes):
        indices = ctx.data.draw_indices([label], batch_real, ctx.draw)[0]
        real = ctx.data.gather(indices).double()
        synthetic = images[row].double().requires_grad_()
        real_seen, synthetic_seen = real[None], synthetic[None]
        if ctx.augmentation is not None:
            params = ctx.augmentation.draw(ctx.draw, [label])
            real_seen = ctx.augmentation.apply(real_seen, params)
            synthetic_seen = ctx.augmentation.apply(synthetic_seen, params)
        gap = net.features(real_seen[0]).mean(0) - net.features(synthetic_seen[0]).mean(0)
        value = (gap**2).sum()
        gradients.append(torch.autograd.grad(value, synthetic)[0])
        loss = loss + value.detach()
    return loss, torch.stack(gradients)
