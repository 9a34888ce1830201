"""How far apart two sets of embeddings are: (real, synthetic, weights) -> one number for each class.

A :data:`Discrepancy` takes real_LND (L classes, N real images, D features), synthetic_LMD and weights
(L, N) with mean 1, or None, all float32, and returns (L,) float32. Classes never mix. Each is a plain
function or a frozen object with ``__call__``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from condensekit.errors import refuse

Discrepancy = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]
Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]  # x (L, A, D), y (L, B, D), bandwidth (L,) -> (L, A, B)


def mean(real_LND: Tensor, synthetic_LMD: Tensor, weights: Tensor | None = None) -> Tensor:  # noqa: N803
    """Squared distance of the mean embeddings (DM: Zhao and Bilen, WACV 2023).

    Args:
        real_LND: (L, N, D) embeddings of real images.
        synthetic_LMD: (L, M, D) embeddings of synthetic images.
        weights: (L, N) importance weights of the real images, with mean 1; None for equal weights.

    Returns:
        (L,) squared Euclidean distances, at least 0.
    """
    return (_weighted(real_LND, weights).mean(1) - synthetic_LMD.mean(1)).square().sum(-1)


@dataclass(frozen=True)
class Moments:
    """The first ``order`` moments of each feature, matched explicitly: the finite-order form of :class:`MMD`.

    The k-th term is the squared distance of the mean k-th powers of the centred features, divided by k
    factorial squared, as in the expansion of an exponential kernel. Order 1 is :func:`mean`. Features are
    centred at the real mean and scaled by the real standard deviation over all features, so that no order
    dwarfs the others.

    Args:
        order: The highest moment, 1 to 8.
    """

    order: int = 2

    def __post_init__(self) -> None:
        refuse(None if 1 <= self.order <= 8 else f"order must lie in 1 to 8, got {self.order}")

    def __call__(self, real_LND: Tensor, synthetic_LMD: Tensor, weights: Tensor | None = None) -> Tensor:  # noqa: N803
        """(L,) summed squared gaps of the moments, in units of squared features."""
        total = mean(real_LND, synthetic_LMD, weights)
        if self.order == 1:
            return total
        centre = _weighted(real_LND, weights).mean(1, keepdim=True)
        scale = (_weighted((real_LND - centre).square(), weights)).mean((1, 2), keepdim=True).sqrt().clamp(min=1e-12)
        real, synthetic = (real_LND - centre) / scale, (synthetic_LMD - centre) / scale
        factorial = 1.0
        for k in range(2, self.order + 1):
            factorial *= k
            gap = _weighted(real**k, weights).mean(1) - (synthetic**k).mean(1)
            total = total + scale[:, 0, 0].square() * gap.square().sum(-1) / factorial**2
        return total


@dataclass(frozen=True)
class Gaussian:
    """A mixture of Gaussian kernels, sum over m of exp(-d^2 / (h m)), with bandwidth h from the data.

    Args:
        scales: The factors m; M3D uses 1/4, 1/2, 1, 2 and 4.
    """

    scales: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)

    def __post_init__(self) -> None:
        refuse(None if self.scales and min(self.scales) > 0 else f"scales must be positive, got {self.scales}")

    def __call__(self, x: Tensor, y: Tensor, bandwidth: Tensor) -> Tensor:
        """(L, A, B) kernel values in (0, number of scales]."""
        ratio = squared_distances(x, y) / bandwidth[:, None, None]
        return sum((torch.exp(-ratio / m) for m in self.scales[1:]), torch.exp(-ratio / self.scales[0]))


@dataclass(frozen=True)
class Laplace:
    """What M3D's code computes under the name ``laplace``: sum over g of exp(-g d^2), a Gaussian of fixed width.

    The exponent holds the *squared* distance, so this is no Laplacian kernel; it takes no bandwidth.
    """

    rates: tuple[float, ...] = (0.1, 1.0, 5.0)

    def __call__(self, x: Tensor, y: Tensor, bandwidth: Tensor) -> Tensor:
        """(L, A, B) kernel values."""
        distance = squared_distances(x, y)
        return sum((torch.exp(-g * distance) for g in self.rates[1:]), torch.exp(-self.rates[0] * distance))


def linear(x: Tensor, y: Tensor, bandwidth: Tensor) -> Tensor:
    """The inner product x . y: first moments only, so that :class:`MMD` equals :func:`mean`."""
    return x @ y.mT


def polynomial(x: Tensor, y: Tensor, bandwidth: Tensor) -> Tensor:
    """(x . y + 1)^2: first and second moments."""
    return (x @ y.mT + 1).square()


@dataclass(frozen=True)
class MMD:
    """Squared maximum mean discrepancy in the RKHS of ``kernel`` (M3D: Zhang et al., AAAI 2024).

    The biased estimate, diagonals included: mean K_SS - 2 mean K_ST + mean K_TT. The bandwidth is the mean
    squared distance between different rows of the real and synthetic embeddings together, without a
    gradient, drawn anew in each call; where all rows are equal it is 1, and the discrepancy 0.

    Args:
        kernel: :class:`Gaussian`, :class:`Laplace`, :func:`linear` or :func:`polynomial`.
        value: False leaves out the real-real block, which carries no gradient; the loss then misses a
            constant and may be negative.
    """

    kernel: Kernel = Gaussian()
    value: bool = True

    def __call__(self, real_LND: Tensor, synthetic_LMD: Tensor, weights: Tensor | None = None) -> Tensor:  # noqa: N803
        """(L,) squared discrepancies; ``weights`` multiply in pairs."""
        centre = real_LND.mean(1, keepdim=True)
        translation_invariant = isinstance(self.kernel, Gaussian | Laplace)
        real, synthetic = real_LND, synthetic_LMD
        if translation_invariant:  # float32 distances far from the origin lose their digits
            real, synthetic = real - centre, synthetic - centre
        h = bandwidth(real, synthetic)
        cross = self.kernel(synthetic, real, h)
        if weights is not None:
            cross = cross * weights[:, None]
        total = self.kernel(synthetic, synthetic, h).mean((1, 2)) - 2 * cross.mean((1, 2))
        if not self.value:
            return total
        with torch.no_grad():
            own = self.kernel(real, real, h)
            if weights is not None:
                own = own * weights[:, None] * weights[..., None]
            return total + own.mean((1, 2))


def bandwidth(real_LND: Tensor, synthetic_LMD: Tensor) -> Tensor:  # noqa: N803
    """(L,) mean squared distance over all pairs of different rows; 1 where that is 0. O(rows), no gradient."""
    rows = torch.cat([real_LND, synthetic_LMD], 1).detach()
    rows = rows - rows.mean(1, keepdim=True)
    count = rows.shape[1]
    spread = 2 * rows.square().sum((1, 2)) / max(1, count - 1)
    return torch.where(spread > 0, spread, torch.ones_like(spread))


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(L, A, B) squared Euclidean distances of (L, A, D) and (L, B, D), at least 0; rows should be near the origin."""
    squares = x.square().sum(-1)[:, :, None] + y.square().sum(-1)[:, None, :]
    return (squares - 2 * x @ y.mT).clamp(min=0)


def _weighted(values: Tensor, weights: Tensor | None) -> Tensor:
    return values if weights is None else values * weights[..., None]
