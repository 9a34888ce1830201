"""The from-scratch regime: after each step, networks trained anew on the memory of all classes seen so far.

The same as :class:`~condensekit.replay.adapters.plugins.FromScratchOnMemory` in an Avalanche strategy (a test compares
them), many times faster: trainings run side by side, and none of the stream's real images is passed through a loader.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import product

from torch import Tensor

from condensekit.data.images import ClassImages
from condensekit.driver import Saving
from condensekit.progress import Shared
from condensekit.replay.adapters.seeds import network_draw
from condensekit.replay.memory.content import SECONDS
from condensekit.replay.memory.fillers import EVERY, filled
from condensekit.replay.study.memories import FROM_SCRATCH, SAME, MemoryKind
from condensekit.replay.study.protocol import Bench, Cache, Record
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.jpeg import LABEL
from condensekit.training.train import train_network

Sets = list[CondensedSet]


def from_scratch(memory: MemoryKind, order: int, bench: Bench) -> list[Record]:
    """One memory in one class order.

    Args:
        memory: What is trained on; one without a filler stands for all real images of the classes seen.
        order: Number of the class order.
        bench: The rest.

    Returns:
        For each step: ``scores``, one for each network (see :meth:`Bench.score`); ``nbytes`` and ``images`` stored
        by then; ``condense_s`` of the step; ``train_s``, the mean seconds of a network on one worker; ``steps``, its
        gradient steps; ``passes``, how often each decoded image was seen in them.
    """
    settings, train = bench.settings, bench.train
    experiences = settings.experiences(order, len(train.classes))
    sets = [step_set(memory, order, i, bench) for i in range(len(experiences))] if memory.filler else []
    tasks = list(product(range(len(experiences)), range(settings.networks)))
    lengths = [_steps(memory, experiences[: i + 1], bench) for i, _ in tasks]
    with bench.progress.stage(f"{memory.name}, order {order}", sum(lengths)) as stage:
        shared = Shared(stage)

        def one(task: tuple[int, int]) -> Record:
            i, network = task
            name = f"{FROM_SCRATCH}/{folder_of(memory, bench)}/order-{order}/step-{i + 1}-network-{network}"
            seen = experiences[: i + 1]
            with shared.ending_all():
                return bench.remember(name, lambda: _train(memory, sets[: i + 1], seen, order, network, bench, shared))

        with shared.ending_all():
            found = dict(zip(tasks, bench.compute.map(one, tasks), strict=True))
    rows = []
    for i in range(len(experiences)):
        mine = [found[i, network] for network in range(settings.networks)]
        rows.append(
            {
                "scores": [record["score"] for record in mine],
                **{key: mine[0][key] for key in ("nbytes", "images", "steps", "passes")},
                "condense_s": sets[i].provenance["seconds"] if sets else 0.0,
                "train_s": sum(record["train_s"] for record in mine) / len(mine),
            }
        )
    return rows


def step_set(memory: MemoryKind, order: int, step: int, bench: Bench) -> CondensedSet:
    """The memory of the classes of one step, made from their images alone; from the run folder where it is there."""
    assert memory.filler is not None
    settings, train = bench.settings, bench.train
    classes = settings.experiences(order, len(train.classes))[step]
    seed, folder = settings.set_seed(order), bench.out / "sets" / folder_of(memory, bench)
    file = folder / f"order-{order}-step-{step + 1}-of-{settings.steps}.safetensors"
    if file.exists():
        return CondensedSet.load(file)
    how = replace(
        memory.how,
        seed=seed,
        device=str(bench.compute.device),
        saving=Saving(file.with_suffix(""), resume=True, every=EVERY),
        progress=bench.progress,
    )
    count = memory.images(settings.per_class, train, bench.room)
    parts = filled(memory.filler, train.select(classes), count, how, cache_of(bench))
    seconds = sum(float(part.provenance[SECONDS]) for part in parts.values())
    made = reduce(CondensedSet.merge, (parts[label] for label in sorted(parts)))
    made = replace(made, provenance={"seconds": seconds, "parts": [dict(part.provenance) for part in parts.values()]})
    made.save(file)
    return made


def cache_of(bench: Bench) -> Cache:
    """Where the sets of single classes are, for orders that share a seed."""
    return Cache(bench.out / "sets" / "classes")


def folder_of(memory: MemoryKind, bench: Bench) -> str:
    """Name and images per class, fit for a path; of equal memories the same, see :data:`SAME`."""
    if memory.filler is None:
        return memory.name
    name = SAME.get(memory.name, memory.name).replace("/", "_")
    return f"{name}-{memory.images(bench.settings.per_class, bench.train, bench.room)}"


def _steps(memory: MemoryKind, experiences: Sequence[Sequence[int]], bench: Bench) -> int:
    """Gradient steps of one network."""
    seen = [label for step in experiences for label in step]
    if memory.filler is None:
        return bench.settings.protocol.for_full().steps_on(len(bench.train.select(seen)))
    return bench.settings.work(len(seen)).steps_on(1)


def _train(
    memory: MemoryKind,
    sets: Sets,
    experiences: Sequence[Sequence[int]],
    order: int,
    network: int,
    bench: Bench,
    stage: Shared,
) -> Record:
    """Train and score one network on the memory after the last of ``experiences``."""
    settings, classes = bench.settings, bench.train.classes
    seen = [label for step in experiences for label in step]
    start = time.perf_counter()
    images: Tensor | ClassImages
    if memory.filler is None:
        images = real = bench.train.select(seen)
        targets, protocol = real.labels[real.order], settings.protocol.for_full()
        nbytes, count = len(real) * (real.images[0].numel() * real.images.element_size() + LABEL), len(real)
    else:
        stored = reduce(CondensedSet.merge, sets)
        images, targets, protocol = stored.decode()[0], stored.targets(), settings.work(len(seen))
        nbytes, count = stored.nbytes, len(stored)
    draw = network_draw(settings.network_seed(order, network), len(seen))
    module = train_network(images, targets, settings.network, protocol, draw, bench.compute, len(classes), stage)
    seconds = time.perf_counter() - start
    steps = protocol.steps_on(len(images))
    return {
        "score": bench.score(module, experiences),
        "nbytes": nbytes,
        "images": count,
        "train_s": seconds,
        "steps": steps,
        "passes": protocol.passes_on(len(images)),
    }
