"""Provable subset selection: importance sampling for the start and for the real batches of any method.

python examples/provable_selection.py
"""

from __future__ import annotations

import argparse

import condensekit as ck


def main() -> None:
    """Choose, then condense with each part on and off."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    train, test = ck.load("digits")

    # As selections they are baselines: sensitivity for the k-means loss, leverage scores for ridge regression.
    for name in ("importance-kmeans", "importance-krr"):
        chosen = ck.select(train, name, ipc=2)
        print(f"{name}: {len(chosen)} images, labels {chosen.classes}")

    # They latch on to any method: `init` is where the images start, `sampling` how real batches are drawn.
    parts = {
        "none": "",
        "init": "init=importance-kmeans",
        "sampling": "sampling=importance",
        "both": "init=importance-kmeans sampling=importance",
    }
    made = {
        name: ck.condense(train, f"dm batch_real=32 {part}", ipc=1, steps=args.steps) for name, part in parts.items()
    }
    for name, result in made.items():
        print(f"{name}: {result.message}")
    print(ck.evaluate(made, test, train=train, networks=1))


if __name__ == "__main__":
    main()
