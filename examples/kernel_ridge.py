"""Condensation by kernel ridge regression, with labels that are learned as well.

python examples/kernel_ridge.py
"""

from __future__ import annotations

import argparse

from condensekit import Candidate, KernelRidge, condense, evaluate
from condensekit.data import datasets


def main() -> None:
    """Condense with fixed and with learned soft labels, and count what the labels take."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=60)
    args = parser.parse_args()
    train, test = datasets.load("digits")
    candidates = []
    for labels in ("fixed", "soft"):
        # A regression on the features of random networks, fitted to the synthetic images in closed form, is to
        # predict the labels of real ones. All classes share one Gram matrix.
        result = condense(train, KernelRidge(labels=labels), ipc=1, iterations=args.iterations, augmentation=None)
        print(f"{labels}: {result.message}; {result.set.nbytes} bytes")
        candidates.append(Candidate(labels, (result.set,), 1))
    print(evaluate(candidates, test, networks=1, baseline="fixed").table())


if __name__ == "__main__":
    main()
