"""Pixels of the user's files: their scale, their transparency, the index of a bad one."""

import re

import numpy as np
import pytest
from PIL import Image, ImageDraw

from condensekit.data import datasets
from condensekit.errors import DataError

WHOLE = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3)).astype(np.float32)
HALVES = (WHOLE[:, ::2] + WHOLE[:, 1::2])[:, :, ::2] / 2


@pytest.mark.parametrize(("images", "size"), [(WHOLE, 8), (HALVES, None)], ids=["resized here", "resized before"])
def test_floats_up_to_255_are_refused_or_become_pixels(tmp_path, images, size):
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(20) % 2)
    try:
        train, _ = datasets.load(tmp_path / "data.npz", image_size=size)
    except DataError:
        return
    assert not train.images.is_floating_point() or train.images.max() < 20


def drawing(kind, size):
    """A black shape on a transparent ground."""
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    shape = draw.ellipse if kind == "round" else draw.rectangle
    shape((2, 2, 13 - size, 13), fill=(0, 0, 0, 255))
    return image


def as_palette(image):
    """Two blacks, of which the first is transparent."""
    found = Image.frombytes("P", image.size, bytes(int(alpha > 0) for alpha in image.getchannel("A").tobytes()))
    found.putpalette([0] * 6)
    found.info["transparency"] = 0
    return found


CONVERSIONS = {"RGBA": lambda image: image, "LA": lambda image: image.convert("LA"), "palette": as_palette}


@pytest.mark.parametrize("mode", CONVERSIONS)
def test_a_drawing_on_a_transparent_ground_is_seen_or_refused(tmp_path, mode):
    for kind in ("round", "square"):
        (tmp_path / kind).mkdir()
        for i in range(4):
            CONVERSIONS[mode](drawing(kind, i)).save(tmp_path / kind / f"{i}.png")
    try:
        train, _ = datasets.load(tmp_path)
    except DataError:
        return
    assert len(train.images.unique()) >= 2


@pytest.mark.parametrize("bad", [7, 12, 25, 39])
def test_the_index_of_a_bad_image_is_that_of_the_file(tmp_path, bad):
    images = np.random.default_rng(0).random((40, 1, 8, 8)).astype(np.float32)
    images[bad, 0, 3, 3] = np.nan
    np.savez(tmp_path / "data.npz", images=images, labels=np.repeat(np.arange(4), 10))
    with pytest.raises(DataError) as refusal:
        datasets.load(tmp_path / "data.npz")
    assert re.search(rf"\b{bad}\b", str(refusal.value).replace(str(tmp_path), ""))
