"""Results of a class-incremental run: typed rows, the table, and the contents of ``replay.json``."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from condensekit import tables
from condensekit.compute import Spent
from condensekit.data.images import ClassImages
from condensekit.replay.study.contrasts import RANDOM, Contrast, Pair
from condensekit.replay.study.memories import MemoryKind
from condensekit.replay.study.protocol import Settings
from condensekit.replay.study.scores import Cell, averages, by_seed, final_accuracies, forgettings, mean, share
from condensekit.runs.files import fitting, read_json
from condensekit.stats import paired_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE = "replay.json"
FORMER = {
    "per_class": "ipc",
    "condense_s_per_step": "condense_s_per_experience",
    "gradient_steps": "train_steps",
    "difference_to_random": "difference",
    "accuracy_by_step": "accuracy_by_experience",
}  # field names of version 0.1 -> field names of this version


@dataclass(frozen=True)
class ReplayRow:
    """Results of one memory in one regime.

    Accuracies are fractions of the test images of the classes seen, in which each image has the same weight. None:
    unknown.

    Args:
        memory: Name of the memory.
        learnt: Whether the memory is condensed.
        regime: Regime in which it was used.
        ipc: Nominal number of stored images of each class.
        images: Number of stored images at the end.
        nbytes: Stored bytes at the end.
        packed: Number of images packed into each stored image.
        final_accuracy_mean: Accuracy after the last experience: mean over networks, then over orders.
        final_accuracy_std: Sample standard deviation over orders; 0 for a single order.
        average_accuracy_mean: Mean accuracy over the experiences.
        forgetting_mean: Best former accuracy minus final accuracy on the classes of an experience; mean over all but
            the last experience.
        n: Number of orders x networks.
        old_accuracy_mean: Accuracy on the classes of all but the last experience, after the last experience.
        new_accuracy_mean: Accuracy on the classes of the last experience.
        old_to_new_mean: Fraction of the images of former classes that are predicted as a class of the last experience.
        difference: Final accuracy minus that of ``reference``, paired by order and network.
        ci95: 95 % t interval of the difference over ``unit``.
        reference: ``random``: real images in equal number.
        unit: ``set`` (one seed of condensation) if there are at least three sets, else ``network``.
        sets: Number of different seeds of condensation.
        condense_s: Mean seconds of filling the memory in a whole order. Classes that were reused from an order with
            the same seed, or read after a kill, count with the seconds of their making.
        work: Work of the networks that filled the memory: images, FLOPs, and passes over the training images.
        train_s: Mean seconds of training in a whole order.
        condense_s_per_experience: Mean seconds of filling the memory in one experience.
        train_steps: Mean number of gradient steps of a whole order, with fine-tuning on the memory.
        memory_passes: Mean number of passes over the images of the memory in the training of the last experience:
            memories with different numbers of images have equal steps, but not equal passes.
        note: Differences from the other memories; may be empty.
        finals: All final accuracies, a list for each order.
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
    "final accuracy %",
    f"difference to {RANDOM}",
    "average %",
    "forgetting %",
    "images",
    "bytes",
    "condense s",
    "condense passes",
    "train s",
    "regime",
    "orders x networks",
)
SETTINGS = ("regime", "orders x networks")


