"""How far apart two sets of embeddings are: (real, synthetic, weights) -> one number for each class.

A :data:`Discrepancy` takes real_LND (L classes, N real images, D features), synthetic_LMD and weights
(L, N) or None, all float32, and returns (L,) float32. Classes never mix.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Discrepancy = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]


def mean(real_LND: Tensor, synthetic_LMD: Tensor, weights: Tensor | None = None) -> Tensor:  # noqa: N803
    """Squared distance of the mean embeddings (DM: Zhao and Bilen, WACV 2023).

    Args:
        real_LND: (L, N, D) embeddings of real images.
        synthetic_LMD: (L, M, D) embeddings of synthetic images.
        weights: (L, N) importance weights of the real images, with mean 1; None for equal weights.

    Returns:
        (L,) squared Euclidean distances, at least 0.
    """
    target = real_LND.mean(1) if weights is None else (real_LND * weights[..., None]).mean(1)
    return (target - synthetic_LMD.mean(1)).square().sum(-1)
