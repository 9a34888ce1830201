"""Lock: access to a folder or a file for one process at a time. The kernel frees it when the process ends."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from condensekit.errors import ConfigError
from condensekit.runs.files import failure, staged


def take(path: Path) -> int:
    """Lock the folder of the file ``path``; returns a descriptor, and closing it frees the lock.

    Raises:
        ConfigError: Another process holds the lock; the text names that process.
        StoreError: The file cannot be locked.
    """
    lock = _opened(path)
    try:
        _hold(path, lock)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _opened(path: Path) -> int:
    """A descriptor of the file, which is made if missing; links and special files are refused."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        reason = "it is a symbolic link: remove it" if error.errno == errno.ELOOP else error
        raise failure(path, "lock", reason) from error
    if not stat.S_ISREG(os.fstat(lock).st_mode):
        os.close(lock)
        raise failure(path, "lock", "it is not a regular file: remove it")
    return lock


def _hold(path: Path, lock: int) -> None:
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 100, 0).decode(errors="replace").strip() or "unknown"
        reason = f"in use by process {holder}: wait until it ends, or choose another folder"
        raise ConfigError(f"{path.parent} is {reason}") from None
    except OSError as error:
        raise failure(path, "lock", error) from error
    with staged(path, "write"):
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


@contextmanager
def trying(path: Path) -> Iterator[bool]:
    """Hold the lock of a file, which is made if missing, unless another process or thread does; yields whether.

    The file is removed in the end.

    Raises:
        StoreError: The file cannot be opened.
    """
    import fcntl

    with staged(path, "lock"):
        path.parent.mkdir(parents=True, exist_ok=True)
    lock, held = _opened(path), False
    try:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = _is(path, lock)
        yield held
    finally:
        if held:
            path.unlink(missing_ok=True)
        os.close(lock)


def _is(path: Path, lock: int) -> bool:
    """Whether the descriptor is that of the file: who held its lock has perhaps removed it after it was opened."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(lock))
    except FileNotFoundError:
        return False


@contextmanager
def waiting(path: Path) -> Iterator[None]:
    """Hold the lock of a file, which is made if missing; waits while another process holds it.

    Raises:
        StoreError: The file cannot be opened.
    """
    import fcntl

    lock = _opened(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
