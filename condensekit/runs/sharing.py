"""Sharing: tasks that several processes make together, each task by one of them, and the check that they are alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch

from condensekit.errors import refuse
from condensekit.ranks import Ranks
from condensekit.runs.kept import changes, plain

T = TypeVar("T")
R = TypeVar("R")
ALIKE = "start all ranks alike, or make each run inside ranks.alone()"
PAUSE = 0.2  # seconds between two looks at the tasks of other processes


def each_once(
    tasks: Iterable[T],
    attempt: Callable[[T], R | None],
    run: Callable[[Callable[[T], R | None], Sequence[T]], Iterable[R | None]] = map,
) -> list[R]:
    """The results of all tasks, in their order; the tasks that other processes are at come last.

    Args:
        tasks: The tasks.
        attempt: Makes a task, or reads what another process has made of it, while it holds the task's lock; None:
            another process holds it. If that one ends, the system frees the lock, and the task is made here.
        run: Calls a function with each of some tasks: ``map``, or :meth:`condensekit.compute.Compute.map`.
    """
    tasks = list(tasks)
    found: dict[int, R] = {}
    while True:
        left = [number for number in range(len(tasks)) if number not in found]
        made = run(attempt, [tasks[number] for number in left])
        found |= {number: result for number, result in zip(left, made, strict=True) if result is not None}
        if len(found) == len(tasks):
            return [found[number] for number in range(len(tasks))]
        time.sleep(PAUSE)


def check_alike(ranks: Ranks, options: Mapping[str, Any]) -> None:
    """Check on all ranks that they make the same run.

    Args:
        ranks: The ranks.
        options: All that decides the result on this rank, such as the fingerprint of the data; JSON values.

    Raises:
        ConfigError: A rank whose options differ from those of rank 0; the text shows each difference.
    """
    every = ranks.objects(plain({**options, "torch": str(torch.__version__)}))

    def compare() -> None:
        for number, other in enumerate(every):
            different = "; ".join(changes(every[0], other))
            refuse(f"rank {number} (here) and rank 0 (there) differ ({different}): {ALIKE}" if different else None)

    ranks.from_first(compare)
