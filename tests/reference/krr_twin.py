"""Kernel ridge regression condensation as one would write it on a blackboard: whole batches, float64, one graph."""

import copy

import torch


def networks_of(ctx, count):
    """Float64 copies of the step's networks; the context's module is left with the first."""
    made = []
    for i in range(count):
        if i:
            ctx.load(i)
        made.append(copy.deepcopy(ctx.module).double())
    if count > 1:
        ctx.load(0)
    return made


def krr_loss_and_gradients(ctx, images, labels, networks, batch_real, ridge):
    """Loss and gradients of one step with respect to images (K, ipc, C, H, W) and labels (K * ipc, K)."""
    count = len(images)
    synthetic, y = images.double().requires_grad_(), labels.double().requires_grad_()
    real = []
    for label in ctx.data.classes:
        indices, _ = ctx.sampling.draw(ctx.data, [label], batch_real, ctx.draw)
        real.append(ctx.data.gather(indices[0]).double())
    shown: list[torch.Tensor] = []
    real_shown: list[torch.Tensor] = []
    for k, label in enumerate(ctx.data.classes):
        params = ctx.augmentation.draw(ctx.draw, [label]) if ctx.augmentation else None
        for batch, out in ((synthetic[k], shown), (real[k], real_shown)):
            out.append(ctx.augmentation.apply(batch[None], params)[0] if params else batch)
    x = torch.cat([net.features(torch.cat(shown)) for net in networks], 1)
    t = torch.cat([net.features(torch.cat(real_shown)) for net in networks], 1)
    wanted = torch.eye(count, dtype=torch.float64).repeat_interleave(batch_real, 0) - 1 / count
    gram = x @ x.T
    regularised = gram + ridge * gram.trace() / len(gram) * torch.eye(len(gram), dtype=torch.float64)
    predicted = (t @ x.T) @ torch.linalg.inv(regularised) @ y
    loss = 0.5 * ((predicted - wanted) ** 2).sum() / len(wanted)
    return loss.detach(), *torch.autograd.grad(loss, [synthetic, y])
