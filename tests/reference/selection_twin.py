"""Selections as one would explain them: plain loops over float64 rows, nothing incremental."""

import numpy as np


def herding(features, n):
    """iCaRL's wording: the next exemplar brings the mean of the exemplars closest to the mean of the class."""
    mean = features.mean(0)
    taken: list[int] = []
    for _ in range(n):
        best, best_gap = -1, np.inf
        for i in range(len(features)):
            if i in taken:
                continue
            gap = float(np.linalg.norm(mean - features[[*taken, i]].mean(0)))
            if gap < best_gap:
                best, best_gap = i, gap
        taken.append(best)
    return taken


def farthest_first(features, n):
    """Start at the row nearest to the mean; then add the row whose nearest taken row is farthest away."""
    taken = [int(np.argmin([np.linalg.norm(x - features.mean(0)) for x in features]))]
    while len(taken) < n:
        gaps = {
            i: min(np.linalg.norm(features[i] - features[j]) for j in taken)
            for i in range(len(features))
            if i not in taken
        }
        taken.append(max(gaps, key=gaps.__getitem__))
    return taken


def nearest(features, centres):
    """For each centre the nearest row that no earlier centre took."""
    taken = []
    for centre in centres:
        gaps = {i: np.linalg.norm(x - centre) for i, x in enumerate(features) if i not in taken}
        taken.append(min(gaps, key=gaps.__getitem__))
    return taken
