"""Picture files: what their headers say, and their pixels in one form."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

from PIL import Image, UnidentifiedImageError
from torch import Tensor

from condensekit.data.decoding import (
    LISTED,
    alike,
    check_bytes,
    enough_memory,
    from_pil,
    has_alpha,
    is_grey,
    is_wide,
    orientation,
    resized,
    shown,
    stacked,
    stretched,
    upright,
)
from condensekit.data.maps import mapped
from condensekit.errors import DataError
from condensekit.progress import Progress
from condensekit.runs.files import read_json, regular, write_json

T = TypeVar("T")

DECODERS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF")  # Pillow's others may start programs
KINDS = "png apng jpg jpeg jpe jfif webp bmp dib tif tiff gif ppm pgm pbm pnm avif"
ENDINGS = frozenset(f".{kind}" for kind in KINDS.split(" "))  # of the files that these decoders read
MAX_PIXELS = 89_478_485  # of one picture, as in Pillow: more is taken for a decompression bomb
BATCH = 16  # files decoded together; large photographs at full size must fit into memory


class Header(NamedTuple):
    """What is known of a picture before its pixels are read."""

    height: int
    width: int
    grey: bool
    alpha: bool
    turned: bool
    wide: bool
    frames: bool


class Plan(NamedTuple):
    """How pictures are decoded: in grey or not, the number of bytes of all pixels, and notes on what is changed."""

    grey: bool
    bytes: int
    notes: list[str]


def read(files: Sequence[Path], size: int | None, file: Path | None, progress: Progress) -> tuple[Tensor, list[str]]:
    """All pictures as (N, C, H, W) uint8, in memory or mapped from ``file``, and notes on what was changed.

    One channel if all pictures are grey, else three. Transparent parts are white, the EXIF orientation is applied, of
    16 bits the upper 8 are kept, and of animations and files of several pages the first frame.

    Args:
        files: The pictures.
        size: Resize every picture to this height and width; None: all must have the same.
        file: Written first if it is missing, with the notes beside it, see :func:`mapped`; None: in memory.
        progress: Receives the number of pictures.

    Raises:
        DataError: Pictures that cannot be read, differ in size, or need more than 8 GiB of memory; the
            text names up to :data:`LISTED` files.
        StoreError: The file cannot be written or is damaged.
    """
    if file is None:
        plan = _plan(files, size, progress)
        check_bytes(len(files), plan.bytes)
        with enough_memory(plan.bytes):
            return stacked(_shown(files, plan.grey, size, progress), len(files)), plan.notes
    beside = file.with_suffix(".json")

    def images(done: int) -> Iterator[Tensor]:
        plan = _plan(files, size, progress)
        write_json(beside, plan.notes)
        yield from _shown(files, plan.grey, size, progress, done)

    return mapped(images, len(files), file), read_json(beside)


def _plan(files: Sequence[Path], size: int | None, progress: Progress) -> Plan:
    headers = surveyed(files, progress)
    if size is None:
        _check_sizes(files, headers)
    height, width = (size, size) if size else headers[0][:2]
    grey = all(header.grey for header in headers)
    return Plan(grey, len(files) * height * width * (1 if grey else 3), list(_notes(headers, grey, size)))


def _shown(files: Sequence[Path], grey: bool, size: int | None, progress: Progress, done: int = 0) -> Iterator[Tensor]:
    rest = files[done:]
    return shown(alike(decoded(rest, grey, size), lambda i: str(rest[i]), None), len(files), progress, done)


def surveyed(files: Sequence[Path], progress: Progress) -> list[Header]:
    """The header of each file, in order.

    Raises:
        DataError: Files that are not pictures, or no regular files, which are not opened. Then all files are decoded,
            so that the text also names those that are damaged behind their header.
    """
    with warnings.catch_warnings(), progress.stage("read headers", len(files)) as stage:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS refuses them
        found = []
        try:
            for header in _each(files, _header):
                stage.advance()
                found.append(header)
        except DataError:
            for _ in _each(files, _whole):
                pass
            raise
    return found


def decoded(files: Sequence[Path], grey: bool, size: int | None = None) -> Iterator[Tensor]:
    """The uint8 (C, H, W) picture in each file, in order, with one channel if ``grey``, else three.

    Raises:
        DataError: Files that are damaged.
    """
    yield from _each(files, lambda image: resized(_pixels(image, grey)[None], size)[0])


def _pixels(image: Image.Image, grey: bool) -> Tensor:
    image.load()
    return from_pil(upright(image), "L" if grey else "RGB")


def _whole(image: Image.Image) -> None:
    """Read all of a picture, for its errors."""
    _pixels(image, _header(image).grey)


@cache
def _decoders() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in DECODERS if name in Image.OPEN)  # AVIF is missing in older versions of Pillow


def _header(image: Image.Image) -> Header:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(f"it has {width:,} x {height:,} pixels, more than the limit of {MAX_PIXELS:,}: make it smaller")
    turn = orientation(image)
    if turn > 4 and image.format != "TIFF":  # Pillow turns TIFF files itself
        width, height = height, width
    frames = image.format != "MPO" and getattr(image, "is_animated", False)  # MPO: a photograph with its preview
    return Header(height, width, is_grey(image), has_alpha(image), turn != 1, is_wide(image), frames)


def _check_sizes(files: Sequence[Path], headers: Sequence[Header]) -> None:
    sizes = [header[:2] for header in headers]
    usual = Counter(sizes).most_common(1)[0][0]
    odd = [f"{file} is {h} x {w}" for file, (h, w) in zip(files, sizes, strict=True) if (h, w) != usual]
    if odd:
        raise DataError(
            f"{len(odd)} of {len(files)} images differ from the usual height x width, {usual[0]} x {usual[1]}: "
            f"{_listed(odd)}: use image_size=N"
        )


def _notes(headers: Sequence[Header], grey: bool, size: int | None) -> Iterator[str]:
    """One clause for each kind of change."""
    yield from stretched((header[:2] for header in headers), size)
    for count, change in (
        (sum(header.alpha for header in headers), "with an alpha channel laid on white"),
        (sum(header.turned for header in headers), "turned by their EXIF orientation"),
        (sum(header.wide for header in headers), "cut from 16 to 8 bits"),
        (sum(header.frames for header in headers), "with several frames or pages: the first is read"),
        (0 if grey else sum(header.grey for header in headers), "in grey repeated to 3 channels"),
    ):
        if count:
            yield f"{count:,} image{'s' * (count > 1)} {change}"


def _each(files: Sequence[Path], use: Callable[[Image.Image], T]) -> Iterator[T]:
    """``use`` of every opened picture, in order, on all cores; after a failure only further failures are looked for."""

    def tried(file: Path) -> T | str:
        try:
            regular(file)
            with Image.open(file, formats=_decoders()) as image:
                return use(image)
        except MemoryError:
            raise
        except Exception as error:  # a decoder may raise anything when its file is damaged
            return f"{file}: {_reason(error)}"

    failures = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), BATCH):
            for found in pool.map(tried, files[start : start + BATCH]):
                if isinstance(found, str):
                    failures.append(found)
                elif not failures:
                    yield found
    if len(failures) == 1:
        raise DataError(f"cannot read the image {failures[0]}; repair or remove it")
    if failures:
        raise DataError(f"cannot read {len(failures)} images: {_listed(failures)}; repair or remove them")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"it is no image, or of no kind that is read ({', '.join(DECODERS)})"
    return getattr(error, "strerror", None) or str(error) or repr(error)


def _listed(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - LISTED:,} more" if len(texts) > LISTED else ""
    return "; ".join(texts[:LISTED]) + more
