"""Packing: several shrunk images in one stored image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pack(images: Tensor, factor: int) -> Tensor:
    """(M * f * f, C, H, W) images to (M, C, H, W): shrunk with antialiasing and laid out in an f x f grid."""
    if factor == 1:
        return images
    channels, height, width = images.shape[1:]
    size = (height // factor, width // factor)
    cells = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
    cells = cells.reshape(-1, factor, factor, channels, *size).permute(0, 3, 1, 4, 2, 5)
    return cells.reshape(-1, channels, height, width)


def unpack(images: Tensor, factor: int) -> Tensor:
    """(M, C, H, W) packed images to (M * f * f, C, H, W): cut into an f x f grid, each cell up-sampled bilinearly."""
    if factor == 1:
        return images
    count, channels, height, width = images.shape
    cells = images.reshape(count, channels, factor, height // factor, factor, width // factor)
    cells = cells.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, height // factor, width // factor)
    return F.interpolate(cells, size=(height, width), mode="bilinear", align_corners=False)
