"""The protocol runner: memories against one another in class-incremental learning, over class orders."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from condensekit.compute import Compute, make_plan
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, refuse
from condensekit.progress import SILENT, Progress
from condensekit.replay.study.checks import check_run
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
from condensekit.replay.study.protocol import Bench, Online, Record, Settings, check_regime, numbered
from condensekit.replay.study.results import (
    Pair,
    by_seed,
    contrasts,
    final_accuracies,
    named_pair,
    plot,
    row,
    steps_of,
    table,
)
from condensekit.runs.describe import describe
from condensekit.runs.files import read_json, write_bytes_atomic, write_json
from condensekit.runs.folder import RunDir, changes, environment

FILE = "replay.json"
PLOT = "replay.png"
TABLE = "replay.md"
MEMORIES = "memories.json"


def run_protocol(
    train: ClassImages,
    test: ClassImages,
    *,
    memories: Sequence[str | MemoryKind],
    out: Path,
    regimes: Sequence[str] = (FROM_SCRATCH,),
    settings: Settings = Settings(),  # noqa: B008 - frozen
    making: Making = Making(),  # noqa: B008 - frozen
    data: str = "",
    device: str = "auto",
    resume: bool = False,
    record: dict[str, Any] | None = None,
    room: int | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Run memories through a class-incremental protocol, and compare them with random real images.

    Each step's classes are condensed from their own images alone. The same class order, network seeds, gradient
    steps, images in a step and augmentation hold for all memories of an order, so that differences are paired.

    Args:
        train: Real training images.
        test: Real test images of the same classes; each network is tested on all of those of the classes seen.
        memories: Names (see :func:`condensekit.replay.study.memories.memory`), or kinds of your own. Their order
            names the primary contrast, see :func:`condensekit.replay.study.results.named_pair`.
        out: The run folder. A finished cell (memory, regime, order, network) is read from it, a condensation that
            was killed is continued; the run may be repeated with more memories, regimes or orders. The memories and
            regimes of its ``replay.json`` stay in it, with as many orders as the new ones, and so does its contrast.
        regimes: Of :data:`condensekit.replay.study.memories.REGIMES`; a memory that does not fit one is left out there.
        settings: The protocol.
        making: How condensed memories are made.
        data: Name of the data set, for the augmentation.
        device: Where networks run.
        resume: Continue what is in ``out``.
        record: Further entries for ``config.json``.
        room: Bytes of each class that memories of equal bytes may fill; None for those of the run's largest
            condensed memory.
        progress: Told about each gradient step.

    Returns:
        What ``out/replay.json`` holds: ``rows``, see :func:`condensekit.replay.study.results.row`; ``accuracy_by_step``
        and ``contrasts``, see there; ``primary_contrast``: ``memory`` and ``against``, named before anything was
        measured, or None; ``settings``, ``making`` and ``environment``. The table and a plot are beside it.

    Raises:
        ConfigError: Unknown names, options that make no sense, a setting that no memory has; a folder that holds
            another run, or another memory under one of the names.
        DataError: Images that cannot be used; classes with too few of them.
        DivergedError: A condensation met values that are not finite, or a learner has such weights.
        Interrupted: A signal ended a condensation; run again with ``resume``.
    """
    kinds = [memory(name, making, data) if isinstance(name, str) else name for name in memories]
    _check(kinds, regimes, settings)
    refuse_unused(making, kinds)
    train, test = numbered(train, test)
    settings.experiences(0, len(train.classes))  # refuses steps that do not fit
    asked = {**describe(settings), "making": describe(making), "data": data, "test_fingerprint": test.fingerprint()}
    for name in ("orders", "type"):
        asked.pop(name)  # a run may get more orders
    asked |= record or {}
    plan = make_plan(train.spec.shape[1:], device=device)
    former = read_json(out / FILE) if resume and (out / FILE).exists() else {"rows": []}
    wanted = [(regime, kind.name) for regime, kind in product(regimes, kinds) if regime in kind.regimes]
    places = list(dict.fromkeys([*((found["regime"], found["memory"]) for found in former["rows"]), *wanted]))
    known = {kind.name: kind for kind in kinds}
    known = {name: known.get(name) or _again(name, making, data, out) for _, name in places}
    room = room or _room(known, settings, train)
    check_run([(regime, known[name]) for regime, name in places], settings, train, room)
    with RunDir.create(out, asked, resume, train.fingerprint()) as run, Compute(plan) as compute:
        _remember(known.values(), run.path / MEMORIES)
        bench = Bench(train, test, settings, run.path, compute, room, progress)
        cells = {
            (regime, name): [_cell(regime)(known[name], order, bench) for order in settings.order_numbers()]
            for regime, name in places
        }
    named = former.get("primary_contrast")
    primary = (named["memory"], named["against"]) if named else named_pair(list(known.values()))
    return _report(cells, known, primary, settings, making, out)


