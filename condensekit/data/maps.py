"""Maps: decoded images in a memory-mapped file, which is written once; a build that was interrupted goes on."""

from __future__ import annotations

import glob
import io
import math
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from condensekit.errors import DataError, StoreError
from condensekit.runs.files import write_whole
from condensekit.runs.lock import waiting

Kind = tuple[np.dtype[Any], tuple[int, ...]]  # dtype and shape of each image


def mapped(images: Callable[[int], Iterable[Tensor]], count: int, file: Path) -> Tensor:
    """(count, C, H, W) memory-mapped copy-on-write from ``file``, which is written first if it is missing.

    Only one process writes at a time, image by image, to a hidden file beside ``file``. Where a process was killed, the
    next one goes on behind the last whole image. An incomplete ``file`` never appears.

    Args:
        images: The images from a number on, the first is 0: (C, H, W) each, all of one shape and dtype. It is not
            called if ``file`` exists.
        count: Number of all images.
        file: The ``.npy`` file. Its name must say from what the images are made.

    Raises:
        DataError: Images that differ, or that ``images`` cannot read; what is written of them is removed.
        StoreError: The file cannot be written, is damaged, or is a link or another special file. What is written stays.
    """
    try:
        _write_once(images, count, file)
    except OSError as error:
        raise StoreError(f"{file}: cannot write the decoded images: {error}") from error
    try:
        if not stat.S_ISREG(file.lstat().st_mode):
            raise ValueError("it is a link or another special file")
        found = np.load(file, mmap_mode="c", allow_pickle=False)
        if found.ndim != 4 or len(found) != count or found.dtype not in (np.uint8, np.float32):
            raise ValueError(f"it holds {found.dtype} of shape {found.shape}")
    except (OSError, ValueError) as error:
        raise StoreError(f"{file}: cannot map the decoded images: {error}; delete it") from error
    return torch.from_numpy(found)


def _write_once(images: Callable[[int], Iterable[Tensor]], count: int, file: Path) -> None:
    if os.path.lexists(file):
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with waiting(file.with_suffix(".lock")):
        if os.path.lexists(file):
            return
        part = _part(file)
        # not memory-mapped while it is written, so that its pages never count as the process's memory
        with open(os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+b", buffering=0) as out:
            try:
                _fill(out, images, count, file)
                os.fsync(out.fileno())
            except BaseException as error:
                if isinstance(error, DataError) or not os.fstat(out.fileno()).st_size:  # nothing to go on with
                    part.unlink()
                raise
        os.replace(part, file)


def _part(file: Path) -> Path:
    """The file that an interrupted build has left, or a new name, which nobody can occupy beforehand.

    Links, also hard ones, may be those of others to a precious file, and are removed.
    """
    left = sorted(file.parent.glob(f".{glob.escape(file.stem)}.*.part"))
    own = [path for path in left if stat.S_ISREG((found := path.lstat()).st_mode) and found.st_nlink == 1]
    for path in left:
        if path not in own[:1]:
            path.unlink()
    return own[0] if own else file.with_name(f".{file.stem}.{secrets.token_hex(8)}.part")


def _fill(out: BinaryIO, images: Callable[[int], Iterable[Tensor]], count: int, file: Path) -> None:
    """Write those images that ``out`` lacks."""
    done, kind = _begun(out, count)
    if kind:
        _check_room(file, (count - done) * _size(kind))
    for number, image in enumerate(images(done), done):
        array, header = image.contiguous().numpy(), b""
        if kind is None:
            kind = array.dtype, array.shape
            header = _header(count, kind)
            _check_room(file, count * _size(kind))
        if (array.dtype, array.shape) != kind:
            raise DataError(f"image {number} is {array.dtype} {array.shape}, unlike those before, {kind[0]} {kind[1]}")
        try:
            write_whole(out, header, array.data.cast("B"))
        except OSError as error:
            raise _no_room(file, (count - number) * _size(kind), f" ({error.strerror})") from error


def _begun(out: BinaryIO, count: int) -> tuple[int, Kind | None]:
    """The number of whole images in an unfinished file, and of which kind they are; the rest of it is cut off."""
    try:
        np.lib.format.read_magic(out)
        shape, _, dtype = np.lib.format.read_array_header_1_0(out)
    except ValueError:
        shape, dtype = (), np.dtype(np.uint8)
    start, kind = out.tell(), (dtype, shape[1:])
    if shape[:1] != (count,) or not _size(kind):
        out.truncate(out.seek(0))
        return 0, None
    done = min(count, (out.seek(0, os.SEEK_END) - start) // _size(kind))
    out.truncate(out.seek(start + done * _size(kind)))
    return done, kind


def _size(kind: Kind) -> int:
    """Bytes of one image."""
    return kind[0].itemsize * math.prod(kind[1])


def _header(count: int, kind: Kind) -> bytes:
    """The first bytes of a ``.npy`` file."""
    header = io.BytesIO()
    told = {"descr": kind[0].str, "fortran_order": False, "shape": (count, *kind[1])}
    np.lib.format.write_array_header_1_0(header, told)
    return header.getvalue()


def _check_room(file: Path, needed: int) -> None:
    if needed > shutil.disk_usage(file.parent).free:
        raise _no_room(file, needed)


def _no_room(file: Path, needed: int, why: str = "") -> StoreError:
    free = shutil.disk_usage(file.parent).free
    room = f"{needed:,} bytes needed, {free:,} bytes free{why}"
    way_out = "make room, and the same call goes on, or use another mmap=FOLDER"
    return StoreError(f"{file}: cannot write the decoded images: {room}: {way_out}")
