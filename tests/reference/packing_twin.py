"""Packing as one would draw it: rows and columns one after the other, each pixel a weighted mean, in float64."""

import torch


def shrinking(size, factor):
    """(size / factor, size): weights that fall to 0 at ``factor`` pixels from the centre of each large pixel."""
    rows = []
    for place in range(size // factor):
        centre = (place + 0.5) * factor
        row = [max(0.0, 1 - abs(pixel + 0.5 - centre) / factor) for pixel in range(size)]
        rows.append([weight / sum(row) for weight in row])
    return torch.tensor(rows, dtype=torch.float64)


def growing(size, factor):
    """(size * factor, size): weights of the two nearest centres; beyond the outermost ones, of these alone."""
    rows = []
    for place in range(size * factor):
        position = min(max((place + 0.5) / factor - 0.5, 0.0), size - 1)
        rows.append([max(0.0, 1 - abs(pixel - position)) for pixel in range(size)])
    return torch.tensor(rows, dtype=torch.float64)


def resized(image, weights, factor):
    """A (C, H, W) image under the weights of its rows and of its columns."""
    down, across = (weights(size, factor) for size in image.shape[1:])
    return torch.stack([down @ channel.double() @ across.T for channel in image])


def pack(images, factor):
    """Shrunk images, row by row into the grid of the next stored one."""
    _, height, width = images.shape[1:]
    high, wide = height // factor, width // factor
    stored = []
    for start in range(0, len(images), factor**2):
        whole = torch.zeros(*images.shape[1:], dtype=torch.float64)
        for place in range(factor**2):
            top, left = place // factor * high, place % factor * wide
            whole[:, top : top + high, left : left + wide] = resized(images[start + place], shrinking, factor)
        stored.append(whole)
    return torch.stack(stored)


def unpack(images, factor):
    """Every cell cut out and enlarged."""
    _, height, width = images.shape[1:]
    high, wide = height // factor, width // factor
    cells = []
    for image in images:
        for place in range(factor**2):
            top, left = place // factor * high, place % factor * wide
            cells.append(resized(image[:, top : top + high, left : left + wide], growing, factor))
    return torch.stack(cells)
