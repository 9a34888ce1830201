"""Array files: images and labels in .npz archives, .npy files and HDF5 files."""

from __future__ import annotations

import importlib
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condensekit.data.arrays import Values, as_nchw, as_numbers, as_tensor, settled
from condensekit.data.files import FIFTH, VAL_IS_TEST, Source, hold_out
from condensekit.data.labels import as_labels
from condensekit.errors import DataError
from condensekit.runs.files import regular

ENDINGS = (".npz", ".npy", ".h5", ".hdf5")
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
}
LABELS_OF = {"images": "labels", "image": "label", "x": "y", "data": "labels"}  # words for images; labels beside them
WORDS = {
    **dict.fromkeys(LABELS_OF, "images"),
    **dict.fromkeys(("labels", "label", "y", "targets", "target"), "labels"),
}
PART, WORD = "|".join(PARTS), "|".join(WORDS)
NAME = re.compile(rf"((?P<before>{PART})_?)?(?P<word>{WORD})(_?(?P<after>{PART}))?", re.IGNORECASE)

MOST = 20  # names that an error lists

Read = Callable[[str], Any]
Names = tuple[str, str]  # of the images and of the labels of a part


def holds_arrays(folder: Path) -> bool:
    """Whether a folder holds ``.npy`` files whose names say that they are images and labels."""
    named = (NAME.fullmatch(file.stem) for file in folder.glob("*.npy") if file.is_file())
    return len({WORDS[match["word"].lower()] for match in named if match}) == 2


def arrays(path: Path, layout: str | None = None) -> Source:
    """Images and labels of an array file, or of a folder of ``.npy`` files.

    Their names are ``images`` (or ``x``, ``data``) and ``labels`` (or ``y``, ``targets``), alone or with ``train``,
    ``val`` or ``test`` before or after them: ``images``, ``x_train``, ``val_labels``, ``X_test``. Nothing else is read.
    A ``.npy`` path names the training images, and the labels lie beside it. Without a test part ``val`` is the test
    part; without both, a fixed part of each class is held out.

    Args:
        path: A file with one of :data:`ENDINGS`, or a folder.
        layout: ``NCHW`` or ``NHWC``; None: see :func:`condensekit.data.arrays.as_nchw`.

    Raises:
        DataError: A file that cannot be read, names that are missing or ambiguous, or arrays that cannot be used.
    """
    with _opened(path) as (names, read):
        parts = _parts(path, names)
        images, numbers, listed = [], [], None
        for index, (of_images, of_labels) in enumerate(parts.values()):
            images.append(_converted(path, of_images, read, _as_images, layout))
            labels, words = _converted(path, of_labels, read, as_labels, listed)
            if len(images[-1]) != len(labels) or not len(labels):
                raise DataError(f"{path} has {len(images[-1])} {of_images} but {len(labels)} {of_labels}")
            if index and (words is None) != (listed is None):
                raise DataError(
                    f"{path}: {of_labels} must be {'numbers' if listed is None else 'names'} as the others are"
                )
            listed = words if index == 0 else listed
            numbers.append(labels)
    pixels = _settle(path, [of_images for of_images, _ in parts.values()], images)
    class_names = listed or {label: str(label) for label in torch.unique(numbers[0]).tolist()}
    files: tuple[Path, ...] = (path,)
    if path.is_dir() or path.suffix.lower() == ".npy":
        files = tuple(_folder_of(path) / f"{name}.npy" for pair in parts.values() for name in pair)
    notes = (VAL_IS_TEST,) if set(parts) == {"train", "val"} else ()
    if len(parts) == 1:
        rows, notes = hold_out(numbers[0], class_names), (FIFTH,)
        images, numbers = [images[0][r] for r in rows], [numbers[0][r] for r in rows]
    return Source(
        tuple(numbers),
        class_names,
        files,
        tuple(part.contiguous() for part in images),
        normalised=not pixels,
        notes=notes,
    )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Sequence[str], Read]]:
    """The names in an array file, and the function that reads one."""
    if path.is_file():
        regular(path)
    if path.suffix.lower() in (".h5", ".hdf5"):
        with _hdf5(path) as found:
            yield found
    elif path.suffix.lower() == ".npz":
        with _failing(path):
            if not zipfile.is_zipfile(path):
                raise ValueError("it is not a .npz archive")
            archive = np.load(path, allow_pickle=False)
        with archive:
            yield archive.files, archive.__getitem__
    else:
        files = {file.stem: file for file in sorted(_folder_of(path).glob("*.npy")) if file.is_file()}
        yield list(files), lambda name: np.load(files[name], allow_pickle=False)


def _folder_of(path: Path) -> Path:
    return path if path.is_dir() else path.parent


