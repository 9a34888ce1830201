"""Zero-cost scores of untrained networks, from one batch of images.

The scores are written from their papers. A score is useful only in comparison with other networks under the same
conditions: give every candidate the same images, and initial weights from the same seed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError
from condensekit.nas.names import ZERO_COST, imported
from condensekit.networks.cost import PASSES
from condensekit.rng import Draw, isolated

ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.Sigmoid, nn.SiLU, nn.Tanh, nn.GELU, nn.ELU, nn.ReLU6, nn.Hardswish)
BATCH_IMAGES = 64  # number of images in the batch of a score
EIGENVALUE_FLOOR = 1e-5  # jacov: added to each eigenvalue, so that its logarithm is finite
BLENDED_SHARE = 1e-2  # zen: factor of the second image, which is added to the first image
ZEN_PAIRS = 4  # zen: number of pairs of batches over which the score is averaged
ZEN_IMAGES = 16  # zen: largest number of images in a batch, as in the authors' code
RUNNING_WEIGHT = 1 - 0.9**2  # zen: weight of the batch variance in batch norm's running variance after two batches


def synflow(module: nn.Module, images_NCHW: Tensor, key: int = 0) -> float:  # noqa: N803
    """Logarithm of the sum of |weight x gradient| for an image of ones, with the absolute values of all weights.

    Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic flow", NeurIPS 2020,
    summed over convolutions and linear layers as in Abdelfattah et al., "Zero-cost proxies for lightweight NAS",
    ICLR 2021. Batch norm is left out as in that paper; here other norms are left out, too, because they would cancel
    the measured effect. Double precision and the logarithm, because the sum of a deep network has hundreds of digits.
    """
    linear = _plain(module).double()
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.abs_()
    linear(torch.ones(1, *images_NCHW.shape[1:], dtype=torch.float64)).sum().backward()
    flow = [
        (part.weight.detach() * part.weight.grad).abs().sum()
        for part in linear.modules()
        if isinstance(part, (nn.Conv2d, nn.Linear)) and part.weight.grad is not None
    ]
    total = float(torch.stack(flow).sum()) if flow else 0.0
    return math.log(total) if total > 0 else -math.inf


def nwot(module: nn.Module, images_NCHW: Tensor, key: int = 0) -> float:  # noqa: N803
    """Logarithm of the determinant of the kernel of equal activation signs between the images of a batch.

    Mellor et al., "Neural architecture search without training", ICML 2021: the entry of two images is the number of
    units that are active for both images or for neither. Here a unit of any activation function is active if its input
    is positive.
    """
    n = len(images_NCHW)
    kernel = torch.zeros(n, n, dtype=torch.float64)

    def count(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        active = (inputs[0].detach().reshape(n, -1) > 0).double()
        kernel.add_(active @ active.T + (1 - active) @ (1 - active).T)

    activations = [part for part in module.modules() if isinstance(part, ACTIVATIONS)]
    if not activations:
        raise ConfigError(f"nwot needs activation modules such as {ACTIVATIONS[0].__name__}: the candidate has none")
    with _hooked(activations, count, before=True), torch.no_grad():
        module.train()(images_NCHW)
    return float(torch.linalg.slogdet(kernel).logabsdet)


def jacov(module: nn.Module, images_NCHW: Tensor, key: int = 0) -> float:  # noqa: N803
    """Score of low correlation between the gradients of the output with respect to different images.

    Minus the sum of log(v) + 1 / v over the eigenvalues v of the correlation matrix of the gradients: the first version
    of Mellor et al. (arXiv 2006.04647v1), known as jacob_cov.
    """
    images = images_NCHW.detach().clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(module.train()(images).sum(), images)
    rows = gradient.reshape(len(images), -1).double()
    centred = rows - rows.mean(1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True)
    if not bool((length > 0).all()):
        return -math.inf  # the output does not depend on an image
    values = torch.linalg.eigvalsh((centred / length) @ (centred / length).T).clamp(min=0) + EIGENVALUE_FLOOR
    return -float((values.log() + 1 / values).sum())


def zen(module: nn.Module, images_NCHW: Tensor, key: int = 0) -> float:  # noqa: N803
    """Logarithm of the change of the last map when another image is blended in, without the scaling of batch norm.

    Lin et al., "Zen-NAS: a zero-shot NAS for high-performance image recognition", ICCV 2021: weights and images are
    standard normal numbers drawn from ``key``; only the shape of ``images_NCHW`` is used. The scaling is removed as in
    the authors' code and published scores: by the running variance after two batches, not by the variance of the batch.
    The authors' networks have images at every batch norm; here the features (N, C) or (N, C, L) of a BatchNorm1d count
    in the same way, with one variance for each channel. Norms after the last map have no effect on it.
    """
    gaussian = copy.deepcopy(module).train()
    scale: list[Tensor] = []
    maps: list[Tensor] = []

    def note(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if maps:
            return  # a norm after the last map
        given = inputs[0].double()
        variance = given.var([axis for axis in range(given.ndim) if axis != 1]).mean()
        scale.append((1 - RUNNING_WEIGHT + RUNNING_WEIGHT * variance).sqrt().log())

    def keep(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        maps.append(inputs[0].double())

    found = []
    norms = [part for part in gaussian.modules() if isinstance(part, _BatchNorm)]
    with isolated(key), torch.no_grad():
        for _ in range(ZEN_PAIRS):
            for part in gaussian.modules():
                if isinstance(part, (nn.Conv2d, nn.Linear)):
                    part.weight.normal_()
                    if part.bias is not None:
                        part.bias.zero_()
            first, second = torch.randn(2, *images_NCHW[:ZEN_IMAGES].shape)
            with _hooked([_end(gaussian)], keep):
                with _hooked(norms, note):
                    gaussian(first)
                gaussian(first + BLENDED_SHARE * second)
            if len(maps) != 2:
                raise ConfigError("zen needs a network that uses its last pooling or linear layer exactly once")
            before, after = maps
            moved = (after - before).abs().sum(tuple(range(1, before.ndim))).mean()
            found.append(float(moved.log() + sum(scale)))
            maps.clear()
            scale.clear()
    return sum(found) / ZEN_PAIRS


def score(kind: str, module: nn.Module, images_NCHW: Tensor, key: int = 0) -> float | None:  # noqa: N803
    """Compute a zero-cost score, higher is better.

    Args:
        kind: Name of :data:`~condensekit.nas.names.ZERO_COST`.
        module: An untrained network on the CPU; its batch norm statistics may change.
        images_NCHW: Batch (N, C, H, W) of normalised float32 images, at least two.
        key: Seed of the random numbers of zen.

    Returns:
        The score; None: it is not finite.

    Raises:
        ConfigError: An unknown kind, or a network that the score cannot use.
    """
    found: float = imported("zero-cost score", kind, ZERO_COST)(module, images_NCHW, key)
    return found if math.isfinite(found) else None


def _plain(module: nn.Module) -> nn.Module:
    """A copy without norms, in evaluation mode."""
    linear = copy.deepcopy(module).eval()
    norms = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)
    for name, part in list(linear.named_modules()):
        if isinstance(part, norms):
            linear.set_submodule(name, nn.Identity())
    return linear.requires_grad_(True)


def _end(module: nn.Module) -> nn.Module:
    """The module whose input is the last map: the last adaptive average pooling, or else the last linear layer."""
    pools = [part for part in module.modules() if isinstance(part, nn.AdaptiveAvgPool2d)]
    linear = [part for part in module.modules() if isinstance(part, nn.Linear)]
    if not pools and not linear:
        raise ConfigError("zen needs a network that ends in a linear layer")
    return (pools or linear)[-1]


@contextmanager
def _hooked(parts: Sequence[nn.Module], call: Callable[..., None], before: bool = False) -> Iterator[None]:
    """Context that calls ``call(part, inputs, output)`` at each forward pass of ``parts``.

    With ``before``, the call comes before the forward pass and gets the input instead of the output.
    """
    handles = [
        part.register_forward_pre_hook(lambda p, i: call(p, i, i[0])) if before else part.register_forward_hook(call)
        for part in parts
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def batch(train: ClassImages, draw: Draw) -> Tensor:
    """(64, C, H, W) normalised training images for scores, with about the same number of each class."""
    each = math.ceil(BATCH_IMAGES / len(train.classes))
    drawn = train.sample(train.classes, each, draw, role="zero-cost")
    return drawn.transpose(0, 1).flatten(0, 1)[:BATCH_IMAGES]


def image_steps(kind: str, images: int) -> int:
    """Cost of a score on a batch of ``images``: the number of images of equal cost in training; 0 for counts."""
    zen = math.ceil(2 * ZEN_PAIRS * min(images, ZEN_IMAGES) / PASSES)
    return {"synflow": 1, "nwot": math.ceil(images / PASSES), "jacov": images, "zen": zen}.get(kind, 0)
