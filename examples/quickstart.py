"""Condense digits to one image per class, and measure what the images are worth.

python examples/quickstart.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

from condensekit import Candidate, DistributionMatching, Random, condense, evaluate, selected_set
from condensekit.compute import Compute, make_plan
from condensekit.data import datasets
from condensekit.rng import Draw
from condensekit.training.augment import Augmentation


def main() -> None:
    """Condense, save, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("quickstart.safetensors"), help="where the set goes")
    parser.add_argument("--iterations", type=int, default=150)
    args = parser.parse_args()

    # scikit-learn's 8x8 digits: 1,797 real images, nothing to download.
    train, test = datasets.load("digits")

    # One synthetic image for each class. A mirrored digit is no digit, so the augmentation does not flip.
    augmentation = Augmentation().without("flip")
    result = condense(
        train, DistributionMatching(), ipc=1, iterations=args.iterations, seed=0, augmentation=augmentation
    )
    print(result.status.value, "-", result.message)
    result.set.save(args.out)
    print(f"{len(result.set)} images, {result.set.nbytes} bytes, in {args.out}")

    # Networks trained from scratch on the set, and on one random real image per class under the same seed.
    with Compute(make_plan(train.spec.shape[1:])) as compute:
        random = selected_set(train, Random(), 1, Draw(0), compute)
        evaluation = evaluate(
            [Candidate("dm", (result.set,), 1), Candidate("random", (random,), 1)], test, networks=2, compute=compute
        )
    print(evaluation.table())


if __name__ == "__main__":
    main()
