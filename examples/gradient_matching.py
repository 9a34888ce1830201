"""Gradient matching: DC from noise without augmentation, DSA from real images with it.

python examples/gradient_matching.py
"""

from __future__ import annotations

import argparse

from condensekit import Augmentation, GradientMatching, Noise, condense
from condensekit.data import datasets


def main() -> None:
    """Condense with both, print how the distance between gradients falls."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=10, help="matching steps")
    args = parser.parse_args()
    train, _ = datasets.load("digits")

    # `outer` matching steps with one network, `inner` epochs of training it on the set after each of them. Left
    # out, they follow the papers: (1, 1) at one image per class, (10, 50) at ten.
    dc = GradientMatching(batch_real=32, outer=5, inner=2, name="dc")
    dsa = GradientMatching(batch_real=32, outer=5, inner=2, name="dsa")
    runs = {
        "dc": (dc, Noise(), None),
        "dsa": (dsa, None, Augmentation().without("flip")),  # None: starts from random real images
    }
    for name, (method, init, augmentation) in runs.items():
        result = condense(train, method, ipc=2, iterations=args.iterations, init=init, augmentation=augmentation)
        first, last = result.history[0]["loss"], result.history[-1]["loss"]
        print(f"{name}: {result.message}; distance {first:.1f} -> {last:.1f}")


if __name__ == "__main__":
    main()
