"""Packing: several smaller images in one stored image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pack(images: Tensor, factor: int) -> Tensor:
    """Pack (M * f * f, C, H, W) images into (M, C, H, W), shrunk with antialiasing, in an f x f grid."""
    if factor == 1:
        return images
    channels, height, width = images.shape[1:]
    size = (height // factor, width // factor)
    cells = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
    cells = cells.reshape(-1, factor, factor, channels, *size).permute(0, 3, 1, 4, 2, 5)
    return cells.reshape(-1, channels, height, width)


def unpack(images: Tensor, factor: int) -> Tensor:
    """Unpack (M, C, H, W) images into (M * f * f, C, H, W): each cell of the f x f grid is up-sampled bilinearly."""
    if factor == 1:
        return images
    count, channels, height, width = images.shape
    cells = images.reshape(count, channels, factor, height // factor, factor, width // factor)
    cells = cells.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, height // factor, width // factor)
    return F.interpolate(cells, size=(height, width), mode="bilinear", align_corners=False)
