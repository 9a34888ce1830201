"""Random images for measurements that do not depend on the content of images."""

from __future__ import annotations

import torch

from condensekit.data.images import ClassImages


def random_images(count: int, classes: int, size: int = 32) -> ClassImages:
    """Make ``count`` uint8 images (3, size, size) of ``classes`` classes of equal size."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    return ClassImages.from_arrays(images, torch.arange(count) % classes, mean=(0.5,) * 3, std=(0.25,) * 3)
