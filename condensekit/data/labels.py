"""Labels: one integer for each image, from numbers, names or one-hot rows."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condensekit.errors import DataError, quoted

EXACT = 2**53  # whole floats up to here are exact


def as_labels(labels: Any, known: Mapping[int, str] | None = None) -> tuple[Tensor, dict[int, str] | None]:
    """Turn labels into (N,) int64, and return the class names if the labels were strings.

    >>> as_labels(["dog", "cat"])
    (tensor([1, 0]), {0: 'cat', 1: 'dog'})

    Args:
        labels: (N,) or (N, 1) integers, whole floats such as 3.0, or strings (bytes are UTF-8); or (N, K) one-hot rows.
        known: Class names by label, for strings; None: strings are numbered in sorted order.

    Raises:
        DataError: Labels of another type or shape, several classes for one image, or an unknown class name; the text
            names the first image with such a label.
    """
    array = _array(labels)
    if array.ndim not in (1, 2):
        raise DataError(f"labels must be (N,) integers or strings, got shape {array.shape}")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind == "O":
        array = _of_one_type(array)
    if array.ndim == 2 and array.dtype.kind in "biuf":
        return _classes_of_rows(array), None
    if array.ndim != 1:
        raise DataError(f"labels must be (N,) integers or strings, got shape {array.shape}")
    if array.dtype.kind in "US":
        return _numbered(_decoded(array), known)
    return torch.from_numpy(_whole(array)), None


def _array(labels: Any) -> np.ndarray[Any, Any]:
    """Labels as a NumPy array."""
    if isinstance(labels, torch.utils.data.Dataset | torch.utils.data.DataLoader):
        raise DataError(f"labels must be (N,) integers or strings, got {quoted(labels)}: pass its labels as a list")
    try:
        if isinstance(labels, Tensor):
            plain = labels.detach().cpu()
            return (plain.double() if plain.is_floating_point() else plain).numpy()
        if isinstance(labels, list | tuple):
            texts = [isinstance(label, str | bytes) for label in labels]
            if any(texts) and not all(texts):  # NumPy would turn the numbers into texts
                odd = texts.index(not texts[0])
                raise DataError(
                    f"labels must be all integers or all strings, got {labels[0]!r} for image 0 and {labels[odd]!r} "
                    f"for image {odd}"
                )
        if np.ma.is_masked(labels):
            raise DataError("labels have masked values: leave these images out")
        return np.asarray(labels)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        ragged = isinstance(labels, list | tuple) and len({len(r) for r in labels if isinstance(r, list | tuple)}) > 1
        why = "some images have several labels, as in multi-label data" if ragged else error
        raise DataError(f"labels must be (N,) integers or strings: {why}") from error


def _of_one_type(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Labels of type object as strings or as integers."""
    flat = list(array.flat)
    for kinds, convert in (((str, bytes), _text), (Integral, int)):
        if all(isinstance(label, kinds) and not isinstance(label, bool | np.bool_) for label in flat):
            return np.asarray([convert(label) for label in flat]).reshape(array.shape)
    index = next((i for i, label in enumerate(flat) if not isinstance(label, str | bytes | Integral)), 0)
    raise DataError(
        f"labels must be all integers or all strings, got object: the label of image {index} is {flat[index]!r}"
    )


def _text(label: str | bytes) -> str:
    try:
        return label.decode() if isinstance(label, bytes) else str(label)
    except UnicodeDecodeError as error:
        raise DataError(f"the label {label!r} is not UTF-8 text: {error}") from None


def _decoded(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype.kind == "U":
        return array
    found, rows = np.unique(array, return_inverse=True)
    return np.array([_text(label) for label in found.tolist()], dtype=str)[rows]


def _numbered(array: np.ndarray[Any, Any], known: Mapping[int, str] | None) -> tuple[Tensor, dict[int, str]]:
    """The labels of names."""
    found, rows = np.unique(array, return_inverse=True)
    names = dict(known or enumerate(found.tolist()))
    label_of = {name: label for label, name in names.items()}
    strangers = [name for name in found.tolist() if name not in label_of]
    if strangers:
        raise DataError(
            f"unknown class {strangers[0]!r}{_almost(strangers[0], label_of)}; known: {', '.join(label_of)}"
        )
    return torch.tensor([label_of[name] for name in found.tolist()], dtype=torch.int64)[rows], names


def _almost(name: str, known: Iterable[str]) -> str:
    """A note if a name differs from a known one in its spelling only, as after a copy between file systems."""
    alike = [other for other in known if _folded(other) == _folded(name)]
    return f" (it differs from {alike[0]!r} in upper and lower case or in Unicode form only)" if alike else ""


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _whole(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(N,) int64 of whole numbers."""
    if array.dtype.kind in "iu":
        wrong = array > np.uint64(np.iinfo(np.int64).max) if array.dtype == np.uint64 else np.zeros(len(array), bool)
        reason = "labels must fit into 64-bit integers with sign"
    elif array.dtype.kind == "f":
        values = array.astype(np.float64)
        wrong = ~((values == np.round(values)) & (np.abs(values) <= EXACT))  # NaN is unequal to itself
        reason = f"labels must be integers or strings, got {array.dtype}"
    else:
        way_out = ": convert with astype(int)" if array.dtype.kind == "b" else ""
        raise DataError(f"labels must be integers or strings, got {array.dtype}{way_out}")
    if wrong.any():
        index = int(wrong.argmax())
        raise DataError(f"{reason}: the label of image {index} is {array[index]}")
    return array.astype(np.int64)


def _classes_of_rows(rows: np.ndarray[Any, Any]) -> Tensor:
    """(N,) classes of (N, K) one-hot rows."""
    ones = (rows == 1).sum(1)
    if np.isin(rows, (-1, 0, 1)).all() and (ones > 1).any():
        index = int((ones > 1).argmax())
        raise DataError(
            f"the labels are multi-label: image {index} has {ones[index]} of {rows.shape[1]} classes, and condensekit "
            "takes images of one class each"
        )
    if not np.isin(rows, (0, 1)).all():
        shares = rows.dtype.kind == "f" and bool((rows != np.round(rows)).any())
        raise DataError(
            f"labels must be one class for each image, got shape {rows.shape}: "
            + ("soft labels cannot be used" if shares else "pass the column of the class, such as labels[:, 0]")
        )
    if (ones == 0).any():
        raise DataError(
            f"the one-hot label of image {int((ones == 0).argmax())} has no class: leave out images without a class"
        )
    return torch.from_numpy(rows.argmax(1).astype(np.int64))
