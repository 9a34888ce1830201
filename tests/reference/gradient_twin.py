"""Gradient matching as one would write it on a blackboard: class by class, whole batches, float64, one large graph."""

import copy

import torch
import torch.nn.functional as F


def layerwise(synthetic, real):
    """1 - cosine of every output row of every weight, row by row."""
    total = 0.0
    for mine, theirs in zip(synthetic, real, strict=True):
        if mine.ndim == 1:
            continue
        for a, b in zip(mine, theirs, strict=True):
            a, b = a.reshape(-1), b.reshape(-1)
            total = total + 1 - (a @ b) / (torch.sqrt(a @ a) * torch.sqrt(b @ b) + 1e-6)
    return total


def mse(synthetic, real):
    return sum(((a - b) ** 2).sum() for a, b in zip(synthetic, real, strict=True))


def cosine(synthetic, real):
    inner = sum((a * b).sum() for a, b in zip(synthetic, real, strict=True))
    squares = [sum((g**2).sum() for g in gradients) for gradients in (synthetic, real)]
    return 1 - inner / (torch.sqrt(squares[0]) * torch.sqrt(squares[1]) + 1e-6)


def decode(images, factor):
    """(n, C, H, W) packed images to (n f f, C, H, W): each cell of the grid by itself."""
    if factor == 1:
        return images
    height, width = images.shape[-2] // factor, images.shape[-1] // factor
    cells = [
        image[:, y * height : (y + 1) * height, x * width : (x + 1) * width]
        for image in images
        for y in range(factor)
        for x in range(factor)
    ]
    return F.interpolate(torch.stack(cells), size=images.shape[-2:], mode="bilinear", align_corners=False)


def network_to_match(ctx):
    """The step's network in float64, its batch norms fixed after one look at 16 real images of each class."""
    net = copy.deepcopy(ctx.module).double().requires_grad_(True)
    norms = [part for part in net.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    if norms:
        seen = [ctx.data.sample([label], 16, ctx.draw, role="norm")[0] for label in ctx.data.classes]
        with torch.no_grad():
            net(torch.cat(seen).double())
        for part in norms:
            part.eval()
    return net


def loss_and_gradient(ctx, images, batch_real, distance=layerwise):
    """Summed distance and image gradient of one matching step on (K, ipc, C, H, W) images.

    Draws the same real images and augmentation as the context.
    """
    net = network_to_match(ctx)
    parameters = list(net.parameters())
    total, leaf = torch.zeros((), dtype=torch.float64), images.double().requires_grad_()
    for row, label in enumerate(ctx.data.classes):
        indices, weights = ctx.sampling.draw(ctx.data, [label], batch_real, ctx.draw)
        real, synthetic = ctx.data.gather(indices).double(), decode(leaf[row][: ctx.prefix], ctx.factor)[None]
        if ctx.augmentation is not None:
            params = ctx.augmentation.draw(ctx.draw, [label])
            real, synthetic = ctx.augmentation.apply(real, params), ctx.augmentation.apply(synthetic, params)
        weights = torch.ones(batch_real) if weights is None else weights[0]
        wrong = F.cross_entropy(net(real[0]), torch.full((batch_real,), row), reduction="none")
        wanted = torch.autograd.grad((wrong * weights).mean(), parameters)
        wrong = F.cross_entropy(net(synthetic[0]), torch.full((synthetic.shape[1],), row))
        found = torch.autograd.grad(wrong, parameters, create_graph=True)
        total = total + distance(found, wanted)
    return total.detach(), torch.autograd.grad(total, leaf)[0]


def trained(ctx, images, epochs, lr, batch):
    """The step's network, float64, after the training that follows the comparison; (K, ipc, C, H, W) images."""
    net = network_to_match(ctx).train()
    rows_of = [decode(row[: ctx.prefix].double(), ctx.factor) for row in images]
    targets = torch.tensor([k for k, rows in enumerate(rows_of) for _ in rows])
    decoded = torch.cat(rows_of)
    for epoch in range(epochs):
        order = ctx.draw.permutation(f"net/{epoch}", len(decoded)).tolist()
        for number in range(0, (len(order) + batch - 1) // batch):
            rows = order[number * batch : (number + 1) * batch]
            seen = decoded[rows]
            if ctx.augmentation is not None:
                seen = ctx.augmentation.apply_batch(seen, ctx.draw, f"net/{epoch}/{number}")
            gradients = torch.autograd.grad(F.cross_entropy(net(seen), targets[rows]), list(net.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                    parameter -= lr * gradient
    return net