@dataclass(frozen=True, repr=False)
class ReplayResult:
    """Result of :func:`condensekit.replay.run_protocol`; ``print`` shows its table.

    >>> import tempfile, condensekit as ck
    >>> from dataclasses import replace
    >>> from pathlib import Path
    >>> from condensekit.catalog import protocol
    >>> from condensekit.replay import ReplayResult, Settings, run_protocol
    >>> train, test = ck.load("digits")
    >>> short = replace(protocol("short"), steps=5)
    >>> settings = Settings(experiences=2, ipc=1, orders=1, network=ck.ConvNet(width=8), protocol=short)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = Path(folder) / "replay"
    ...     found = run_protocol(train, test, memories=["random", "kmeans"], out=run, settings=settings)
    ...     again = ReplayResult.load(run)
    >>> [row.memory for row in again.rows]
    ['random', 'kmeans']

    Args:
        rows: A row for each memory and regime.
        accuracy_by_experience: Accuracy after each experience, by ``regime/memory``: ``mean`` and ``std`` over orders,
            and ``orders``, the values of each order.
        primary_contrast: Names of the condensed memory and the real memory whose comparison was named before the run;
            None: there is no primary contrast.
        contrasts: All comparisons.
        settings: The protocol.
        making: Settings of condensed memories.
        environment: Versions and hardware.
        test: The test images: ``name`` of the data, or None, and number of ``images``; empty in files of version 0.1.
    """

    rows: tuple[ReplayRow, ...]
    accuracy_by_experience: Mapping[str, Mapping[str, Any]]
    primary_contrast: Pair | None
    contrasts: tuple[Contrast, ...]
    settings: Mapping[str, Any]
    making: Mapping[str, Any]
    environment: Mapping[str, Any]
    test: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path) -> ReplayResult:
        """Read the result of a run folder, or a ``replay.json``; files of version 0.1 are read, too.

        Raises:
            DataError: The file does not exist.
            StoreError: The file is damaged.
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
            found.get("test", {}),
        )

    def to_json(self) -> dict[str, Any]:
        """The contents of ``replay.json``, as JSON values."""
        pair = self.primary_contrast
        return {
            "rows": [asdict(row) for row in self.rows],
            "accuracy_by_experience": dict(self.accuracy_by_experience),
            "primary_contrast": None if pair is None else {"memory": pair[0], "against": pair[1]},
            "contrasts": [asdict(contrast) for contrast in self.contrasts],
            "settings": dict(self.settings),
            "making": dict(self.making),
            "environment": dict(self.environment),
            "test": dict(self.test),
        }

    def table(self, width: int | None = None) -> str:
        """The rows as text, with what they say: accuracies in percent, differences in points, and the notes below.

        Args:
            width: Longest line in characters; None: that of the terminal, or 100.
        """
        notes = {row.memory: row.note for row in self.rows if row.note}
        return tables.text(
            COLUMNS,
            map(_cells, self.rows),
            caption=_caption(self),
            notes=[f"- {name}: {note}." for name, note in notes.items()],
            settings=SETTINGS,
            width=width,
        )

    def to_pandas(self) -> Any:
        """The rows as a pandas data frame. Raises ConfigError if pandas is not installed."""
        return tables.as_frame(self.rows)

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        found = ", ".join(f"{row.memory} {100 * row.final_accuracy_mean:.1f} %" for row in self.rows[:3])
        return f"ReplayResult({found}{', ...' * (len(self.rows) > 3)}; print it for the table)"

    def _repr_html_(self) -> str:
        from condensekit.html import standalone
        from condensekit.html.layout import charts
        from condensekit.replay.study.pieces import curves, results

        drawn = charts(curves(self.accuracy_by_experience)) if self.accuracy_by_experience else ""
        return standalone(drawn, *results(self.rows, self.contrasts))

    def plot(self) -> Figure:
        """The accuracy on all classes seen after each experience, a panel for each regime, as a matplotlib figure."""
        from condensekit.replay.study.plot import figure

        return figure(self.accuracy_by_experience)


class _Named(TypedDict):
    """The primary contrast in a file."""

    memory: str
    against: str


class _Entries(TypedDict):
    """What every ``replay.json`` holds."""

    rows: list[ReplayRow]
    accuracy_by_experience: dict[str, dict[str, list[Any]]]
    primary_contrast: _Named | None
    contrasts: list[Contrast]
    settings: dict[str, Any]
    making: dict[str, Any]
    environment: dict[str, Any]


class _File(_Entries, total=False):
    """What a ``replay.json`` of this version holds besides."""

    test: dict[str, Any]


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
    """Make the row of a memory in a regime.

    Args:
        kind: The memory.
        regime: The regime.
        cell: Records of the memory.
        random: Records of random images in equal number; None: the run does not have them.
        settings: The protocol.
        train: The real training images.
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
    orders = len(row.finals)
    spread = f" ± {100 * row.final_accuracy_std:.1f}" if orders > 1 else ""
    return (
        row.memory,
        f"{100 * row.final_accuracy_mean:.1f}{spread}",
        tables.signed(row.difference, row.ci95) or "-",
        _percent(row.average_accuracy_mean),
        _percent(row.forgetting_mean),
        f"{row.images:,}",
        f"{row.nbytes:,}",
        _seconds(row.condense_s),
        f"{row.work['passes']:.3g}" if row.work else "-",
        _seconds(row.train_s),
        row.regime,
        f"{orders} x {row.n // max(1, orders)}",
    )


def _caption(found: ReplayResult) -> str:
    """What the numbers of the table are."""
    images, name = found.test.get("images"), found.test.get("name")
    experiences = max((len(curve["mean"]) for curve in found.accuracy_by_experience.values()), default=0)
    orders = max((len(row.finals) for row in found.rows), default=0)
    protocol = (found.settings.get("protocol") or {}).get("name")
    told = [
        f"Accuracy in % after the last of {experiences} experiences, on the {f'{images:,} ' if images else ''}"
        f"test images of all classes{f' of {name}' if name else ''}"
        + f": mean ± standard deviation over {orders} class orders"
        * (orders > 1),
        f"Protocol from scratch: {protocol}" if protocol else "",
        "Differences are paired, in points, with 95 % intervals" if any(row.ci95 for row in found.rows) else "",
        "Average: over all experiences. Forgetting: best former accuracy minus the last one",
        "Condense passes: images put through networks to fill the memory, in training sets"
        if any(row.work for row in found.rows)
        else "",
        "Seconds are of the clock: other work on the machine lengthens them",
    ]
    return " ".join(f"{one}." for one in told if one)


def _seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _note(kind: MemoryKind, settings: Settings) -> str:
    """Differences from the other memories: the note of the kind, and loss terms that its strategy does not have."""
    given = {"distillation": settings.online.distillation, "fine-tune": settings.online.fine_tune}
    missing = [f"no {name}" for name, value in given.items() if value and kind.filler is None and not kind.control]
    return "; ".join([kind.note] * bool(kind.note) + missing)


def _work(cell: Cell, train: ClassImages) -> dict[str, float] | None:
    """Mean work of the networks that filled the memory in a whole order; None: the work was not counted."""
    told = [found["work"] for order in cell for found in order]
    if any(work is None for work in told):
        return None
    total = sum((Spent(**work) for work in told), Spent())
    spent = Spent(total.images // len(cell), total.flops // len(cell))
    return {**asdict(spent), **spent.passes(len(train), train.spec.shape)}
