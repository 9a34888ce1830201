"""Atomic files: tensors with a manifest and a checksum, and JSON records.

A file is written under a temporary name, flushed to the disk and renamed; after a kill or a full disk, the
former file still exists. Tensors are stored as safetensors, a format without code and without checksum.
Therefore its metadata contain the sha256 of the whole file, computed with 64 zeros in place of the sum.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from condensekit.errors import DataError, StoreError

FORMAT = 1  # number of the file format; raise it when earlier versions would misread the file
MAX_HEADER = 8 << 20  # largest number of bytes of names, shapes and manifest
MAX_FILE = 8 << 30  # largest number of bytes of a file of condensekit
SPECIAL = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_NO_SUM = b'"sha256":"' + b"0" * 64


def failure(path: Path, stage: str, reason: object) -> StoreError:
    """The error of one stage (open, write, fsync, replace, read, ...) of reading or writing ``path``."""
    text = (reason.strerror or str(reason)) if isinstance(reason, OSError) else str(reason)
    return StoreError(f"{path}: cannot {stage}: {text}")


@contextlib.contextmanager
def staged(path: Path, stage: str) -> Iterator[None]:
    """Turn an OSError inside into the :func:`failure` of this stage."""
    try:
        yield
    except OSError as error:
        raise failure(path, stage, error) from error


def write_bytes_atomic(path: Path, *parts: bytes | memoryview) -> None:
    """Write ``parts`` one after the other as the file ``path``; a missing folder is made.

    Raises:
        StoreError: Names the path and the stage that failed. The former file, if any, is unchanged (but after
            a failed ``folder fsync``, the new file is there).
    """
    needed = sum(len(part) for part in parts)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with staged(path, "open"):
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise failure(path, "write", f"{needed:,} bytes needed, {free:,} bytes free: make room or choose another disk")
    try:
        with staged(path, "open"):
            file = open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb", buffering=0)  # noqa: SIM115
        with file:
            _write_all(path, file, parts, needed, free)
            with staged(path, "fsync"):
                os.fsync(file.fileno())
        with staged(path, "replace"):
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path)


def _write_all(path: Path, file: Any, parts: tuple[bytes | memoryview, ...], needed: int, free: int) -> None:
    try:
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[file.write(rest) :]
    except OSError as error:
        reason = f"{error.strerror} ({needed:,} bytes needed, {free:,} bytes free)"
        raise failure(path, "write", reason) from error


def _sync_folder(path: Path) -> None:
    """Flush the folder, so that the rename survives a power cut."""
    with staged(path, "folder fsync"):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def regular(path: Path) -> None:
    """Raise OSError unless ``path`` is a regular file or a link to one; call it before opening a file to read.

    A named pipe that is opened waits for a writer, and opening a device may change it.
    """
    kind = stat.S_IFMT(path.stat().st_mode)
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"it is {SPECIAL.get(kind, 'a special file')}, not a regular file", str(path))


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file, not a symbolic link; yields it and its size in bytes."""
    try:
        # O_NONBLOCK: opening a named pipe must not wait for a writer
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        reason = "it is a symbolic link: pass the file itself" if error.errno == errno.ELOOP else error
        raise failure(path, "open", reason) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise failure(path, "open", "it is not a regular file")
    with open(descriptor, "rb") as file:
        if status.st_size > MAX_FILE:
            raise failure(path, "read", f"it has {status.st_size:,} bytes, more than the limit of {MAX_FILE:,}")
        with staged(path, "read"):
            yield file, status.st_size


