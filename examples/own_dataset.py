"""Your own images, three ways: arrays, a folder of class folders, and a torchvision-style data set object.

python examples/own_dataset.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from condensekit import ClassImages, DistributionMatching, KMeans, condense
from condensekit.data import datasets

SHAPES = {3: "horizontal", 8: "vertical", 11: "square"}  # labels may have gaps


def draw(kind: str, rng: np.random.Generator) -> np.ndarray:
    """A noisy (16, 16, 3) uint8 picture of a bar or a square."""
    image = rng.integers(0, 90, (16, 16, 3))
    at, colour = rng.integers(2, 8), rng.integers(120, 160, 3)
    rows = slice(at, at + 3) if kind == "horizontal" else slice(at, at + 8)
    columns = slice(at, at + 3) if kind == "vertical" else slice(at, at + 8)
    image[rows, columns] += colour
    return image.astype(np.uint8)


def from_arrays(pictures: dict[int, list[np.ndarray]]) -> ClassImages:
    """Pixels and labels you already hold. Mean and standard deviation are computed."""
    labels = [label for label, rows in pictures.items() for _ in rows]
    images = np.stack([image for rows in pictures.values() for image in rows])  # (N, H, W, 3)
    return ClassImages.from_arrays(images.transpose(0, 3, 1, 2).copy(), labels, class_names=SHAPES)


def from_folder(pictures: dict[int, list[np.ndarray]], folder: Path) -> ClassImages:
    """One sub-folder per class, as torchvision's ImageFolder reads it; a fifth of each class is held out."""
    for label, rows in pictures.items():
        (folder / SHAPES[label]).mkdir(parents=True)
        for number, image in enumerate(rows):
            Image.fromarray(image).save(folder / SHAPES[label] / f"{number}.png")
    train, held_out = datasets.load(str(folder))
    print(f"folder: {len(train)} images to condense, {len(held_out)} held out")
    return train


class MyDataset(torch.utils.data.Dataset[tuple[Image.Image, int]]):
    """Anything with a length and (image, label) items: torchvision's and Avalanche's data sets are such."""

    def __init__(self, pictures: dict[int, list[np.ndarray]]) -> None:
        self.items = [(Image.fromarray(image), label) for label, rows in pictures.items() for image in rows]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.items[index]


def main() -> None:
    """Make the same pictures three ways and condense each."""
    rng = np.random.default_rng(0)
    pictures = {label: [draw(kind, rng) for _ in range(40)] for label, kind in SHAPES.items()}
    with tempfile.TemporaryDirectory() as folder:
        sources = {
            "arrays": from_arrays(pictures),
            "folder": from_folder(pictures, Path(folder) / "shapes"),
            "data set object": datasets.from_dataset(MyDataset(pictures)),
        }
    for name, data in sources.items():
        # Starting from the images nearest to the k-means centroids instead of random ones.
        result = condense(data, DistributionMatching(batch_real=32), ipc=2, iterations=20, init=KMeans())
        labels = {k: data.spec.class_names[k] for k in result.set.classes}
        print(f"{name}: {data} -> {len(result.set)} images of {labels}")


if __name__ == "__main__":
    main()
