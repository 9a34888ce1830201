"""Pictures: images coded by Pillow, each as a JPEG picture or all of a class tiled into one mosaic."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image, features
from torch import Tensor

from condensekit.errors import ConfigError, DataError
from condensekit.sets.codes import Code, Codec, Shape

MARKER = 0xFF  # first byte of each marker of a JPEG file
FILE, SCAN = b"\xff\xd8", b"\xff\xda"  # markers of the beginning of a JPEG file, and of the picture after the tables
MODES = {1: "L", 3: "RGB"}  # mode of Pillow by number of channels
PLACE = 2  # bytes of the place of an image in its mosaic


class Pictures(Codec):
    """Codec of 8-bit images by a format of Pillow."""

    def misfit(self, shape: Shape) -> str | None:
        """See :class:`Codec`."""
        return None if shape[0] in MODES else f"{self.name} needs images of 1 or 3 channels, got {shape}"


@dataclass(frozen=True)
class Jpeg(Pictures):
    """Codec of JPEG pictures of single images, whose tables are stored once for each class and quality."""

    qualities = range(1, 96)
    usual = 75

    @property
    def name(self) -> str:
        """See :class:`Codec`."""
        return "jpeg"

    def code(self, images: Tensor, quality: int) -> list[Code]:
        """See :class:`Codec`."""
        return [split(_written(_array(image), "JPEG", {"quality": quality})) for image in images]

    def decode(self, codes: Sequence[Code], shape: Shape) -> Tensor:
        """See :class:`Codec`."""
        arrays = []
        for place, code in enumerate(codes):
            with _opened(code.head + code.body, "JPEG", f"image {place}") as picture:
                found, wanted = (picture.mode, picture.height, picture.width), (MODES.get(shape[0]), *shape[1:])
                if found != wanted:
                    raise DataError(f"image {place} is a JPEG image of {found}, expected {wanted}")
                arrays.append(np.atleast_3d(np.asarray(picture)))
        return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)

    def cut(self, part: bytes, shape: Shape) -> int | None:
        """See :class:`Codec`."""
        return 0 if part.startswith(SCAN) else 1 if part[1:].startswith(SCAN) else _scan_place(part)


@dataclass(frozen=True)
class Mosaic(Pictures):
    """Codec of one picture for each class: its images, tile beside tile in rows, as nearly square as may be.

    The number of tiles in a row follows from the number of images and their shape. Images keep the whole picture when
    they are taken out of a set; it counts once.

    Args:
        kind: Name of a format of Pillow.
        qualities: See :class:`Codec`.
        usual: See :class:`Codec`.
        options: Options of Pillow's ``save`` for all pictures.
        coloured: Options for coloured pictures.
        grey: Options for grey pictures.
        since: What a Pillow without this format lacks.
    """

    kind: str
    qualities: range
    usual: int
    options: Mapping[str, Any] = field(default_factory=dict)
    coloured: Mapping[str, Any] = field(default_factory=dict)
    grey: Mapping[str, Any] = field(default_factory=dict)
    since: str = "a Pillow that was built with it"
    smallest = 0

    @property
    def name(self) -> str:
        """See :class:`Codec`."""
        return f"{self.kind.lower()}-mosaic"

    def misfit(self, shape: Shape) -> str | None:
        """See :class:`Codec`."""
        if not features.check("jpg" if self.kind == "JPEG" else self.kind.lower()):
            return f"{self.name} needs {self.kind}, which this Pillow lacks: install {self.since}, or use webp-mosaic"
        return super().misfit(shape)

    def code(self, images: Tensor, quality: int) -> list[Code]:
        """See :class:`Codec`."""
        count, channels, height, width = images.shape
        columns = math.ceil(math.sqrt(count * height / width))
        tiles = np.empty((-(-count // columns) * columns, height, width, channels), np.uint8)
        tiles[:count] = images.permute(0, 2, 3, 1).numpy()
        tiles[count:] = tiles[:count].mean((0, 1, 2)).round()  # tiles without an image are flat, which is cheap
        picture = tiles.reshape(-1, columns, height, width, channels).swapaxes(1, 2)
        picture = picture.reshape(-1, columns * width, channels)
        more = self.grey if channels == 1 else self.coloured
        file = _written(picture, self.kind, {"quality": quality, **self.options, **more})
        return [Code(file, place.to_bytes(PLACE, "big")) for place in range(count)]

    def decode(self, codes: Sequence[Code], shape: Shape) -> Tensor:
        """See :class:`Codec`; each picture is decoded once."""
        known, found = dict[bytes, Tensor](), []
        for number, code in enumerate(codes):
            if code.head not in known:
                known[code.head] = self._tiles(code.head, shape, f"the picture of image {number}")
            tiles, place = known[code.head], int.from_bytes(code.body, "big")
            if place >= len(tiles):
                raise DataError(f"image {number} is tile {place} of a picture of {len(tiles)} tiles")
            found.append(tiles[place])
        return torch.stack(found)

    def cut(self, part: bytes, shape: Shape) -> int | None:
        """See :class:`Codec`."""
        return len(part) - PLACE if len(part) >= PLACE else None

    def after(self, code: Code) -> Code | None:
        """See :class:`Codec`; the next tile."""
        place = int.from_bytes(code.body, "big") + 1
        return Code(code.head, place.to_bytes(PLACE, "big")) if code.head and place < 256**PLACE else None

    def _tiles(self, file: bytes, shape: Shape, what: str) -> Tensor:
        """The tiles (T, C, H, W) of a picture."""
        channels, height, width = shape
        with _opened(file, self.kind, what) as picture:
            rows, columns = picture.height // height, picture.width // width
            if (rows * height, columns * width) != (picture.height, picture.width) or rows * columns > 256**PLACE:
                raise DataError(f"{what} has {picture.height} x {picture.width} pixels: no tiles of {height} x {width}")
            array = np.atleast_3d(np.asarray(picture.convert(MODES[channels])))
        tiles = array.reshape(rows, height, columns, width, channels).swapaxes(1, 2)
        return torch.from_numpy(tiles.reshape(-1, *tiles.shape[2:]).copy()).permute(0, 3, 1, 2)


def split(file: bytes) -> Code:
    """Divide a JPEG file at its scan.

    Raises:
        DataError: The bytes are not a JPEG file.
    """
    place = _scan_place(file)
    if place is None:
        raise DataError(f"{len(file)} bytes are no JPEG file")
    return Code(file[:place], file[place:])


def _array(image: Tensor) -> np.ndarray:
    """(H, W, C) pixels of an image (C, H, W)."""
    return image.cpu().permute(1, 2, 0).numpy()


def _written(array: np.ndarray, kind: str, options: Mapping[str, Any]) -> bytes:
    """A picture of (H, W, C) pixels as a file.

    Raises:
        ConfigError: Pillow cannot write such a picture, as one that is too large.
    """
    file = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array))
    try:
        picture.save(file, kind, **options)
    except (OSError, ValueError) as error:
        size = f"{array.shape[0]} x {array.shape[1]}"
        raise ConfigError(f"Pillow writes no {kind} picture of {size} pixels ({error}): store fewer images") from error
    return file.getvalue()


@contextlib.contextmanager
def _opened(file: bytes, kind: str, what: str) -> Iterator[Image.Image]:
    """The picture of a file, whose pixels are read inside.

    Raises:
        DataError: The bytes are no such picture.
    """
    try:
        with Image.open(io.BytesIO(file), formats=(kind,)) as picture:
            yield picture
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{what} is no {kind} picture ({error})") from error


def _scan_place(file: bytes) -> int | None:
    """Where the scan of a JPEG file begins; None: the bytes are no such file."""
    place = len(FILE)
    while file.startswith(FILE) and place + 4 <= len(file) and file[place] == MARKER:
        if file[place : place + 2] == SCAN:
            return place
        place += 2 + int.from_bytes(file[place + 2 : place + 4], "big")
    return None
