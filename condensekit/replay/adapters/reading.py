"""Reading of a data set: in blocks, with the workers of its loader, into memory or a file; and whether it is random."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from condensekit.errors import CondensekitError
from condensekit.rng import isolated

BLOCK = 64  # number of samples that are read and checked together
MAPPED = 1 << 30  # bytes; larger arrays lie in a temporary file
LOOKED_AT = 64  # largest number of samples that are read several times
READS = 256  # number of these readings together
MOST = 16  # largest number of readings of one sample


class _Blocks(Dataset[Any]):
    """The blocks of a data set; an error of ours is given as a value, because workers would add their traceback."""

    def __init__(self, read: Callable[[range], Any], count: int) -> None:
        self.read, self.count = read, count

    def __len__(self) -> int:
        return -(-self.count // BLOCK)

    def __getitem__(self, number: int) -> Any:
        rows = range(number * BLOCK, min((number + 1) * BLOCK, self.count))
        try:
            return rows, self.read(rows)
        except CondensekitError as error:
            return rows, error


def in_blocks(read: Callable[[range], Any], count: int, workers: int = 0) -> Iterator[tuple[range, Any]]:
    """Read all rows of a data set, each once and in order.

    Args:
        read: Reads the samples of some rows. It must be picklable where worker processes are not forked.
        count: Number of rows.
        workers: Number of worker processes; 0: none.

    Yields:
        The rows, and what ``read`` returned.

    Raises:
        CondensekitError: As ``read`` raised it, also in a worker.
    """
    blocks = _Blocks(read, count)
    workers = min(workers, len(blocks) - 1)
    for rows, found in DataLoader(blocks, batch_size=None, num_workers=max(0, workers), collate_fn=_unchanged):
        if isinstance(found, CondensekitError):
            raise found
        yield rows, found


def _unchanged(block: Any) -> Any:
    return block


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor for values to come: in memory, or above :data:`MAPPED` bytes in a temporary file without a name.

    The operating system deletes the file with the tensor, also after an error or a kill. Its folder is that of Python's
    ``tempfile``: the environment variable ``TMPDIR`` changes it.
    """
    kind = torch.empty(0, dtype=dtype).numpy().dtype
    if math.prod(shape) * kind.itemsize <= MAPPED:
        return torch.empty(shape, dtype=dtype)
    with tempfile.TemporaryFile() as file:
        return torch.from_numpy(np.memmap(file, kind, "w+", shape=shape))


def workers_of(strategy: Any) -> int:
    """Number of worker processes of a strategy's loader; 0: none, or no loader yet."""
    loader = getattr(strategy, "dataloader", None)
    loader = getattr(loader, "stock", loader)
    found = getattr(loader, "num_workers", None)
    return int(getattr(loader, "loader_kwargs", {}).get("num_workers", 0) if found is None else found)


def spread(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` rows, evenly spaced."""
    return torch.linspace(0, count - 1, min(count, most)).long().tolist() if count else []


def differs(read: Callable[[int], Any], count: int, looked_at: int = LOOKED_AT, reads: int = READS) -> bool:
    """Whether a sample differs between two readings, under several states of all random generators.

    With the usual numbers, a random effect on one reading in 50 is missed in fewer than one of 40 data sets of at least
    64 samples. An effect that is rarer, that concerns few samples only, or that changes between epochs and not between
    readings, may be missed.

    Args:
        read: Reads the sample of a row: a tensor, an array, a picture, a number, or a list or tuple of these.
        count: Number of rows.
        looked_at: Largest number of samples that are read, evenly spaced.
        reads: Number of readings together; each sample is read at most :data:`MOST` times.
    """
    rows = spread(count, looked_at)
    first: list[Any] = []
    for number in range(min(MOST, -(-reads // max(1, len(rows))))):
        with isolated(number):
            found = [read(row) for row in rows]
        first = first or found
        if not all(same(a, b) for a, b in zip(first, found, strict=True)):
            return True
    return False


def same(first: Any, second: Any) -> bool:
    """Whether two readings of a sample are equal; NaN equals NaN."""
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(same(a, b) for a, b in zip(first, second, strict=True))
    one, other = np.asarray(first), np.asarray(second)
    return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
