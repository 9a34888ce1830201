"""Your own images, three ways: arrays, a folder of class folders, and a torchvision-style data set object.

python examples/own_dataset.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import condensekit as ck

SHAPES = {3: "horizontal", 8: "vertical", 11: "square"}  # labels may have gaps
Pictures = dict[int, list[np.ndarray]]


def draw(kind: str, rng: np.random.Generator) -> np.ndarray:
    """A noisy (16, 16, 3) uint8 picture of a bar or a square."""
    image = rng.integers(0, 90, (16, 16, 3))
    at, colour = rng.integers(2, 8), rng.integers(120, 160, 3)
    rows = slice(at, at + 3) if kind == "horizontal" else slice(at, at + 8)
    columns = slice(at, at + 3) if kind == "vertical" else slice(at, at + 8)
    image[rows, columns] += colour
    return image.astype(np.uint8)


def as_arrays(pictures: Pictures) -> tuple[np.ndarray, list[int]]:
    """Pixels (N, C, H, W) and labels (N,) that you already hold."""
    labels = [label for label, rows in pictures.items() for _ in rows]
    images = np.stack([image for rows in pictures.values() for image in rows])  # (N, H, W, 3)
    return images.transpose(0, 3, 1, 2).copy(), labels


def in_folder(pictures: Pictures, folder: Path) -> Path:
    """One sub-folder per class, as torchvision's ImageFolder reads it."""
    for label, rows in pictures.items():
        (folder / SHAPES[label]).mkdir(parents=True)
        for number, image in enumerate(rows):
            Image.fromarray(image).save(folder / SHAPES[label] / f"{number}.png")
    return folder


class MyDataset(torch.utils.data.Dataset[tuple[Image.Image, int]]):
    """Anything with a length and (image, label) items: torchvision's and Avalanche's data sets are such."""

    def __init__(self, pictures: Pictures) -> None:
        self.items = [(Image.fromarray(image), label) for label, rows in pictures.items() for image in rows]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.items[index]


def main() -> None:
    """Make the same pictures three ways and condense each."""
    rng = np.random.default_rng(0)
    pictures = {label: [draw(kind, rng) for _ in range(40)] for label, kind in SHAPES.items()}
    with tempfile.TemporaryDirectory() as temporary:
        # What `load` reads comes in two parts: of a source without test images a fixed fifth of each class.
        train, test = ck.load(in_folder(pictures, Path(temporary) / "shapes"))
    print(f"folder: {len(train)} images to condense, {len(test)} held out")

    sources: dict[str, Any] = {"arrays": as_arrays(pictures), "folder": train, "data set object": MyDataset(pictures)}
    for name, data in sources.items():
        # Starting from the images nearest to the k-means centroids instead of random ones.
        made = ck.condense(data, "dm batch_real=32 init=kmeans", ipc=2, steps=20).set
        print(f"{name}: {len(made)} images of {', '.join(made.spec.class_names.values())}")

    # Images whose mirror image shows another class (digits, letters, signs) are not augmented by mirroring:
    print("flippable:", train.with_spec(flippable=False).spec.flippable)


if __name__ == "__main__":
    main()
