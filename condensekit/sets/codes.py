"""Codes: JPEG images one after another in one tensor, with the tables of each class stored once."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from condensekit.errors import DataError

MARKER = 0xFF  # first byte of each marker
FILE, SCAN = b"\xff\xd8", b"\xff\xda"  # markers of the beginning of a JPEG file, and of the picture after the tables
MODES = {1: "L", 3: "RGB"}  # mode of Pillow by number of channels


@dataclass(frozen=True)
class Code:
    """One JPEG image.

    Args:
        tables: Beginning of the file: size, quantisation and Huffman tables; equal for images of one size and quality.
        scan: The picture, from its marker to the end of the file.
    """

    tables: bytes
    scan: bytes

    @classmethod
    def of(cls, file: bytes) -> Code:
        """Divide a JPEG file at its scan.

        Raises:
            DataError: The bytes are not a JPEG file.
        """
        place = _scan_place(file)
        if place is None:
            raise DataError(f"{len(file)} bytes are no JPEG file")
        return cls(file[:place], file[place:])

    def pixels(self) -> Tensor:
        """(C, H, W) uint8 decoded pixels.

        Raises:
            DataError: The bytes are not a JPEG image.
        """
        try:
            with Image.open(io.BytesIO(self.tables + self.scan), formats=("JPEG",)) as image:
                array = np.asarray(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"a code is no JPEG image ({error})") from error
        return torch.from_numpy(np.atleast_3d(array).copy()).permute(2, 0, 1)

    def misfit(self, shape: tuple[int, int, int]) -> str | None:
        """The problem of the code as an image (C, H, W), found without decoding the picture; None: no problem."""
        channels, height, width = shape
        try:
            with Image.open(io.BytesIO(self.tables + self.scan), formats=("JPEG",)) as image:
                found = (image.mode, image.height, image.width)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            return f"is no JPEG image ({error})"
        wanted = (MODES.get(channels), height, width)
        return None if found == wanted else f"is a JPEG image of {found}, expected {wanted}"


def joined(codes: Sequence[Code], labels: Tensor) -> tuple[Tensor, Tensor]:
    """Write codes one after another.

    The first image of a class is a whole file. A later image is its scan only, which uses the tables of the image
    before it. If it uses other tables of its class, one byte before its scan says how many tables were written since.

    Args:
        codes: The images.
        labels: (M,) int64; a new class begins where the label changes.

    Returns:
        (B,) uint8 bytes, and (M,) int64 size of each image in them.
    """
    parts, tables, current, label = list[bytes](), list[bytes](), b"", None
    for code, own in zip(codes, labels.tolist(), strict=True):
        if own != label:
            tables, current, label = [], b"", own
        if code.tables == current:
            head = b""
        elif code.tables in tables:
            head = bytes([len(tables) - 1 - tables.index(code.tables)])
        else:
            head, tables = code.tables, [*tables, code.tables]
        parts.append(head + code.scan)
        current = code.tables
    return torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.uint8), torch.tensor([len(part) for part in parts])


def divided(stream: Tensor, sizes: Tensor) -> list[Code]:
    """The codes of :func:`joined`.

    Raises:
        DataError: The bytes are not those of ``joined``.
    """
    if stream.ndim != 1 or stream.dtype != torch.uint8 or int(sizes.sum()) != len(stream) or bool((sizes < 1).any()):
        raise DataError(
            f"codes must be (B,) uint8 bytes, and their sizes must sum to B, got {tuple(stream.shape)} {stream.dtype} "
            f"and the sum {int(sizes.sum())}"
        )
    whole, found = stream.numpy().tobytes(), list[Code]()
    tables, current, start = list[bytes](), b"", 0
    for place, size in enumerate(sizes.tolist()):
        part, start = whole[start : start + size], start + size
        cut = 0 if part.startswith(SCAN) else 1 if part[1:].startswith(SCAN) else _scan_place(part)
        if cut == 1 and part[0] < len(tables):
            current = tables[-1 - part[0]]
        elif cut is not None and cut > 1:
            current = part[:cut]
            tables.append(current)
        elif cut != 0 or not current:
            raise DataError(f"code {place} is no JPEG image")
        found.append(Code(current, part[cut:]))
    return found


def _scan_place(file: bytes) -> int | None:
    """Where the scan of a JPEG file begins; None: the bytes are no such file."""
    place = len(FILE)
    while file.startswith(FILE) and place + 4 <= len(file) and file[place] == MARKER:
        if file[place : place + 2] == SCAN:
            return place
        place += 2 + int.from_bytes(file[place + 2 : place + 4], "big")
    return None
