"""All moments at once: M3D (ECHO in its first version), finite orders, and the mean alone.

python examples/m3d.py
"""

from __future__ import annotations

import argparse

from condensekit import MMD, DistributionMatching, Formation, Fresh, condense, datasets
from condensekit.augment import Augmentation
from condensekit.discrepancy import Moments, linear


def main() -> None:
    """Condense with three discrepancies that differ in nothing else."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=20)
    args = parser.parse_args()
    train, _ = datasets.load("digits")
    augmentation = Augmentation(ops=("color", "crop", "cutout"))

    # The maximum mean discrepancy compares whole distributions: with a Gaussian kernel all moments of the
    # embeddings, with a linear one the means alone, which is DM. Moments(3) stops at the third.
    for name, discrepancy in {"linear": MMD(linear), "moments": Moments(3), "gaussian": MMD()}.items():
        # Their gradients differ in size: before comparing accuracies, tune the step size of each on held-out data.
        method = DistributionMatching(discrepancy, lr=1.0, batch_real=64)
        result = condense(
            train,
            method,
            ipc=2,
            iterations=args.iterations,
            encoder=Fresh(keep=5),  # M3D keeps each random network for five steps
            augmentation=augmentation,
            formation=Formation(factor=2),  # four smaller images in each stored one
        )
        first, last = result.history[0]["loss"], result.history[-1]["loss"]
        print(f"{name}: {result.message}; discrepancy {first:.3g} -> {last:.3g}")
    print("On the command line: condensekit condense --data digits --method m3d --ipc 2 --iterations 100 --out run")


if __name__ == "__main__":
    main()
