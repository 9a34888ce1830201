"""Clustering: k-means centres, herding and farthest-first orders of feature vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LLOYD_STEPS = 300  # largest number of steps of k-means; a class usually needs a few dozen


def herd(features_ND: Tensor, n: int, start: Tensor | None = None) -> Tensor:  # noqa: N803
    """(n,) different rows of centred features (N, D), chosen greedily so that their sum stays closest to 0.

    The sum begins with ``start`` (D,), the sum of rows chosen before; None: no rows were chosen before.
    """
    lengths = features_ND.square().sum(1)
    total = features_ND.new_zeros(features_ND.shape[1]) if start is None else start.clone()
    taken: list[int] = []
    for _ in range(n):
        cost = lengths + 2 * (features_ND @ total)  # ||total + x||^2, without a constant
        cost[taken] = torch.inf
        taken.append(int(cost.argmin()))
        total += features_ND[taken[-1]]
    return torch.tensor(taken)


def farthest_first(features_ND: Tensor, n: int) -> Tensor:  # noqa: N803
    """(n,) rows of centred features (N, D): the row nearest to 0, then always the row farthest from all chosen rows."""
    taken = [int(features_ND.square().sum(1).argmin())]
    gap = features_ND.new_full((len(features_ND),), torch.inf)
    for _ in range(n - 1):
        gap = torch.minimum(gap, (features_ND - features_ND[taken[-1]]).square().sum(1))
        gap[taken] = -1.0
        taken.append(int(gap.argmax()))
    return torch.tensor(taken)


def plus_plus_centres(features_ND: Tensor, k: int, key: int) -> Tensor:  # noqa: N803
    """(k, D) rows of float64 features (N, D): the first centres of k-means++; ``key`` is its seed."""
    from sklearn.cluster import kmeans_plusplus

    return torch.from_numpy(kmeans_plusplus(features_ND.numpy(), k, random_state=key & 0xFFFFFFFF)[0])


def cluster_centres(features_ND: Tensor, k: int, key: int, steps: int = LLOYD_STEPS) -> Tensor:  # noqa: N803
    """(k, D) k-means centres of float64 features (N, D): k-means++ with seed ``key``, then at most ``steps`` of Lloyd.

    This is not scikit-learn's Lloyd, whose sums, and thus the bits, vary from run to run with three or more threads.
    """
    centres = plus_plus_centres(features_ND, k, key)
    for _ in range(steps):
        member = F.one_hot(squared_distances(features_ND, centres).argmin(1), k).double()
        size = member.sum(0)[:, None]
        moved = torch.where(size > 0, member.T @ features_ND / size.clamp(min=1), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def nearest_distinct(features_ND: Tensor, centres_KD: Tensor) -> Tensor:  # noqa: N803
    """(K,) rows of features (N, D): for each centre (K, D) in turn, the nearest row not chosen before; K <= N."""
    distances = squared_distances(features_ND, centres_KD)
    taken: list[int] = []
    for column in distances.unbind(1):
        column[taken] = torch.inf
        taken.append(int(column.argmin()))
    return torch.tensor(taken)


def squared_distances(x_ND: Tensor, y_MD: Tensor) -> Tensor:  # noqa: N803
    """(N, M) squared distances between the rows of centred float64 (N, D) and (M, D)."""
    return x_ND.square().sum(1)[:, None] + y_MD.square().sum(1)[None] - 2 * (x_ND @ y_MD.T)
