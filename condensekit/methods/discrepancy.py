"""Discrepancies between two sets of embeddings: (real, synthetic, weights) -> one number for each class.

A :data:`Discrepancy` takes real_LND (L classes, N real images, D features), synthetic_LMD and weights
(L, N) with mean 1, or None, all of one float type, and returns (L,). Classes never mix. Each is a plain
function or a frozen object with ``__call__``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from condensekit.errors import refuse

Discrepancy = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]
FLAT = 1e-4  # the least variance of a feature or of its powers: what varies less counts less
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

    Order 1 is :func:`mean`. Above it, features are centred at the real mean and divided by their spread, and the
    squared gap of their mean k-th powers is divided by the variance of these powers, times that of the feature.
    Then the sampling noise of every order weighs the same; else the third and fourth powers of rare large values
    would be all there is to match. Spreads are those of real and synthetic rows together and carry no gradient;
    with equal features everything stays finite.

    Args:
        order: The highest moment, 1 to 8.
    """

    order: int = 2

    def __post_init__(self) -> None:
        refuse(None if self.order in range(1, 9) else f"order must be an integer in 1 to 8, got {self.order}")

    def __call__(self, real_LND: Tensor, synthetic_LMD: Tensor, weights: Tensor | None = None) -> Tensor:  # noqa: N803
        """(L,) summed squared gaps of the moments, in units of squared features."""
        total = mean(real_LND, synthetic_LMD, weights)
        if self.order == 1:
            return total
        centre = _weighted(real_LND, weights).mean(1, keepdim=True)
        variance, noise = spreads(torch.cat([real_LND, synthetic_LMD], 1) - centre, self.order)
        real, synthetic = ((rows - centre) / variance.sqrt() for rows in (real_LND, synthetic_LMD))
        for k in range(2, self.order + 1):
            gap = _weighted(real**k, weights).mean(1, keepdim=True) - (synthetic**k).mean(1, keepdim=True)
            total = total + (variance * gap.square() / noise[k]).sum((1, 2))
        return total


@dataclass(frozen=True)
class Gaussian:
    """A mixture of Gaussian kernels, sum over m of exp(-d^2 / (h m)), with bandwidth h from the data.

    Args:
        scales: The factors m; M3D uses 1/4, 1/2, 1, 2 and 4.
    """

    scales: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)

    def __post_init__(self) -> None:
        positive = self.scales and min(self.scales) > 0
        refuse(None if positive else f"scales must be positive, at least one, got {self.scales}")

    def __call__(self, x: Tensor, y: Tensor, bandwidth: Tensor) -> Tensor:
        """(L, A, B) kernel values, at most the number of scales."""
        return _mixture(squared_distances(x, y) / bandwidth[:, None, None], [1 / m for m in self.scales])


@dataclass(frozen=True)
class Laplace:
    """What M3D's code computes under the name ``laplace``: sum over g of exp(-g d^2), Gaussians of fixed width.

    The exponent holds the *squared* distance, so this is no Laplacian kernel; it takes no bandwidth. Between
    embeddings of thousands of features it vanishes, and its gradient with it.

    Args:
        rates: The factors g.
    """

    rates: tuple[float, ...] = (0.1, 1.0, 5.0)

    def __post_init__(self) -> None:
        positive = self.rates and min(self.rates) > 0
        refuse(None if positive else f"rates must be positive, at least one, got {self.rates}")

    def __call__(self, x: Tensor, y: Tensor, bandwidth: Tensor) -> Tensor:
        """(L, A, B) kernel values, at most the number of rates."""
        return _mixture(squared_distances(x, y), self.rates)


def linear(x: Tensor, y: Tensor, bandwidth: Tensor) -> Tensor:
    """The inner product x . y: first moments only, so that :class:`MMD` equals :func:`mean`."""
    return x @ y.mT


def polynomial(x: Tensor, y: Tensor, bandwidth: Tensor) -> Tensor:
    """(x . y + 1)^2: first and second moments. The only kernel here that depends on where the origin is."""
    return (x @ y.mT + 1).square()


@dataclass(frozen=True)
class MMD:
    """Squared maximum mean discrepancy in the RKHS of ``kernel``.

    M3D (Zhang et al., "M3D: Dataset Condensation by Minimizing Maximum Mean Discrepancy", AAAI 2024;
    arXiv 2312.15927, whose first version is titled ECHO). The biased estimate, diagonals included:
    mean K_SS - 2 mean K_ST + mean K_TT. See :func:`bandwidth` for the bandwidth; where all rows are equal
    the discrepancy and its gradient are 0.

    Args:
        kernel: :class:`Gaussian`, :class:`Laplace`, :func:`linear`, :func:`polynomial` or one of your own.
        value: False leaves out the real-real block, which carries no gradient; the loss then misses a
            constant and may be negative.
    """

    kernel: Kernel = Gaussian()
    value: bool = True

    def __call__(self, real_LND: Tensor, synthetic_LMD: Tensor, weights: Tensor | None = None) -> Tensor:  # noqa: N803
        """(L,) squared discrepancies, at least 0 up to rounding; ``weights`` multiply in pairs."""
        h = bandwidth(real_LND, synthetic_LMD)
        real, synthetic = real_LND, synthetic_LMD
        if isinstance(self.kernel, Gaussian | Laplace) or self.kernel is linear:
            # Moving the origin changes none of these, and float32 loses its digits far from it.
            centre = _weighted(real_LND, weights).mean(1, keepdim=True)
            real, synthetic = real - centre, synthetic - centre
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


@torch.no_grad()
def bandwidth(real_LND: Tensor, synthetic_LMD: Tensor) -> Tensor:  # noqa: N803
    """(L,) mean squared distance over all pairs of different rows of both together, without a gradient.

    1 where the rows are equal up to rounding: any bandwidth serves there. Takes time in proportion to the
    rows, not to their pairs. M3D's code has the same value from the whole matrix of distances.
    """
    rows = torch.cat([real_LND, synthetic_LMD], 1)
    centred = rows - rows.mean(1, keepdim=True)
    spread = 2 * centred.square().sum((1, 2)) / (rows.shape[1] - 1)
    rounding = 8 * torch.finfo(rows.dtype).eps
    noise = rounding**2 * rows.square().sum((1, 2)) / rows.shape[1]
    return torch.where(spread > noise, spread, 1.0)


@torch.no_grad()
def spreads(rows_LND: Tensor, order: int) -> tuple[Tensor, dict[int, Tensor]]:  # noqa: N803
    """Variance (L, 1, D) of each feature, and of its k-th power in units of its spread, k from 2; without a gradient.

    At least :data:`FLAT`, which what varies less is measured by.
    """

    def variance(values: Tensor) -> Tensor:
        return values.var(1, correction=0, keepdim=True).clamp(min=FLAT)

    own = variance(rows_LND)
    scaled = rows_LND / own.sqrt()
    return own, {k: variance(scaled**k) for k in range(2, order + 1)}


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(L, A, B) squared Euclidean distances of (L, A, D) and (L, B, D), at least 0; rows should be near the origin."""
    squares = x.square().sum(-1)[:, :, None] + y.square().sum(-1)[:, None, :]
    return (squares - 2 * x @ y.mT).clamp(min=0)


def _mixture(distances: Tensor, rates: Sequence[float]) -> Tensor:
    """The sum over rates g of exp(-g d)."""
    return torch.stack([torch.exp(-rate * distances) for rate in rates]).sum(0)


def _weighted(values: Tensor, weights: Tensor | None) -> Tensor:
    """(L, N, D) values times (L, N) weights."""
    return values if weights is None else values * weights[..., None]
