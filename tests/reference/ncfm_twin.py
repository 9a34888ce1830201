"""Distance of characteristic functions as one would write it on a blackboard: in Python's complex numbers."""

import cmath
import math


def characteristic(rows, frequency, weights=None):
    """The mean of exp(i t.f) over the rows f, scaled to length 1, with a weight for each."""
    weights = weights or [1.0] * len(rows)
    total = 0j
    for row, weight in zip(rows, weights, strict=True):
        length = math.sqrt(sum(x * x for x in row))
        total += weight * cmath.exp(1j * sum(t * x / length for t, x in zip(frequency, row, strict=True)))
    return total / len(rows)


def ncfm(real, synthetic, frequencies, weights=None, amplitude=0.5, phase=0.5, scale=300.0):
    """The distance for one class: lists of feature vectors, frequencies, and a weight for each real one."""
    total = 0.0
    for frequency in frequencies:
        p, q = characteristic(real, frequency, weights), characteristic(synthetic, frequency)
        amplitudes = (abs(p) - abs(q)) ** 2
        phases = max(2 * (abs(p) * abs(q) - (p * q.conjugate()).real), 1e-12)
        total += math.sqrt(amplitude * amplitudes + phase * phases)
    return scale * total / len(frequencies)


def as_l1(real, synthetic, frequencies, scale=300.0):
    """The same for equal weights of 1/2: an L1 distance of the complex numbers."""
    gaps = [abs(characteristic(real, t) - characteristic(synthetic, t)) for t in frequencies]
    return scale * sum(gap / math.sqrt(2) for gap in gaps) / len(gaps)
