"""What a condensed set has to beat: real images in the same bytes, as they are, packed four in one, or coded as JPEG.

python examples/controls.py
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from condensekit import Candidate, Formation, Random, evaluate, selected_set
from condensekit.compute import Compute, make_plan
from condensekit.data import datasets
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw
from condensekit.selection.jpeg_random import JpegRandom
from condensekit.training.evaluation import SHORT


def main() -> None:
    """Choose, count bytes, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ipc", type=int, default=5, help="images per class whose bytes all three may take")
    args = parser.parse_args()
    train, test = datasets.load("digits", image_size=16)

    # The first two take as many bytes; JPEG as many as fit into those of the pixels, one image at least.
    controls = {
        "random": (Random(), Formation(dtype="uint8")),
        "packed-random": (Random(), Formation(factor=2, dtype="uint8")),
        "jpeg-random": (JpegRandom(quality=50), Formation()),
    }
    with Compute(make_plan(train.spec.shape[1:])) as compute:
        sets = {
            name: selected_set(train, selection, args.ipc, Draw(0), compute, formation)
            for name, (selection, formation) in controls.items()
        }
        for name, made in sets.items():
            print(f"{name}: {len(made.decode()[0])} images to train on, {made.nbytes:,} bytes")
        evaluation = evaluate(
            [Candidate(name, (made,)) for name, made in sets.items()],
            test,
            networks=1,
            architectures=(ConvNet(width=32),),
            protocol=replace(SHORT, steps=60, augmentation=SHORT.augmentation.without("flip")),
            compute=compute,
        )
    print(evaluation.table())


if __name__ == "__main__":
    main()
