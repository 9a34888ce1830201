"""Atomic files: tensors with a manifest, and JSON records, both with a checksum.

A file is written under a temporary name, flushed to the disk and renamed; after a kill or a full disk, the
former file still exists. Tensors are stored as safetensors, a format without code and without checksum.
Therefore its metadata contain the sha256 of the whole file, computed with 64 zeros in place of the sum. A JSON
object ends with the sha256 of its other entries.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from condensekit.errors import DataError, StoreError
from condensekit.runs.records import misfit, parsed, sealed, unsealed

log = logging.getLogger(__name__)
FORMAT = 1  # number of the format of files of tensors; raise it when earlier versions would misread the file
MAX_HEADER = 8 << 20  # largest number of bytes of names, shapes and manifest
MAX_JSON = 256 << 20  # largest number of bytes of a JSON file
MAX_FILE = 8 << 30  # largest number of bytes of a file of condensekit
SPECIAL = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_NO_SUM = b'"sha256":"' + b"0" * 64
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}  # descriptors by their paths


def failure(path: Path | str, stage: str, reason: object) -> StoreError:
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


def temporary_name(path: Path) -> Path:
    """A new name beside ``path``, under which a file or folder is written before it is renamed."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def is_temporary(path: Path) -> bool:
    """Whether a path looks like one of :func:`temporary_name`, which a kill leaves behind."""
    return _TEMPORARY.fullmatch(path.name) is not None


def stream_of(path: Path) -> int | None:
    """The open descriptor that ``/dev/stdout``, ``/dev/stderr`` or ``/dev/fd/N`` names; None for another path."""
    number = re.fullmatch(r"/(?:dev|proc/self)/fd/(\d{1,9})", str(path))
    return int(number[1]) if number else _STREAMS.get(str(path))


def check_place(path: Path) -> None:
    """Check that a file may be written at ``path``: nothing is there, or a regular file.

    Raises:
        StoreError: A link, a folder, a device or a pipe is there.
    """
    with contextlib.suppress(OSError):  # of what is not there, or cannot be seen, writing tells more
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise failure(path, "write", "it is a symbolic link: give the path of the file itself")
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
            raise failure(path, "write", f"it is {kind}: give another path")


def check_writable(path: Path) -> None:
    """Check that a file can be made at ``path`` in its folder, before a long computation.

    Raises:
        StoreError: It cannot; see also :func:`check_place`.
    """
    check_place(path)
    probe = temporary_name(path)
    with staged(path, "write"):
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        probe.unlink()


@contextlib.contextmanager
def keeping(result: object) -> Iterator[None]:
    """Give a StoreError inside ``result`` as its attribute ``result``: what was computed and could not be written."""
    try:
        yield
    except StoreError as error:
        error.result = result
        raise


def write_bytes_atomic(path: Path, *parts: bytes | memoryview) -> None:
    """Write ``parts`` one after the other as the file ``path``; a missing folder is made.

    ``/dev/stdout``, ``/dev/stderr`` and ``/dev/fd/N`` are written to as streams.

    Raises:
        StoreError: Names the path and the stage that failed. The former file, if any, is unchanged (but after
            a failed ``folder fsync``, the new file is there). A link, a folder, a device or a pipe is not replaced.
    """
    stream = stream_of(path)
    if stream is not None:
        sys.stdout.flush()
        with staged(path, "write"), open(stream, "wb", buffering=0, closefd=False) as file:
            write_whole(file, *parts)
        return
    check_place(path)
    needed, temporary = sum(len(part) for part in parts), temporary_name(path)
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
        write_whole(file, *parts)
    except OSError as error:
        reason = f"{error.strerror} ({needed:,} bytes needed, {free:,} bytes free)"
        raise failure(path, "write", reason) from error


def write_whole(file: Any, *parts: bytes | memoryview) -> None:
    """Write bytes to a file without buffer, which may take some of them only at once."""
    for part in parts:
        rest = memoryview(part)
        while rest:
            rest = rest[file.write(rest) :]


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
    try:
        size = _check_regular(path, descriptor)
    except StoreError:
        os.close(descriptor)
        raise
    with open(descriptor, "rb") as file:
        if size > MAX_FILE:
            raise failure(path, "read", f"it has {size:,} bytes, more than the limit of {MAX_FILE:,}")
        with staged(path, "read"):
            yield file, size