def write_json(path: Path, record: Any) -> None:
    """Write ``record`` as indented JSON, atomically.

    Raises:
        StoreError: The record is not JSON, or the file cannot be written.
    """
    write_bytes_atomic(path, (_to_json(path, record, indent=1) + "\n").encode())


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: There is no such file.
        StoreError: It cannot be read, or is damaged.
    """
    with _reading(path) as (file, _):
        text = file.read(MAX_HEADER + 1)
    if len(text) > MAX_HEADER:
        raise failure(path, "read", f"it has more than {MAX_HEADER:,} bytes")
    return _from_json(path, text)


def _to_json(path: Path, record: Any, **style: Any) -> str:
    try:
        return json.dumps(record, allow_nan=False, **style)
    except (TypeError, ValueError) as error:
        raise failure(path, "serialise", error) from error


def _from_json(path: Path, text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise failure(path, "read", f"it is damaged or no file of ours ({error})") from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any], kind: str) -> None:
    """Write tensors and a manifest as one safetensors file, atomically.

    Args:
        path: The file; an existing file is replaced.
        tensors: Tensors by name, of any shape and dtype, on any device; they must not share memory.
        manifest: JSON values; ``kind`` and ``format`` are added.
        kind: The kind of the file, such as ``checkpoint``; :func:`load_tensors` checks it.

    Raises:
        StoreError: Names path and stage.
    """
    stamped = {**manifest, "kind": kind, "format": FORMAT}
    text = _to_json(path, stamped, sort_keys=True, separators=(",", ":"))
    metadata = {"manifest": text, "sha256": "0" * 64}
    data = memoryview(save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata))
    start = 8 + int.from_bytes(data[:8], "little")
    if start > MAX_HEADER or len(data) > MAX_FILE:
        raise failure(path, "serialise", f"manifest of {start:,} or file of {len(data):,} bytes is above the limit")
    header, payload = bytes(data[:start]), data[start:]
    total = hashlib.sha256(header)
    total.update(payload)
    write_bytes_atomic(path, header.replace(_NO_SUM, b'"sha256":"' + total.hexdigest().encode()), payload)


def load_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors (on the CPU) and the manifest of a file of :func:`save_tensors`.

    Memory for the tensors is allocated only after the header, the kind and the sizes are checked. No code
    in the file is executed.

    Raises:
        DataError: There is no such file.
        StoreError: The file is damaged, of another kind, of a newer format, or not ours.
    """
    with _reading(path) as (file, size):
        header = _read_header(path, file, size)
        digest, manifest = _check_header(path, header, size, kind)
        payload = file.read(size - len(header) + 1)
    whole = header.replace(b'"sha256":"' + digest.encode(), _NO_SUM) + payload
    if hashlib.sha256(whole).hexdigest() != digest:
        raise failure(path, "read", "it is damaged (the checksum differs)")
    try:
        return load(whole), manifest
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise failure(path, "read", f"it is no valid safetensors file ({error})") from error


def _read_header(path: Path, file: BinaryIO, size: int) -> bytes:
    """The first bytes of a safetensors file: eight of length, then that much JSON."""
    length = file.read(8)
    end = 8 + int.from_bytes(length, "little")
    if len(length) < 8 or end > min(size, MAX_HEADER):
        raise failure(path, "read", "it is truncated or no safetensors file")
    return length + file.read(end - 8)


def _check_header(path: Path, header: bytes, size: int, kind: str) -> tuple[str, dict[str, Any]]:
    """Check that condensekit wrote the file, its kind and its size; returns checksum and manifest."""
    record = _from_json(path, header[8:])
    try:
        metadata = record.pop("__metadata__")
        digest, manifest = str(metadata["sha256"]), _from_json(path, metadata["manifest"])
        found, version = manifest["kind"], int(manifest["format"])
        declared = len(header) + max((entry["data_offsets"][1] for entry in record.values()), default=0)
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise failure(path, "read", "it was not written by condensekit") from error
    if version > FORMAT:
        reason = f"it has format {version}, this version reads up to {FORMAT}: upgrade condensekit"
        raise failure(path, "read", reason)
    if found != kind:
        raise failure(path, "read", f"it holds a {found}, expected a {kind}")
    if declared != size:
        raise failure(path, "read", f"it declares {declared:,} bytes and has {size:,}: truncated or damaged")
    return digest, manifest
