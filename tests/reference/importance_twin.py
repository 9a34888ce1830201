"""Scores and weighted losses of subset selection as one would explain them: plain loops over float64 rows."""

import math

import numpy as np


def kmeans_sensitivity(x, centres, formula="default"):
    """Share of each row in the k-means loss around rough centres; see Bachem et al., arXiv 1703.06476."""
    n, k = len(x), len(centres)
    nearest = [int(np.argmin([np.sum((row - c) ** 2) for c in centres])) for row in x]
    gap = [np.sum((row - centres[b]) ** 2) for row, b in zip(x, nearest, strict=True)]
    c, a = sum(gap) / n, 16 * (math.log(k) + 2)
    scores = []
    for i in range(n):
        members = [j for j in range(n) if nearest[j] == nearest[i]]
        if formula == "default":
            score = 0.5 / (k * len(members)) + (0.5 * gap[i] / sum(gap) if c else 0)
        else:
            score = 4 * n / len(members)
            if c:
                score += a * gap[i] / c + 2 * a * sum(gap[j] for j in members) / (len(members) * c)
        scores.append(score)
    return np.array(scores) / sum(scores)


def leverage(a, ridge):
    """a_i (A'A + ridge I)^-1 a_i of every row, by solving for each."""
    inverse = np.linalg.inv(a.T @ a + ridge * np.eye(a.shape[1]))
    return np.array([row @ inverse @ row for row in a])


def inclusion(scores, n):
    """min(1, c s) that sum to n, with c found by bisection."""
    low, high = 0.0, 1.0
    while sum(min(1, high * s) for s in scores) < n - 1e-12:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(min(1, middle * s) for s in scores) < n else (low, middle)
    return np.array([min(1, high * s) for s in scores])


def kmeans_cost(x, centres, weights):
    """Weighted sum of squared distances to the nearest centre."""
    return sum(w * min(np.sum((row - c) ** 2) for c in centres) for row, w in zip(x, weights, strict=True))


def relative(losses, epsilon):
    """Mixture of relative losses and equal probabilities."""
    total = sum(losses)
    if not np.isfinite(total) or total < np.finfo(float).tiny:
        return [1 / len(losses)] * len(losses)
    return [(1 - epsilon) * loss / total + epsilon / len(losses) for loss in losses]


def inverse_cdf(probabilities, point):
    """The first row whose cumulative probability exceeds the point."""
    so_far = 0.0
    for row, p in enumerate(probabilities):
        so_far += p
        if so_far > point:
            return row
    return max(row for row, p in enumerate(probabilities) if p > 0)


def representatives(x, centres):
    """Round by round: of each cluster, largest first, the nearest member not yet taken."""
    gaps = np.array([[np.sum((row - c) ** 2) for c in centres] for row in x])
    clusters = [[i for i in range(len(x)) if gaps[i].argmin() == b] for b in range(len(centres))]
    order = sorted(range(len(centres)), key=lambda b: -len(clusters[b]))
    for b in order:
        clusters[b].sort(key=lambda i: gaps[i, b])
    rounds = max(len(members) for members in clusters)
    return [clusters[b][r] for r in range(rounds) for b in order if r < len(clusters[b])]
