"""Provable subset selection: importance sampling for the start and for the real batches of any method.

python examples/provable_selection.py
"""

from __future__ import annotations

import argparse

from condensekit import Candidate, DistributionMatching, Importance, condense, evaluate
from condensekit.compute import Compute, make_plan
from condensekit.data import datasets
from condensekit.rng import Draw
from condensekit.selection.base import selected_set
from condensekit.selection.importance import ImportanceKMeans, ImportanceKRR
from condensekit.training.augment import Augmentation


def main() -> None:
    """Choose, then condense with each part on and off."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=20)
    args = parser.parse_args()
    train, test = datasets.load("digits")
    augmentation = Augmentation().without("flip")

    # As selections they are baselines: sensitivity for the k-means loss, leverage scores for ridge regression.
    with Compute(make_plan(train.spec.shape[1:])) as compute:
        for selection in (ImportanceKMeans(), ImportanceKRR()):
            chosen = selected_set(train, selection, 2, Draw(0), compute)
            print(f"{selection.name}: {len(chosen)} images, labels {chosen.classes}")

    # They latch on to any method: `init` is where the images start, `sampling` how real batches are drawn.
    parts = {
        "none": {},
        "init": {"init": ImportanceKMeans()},
        "sampling": {"sampling": Importance()},
        "both": {"init": ImportanceKMeans(), "sampling": Importance()},
    }
    candidates = []
    for name, part in parts.items():
        result = condense(
            train,
            DistributionMatching(batch_real=32),
            ipc=1,
            iterations=args.iterations,
            augmentation=augmentation,
            **part,
        )
        print(f"{name}: {result.message}")
        candidates.append(Candidate(name, (result.set,), 1))
    print(evaluate(candidates, test, networks=1, baseline="none").table())


if __name__ == "__main__":
    main()
