"""The six augmentations, image by image and pixel by pixel, in float64: slow, to be read beside the paper's words.

Every function takes an image (C, H, W), three uniform numbers and the ranges, an ``Augmentation``.
"""

from __future__ import annotations

import math

import numpy as np


def color(image, u, ranges):
    image = image + (u[0] - 0.5) * ranges.brightness
    grey = image.mean(axis=0, keepdims=True)
    image = (image - grey) * (u[1] * ranges.saturation) + grey
    return (image - image.mean()) * (u[2] + ranges.contrast) + image.mean()


def crop(image, u, ranges):
    _, height, width = image.shape
    most_y, most_x = int(height * ranges.crop + 0.5), int(width * ranges.crop + 0.5)
    dy = math.floor(u[0] * (2 * most_y + 1)) - most_y
    dx = math.floor(u[1] * (2 * most_x + 1)) - most_x
    padded = np.pad(image, ((0, 0), (most_y, most_y), (most_x, most_x)))
    return padded[:, most_y + dy : most_y + dy + height, most_x + dx : most_x + dx + width]


def cutout(image, u, ranges):
    _, height, width = image.shape
    image = image.copy()
    side_y, side_x = int(height * ranges.cutout + 0.5), int(width * ranges.cutout + 0.5)
    top = math.floor(u[0] * (height + 1 - side_y % 2)) - side_y // 2
    left = math.floor(u[1] * (width + 1 - side_x % 2)) - side_x // 2
    for y in range(top, top + side_y):
        for x in range(left, left + side_x):
            if 0 <= y < height and 0 <= x < width:
                image[:, y, x] = 0
    return image


def flip(image, u, ranges):
    return image[:, :, ::-1] if u[0] < ranges.flip else image


def scale(image, u, ranges):
    low = 1 / ranges.scale
    step_x, step_y = (low + value * (ranges.scale - low) for value in u[:2])
    return _resample(image, lambda y, x: (step_y * y, step_x * x))


def rotate(image, u, ranges):
    angle = math.radians((2 * u[0] - 1) * ranges.rotate)
    cos, sin = math.cos(angle), math.sin(angle)
    return _resample(image, lambda y, x: (sin * x + cos * y, cos * x - sin * y))


def _resample(image, source):
    """Each pixel from ``source`` of its place, both counted in pixels from the middle; bilinear, 0 outside."""
    _, height, width = image.shape
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    result = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            sy, sx = source(y - middle_y, x - middle_x)
            sy, sx = sy + middle_y, sx + middle_x
            for ty in (math.floor(sy), math.floor(sy) + 1):
                for tx in (math.floor(sx), math.floor(sx) + 1):
                    if 0 <= ty < height and 0 <= tx < width:
                        result[:, y, x] += (1 - abs(sy - ty)) * (1 - abs(sx - tx)) * image[:, ty, tx]
    return result


OPS = {"color": color, "crop": crop, "cutout": cutout, "flip": flip, "scale": scale, "rotate": rotate}


def apply(images, ops, uniforms, ranges):
    """(L, n, C, H, W) images, an op for each row, uniforms (L, m, 3) with m = 1 (shared) or n."""
    result = np.empty_like(images)
    for row, op in enumerate(ops):
        for i, image in enumerate(images[row]):
            result[row, i] = OPS[op](image, uniforms[row][i if len(uniforms[row]) > 1 else 0], ranges)
    return result
