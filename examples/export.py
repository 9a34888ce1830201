"""What can be done with a set: save, load, shrink, cut, merge, train on it, write pictures.

python examples/export.py
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from torch.utils.data import DataLoader

import condensekit as ck
from condensekit.sets.export import picture, to_folder


def main() -> None:
    """Write, read, convert, cut, merge and show one set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=None, help="folder for the files (default: a temporary one)")
    out = parser.parse_args().out or Path(tempfile.mkdtemp())

    # Selected images come in the same type as condensed ones: all of this holds for both.
    train, _ = ck.load("digits")
    chosen = ck.select(train, "herding", ipc=3)

    # One file, checksummed, without pickle.
    chosen.save(out / "digits.safetensors", overwrite=True)
    again = ck.CondensedSet.load(out / "digits.safetensors")
    assert torch.equal(again.images, chosen.images)

    # A quarter of the size: 8 bits, with a range for each image and channel.
    small = again.stored_as("uint8")
    error = (small.decode()[0] - again.decode()[0]).abs().max()
    print(f"{again.nbytes} bytes as float32, {small.nbytes} as uint8; largest error {error:.4f} standard deviations")

    # Classes can be taken out and put together again.
    even, odd = small.select([0, 2, 4, 6, 8]), small.select([1, 3, 5, 7, 9])
    assert len(even.merge(odd)) == len(small)

    # An ordinary torch data set of normalised images and labels.
    images, labels = next(iter(DataLoader(small.as_dataset(), batch_size=8)))
    print(f"a batch: {tuple(images.shape)} {images.dtype}, labels {labels.tolist()}")

    # PNG files, one folder per class, and one picture of everything, with class names.
    to_folder(small, out / "images")
    picture(small, out / "digits.png")
    print(f"{len(list((out / 'images').glob('*/*.png')))} pictures and digits.png in {out}")


if __name__ == "__main__":
    main()
