"""Discrepancies: distances between real and synthetic embeddings, one number for each class.

A :data:`Discrepancy` is a function, or a frozen object with ``__call__``. Its arguments are real_LND (L
classes, N real images, D features), synthetic_LMD and weights (L, N) with mean 1, or None, all of one
float type; it returns (L,). A class does not depend on other classes.

A :class:`Drawn` discrepancy has random numbers, which are the same for all classes of a step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from condensekit.errors import positive, refuse, require, whole
from condensekit.rng import Draw

Discrepancy = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]
FLAT = 1e-4  # smallest divisor: features, or powers of features, with a smaller variance count less
PHASES = 1 << 26  # values of the phases that :class:`CharacteristicFunction` computes at once
MOST = 1 << 16  # frequencies, which are in memory in each step
SMALL = 1e-12  # the least phase part, at which the root still has a gradient
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
    """The first ``order`` moments of each feature: the finite-order form of :class:`MMD`.

    Order 1 is :func:`mean`. For higher orders, features are centred at the real mean and divided by their standard
    deviation. The squared difference of the mean k-th powers is divided by the variance of these powers, and
    multiplied by the variance of the feature. Thus the sampling noise has the same weight in every order; without
    this, the third and fourth powers of rare large values would dominate. The variances are over real and synthetic
    rows together, without a gradient; equal features give finite values.

    Args:
        order: The highest moment, 1 to 8.
    """

    order: int = 2

    def __post_init__(self) -> None:
        require(self.order in range(1, 9), f"order must be an integer in 1 to 8, got {self.order}")

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
        positive = bool(self.scales) and min(self.scales) > 0
        require(positive, f"scales must be positive, at least one, got {self.scales}")

    def __call__(self, x: Tensor, y: Tensor, bandwidth: Tensor) -> Tensor:
        """(L, A, B) kernel values, at most the number of scales."""
        return _mixture(squared_distances(x, y) / bandwidth[:, None, None], [1 / m for m in self.scales])


@dataclass(frozen=True)
class Laplace:
    """The kernel that M3D's code calls ``laplace``: sum over g of exp(-g d^2), Gaussians of fixed width.

    The exponent contains the *squared* distance, so this is not a Laplacian kernel; it ignores the bandwidth. For
    embeddings of thousands of features, the kernel and its gradient vanish.

    Args:
        rates: The factors g.
    """

    rates: tuple[float, ...] = (0.1, 1.0, 5.0)

    def __post_init__(self) -> None:
        positive = bool(self.rates) and min(self.rates) > 0
        require(positive, f"rates must be positive, at least one, got {self.rates}")

    def __call__(self, x: Tensor, y: Tensor, bandwidth: Tensor) -> Tensor:
        """(L, A, B) kernel values, at most the number of rates."""
        return _mixture(squared_distances(x, y), self.rates)


def linear(x: Tensor, y: Tensor, bandwidth: Tensor) -> Tensor:
    """The inner product x . y: first moments only, so that :class:`MMD` equals :func:`mean`."""
    return x @ y.mT


def polynomial(x: Tensor, y: Tensor, bandwidth: Tensor) -> Tensor:
    """(x . y + 1)^2: first and second moments. Of the kernels here, only this depends on the origin."""
    return (x @ y.mT + 1).square()


@dataclass(frozen=True)
class MMD:
    """Squared maximum mean discrepancy in the RKHS of ``kernel``.

    M3D (Zhang et al., "M3D: Dataset Condensation by Minimizing Maximum Mean Discrepancy", AAAI 2024;
    arXiv 2312.15927, whose first version has the title ECHO). This is the biased estimate, which includes the
    diagonals: mean K_SS - 2 mean K_ST + mean K_TT. See :func:`bandwidth` for the bandwidth. If all rows are
    equal, the discrepancy and its gradient are 0.

    >>> import torch
    >>> from condensekit import MMD
    >>> near, far = torch.randn(1, 8, 4), torch.randn(1, 8, 4) + 3  # 1 class, 8 images, 4 features
    >>> bool(MMD()(near, near) < MMD()(near, far))
    True

    Args:
        kernel: :class:`Gaussian`, :class:`Laplace`, :func:`linear`, :func:`polynomial` or your own kernel.
        value: False: leave out mean K_TT of the real rows, which has no gradient. The loss is then smaller by
            a constant, and may be negative.
    """

    kernel: Kernel = Gaussian()
    value: bool = True

    def __call__(self, real_LND: Tensor, synthetic_LMD: Tensor, weights: Tensor | None = None) -> Tensor:  # noqa: N803
        """(L,) squared discrepancies, at least 0 up to rounding; a pair of rows has the product of its weights."""
        h = bandwidth(real_LND, synthetic_LMD)
        real, synthetic = real_LND, synthetic_LMD
        if isinstance(self.kernel, Gaussian | Laplace) or self.kernel is linear:
            # These kernels do not depend on the origin, and float32 is most exact near the origin.
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


class Drawn(ABC):
    """A discrepancy with random numbers; called by itself, it has those of seed 0."""

    @abstractmethod
    def at(self, draw: Draw) -> Discrepancy:
        """The discrepancy with the random numbers of one step; all classes and ranks get the same."""

    def __call__(self, real_LND: Tensor, synthetic_LMD: Tensor, weights: Tensor | None = None) -> Tensor:  # noqa: N803
        """See :data:`Discrepancy`."""
        return self.at(Draw(0))(real_LND, synthetic_LMD, weights)


def with_draw(discrepancy: Discrepancy, draw: Draw) -> Discrepancy:
    """The discrepancy with the random numbers of one step, if it has some; otherwise the same."""
    return discrepancy.at(draw) if isinstance(discrepancy, Drawn) else discrepancy


@dataclass(frozen=True)
class CharacteristicFunction(Drawn):
    """Distance of characteristic functions at random frequencies.

    NCFM (Wang et al., "Dataset Distillation with Neural Characteristic Function: A Minmax Perspective", CVPR 2025;
    arXiv 2502.20653), as its code computes it: the features f are scaled to length 1, P(t) is the (weighted) mean of
    exp(i t.f) over the rows, and frequencies t ~ N(0, I) are drawn anew in each step. The distance is ``scale`` times
    the mean over t of::

        sqrt(amplitude * (|Pr| - |Ps|)^2 + phase * 2 (|Pr| |Ps| - Re(Pr conj Ps)))

    where the second part is at least 1e-12. For equal weights of 1/2 this is ``scale`` times the mean of
    ``|Pr - Ps| / sqrt(2)``: an L1 distance of characteristic functions, and no root of a squared discrepancy.

    Departures from the authors' code: it lets a small network learn the frequencies, an option that is off in all of
    its configurations, and which is left out here; ``|Pr| |Ps| - Re(Pr conj Ps)`` is computed from ``|Pr - Ps|^2``,
    which is equal and less rounded.

    Args:
        frequencies: Number of frequencies, at most 65,536; the paper has 1,024. In a step, each takes 4 bytes for each
            feature.
        amplitude: Weight of the amplitudes, at least 0.
        phase: Weight of the phases, above 0.
        scale: Factor of the distance.
    """

    frequencies: int = 4096
    amplitude: float = 0.5
    phase: float = 0.5
    scale: float = 300.0

    def __post_init__(self) -> None:
        refuse(
            whole("frequencies", self.frequencies, 1)
            or (f"frequencies must be at most {MOST:,}, got {self.frequencies}" if self.frequencies > MOST else None),
            positive("amplitude", self.amplitude, zero=True),
            positive("phase", self.phase),
            positive("scale", self.scale),
        )

    def at(self, draw: Draw) -> Discrepancy:
        """See :class:`Drawn`; the frequencies are made once, with the first classes."""
        made: list[Tensor] = []

        def apart(real_LND: Tensor, synthetic_LMD: Tensor, weights: Tensor | None = None) -> Tensor:  # noqa: N803
            if not made:
                made.append(self._frequencies(draw, real_LND))
            return self.scale * self._gaps(real_LND, synthetic_LMD, weights, made[0]).mean(1)

        return apart

    def _frequencies(self, draw: Draw, like: Tensor) -> Tensor:
        """(D, T) frequencies for features ``like`` (..., D)."""
        generator, size = draw.generator("discrepancy", like.device), (like.shape[-1], int(self.frequencies))
        return torch.randn(size, generator=generator, device=like.device).to(like.dtype)

    def _gaps(self, real: Tensor, synthetic: Tensor, weights: Tensor | None, frequencies: Tensor) -> Tensor:
        """(L, T) distances at each frequency."""
        with torch.no_grad():
            theirs = _characteristic(real, frequencies, weights)
        ours = _characteristic(synthetic, frequencies, None)
        amplitudes = _length(theirs) - _length(ours)
        phases = ((theirs - ours).square().sum(0) - amplitudes.square()).clamp(min=SMALL)
        return (self.amplitude * amplitudes.square() + self.phase * phases).sqrt()


@torch.no_grad()
def bandwidth(real_LND: Tensor, synthetic_LMD: Tensor) -> Tensor:  # noqa: N803
    """(L,) mean squared distance over all pairs of different rows, real and synthetic together, without a gradient.

    The result is 1 if the rows are equal up to rounding; then any bandwidth works. The time is in proportion
    to the rows, not to their pairs. M3D's code computes the same value from the matrix of distances.
    """
    rows = torch.cat([real_LND, synthetic_LMD], 1)
    centred = rows - rows.mean(1, keepdim=True)
    spread = 2 * centred.square().sum((1, 2)) / (rows.shape[1] - 1)
    rounding = 8 * torch.finfo(rows.dtype).eps
    noise = rounding**2 * rows.square().sum((1, 2)) / rows.shape[1]
    return torch.where(spread > noise, spread, 1.0)


@torch.no_grad()
def spreads(rows_LND: Tensor, order: int) -> tuple[Tensor, dict[int, Tensor]]:  # noqa: N803
    """Variance (L, 1, D) of each feature, and of its k-th powers after scaling to variance 1, without a gradient.

    k runs from 2 to ``order``. Smaller variances are raised to :data:`FLAT`.
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


def _characteristic(rows_LND: Tensor, frequencies_DT: Tensor, weights: Tensor | None) -> Tensor:  # noqa: N803
    """(2, L, T) real and imaginary part of the characteristic function of rows that are scaled to length 1.

    A product for each class, so that no class depends on the number of classes.
    """
    several = max(1, PHASES // (rows_LND.shape[1] * frequencies_DT.shape[1]))
    parts = []
    for start in range(0, len(rows_LND), several):
        rows = F.normalize(rows_LND[start : start + several], dim=-1)
        phases = torch.bmm(rows, frequencies_DT.expand(len(rows), -1, -1))
        own = None if weights is None else weights[start : start + several]
        parts.append(torch.stack([_weighted(wave(phases), own).mean(1) for wave in (torch.cos, torch.sin)]))
    return torch.cat(parts, 1)


def _length(parts: Tensor) -> Tensor:
    """(L, T) amplitudes of (2, L, T) complex numbers, with a gradient at 0, too."""
    return parts.square().sum(0).clamp(min=SMALL**2).sqrt()