def _check(kinds: Sequence[MemoryKind], regimes: Sequence[str], settings: Settings) -> None:
    refuse(
        None if kinds else "nothing to run: give at least one memory",
        None if regimes else "nothing to run: give at least one regime",
    )
    for regime in regimes:
        check_regime(regime, REGIMES)
    names = [kind.name for kind in kinds]
    twice = [name for name in names if names.count(name) > 1]
    lost = [kind for kind in kinds if not set(kind.regimes) & set(regimes)]
    refuse(
        f"memory {twice[0]!r} is given twice" if twice else None,
        _unused(regimes, settings.online),
        *(f"memory {kind.name!r} runs in {', '.join(kind.regimes)} only: add that regime" for kind in lost),
    )


def _unused(regimes: Sequence[str], online: Online) -> str | None:
    """What is wrong with terms that a regime would leave out."""
    given = {"distillation": online.distillation, "fine_tune": online.fine_tune}
    bare = [regime for regime in regimes if regime in (ER_ACE, DER)] or ([] if ER in regimes else list(regimes))
    used = [f"{name}={value}" for name, value in given.items() if value]
    return f"{' and '.join(used)} belong to regime er, {bare[0]} has no such term" if used and bare else None


def _remember(kinds: Iterable[MemoryKind], path: Path) -> None:
    """Note what each memory of a run folder is; raise ConfigError where it was another one under the same name."""
    found = read_json(path) if path.exists() else {}
    for kind in kinds:
        name, what = SAME.get(kind.name, kind.name), {"filler": describe(kind.filler), "how": describe(kind.how)}
        if listed := changes(found.get(name, what), what):
            raise ConfigError(
                f"{path.parent} holds results of another memory {name!r} ({'; '.join(listed)}): "
                f"give {kind.name!r} another name, or use another --out"
            )
        found[name] = what
    write_json(path, found)


def _again(name: str, making: Making, data: str, out: Path) -> MemoryKind:
    """A memory that the run folder has rows of."""
    try:
        return memory(name, making, data)
    except ConfigError as error:
        raise ConfigError(f"{out / FILE} has rows of memory {name!r}, which is no name: give the kind again") from error


def _room(kinds: Mapping[str, MemoryKind], settings: Settings, train: ClassImages) -> int:
    """Bytes per class of the largest condensed memory of the run; of real images where there is none."""
    learnt = [kind for kind in kinds.values() if kind.learnt] or [memory(EQUAL_BYTES)]
    return settings.per_class * max(kind.bytes_each(train) for kind in learnt)


def _cell(regime: str) -> Callable[[MemoryKind, int, Bench], list[Record]]:
    """How a regime runs one memory in one order; Avalanche is imported only where it is needed."""
    if regime == FROM_SCRATCH:
        from condensekit.replay.study.from_scratch import from_scratch

        return from_scratch
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no QP solver found", UserWarning)  # of Avalanche's import
        from condensekit.replay.study.incremental import incremental

    return partial(incremental, regime=regime)


def _report(
    cells: dict[tuple[str, str], list[list[Record]]],
    kinds: dict[str, MemoryKind],
    primary: Pair | None,
    settings: Settings,
    making: Making,
    out: Path,
) -> dict[str, Any]:
    """Write ``replay.json``, the table and the plot."""
    rows = [
        row(kinds[name], regime, found, cells.get((regime, "random")), settings)
        for (regime, name), found in cells.items()
    ]
    result = {
        "rows": rows,
        "accuracy_by_step": {f"{regime}/{name}": steps_of(found) for (regime, name), found in cells.items()},
        "primary_contrast": None if primary is None else {"memory": primary[0], "against": primary[1]},
        "contrasts": [
            entry
            for regime in dict.fromkeys(key[0] for key in cells)
            for entry in (_against(regime, cells, kinds, primary, settings) if primary else ())
        ],
        "settings": describe(settings),
        "making": describe(making),
        "environment": environment(),
    }
    write_json(out / FILE, result)
    write_bytes_atomic(out / TABLE, f"{table(result)}\n".encode())
    plot(result, out / PLOT)
    return result


def _against(
    regime: str,
    cells: dict[tuple[str, str], list[list[Record]]],
    kinds: dict[str, MemoryKind],
    primary: Pair,
    settings: Settings,
) -> list[dict[str, Any]]:
    mine = {
        name: by_seed(final_accuracies(found), settings) for (where, name), found in cells.items() if where == regime
    }
    learnt = [name for name in mine if kinds[name].learnt]
    real = [name for name in mine if kinds[name].control]
    return [{"regime": regime, **entry} for entry in contrasts(mine, learnt, real, primary)]