@contextmanager
def _hdf5(path: Path) -> Iterator[tuple[Sequence[str], Read]]:
    try:
        h5py = importlib.import_module("h5py")
    except ImportError:
        raise DataError(f"cannot read {path}: HDF5 files need h5py: pip install h5py") from None
    with _failing(path):
        file = h5py.File(path, "r")

    def read(name: str) -> Any:
        stored = file[name]
        return stored.asstr()[()] if h5py.check_string_dtype(stored.dtype) else stored[()]

    with file:
        yield [name for name in file if isinstance(file.get(name), h5py.Dataset)], read


@contextmanager
def _failing(path: Path, name: str = "") -> Iterator[None]:
    """Raise whatever a reader raises as DataError: a damaged file may raise anything."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {name} cannot be used: {error}") from None
    except Exception as error:
        raise DataError(f"cannot read {name and name + ' of '}{path}: {error}") from error


def _converted(path: Path, name: str, read: Read, convert: Callable[..., Any], option: Any) -> Any:
    with _failing(path, name):
        return convert(read(name), option)


def _as_images(array: Any, layout: str | None) -> Tensor:
    return as_numbers(as_nchw(as_tensor(array), layout))


def _parts(path: Path, names: Sequence[str]) -> dict[str, Names]:
    """The names of images and labels of the parts train, test and val, as far as they are there, in this order.

    Raises:
        DataError: A part without images or labels, or with two of them.
    """
    found: dict[str, dict[str, list[str]]] = {part: {"images": [], "labels": []} for part in ("train", "test", "val")}
    for name in names:
        match = NAME.fullmatch(name)
        if match and not (match["before"] and match["after"]):
            part = PARTS[(match["before"] or match["after"] or "train").lower()]
            found[part][WORDS[match["word"].lower()]].append(name)
    if path.is_file() and path.suffix.lower() == ".npy":
        if path.stem not in found["train"]["images"]:
            raise DataError(f"{path}: name the training images, such as images.npy or x_train.npy, or their folder")
        found["train"]["images"] = [path.stem]
    parts = {}
    for part, by_kind in found.items():
        if part == "train" or any(by_kind.values()):
            chosen = {kind: _one(path, part, kind, candidates) for kind, candidates in by_kind.items()}
            _check_missing(path, part, chosen, names)
            parts[part] = (str(chosen["images"]), str(chosen["labels"]))
    return parts


def _one(path: Path, part: str, kind: str, candidates: Sequence[str]) -> str | None:
    """The only name; or, of several, the only one that is spelt as ``images`` and ``labels`` are."""
    usual = [name for name in candidates if kind in name.lower()]
    if len(candidates) > 1 and len(usual) != 1:
        raise DataError(f"{path} holds several {kind} of the {part} part ({', '.join(candidates)}): leave one of them")
    return next(iter(usual or candidates), None)


def _check_missing(path: Path, part: str, chosen: Mapping[str, str | None], names: Sequence[str]) -> None:
    missing = [kind for kind, name in chosen.items() if name is None]
    if not missing:
        return
    prefix = "" if part == "train" else f"{part}_"
    wanted = [f"{prefix}{kind}" for kind in missing]
    if missing == ["labels"]:
        match = NAME.fullmatch(str(chosen["images"]))
        assert match is not None
        wanted = [str(chosen["images"]).replace(match["word"], LABELS_OF[match["word"].lower()])]
    raise DataError(f"{path} lacks {' and '.join(wanted)}; it holds {', '.join(names[:MOST]) or 'nothing'}")


def _settle(path: Path, names: Sequence[str], images: list[Tensor]) -> bool:
    """Replace the images of all parts by bytes or floats of one unit; returns whether they are pixels.

    Raises:
        DataError: Values that cannot be used, or pixels in one part and normalised values in another.
    """
    values = []
    for name, part in zip(names, images, strict=True):
        with _failing(path, name):
            values.append(Values().see(part))
    brightest = max(one.high for one in values)
    kinds = []
    for index, name in enumerate(names):
        with _failing(path, name):
            images[index], pixels = settled(images[index], values[index], brightest)
            kinds.append(pixels)
    for name, part, pixels in zip(names, images, kinds, strict=True):
        if pixels != kinds[0]:
            first, here = ("pixels" if kind else "normalised already" for kind in (kinds[0], pixels))
            raise DataError(f"{path}: {names[0]} are {first}, {name} are {here}: store both alike")
        if part.shape[1] != images[0].shape[1]:
            raise DataError(
                f"{path}: {names[0]} have {images[0].shape[1]} channels, {name} {part.shape[1]}: store both alike"
            )
    if len({part.dtype for part in images}) > 1:  # bytes in one part, other pixels in the next
        images[:] = [part / 255 if part.dtype == torch.uint8 else part for part in images]
    return kinds[0]
