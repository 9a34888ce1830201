"""Beyond untrained networks: trained encoders with calibration, k-means batches, nested sets and soft labels.

python examples/trained_encoders.py
"""

from __future__ import annotations

import argparse

import torch

from condensekit import Candidate, DistributionMatching, Trained, condense, datasets, evaluate
from condensekit.augment import Augmentation
from condensekit.compute import Compute, make_plan
from condensekit.rng import Draw
from condensekit.sampling import Clustered
from condensekit.trained import soft_labels


def main() -> None:
    """Condense, cut the set to half its size, and label it softly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=40)
    args = parser.parse_args()
    train, test = datasets.load("digits")

    # Two networks trained for 30 steps each; every step embeds with a random point between their initial and
    # trained weights. `calibration` adds the images' cross-entropy under a trained one.
    encoder = Trained(count=2, steps=30)
    result = condense(
        train,
        DistributionMatching(batch_real=32, calibration=1.0),
        ipc=2,
        iterations=args.iterations,
        encoder=encoder,
        sampling=Clustered(),
        augmentation=Augmentation().without("flip"),
        nested=True,  # any prefix of the set is a set of its own
    )
    print(result.message)
    whole = result.set
    half = whole.take(torch.arange(0, len(whole), 2))  # the first of each class's two images

    # Soft labels of the same networks; they count in bytes.
    with Compute(make_plan(train.spec.shape[1:])) as compute:
        prepared = encoder.prepare(train, Draw(0), compute)
        soft = soft_labels(whole, encoder, prepared, compute)
    print(f"hard labels {whole.nbytes} bytes, soft labels {soft.nbytes} bytes")
    sets = {"ipc 2": whole, "its prefix": half, "soft labels": soft}
    print(evaluate([Candidate(name, (s,)) for name, s in sets.items()], test, networks=1, baseline=None).table())


if __name__ == "__main__":
    main()
