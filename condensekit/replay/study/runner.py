"""Runner of the study: compares memories in class-incremental learning, over class orders."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from condensekit import tables
from condensekit.catalog import own
from condensekit.compute import Compute, Machine, of_rank
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, instance, path, quoted, refuse, several, unknown
from condensekit.progress import SILENT, Progress
from condensekit.ranks import alone, joined, launched
from condensekit.replay.memory.base import Interrupted
from condensekit.replay.study.checks import check_run, idle_encoder
from condensekit.replay.study.contrasts import Contrast, Pair, contrasts, named_pair
from condensekit.replay.study.memories import (
    DER,
    EQUAL_BYTES,
    ER,
    ER_ACE,
    FROM_SCRATCH,
    REGIMES,
    SAME,
    Making,
    MemoryKind,
    memory,
    refuse_unused,
)
from condensekit.replay.study.plot import plot
from condensekit.replay.study.protocol import Bench, Online, Record, Settings, numbered
from condensekit.replay.study.results import FILE, ReplayResult, read_record, row
from condensekit.replay.study.scores import Cell, by_seed, curve, final_accuracies
from condensekit.runs.describe import describe
from condensekit.runs.files import keeping, read_json, write_bytes_atomic, write_json
from condensekit.runs.folder import RunDir, environment
from condensekit.runs.kept import refuse_other
from condensekit.runs.lock import trying
from condensekit.runs.sharing import check_alike, each_once

PLOT = "replay.png"
TABLE = "replay.md"
MEMORIES = "memories.json"  # description of each memory of a run folder


def run_protocol(
    train: ClassImages,
    test: ClassImages,
    *,
    memories: Sequence[str | MemoryKind],
    out: str | Path,
    regimes: Sequence[str] = (FROM_SCRATCH,),
    settings: Settings = Settings(),  # noqa: B008 - frozen
    making: Making = Making(),  # noqa: B008 - frozen
    resume: bool = False,
    record: Mapping[str, Any] | None = None,
    room: int | None = None,
    progress: Progress = SILENT,
) -> ReplayResult:
    """Compare memories in a class-incremental protocol.

    The classes of each experience are condensed from their own images only. All memories of an order have the same
    class order, network seeds, gradient steps, images in a step and augmentation, so that differences are paired.

    Processes that ``torchrun`` started share the pairs of a memory and a class order: all of them call this function
    alike and see the folder ``out``, and all get the whole result, with the numbers of one process with equally many
    threads. Rank 0 alone writes the result and shows progress.

    >>> import tempfile, condensekit as ck
    >>> from dataclasses import replace
    >>> from pathlib import Path
    >>> from condensekit.catalog import protocol
    >>> from condensekit.replay import Making, Settings, run_protocol
    >>> train, test = ck.load("digits")
    >>> short = replace(protocol("short"), steps=5)
    >>> settings = Settings(experiences=2, ipc=1, orders=1, network=ck.ConvNet(width=8), protocol=short)
    >>> making = Making(steps=2, options={"encoder_network": "ConvNet-w8"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = Path(folder) / "replay"
    ...     found = run_protocol(train, test, memories=["dm", "random"], out=run, settings=settings, making=making)
    >>> found.primary_contrast
    ('dm', 'random')

    Args:
        train: Real training images. Images that are not flippable are never mirrored.
        test: Real test images of the same classes; each network is tested on the images of all classes seen.
        memories: Names of memories (see :func:`condensekit.replay.study.memories.memory`), or your own kinds. Their
            order decides the primary contrast, see :func:`condensekit.replay.study.contrasts.named_pair`.
        out: The run folder. A finished cell (memory, regime, order, network) is read from it, and a killed condensation
            is resumed. The run can be repeated with more memories, regimes or orders. The former memories and regimes
            of its ``replay.json`` are run with the new number of orders, too; the primary contrast stays.
        regimes: Names of :data:`condensekit.replay.study.memories.REGIMES`. A memory that cannot be used in a regime is
            left out of this regime.
        settings: The protocol.
        making: Settings of condensed memories, and the machine.
        resume: Continue the run in ``out``.
        record: Further entries for ``config.json``.
        room: Bytes of each class in memories of equal bytes; None: the bytes of the largest condensed memory of the
            run.
        progress: Progress display, updated after each gradient step.

    Returns:
        Rows and contrasts. ``out`` holds them as ``replay.json``, with a table and a plot.

    Raises:
        ConfigError: Unknown names, wrong options, an option that no memory has; a folder with another run, or with
            another memory under the same name; ranks with different data or options.
        DataError: Images that cannot be used, or classes with too few images.
        StoreError: The folder cannot be written, or one of its files is damaged; if only the result could not be
            written, ``result`` holds it.
        DivergedError: A condensation met values that are not finite, or weights of a learner are not finite.
        Interrupted: A signal ended a condensation; run again with ``resume=True``.
        RankError: Another rank has ended before all of them had begun.
    """
    out = _checked(train, test, memories, out, regimes, settings, making, progress)
    progress = progress if launched().first else SILENT
    kinds = [memory(name, making) if isinstance(name, str) else name for name in memories]
    _check(kinds, regimes, settings)
    tested = {"name": (test.source or {}).get("name"), "images": len(test)}
    train, test = numbered(train, test)
    making = making.on(train)
    settings = replace(settings, protocol=settings.protocol.on(train.spec))
    settings.stream(0, len(train.classes))  # raises an error for a number of experiences that does not fit
    former = read_record(out / FILE) if resume and os.path.lexists(out / FILE) else {"rows": []}
    wanted = [(regime, kind.name) for regime, kind in product(regimes, kinds) if regime in kind.regimes]
    places = list(dict.fromkeys([*((found["regime"], found["memory"]) for found in former["rows"]), *wanted]))
    for regime, _ in places:
        check_regime(regime)  # a name of a folder
    known = {kind.name: kind for kind in kinds}
    known = {name: known.get(name) or _again(name, making, out) for _, name in places}
    refuse_unused(making, list(known.values()))
    room = room or _room(known, settings, train)
    used = [(regime, known[name]) for regime, name in places]
    check_run(used, settings, train, room)
    if note := idle_encoder(used, settings, making, train):
        progress.tell(note)
    named = former.get("primary_contrast")
    primary = (named["memory"], named["against"]) if named else named_pair(list(known.values()))
    if named and primary and primary != named_pair(kinds):
        progress.tell(f"the primary contrast stays that of the first run: {primary[0]} against {primary[1]}")
    asked = {**describe(settings), "making": _identity(making), "test_fingerprint": test.fingerprint()}
    for name in ("orders", "type"):
        asked.pop(name)  # a resumed run may have more orders
    fingerprint, size = train.fingerprint(), (train.spec.shape[1], train.spec.shape[2])
    kept = {name: describe(kind.filler) for name, kind in known.items()}
    told = {**asked, "orders": settings.orders, "places": places, "memories": kept, "room": room, "data": fingerprint}
    with ExitStack() as stack:

        def opened() -> None:
            """Open the run folder, on rank 0 for all."""
            stack.enter_context(RunDir.create(out, {**asked, **(record or {})}, resume, fingerprint))
            _remember(known.values(), out / MEMORIES)

        with joined() as ranks:
            check_alike(ranks, told)
            ranks.from_first(opened)
        stack.enter_context(alone())  # each cell is made by one rank
        if ranks.several:
            making = replace(making, machine=of_rank(making.machine, ranks.local))
        compute = stack.enter_context(Compute(Machine(making.machine.device, workers=making.machine.workers), size))
        bench = Bench(train, test, settings, making, out, compute, room, progress)
        progress.tell(_size(places, known, settings, making))
        rounds = list(product(settings.order_numbers(), places))  # orders outermost: each has the same cost
        made = _made(bench, known, rounds)
    cells: dict[tuple[str, str], Cell] = {}
    for (_, place), found in zip(rounds, made, strict=True):
        cells.setdefault(place, []).append(found)
    result = ReplayResult(
        rows=tuple(
            row(known[name], regime, cell, cells.get((regime, "random")), settings, train)
            for (regime, name), cell in cells.items()
        ),
        accuracy_by_experience={f"{regime}/{name}": curve(cell) for (regime, name), cell in cells.items()},
        primary_contrast=primary,
        contrasts=tuple(_contrasts(cells, known, primary, settings) if primary else ()),
        settings=describe(settings),
        making=_identity(making),
        environment=environment(),
        test=tested,
    )
    if launched().first:
        with keeping(result):
            write_json(out / FILE, result.to_json())
            write_bytes_atomic(out / TABLE, f"{result.table(tables.WIDTH)}\n".encode())
            plot(result.accuracy_by_experience, out / PLOT)
    return result


Round = tuple[int, tuple[str, str]]  # number of a class order, and a regime with a memory


def _made(bench: Bench, kinds: Mapping[str, MemoryKind], rounds: Sequence[Round]) -> list[list[Record]]:
    """The records of each memory in each class order, of which other ranks may make some."""
    before = {(order, (regime, name)) for order, (regime, name) in rounds if bench.finished(kinds[name], regime, order)}
    if before:
        bench.progress.tell(f"{len(before)} of {len(rounds)} pairs of a memory and a class order were finished before")

    def one(asked: Round) -> list[Record] | None:
        order, (regime, name) = asked
        with trying(bench.lock(kinds[name], regime, order)) as held:
            if not held:
                return None
            found = _cell(regime)(kinds[name], order, bench)
        whole.advance(0 if asked in before else 1)
        return found

    with bench.progress.stage("replay: memories x orders", len(rounds), len(before)) as whole:
        try:
            return each_once(rounds, one)
        except Interrupted as stopped:
            raise Interrupted(stopped.message, stopped.signum, "continue with resume=True") from None


def _checked(
    train: object,
    test: object,
    memories: object,
    out: Any,
    regimes: object,
    settings: object,
    making: object,
    progress: object,
) -> Path:
    """The run folder. Raises ConfigError for arguments of :func:`run_protocol` that are of another kind."""
    names = memories if isinstance(memories, list | tuple) else ()
    odd = next((one for one in names if not isinstance(one, str | MemoryKind)), None)
    way_out = "the images of condensekit.load"
    refuse(
        instance("train", train, ClassImages, way_out),
        instance("test", test, ClassImages, way_out),
        several("memories", memories, '["dm", "random"]'),
        f"a memory must be a name or a MemoryKind, got {quoted(odd)}: pass such as 'dm'" if odd is not None else None,
        path("out", out, "the run folder"),
        several("regimes", regimes, '["from-scratch"]'),
        instance("settings", settings, Settings, "Settings()"),
        instance("making", making, Making, "Making()"),
        instance("progress", progress, Progress, "a Progress, or nothing"),
    )
    return Path(out)


def _size(
    places: Sequence[tuple[str, str]], kinds: Mapping[str, MemoryKind], settings: Settings, making: Making
) -> str:
    """How much work a study is, for people; what the run folder holds already is done."""
    networks = settings.orders * settings.networks
    trainings = sum(networks * (settings.experiences if regime == FROM_SCRATCH else 1) for regime, _ in places)
    condensed = {(name, regime == FROM_SCRATCH) for regime, name in places if kinds[name].learnt}
    sets = sum((settings.orders if shared else networks) * settings.experiences for _, shared in condensed)
    steps = f" of {making.steps:,} steps" if making.steps else ""
    size = f"orders: {settings.orders}, experiences: {settings.experiences}: {trainings} trainings"
    return size + (f", {sets} condensations{steps}" if sets else "")


def check_regime(name: str) -> None:
    """Raise ConfigError for an unknown regime."""
    if not isinstance(name, str) or name not in REGIMES:
        raise unknown("regime", name, REGIMES)


def _check(kinds: Sequence[MemoryKind], regimes: Sequence[str], settings: Settings) -> None:
    refuse(
        None if kinds else "there is no memory to run: give at least one memory",
        None if regimes else "there is no regime to run: give at least one regime",
    )
    for regime in regimes:
        check_regime(regime)
    names = [kind.name for kind in kinds]
    twice = [name for name in names if names.count(name) > 1]
    lost = [kind for kind in kinds if not set(kind.regimes) & set(regimes)]
    refuse(
        f"memory {twice[0]!r} is given twice" if twice else None,
        _unused(regimes, settings.online),
        *(f"memory {kind.name!r} runs in {', '.join(kind.regimes)} only: add that regime" for kind in lost),
    )


def _unused(regimes: Sequence[str], online: Online) -> str | None:
    """The problem of loss terms or fine-tuning that a regime does not have, or None."""
    given = {"distillation": online.distillation, "fine_tune": online.fine_tune}
    bare = [regime for regime in regimes if regime in (ER_ACE, DER)] or ([] if ER in regimes else list(regimes))
    used = [f"{name}={value}" for name, value in given.items() if value]
    return f"{' and '.join(used)} belong to regime er, {bare[0]} has no such term" if used and bare else None


def _identity(making: Making) -> dict[str, Any]:
    """All settings that decide a result, as JSON values."""
    return {**describe(making), "machine": making.machine.identity}


def _remember(kinds: Iterable[MemoryKind], path: Path) -> None:
    """Write the description of each memory; raise ConfigError if the folder has another memory of the same name."""
    found = read_json(path, dict) if os.path.lexists(path) else {}
    for kind in kinds:
        name, what = SAME.get(kind.name, kind.name), describe(kind.filler)
        there = f"{path.parent} holds results of another memory {name!r}"
        refuse_other(
            there, found.setdefault(name, what), what, f"give {kind.name!r} another name, or use another folder"
        )
    write_json(path, found)


def _again(name: str, making: Making, out: Path) -> MemoryKind:
    """The memory of a former row in the run folder. The folder may come from another person: its code does not run."""
    try:
        with own.only():
            return memory(name, making)
    except ConfigError as error:
        raise ConfigError(
            f"{out / FILE} has rows of memory {name!r}, which is not built in: give it again in memories"
        ) from error


def _room(kinds: Mapping[str, MemoryKind], settings: Settings, train: ClassImages) -> int:
    """Bytes per class of the largest condensed memory of the run; without a condensed memory, of real images."""
    learnt = [kind for kind in kinds.values() if kind.learnt] or [memory(EQUAL_BYTES)]
    return settings.ipc * max(kind.bytes_each(train) for kind in learnt)


def _cell(regime: str) -> Callable[[MemoryKind, int, Bench], list[Record]]:
    """The function that runs one memory in one order of a regime; imports Avalanche only if the regime needs it."""
    if regime == FROM_SCRATCH:
        from condensekit.replay.study.from_scratch import from_scratch

        return from_scratch
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no QP solver found", UserWarning)  # at the import of Avalanche
        importlib.import_module("condensekit.replay.adapters")  # before Avalanche
        from condensekit.replay.study.incremental import incremental

    return partial(incremental, regime=regime)


def _contrasts(
    cells: Mapping[tuple[str, str], Cell], kinds: Mapping[str, MemoryKind], primary: Pair, settings: Settings
) -> Iterator[Contrast]:
    """The comparisons of all regimes."""
    for regime in dict.fromkeys(key[0] for key in cells):
        mine = {
            name: by_seed(final_accuracies(cell), settings) for (where, name), cell in cells.items() if where == regime
        }
        learnt = [name for name in mine if kinds[name].learnt]
        real = [name for name in mine if kinds[name].control]
        yield from contrasts(regime, mine, learnt, real, primary)