def _check_regular(path: Path, descriptor: int) -> int:
    """The size of an open file. Raises StoreError if it is a folder, a device or a pipe."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise failure(path, "open", "it is not a regular file")
    return status.st_size


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        DataError: There is no such file.
        StoreError: It cannot be read, or is a link, a folder, a device or a pipe.
    """
    with _reading(path) as (file, _):
        return file.read()


def write_json(path: Path, record: Any) -> None:
    """Write ``record`` as indented JSON, atomically; an object gets a checksum as its last entry.

    Raises:
        StoreError: The record is not JSON, or the file cannot be written.
    """
    with _serialised(path):
        text = json.dumps(sealed(record) if isinstance(record, dict) else record, allow_nan=False, indent=1)
    write_bytes_atomic(path, f"{text}\n".encode())


def read_json(path: Path, kind: Any = Any) -> Any:
    """The content of a JSON file, without its checksum, which is verified; files of version 0.1 have none.

    Args:
        path: The file.
        kind: The type of the content, see :func:`condensekit.runs.records.misfit`.

    Raises:
        DataError: There is no such file.
        StoreError: It cannot be read, is damaged, or holds something else.
    """
    with _reading(path) as (file, _):
        text = file.read(MAX_JSON + 1)
    if len(text) > MAX_JSON:
        raise failure(path, "read", f"it has more than {MAX_JSON:,} bytes")
    return fitting(path, _from_json(path, text), kind)


def fitting(path: Path | str, content: Any, kind: Any) -> Any:
    """The content of a file. Raises StoreError if it is not of type ``kind``."""
    if found := misfit(content, kind):
        raise failure(path, "read", f"it is damaged or no file of ours ({found})")
    return content


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Add a record with a checksum as one line of JSON to a file, which is made if missing; on disk when this returns.

    An unfinished last line, which a kill or a full disk left behind, is cut off.

    Raises:
        StoreError: The record is not JSON, or the file cannot be written.
    """
    import fcntl

    with _serialised(path):
        rest = (json.dumps(sealed(record), separators=(",", ":")) + "\n").encode()
    with staged(path, "append"):
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            _check_regular(path, file)
            fcntl.flock(file, fcntl.LOCK_EX)  # so that an unfinished line is nobody's present one
            os.ftruncate(file, _whole_lines(file))
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
        finally:
            os.close(file)
    if new:
        _sync_folder(path)


def _whole_lines(file: int) -> int:
    """The number of bytes up to the end of the last whole line."""
    end = os.fstat(file).st_size
    while end:
        start = max(0, end - (1 << 16))
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def read_lines(path: Path, kind: Any = Any) -> Iterator[Any]:
    """The records of a file of :func:`append_line`; of a file of version 0.1, which has no checksums, as well.

    An unfinished line is left out with a warning: the last line after a kill, and any such line of version 0.1.

    Args:
        path: The file.
        kind: The type of each record, see :func:`condensekit.runs.records.misfit`.

    Raises:
        DataError: There is no such file.
        StoreError: It cannot be read, or a line is damaged; the text names the line.
    """
    lines = read_bytes(path).split(b"\n")
    for number, line in enumerate(lines, 1):
        last = number == len(lines)  # empty where the file ends with a whole line
        if line.startswith(b"{") and (last or not line.rstrip().endswith(b"}")):
            log.warning("%s: line %d is unfinished and is left out", path, number)
        elif line:
            place = f"{path}, line {number}"
            yield fitting(place, _from_json(place, line), kind)


@contextlib.contextmanager
def _serialised(path: Path) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError, RecursionError) as error:
        raise failure(path, "serialise", error) from error


def _to_json(path: Path, record: Any, **style: Any) -> str:
    with _serialised(path):
        return json.dumps(record, allow_nan=False, **style)


def _from_json(path: Path | str, text: bytes, checked: bool = True) -> Any:
    try:
        return unsealed(parsed(text)) if checked else parsed(text)
    except ValueError as error:
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
    record = _from_json(path, header[8:], checked=False)  # the checksum is that of the whole file
    try:
        metadata = record.pop("__metadata__")
        digest, manifest = str(metadata["sha256"]), _from_json(path, metadata["manifest"].encode(), checked=False)
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
