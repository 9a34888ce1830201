"""Torch files: tensors in lists and dictionaries as ``torch.save`` writes them, read without running what they hold."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

from condensekit.errors import DataError
from condensekit.runs.files import failure, read_bytes, write_bytes_atomic

_NAMED = re.compile(r"GLOBAL ([\w.]+)")  # what torch refused, in its message


class _Kind:
    """Stands for a NumPy type in a file: nothing of NumPy is called."""

    def __init__(self, name: str = "", *_: object) -> None:
        self.name = name

    def __setstate__(self, _: object) -> None:
        """Order of bytes and alignment, which numbers of one value do not need here."""


class _Number(float):
    """A NumPy number in a file as a Python number; NaN for another type than float64 and float32."""

    def __new__(cls, kind: object = None, data: object = b"") -> _Number:
        letter = {"f8": "<d", "f4": "<f"}.get(getattr(kind, "name", ""))
        good = letter and isinstance(data, bytes) and len(data) == struct.calcsize(letter)
        return super().__new__(cls, struct.unpack(letter, data)[0] if good else float("nan"))  # type: ignore[arg-type]


HARMLESS: list[Any] = [
    (_Number, "numpy.core.multiarray.scalar"),
    (_Number, "numpy._core.multiarray.scalar"),
    (_Kind, "numpy.dtype"),
]  # the accuracies beside the images of DC, DSA and DM are NumPy numbers: each name with what stands for it


def load_pt(path: Path) -> Any:
    """The tensors, numbers, texts, lists and dictionaries of a file; tensors on the CPU.

    Raises:
        DataError: There is no such file, or it holds objects or code. None of it is run.
        StoreError: It cannot be read, is damaged, or is no file of ``torch.save``.
    """
    data = read_bytes(path)
    file = io.BytesIO(data)
    if zipfile.is_zipfile(file) and _unpacked(path, file) > len(data):
        raise failure(path, "read", "it is compressed, which torch.save does not do")
    file.seek(0)
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a reader of damaged files may raise anything
        if "eights" in str(error) and (refused := _NAMED.search(str(error))):
            raise DataError(
                f"{path} holds more than tensors ({refused[1]}), which may be code and is not run: where the file was "
                'made, save its tensors alone, torch.save([images, labels], "set.pt")'
            ) from None
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise failure(path, "read", f"it is damaged, or no tensors that torch.save wrote ({reason})") from None


def _unpacked(path: Path, file: io.BytesIO) -> int:
    """The bytes of all members of a zip file. Raises StoreError if they cannot be counted."""
    try:
        with zipfile.ZipFile(file) as archive:
            return sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:  # the last one for a later kind of zip
        raise failure(path, "read", f"it is damaged: the list of its members cannot be read ({error})") from None


def save_pt(path: Path, content: Any) -> None:
    """Write tensors, numbers, texts, lists and dictionaries, atomically; ``torch.load(weights_only=True)`` reads them.

    Raises:
        StoreError: The file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes_atomic(path, buffer.getvalue())
