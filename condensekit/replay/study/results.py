"""Results of a class-incremental run: typed rows, the table, and what ``replay.json`` holds."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

from condensekit import tables
from condensekit.compute import Spent
from condensekit.data.images import ClassImages
from condensekit.replay.study.contrasts import RANDOM, Contrast, Pair
from condensekit.replay.study.memories import MemoryKind
from condensekit.replay.study.protocol import Settings
from condensekit.replay.study.scores import Cell, averages, by_seed, final_accuracies, forgettings, mean, share
from condensekit.runs.files import fitting, read_json
from condensekit.stats import paired_interval

FILE = "replay.json"
FORMER = {
    "per_class": "ipc",
    "condense_s_per_step": "condense_s_per_experience",
    "gradient_steps": "train_steps",
    "difference_to_random": "difference",
    "accuracy_by_step": "accuracy_by_experience",
}  # names in files of version 0.1, and today's


@dataclass(frozen=True)
class ReplayRow:
    """What one memory gave in one regime. Accuracies are fractions; each test image of the classes seen counts alike.

    What is not known is None.

    Args:
        memory: What was replayed.
        learnt: Whether it is condensed.
        regime: How it was used.
        ipc: Stored images of each class, as asked for.
        images: Stored images at the end.
        nbytes: Stored bytes at the end.
        packed: Images in each stored one.
        final_accuracy_mean: After the last experience; over orders, each the mean of its networks.
        final_accuracy_std: Sample standard deviation over orders; 0 for a single order.
        average_accuracy_mean: Over the experiences.
        forgetting_mean: How far the accuracy on an experience's classes lies below its best, over all but the last.
        n: Orders x networks.
        old_accuracy_mean: Of all but the newest classes, after the last experience.
        new_accuracy_mean: Of the newest classes.
        old_to_new_mean: Part of the former classes' images that are taken for a newest class.
        difference: To ``reference``, paired by order and network.
        ci95: Its t interval over ``unit``.
        reference: ``random``: real images in equal number.
        unit: ``set`` (one seed of condensation) where there are at least three of them, else ``network``.
        sets: Different seeds of condensation.
        condense_s: Seconds of filling the memory in a whole order, on average. Where classes are reused from an order
            with the same seed, or read after a kill, what making them took then.
        work: What networks did meanwhile, in images and operations, and in passes over the training images.
        train_s: Seconds of training in a whole order, on average.
        condense_s_per_experience: Seconds of filling the memory in one experience.
        train_steps: Gradient steps of a whole order, fine-tuning on the memory included.
        memory_passes: How often each image of the memory was seen in the training of the last experience: equal steps
            are unequal epochs where memories hold different numbers of images.
        note: What is not equal to the others, if anything.
        finals: Every final accuracy, a list for each order.
    """

    memory: str
    learnt: bool
    regime: str
    ipc: int
    images: int
    nbytes: int
    packed: int
    final_accuracy_mean: float
    final_accuracy_std: float
    average_accuracy_mean: float | None
    forgetting_mean: float | None
    n: int
    old_accuracy_mean: float | None
    new_accuracy_mean: float | None
    old_to_new_mean: float | None
    difference: float | None
    ci95: list[float] | None
    reference: str | None
    unit: str | None
    sets: int
    condense_s: float
    work: Mapping[str, float] | None
    train_s: float
    condense_s_per_experience: float
    train_steps: float
    memory_passes: float | None
    note: str
    finals: list[list[float]]


COLUMNS = (
    "memory",
    "regime",
    "images",
    "bytes",
    "final accuracy %",
    "average %",
    "forgetting %",
    "above random, 95 % interval",
    "n",
    "condense s",
    "passes",
    "train s",
)


@dataclass(frozen=True, repr=False)
class ReplayResult:
    """What :func:`condensekit.replay.run_protocol` found; ``print`` shows the table.

    Args:
        rows: One for each memory and regime.
        accuracy_by_experience: By ``regime/memory``: ``mean``, ``std`` (over orders) and ``orders`` (each one's) of the
            accuracy after each experience.
        primary_contrast: The condensed memory and the real one whose comparison was named beforehand; or None.
        contrasts: All comparisons.
        settings: The protocol.
        making: How condensed memories were made.
        environment: Versions and hardware.
    """

    rows: tuple[ReplayRow, ...]
    accuracy_by_experience: Mapping[str, Mapping[str, Any]]
    primary_contrast: Pair | None
    contrasts: tuple[Contrast, ...]
    settings: Mapping[str, Any]
    making: Mapping[str, Any]
    environment: Mapping[str, Any]

    @classmethod
    def load(cls, path: str | Path) -> ReplayResult:
        """Read a run folder, or its ``replay.json``; of version 0.1 as well.

        Raises:
            DataError: There is no such file.
            StoreError: It is damaged.
        """
        path = Path(path)
        found = read_record(path / FILE if path.is_dir() else path)
        named = found["primary_contrast"]
        return cls(
            tuple(ReplayRow(**{f.name: row[f.name] for f in dataclasses.fields(ReplayRow)}) for row in found["rows"]),
            found["accuracy_by_experience"],
            (named["memory"], named["against"]) if named else None,
            tuple(Contrast(**entry) for entry in found["contrasts"]),
            found["settings"],
            found["making"],
            found["environment"],
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values only: what ``replay.json`` holds."""
        pair = self.primary_contrast
        return {
            "rows": [asdict(row) for row in self.rows],
            "accuracy_by_experience": dict(self.accuracy_by_experience),
            "primary_contrast": None if pair is None else {"memory": pair[0], "against": pair[1]},
            "contrasts": [asdict(contrast) for contrast in self.contrasts],
            "settings": dict(self.settings),
            "making": dict(self.making),
            "environment": dict(self.environment),
        }

    def table(self) -> str:
        """The rows in Markdown, and the notes on them; accuracies and differences in percent."""
        notes = {row.memory: row.note for row in self.rows if row.note}
        lines = [*([""] if notes else []), *(f"- {name}: {note}." for name, note in notes.items())]
        return "\n".join([tables.markdown(COLUMNS, map(_cells, self.rows)), *lines])

    def to_pandas(self) -> Any:
        """The rows as a pandas data frame. Raises ConfigError without pandas."""
        return tables.as_frame(self.rows)

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        found = ", ".join(f"{row.memory} {100 * row.final_accuracy_mean:.1f} %" for row in self.rows[:3])
        return f"ReplayResult({found}{', ...' * (len(self.rows) > 3)}; print it for the table)"

    def _repr_html_(self) -> str:
        return tables.as_html(COLUMNS, map(_cells, self.rows))


class _Named(TypedDict):
    """The primary contrast in a file."""

    memory: str
    against: str


class _File(TypedDict):
    """What ``replay.json`` holds."""

    rows: list[ReplayRow]
    accuracy_by_experience: dict[str, dict[str, list[Any]]]
    primary_contrast: _Named | None
    contrasts: list[Contrast]
    settings: dict[str, Any]
    making: dict[str, Any]
    environment: dict[str, Any]


def read_record(path: Path) -> Any:
    """The content of a ``replay.json``, of version 0.1 as well, in today's words.

    Raises:
        DataError: There is no such file.
        StoreError: It is damaged, or holds something else.
    """
    found = _renamed(read_json(path, dict))
    rows = found.get("rows")
    if isinstance(rows, list):
        found["rows"] = [_renamed(row) if isinstance(row, dict) else row for row in rows]
    return fitting(path, found, _File)


def _renamed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record, or a row of it; rows of version 0.1 know no work, and their reference is random."""
    found = {FORMER.get(name, name): value for name, value in record.items()}
    if "memory" not in found:
        return found
    return {"work": None, "reference": None if found.get("difference") is None else RANDOM, **found}


def row(
    kind: MemoryKind, regime: str, cell: Cell, random: Cell | None, settings: Settings, train: ClassImages
) -> ReplayRow:
    """One row.

    Args:
        kind: The memory.
        regime: How it was used.
        cell: What was found.
        random: The same of random images in equal number, or None.
        settings: The protocol.
        train: The real images.
    """
    finals = final_accuracies(cell)
    means = [statistics.fmean(networks) for networks in finals]
    last = [score for order in cell for score in order[-1]["scores"]]
    difference, interval, unit = None, None, None
    if random is not None and kind.name != RANDOM:
        theirs = by_seed(final_accuracies(random), settings)
        difference, interval, unit = paired_interval(by_seed(finals, settings), theirs)
    return ReplayRow(
        memory=kind.name,
        learnt=kind.learnt,
        regime=regime,
        ipc=settings.ipc,
        images=cell[0][-1]["images"],
        nbytes=cell[0][-1]["nbytes"],
        packed=kind.packed,
        final_accuracy_mean=statistics.fmean(means),
        final_accuracy_std=statistics.stdev(means) if len(means) > 1 else 0.0,
        average_accuracy_mean=mean(averages(cell)),
        forgetting_mean=mean(forgettings(cell)),
        n=sum(map(len, finals)),
        old_accuracy_mean=mean(share(score, slice(0, -1)) for score in last),
        new_accuracy_mean=mean(share(score, slice(-1, None)) for score in last),
        old_to_new_mean=mean(score["old_to_new"] for score in last),
        difference=difference,
        ci95=None if interval is None else list(interval),
        reference=None if difference is None else RANDOM,
        unit=unit,
        sets=len({settings.set_seed(order) for order in settings.order_numbers()}),
        condense_s=statistics.fmean(sum(found["condense_s"] for found in order) for order in cell),
        work=_work(cell, train),
        train_s=statistics.fmean(sum(found["train_s"] for found in order) for order in cell),
        condense_s_per_experience=statistics.fmean(found["condense_s"] for order in cell for found in order),
        train_steps=statistics.fmean(sum(found["train_steps"] for found in order) for order in cell),
        memory_passes=mean(order[-1]["passes"] for order in cell),
        note=_note(kind, settings),
        finals=finals,
    )


def _cells(row: ReplayRow) -> tuple[object, ...]:
    return (
        row.memory,
        row.regime,
        f"{row.images:,}",
        f"{row.nbytes:,}",
        f"{100 * row.final_accuracy_mean:.1f} ± {100 * row.final_accuracy_std:.1f}",
        _percent(row.average_accuracy_mean),
        _percent(row.forgetting_mean),
        tables.signed(row.difference, row.ci95) or "-",
        row.n,
        f"{row.condense_s:.0f}",
        f"{row.work['passes']:.3g}" if row.work else "-",
        f"{row.train_s:.0f}",
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _note(kind: MemoryKind, settings: Settings) -> str:
    """What is not equal to the others: the kind's own note, and terms of replay that a strategy goes without."""
    given = {"distillation": settings.online.distillation, "fine-tune": settings.online.fine_tune}
    missing = [f"no {name}" for name, value in given.items() if value and kind.filler is None and not kind.control]
    return "; ".join([kind.note] * bool(kind.note) + missing)


def _work(cell: Cell, train: ClassImages) -> dict[str, float] | None:
    """What networks did while the memory was filled, in a whole order on average; None where it was not counted."""
    told = [found["work"] for order in cell for found in order]
    if any(work is None for work in told):
        return None
    total = sum((Spent(**work) for work in told), Spent())
    spent = Spent(total.images // len(cell), total.flops // len(cell))
    return {**asdict(spent), **spent.passes(len(train), train.spec.shape)}
