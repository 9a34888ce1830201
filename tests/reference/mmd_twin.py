"""Squared maximum mean discrepancy as one would write it on a blackboard: pair by pair, in Python floats."""

import math


def kernel_value(kernel, x, y, h):
    """One kernel of two feature vectors; ``kernel`` is gaussian, laplace, linear or polynomial."""
    dot = sum(a * b for a, b in zip(x, y, strict=True))
    distance = sum((a - b) ** 2 for a, b in zip(x, y, strict=True))
    if kernel == "gaussian":
        return sum(math.exp(-distance / (h * m)) for m in (0.25, 0.5, 1, 2, 4))
    if kernel == "laplace":
        return sum(math.exp(-rate * distance) for rate in (0.1, 1, 5))
    return dot if kernel == "linear" else (dot + 1) ** 2


def bandwidth(rows):
    """The mean squared distance over all ordered pairs of different rows."""
    total, pairs = 0.0, 0
    for i, x in enumerate(rows):
        for j, y in enumerate(rows):
            if i != j:
                total += sum((a - b) ** 2 for a, b in zip(x, y, strict=True))
                pairs += 1
    return total / pairs


def mmd(kernel, real, synthetic, weights=None):
    """The biased estimate for one class: lists of feature vectors, and a weight for each real one."""
    h = bandwidth([*synthetic, *real]) or 1.0
    weights = weights or [1.0] * len(real)
    points = [(-1 / len(synthetic), s) for s in synthetic]
    points += [(w / len(real), r) for w, r in zip(weights, real, strict=True)]
    return sum(a * b * kernel_value(kernel, x, y, h) for a, x in points for b, y in points)
