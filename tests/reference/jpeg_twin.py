"""Images of one class coded one by one until the bytes are spent."""

import io

import numpy as np
import torch
from PIL import Image


def coded(image, quality=75):
    """The file of one (C, H, W) uint8 image, and what it decodes to."""
    file = io.BytesIO()
    pixels = image.permute(1, 2, 0).numpy()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "JPEG", quality=quality)
    decoded = np.asarray(Image.open(io.BytesIO(file.getvalue())))
    return file.getvalue(), torch.from_numpy(np.atleast_3d(decoded).copy()).permute(2, 0, 1)


def taken(images, ipc, quality):
    """How many images, in their order, fit into the bytes of ``ipc`` plain ones with labels; the bytes of each's file.

    What stands before the picture in a file is the same in all and counts with the first, which is always taken.
    Each image, plain or coded, has a label of 8 bytes.
    """
    room = ipc * (images[0].numel() + 8)
    sizes: list[int] = []
    for image in images:
        file, _ = coded(image, quality)
        picture = len(file) - file.index(b"\xff\xda")
        size = picture if sizes else len(file)
        if sizes and sum(sizes) + size + 8 * (len(sizes) + 1) > room:
            break
        sizes.append(size)
    return sizes
