"""From-scratch regime: after each experience, new networks are trained on the memory of all classes seen so far.

It gives the same networks as :class:`~condensekit.replay.adapters.plugins.FromScratchOnMemory` in an Avalanche
strategy (a test compares them), many times faster: trainings run in parallel, and no loader reads the real images.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial, reduce
from itertools import product
from typing import TypedDict

from torch import Tensor

from condensekit.data.images import ClassImages
from condensekit.progress import Shared
from condensekit.replay.adapters.seeds import network_draw
from condensekit.replay.memory.content import spent_on
from condensekit.replay.memory.fillers import filled
from condensekit.replay.study.memories import FROM_SCRATCH, MemoryKind
from condensekit.replay.study.protocol import Bench, Record, Score, cell, total
from condensekit.sets.coding import LABEL
from condensekit.sets.condensed import CondensedSet
from condensekit.training.train import train_network

Sets = list[CondensedSet]


class _Cell(TypedDict):
    """What is kept of one training."""

    score: Score
    nbytes: int
    images: int
    train_s: float
    train_steps: float
    passes: float | None


def from_scratch(memory: MemoryKind, order: int, bench: Bench) -> list[Record]:
    """Run one memory in one class order.

    Args:
        memory: The memory on which networks are trained; without a filler: all real images of the classes seen.
        order: Number of the class order.
        bench: Data and settings of the run.

    Returns:
        A record for each experience: ``scores``, one score for each network (see :meth:`Bench.score`); ``nbytes`` and
        ``images``, the stored bytes and images; ``condense_s`` and ``work``, the seconds and the work of filling the
        memory; ``train_s``, the mean training seconds of a network on one worker; ``train_steps``, the gradient steps
        of a network; ``passes``, the number of times that each decoded image was used in these steps.
    """
    settings, train = bench.settings, bench.train
    stream = settings.stream(order, len(train.classes))
    sets = [experience_set(memory, order, i, bench) for i in range(len(stream))] if memory.filler else []
    tasks = list(product(range(len(stream)), range(settings.networks)))
    lengths = [_steps(memory, stream[: i + 1], bench) for i, _ in tasks]
    with bench.progress.stage(f"{memory.name}, order {order}", sum(lengths)) as stage:
        shared = Shared(stage)

        def one(task: tuple[int, int]) -> Record:
            i, network = task
            name = cell(FROM_SCRATCH, order, network, i)
            seen, stored = stream[: i + 1], sets[: i + 1]
            with shared.ending_all():
                make = partial(_train, memory, stored, seen, order, network, bench, shared)
                record = bench.remember(memory, name, make, _Cell)
                shared.advance(0, {"accuracy": total(record["score"])})
                return record

        with shared.ending_all():
            found = dict(zip(tasks, bench.compute.map(one, tasks), strict=True))
    rows = []
    for i in range(len(stream)):
        mine = [found[i, network] for network in range(settings.networks)]
        rows.append(
            {
                "scores": [record["score"] for record in mine],
                **{key: mine[0][key] for key in ("nbytes", "images", "train_steps", "passes")},
                "condense_s": sets[i].provenance["seconds"] if sets else 0.0,
                "work": sets[i].provenance["work"] if sets else None,
                "train_s": sum(record["train_s"] for record in mine) / len(mine),
            }
        )
    return rows


def experience_set(memory: MemoryKind, order: int, i: int, bench: Bench) -> CondensedSet:
    """The memory of the classes of experience ``i``, made from their images only, or read from the run folder."""
    assert memory.filler is not None
    settings, train = bench.settings, bench.train
    classes = settings.stream(order, len(train.classes))[i]
    name = f"order-{order}-experience-{i + 1}-of-{settings.experiences}"
    folder = bench.out / "sets" / bench.folder(memory) / name
    file = folder.with_suffix(".safetensors")
    if file.exists():
        return CondensedSet.load(file)
    count = memory.images(settings.ipc, train, bench.room)
    job = replace(bench.job(order, folder), room=memory.room(train, bench.room))
    parts = filled(memory.filler, train.select(classes), count, job, bench.cache)
    seconds, spent = spent_on(parts.values())
    made = reduce(CondensedSet.merge, (parts[label] for label in sorted(parts)))
    told = [dict(part.provenance) for part in parts.values()]
    made = replace(made, provenance={"seconds": seconds, "work": asdict(spent), "parts": told})
    made.save(file, overwrite=True)
    return made


def _steps(memory: MemoryKind, stream: Sequence[Sequence[int]], bench: Bench) -> int:
    """Number of gradient steps of one network."""
    seen = [label for classes in stream for label in classes]
    if memory.filler is None:
        return bench.settings.protocol.for_full().steps_on(len(bench.train.select(seen)))
    return bench.settings.work(map(bench.train.count, seen)).steps_on(1)


def _train(
    memory: MemoryKind,
    sets: Sets,
    stream: Sequence[Sequence[int]],
    order: int,
    network: int,
    bench: Bench,
    stage: Shared,
) -> Record:
    """Train and score one network on the memory after the last experience of ``stream``."""
    settings, classes = bench.settings, bench.train.classes
    seen = [label for labels in stream for label in labels]
    start = time.perf_counter()
    images: Tensor | ClassImages
    if memory.filler is None:
        images = real = bench.train.select(seen)
        targets, protocol = real.labels[real.order], settings.protocol.for_full()
        nbytes, count = len(real) * (real.images[0].numel() * real.images.element_size() + LABEL), len(real)
    else:
        stored = reduce(CondensedSet.merge, sets)
        images, targets, protocol = stored.decode()[0], stored.targets(), settings.work(map(bench.train.count, seen))
        nbytes, count = stored.nbytes, len(stored)
    draw = network_draw(settings.network_seed(order, network), len(seen))
    module = train_network(images, targets, settings.network, protocol, draw, bench.compute, len(classes), stage)
    seconds = time.perf_counter() - start
    steps = protocol.steps_on(len(images))
    return {
        "score": bench.score(module, stream),
        "nbytes": nbytes,
        "images": count,
        "train_s": seconds,
        "train_steps": steps,
        "passes": protocol.passes_on(len(images)),
    }
