"""Beyond untrained networks: trained encoders with calibration, k-means batches, nested sets and soft labels.

python examples/trained_encoders.py
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch

import condensekit as ck


def main() -> None:
    """Condense, label the set softly, and cut it to half its size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    train, test = ck.load("digits")

    # Two networks trained for 30 steps each; every step embeds with a random point between their initial and
    # trained weights. `calibration` adds the images' cross-entropy under a trained one.
    recipe = ck.recipes.dm(
        batch_real=32,
        calibration=1.0,
        encoder=ck.Trained(count=2, steps=30),
        sampling="kmeans",
        nested=True,  # any prefix of the set is a set of its own
        soft_labels=True,  # of the trained networks; they count in bytes
    )
    made = ck.condense(train, recipe, ipc=2, steps=args.steps)
    print(made.message)
    soft = made.set
    hard = replace(soft, soft_labels=None)
    half = hard.take(torch.arange(0, len(hard), 2))  # the first of each class's two images
    print(f"hard labels {hard.nbytes} bytes, soft labels {soft.nbytes} bytes")
    sets = {"ipc 2": hard, "its prefix": half, "soft labels": soft}
    print(ck.evaluate(sets, test, against=None, networks=1))


if __name__ == "__main__":
    main()
