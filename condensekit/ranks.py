"""Ranks: the processes that torchrun started, which share the classes or the cells of one run.

The environment tells a process its rank. Without torchrun there is one rank, and torch.distributed is not used.
"""

from __future__ import annotations

import atexit
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from condensekit.errors import CondensekitError, RankError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
ARRIVAL = timedelta(minutes=30)  # until all ranks have begun the same run
PATIENCE = timedelta(hours=3)  # for a rank that works alone, such as on encoders; one that ends is noticed at once
_groups: dict[str, Any] = {}  # process groups of all ranks, by backend; inside :func:`joined` only
_numbers = itertools.count()  # of the connections, which all ranks make in the same order


@dataclass(frozen=True)
class Ranks:
    """The ranks of a run, and the one that this process is. With one rank, every method returns what it is given.

    All ranks call the same methods in the same order, in their main threads.

    Args:
        number: Number of this rank, from 0.
        count: Number of ranks.
        local: Number of this rank among those of this computer, which is the number of its GPU.

    Every method raises :class:`RankError` if another rank has ended, or does not answer.
    """

    number: int = 0
    count: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which alone prints and writes."""
        return self.number == 0

    @property
    def several(self) -> bool:
        """Whether there are other ranks."""
        return self.count > 1

    def part(self, total: int, number: int | None = None) -> slice:
        """The rows of ``total`` that belong to a rank; None: to this one."""
        number = self.number if number is None else number
        return slice(number * total // self.count, (number + 1) * total // self.count)

    def arrive(self) -> None:
        """Wait until all ranks are here."""
        if self.several:
            _exchange(lambda d: d.monitored_barrier(_group("gloo"), ARRIVAL, wait_all_ranks=True))

    def objects(self, mine: T) -> list[T]:
        """An object of each rank, in their order."""
        found: list[Any] = [mine] * self.count
        if self.several:
            _exchange(lambda d: d.all_gather_object(found, mine, _group("gloo")))
        return found

    def from_first(self, make: Callable[[], T]) -> T:
        """What ``make`` returns on rank 0, where alone it is called; all ranks raise its error."""
        if not self.several:
            return make()
        told: list[Any] = [None, None]
        if self.first:
            with alone():
                try:
                    told[0] = make()
                except CondensekitError as error:
                    told[1] = error
        _exchange(lambda d: d.broadcast_object_list(told, 0, _group("gloo")))
        if told[1] is not None:
            told[1].of_all = True
            raise told[1]
        return told[0]  # type: ignore[no-any-return]

    def most(self, *numbers: int) -> list[int]:
        """The greatest of all ranks, for each number."""
        if not self.several:
            return list(numbers)
        import torch

        found = torch.tensor(numbers, dtype=torch.int64)
        _exchange(lambda d: d.all_reduce(found, d.ReduceOp.MAX, _group("gloo")))
        return found.tolist()

    def rows(self, mine: Tensor, total: int) -> Tensor:
        """The rows of all ranks together: (n, ...) of the :meth:`part` of each -> (total, ...), on the same device."""
        if not self.several:
            return mine
        if mine.device.type not in ("cpu", "cuda"):
            return self.rows(mine.cpu(), total).to(mine.device)
        whole = mine.new_empty((total, *mine.shape[1:]))
        parts, group = [whole[self.part(total, number)] for number in range(self.count)], _group_of(mine)
        parts[self.number].copy_(mine)
        if total % self.count == 0:
            _exchange(lambda d: d.all_gather(parts, mine.contiguous(), group))
        else:
            _exchange(lambda d: [d.broadcast(part, number, group) for number, part in enumerate(parts)])
        return whole

    def combined(self, metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The 0-dim metrics of a step of all classes, from those of the classes of each rank.

        ``finite`` holds where it holds on all ranks. A metric whose name ends with ``_norm`` is the root of the sum of
        squares; every other one is the sum.
        """
        if not self.several:
            return dict(metrics)
        import torch

        mine = torch.stack([value.detach().float() for value in metrics.values()])[None]
        every = self.rows(mine, self.count).double()
        combined = {}
        for column, (name, value) in zip(every.T, metrics.items(), strict=True):
            one = column.min() if name == "finite" else column.norm() if name.endswith("_norm") else column.sum()
            combined[name] = one.to(value.dtype)
        return combined


ALONE = Ranks()
_present: ContextVar[Ranks | None] = ContextVar("ranks", default=None)  # None: as torchrun says, once somebody asks


def launched() -> Ranks:
    """The ranks that torchrun started, without a connection to them; :data:`ALONE` without torchrun."""
    told = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    if not all(map(str.isdecimal, told)) or "MASTER_ADDR" not in os.environ or _present.get() is ALONE:
        return ALONE
    number, count, local = map(int, told)
    return Ranks(number, count, local) if count > 1 else ALONE


def tells(error: CondensekitError) -> bool:
    """Whether this rank says what is wrong: rank 0 for all, and one rank of each computer before they have joined."""
    here = launched()
    return here.first or (not error.of_all and (bool(_store.cache_info().currsize) or here.local == 0))


def present() -> Ranks:
    """The ranks that make the present run together; :data:`ALONE` outside :func:`joined`, and in other threads."""
    return _present.get() or ALONE


@contextmanager
def joined() -> Iterator[Ranks]:
    """Make the run inside together with the other ranks, if there are any; only in the main thread.

    The connection ends with the run: Avalanche would share the data of a training over the ranks that it finds.

    Raises:
        RankError: A rank has not begun the same run.
    """
    outer = _present.get()
    if outer is not None:
        yield outer
        return
    found = launched() if threading.current_thread() is threading.main_thread() else ALONE
    token = _present.set(found)
    try:
        found.arrive()
        yield found
    finally:
        _present.reset(token)
        if found.several:
            _leave()


@contextmanager
def alone() -> Iterator[None]:
    """Make the runs inside on this rank alone, each rank its own."""
    token = _present.set(ALONE)
    try:
        yield
    finally:
        _present.reset(token)


def _group_of(values: Tensor) -> Any:
    return _group("nccl" if values.is_cuda else "gloo")


def _group(backend: str) -> Any:
    """The process group of all ranks with this backend, made when it is first used."""
    import torch.distributed as dist

    if backend not in _groups:
        if not dist.is_initialized():
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # the store still has addresses of former ones
            here, name = launched(), f"condensekit-{attempt}-{next(_numbers)}"
            store = dist.PrefixStore(name, _store())  # type: ignore[attr-defined]
            dist.init_process_group("gloo", store=store, rank=here.number, world_size=here.count, timeout=PATIENCE)
            _groups["all"] = None  # which is the group that torch.distributed uses without another one
        _groups[backend] = dist.new_group(backend=backend, timeout=PATIENCE)
    return _groups[backend]


@cache
def _store() -> Any:
    """Where the ranks find each other's addresses."""
    import torch.distributed as dist

    atexit.register(_store.cache_clear)
    return next(dist.rendezvous("env://", timeout=PATIENCE))[0]  # type: ignore[attr-defined]


def _leave() -> None:
    """End the connection to the other ranks."""
    import torch.distributed as dist

    for group in [None] if "all" in _groups else _groups.values():
        dist.destroy_process_group(group)
    _groups.clear()


def _exchange(work: Callable[[Any], object]) -> None:
    """Call ``work`` with the module torch.distributed. Raises RankError where the other ranks do not answer."""
    import torch.distributed as dist

    try:
        work(dist)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise RankError(
            "another rank has ended or does not answer, so this rank ends, too; torchrun names it. A run with a folder "
            f"goes on with resume=True ({reason:.200})"
        ) from error
