"""Truth: accuracies of architectures from a benchmark table or from full training."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from nni.mutable import Categorical
from nni.nas.nn.pytorch import ModelSpace

from condensekit.errors import DataError, finite, instance, quoted, refuse
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.spaces.equivalence import canonical, twin
from condensekit.nas.spaces.nasbench201 import NasBench201Space, from_table
from condensekit.nas.spaces.spaces import choices
from condensekit.nas.study.ranking import Floats
from condensekit.nas.trials.log import Trial
from condensekit.runs.files import regular

CELL_COLUMN = "net_str"  # column with the cell in a NAS-Bench-201 table
ACCURACY_COLUMNS = ("val_accs", "accuracy")  # beginnings of the names of columns with accuracies


@dataclass(frozen=True)
class Truth:
    """Accuracies of architectures in percent.

    >>> from condensekit.nas import Truth, key, sample_architectures, space
    >>> convnets = space("convnet-small", (1, 8, 8), 10)
    >>> one, other = sample_architectures(convnets, n=2, seed=0)
    >>> truth = Truth("by hand", {key(one): (71.5,)})
    >>> truth.holds(convnets, one), truth.holds(convnets, other)
    (True, False)

    Args:
        name: Name in tables.
        values: Measurements in percent, by :func:`~condensekit.nas.spaces.architecture.key` of the :func:`canonical`
            architecture; the same number of measurements for each architecture.
        cost_s: Seconds of all measurements of an architecture, by the same key; empty: unknown.
        image_steps: Training images of all measurements of an architecture, by the same key; empty: unknown.

    Raises:
        ConfigError: Arguments of another type, an accuracy that is not a number from 0 to 100, different numbers of
            measurements, or a cost below 0.
    """

    name: str
    values: Mapping[str, tuple[float, ...]]
    cost_s: Mapping[str, float] = field(default_factory=dict)
    image_steps: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        refuse(
            instance("name", self.name, str, "a text"),
            _mapped("values", self.values, _measurements, "a tuple of percents", "(71.5,)"),
            _mapped("cost_s", self.cost_s, _cost, "seconds of at least 0", "12.5"),
            _mapped("image_steps", self.image_steps, _cost, "a number of images", "1280"),
        )
        lengths = sorted({len(found) for found in self.values.values()})
        refuse(f"values have {lengths} measurements: give each architecture as many as the others" * (len(lengths) > 1))

    def holds(self, space: ModelSpace, architecture: Architecture) -> bool:
        """Whether the truth has this architecture, or another one that is the same network."""
        return twin(space, architecture, self.values) is not None

    def of(self, space: ModelSpace, architectures: Sequence[Architecture]) -> Floats:
        """(N, R) measurements of N architectures.

        Raises:
            DataError: The truth lacks architectures; the text counts them and names the first.
        """
        names = [twin(space, a, self.values) for a in architectures]
        missing = [a for a, name in zip(architectures, names, strict=True) if name is None]
        if missing:
            raise DataError(
                f"{self.name} lacks {len(missing)} of {len(architectures)} architectures, the first is "
                f"{key(missing[0])}: add them, or measure all by full training"
            )
        return np.array([self.values[name] for name in names if name is not None], dtype=np.float64)

    def seconds(self, space: ModelSpace, architectures: Iterable[Architecture]) -> float | None:
        """Seconds of all measurements of these architectures together; None: unknown."""
        if not self.cost_s:
            return None
        names = [twin(space, a, self.cost_s) for a in architectures]
        return sum(self.cost_s[name] for name in names if name is not None)


def _measurements(value: object) -> bool:
    return isinstance(value, tuple | list) and bool(value) and all(finite(v) and 0 <= v <= 100 for v in value)


def _cost(value: Any) -> bool:
    return finite(value) and value >= 0


def _mapped(name: str, given: object, good: Callable[[Any], bool], kind: str, example: str) -> str | None:
    """The problem of a mapping from keys of architectures; None if there is no problem."""
    way_out = f"{{key(architecture): {example}}}"
    if not isinstance(given, Mapping):
        return instance(name, given, Mapping, way_out)
    for entry, value in given.items():
        if not isinstance(entry, str):
            return f"{name} must have texts as keys, got {quoted(entry)}: pass {way_out}"
        if not good(value):
            return f"{name}[{entry!r:.60}] must be {kind}, got {quoted(value)}: pass {way_out}"
    return None


def read_table(path: Path, space: ModelSpace) -> Truth:
    r"""Read a truth from a CSV file.

    The architecture is in a column ``net_str`` (the text of a NAS-Bench-201 cell), or in one column for each label of
    the space. The accuracies in percent are in ``val_accs``, or in columns whose names start with ``accuracy``, one
    column for each training seed. Other columns are ignored.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from condensekit.nas import read_table, sample_architectures, space
    >>> convnets = space("convnet-small", (1, 8, 8), 10)
    >>> one, other = sample_architectures(convnets, n=2, seed=0)
    >>> lines = [",".join([*one, "accuracy"]), *(",".join(map(str, [*a.values(), 71.5])) for a in (one, other))]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "truth.csv"
    ...     size = path.write_text("\n".join(lines))
    ...     truth = read_table(path, convnets)
    >>> len(truth.values)
    2

    Raises:
        DataError: A file that cannot be read, missing columns, labels that are not single choices, an architecture that
            the space does not have or that the file has twice, or an accuracy that is not a number from 0 to 100; the
            text names the line.
    """
    try:
        regular(path)
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a byte order mark
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or [])
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot read the truth table {path}: {error}") from error
    measured = [name for name in columns if name.startswith(ACCURACY_COLUMNS)]
    labels = list(choices(space))
    if not measured or (CELL_COLUMN not in columns and not set(labels) <= set(columns)):
        raise DataError(
            f"{path} has columns {', '.join(columns) or 'nothing'}: expected {CELL_COLUMN}, or {', '.join(labels)}, "
            f"and {' or '.join(ACCURACY_COLUMNS)}"
        )
    read = _cells if CELL_COLUMN in columns else _labels
    several = [label for label in labels if not isinstance(choices(space)[label], Categorical)]
    if read is _labels and several:
        raise DataError(
            f"{several[0]} is no single choice, which a truth table cannot hold: measure the truth by full training"
        )
    values: dict[str, tuple[float, ...]] = {}
    for line, row in rows:
        try:
            name = key(canonical(space, read(space, row)))
            if name in values:
                raise DataError(f"{name} stands here a second time")
            values[name] = tuple(_percent(row[column]) for column in measured)
        except DataError as error:
            raise DataError(f"{path}, line {line}: {error}") from error
    if values and max(max(found) for found in values.values()) <= 1:
        raise DataError(f"{path}: no accuracy is above 1: expected percent, not fractions")
    return Truth(path.name, values)


def _cells(space: ModelSpace, row: Mapping[str, str]) -> Architecture:
    if not isinstance(space, NasBench201Space):
        raise DataError(f"{CELL_COLUMN} names cells of NAS-Bench-201: use its space, or a column for each label")
    if not row[CELL_COLUMN]:
        raise DataError(f"no {CELL_COLUMN}")
    return from_table(row[CELL_COLUMN])


def _labels(space: ModelSpace, row: Mapping[str, str]) -> Architecture:
    """Architecture of a row with a column for each label."""
    found: Architecture = {}
    for label, mutable in choices(space).items():
        spelt = {str(value): value for value in mutable.values}
        if row[label] not in spelt:
            raise DataError(f"{label} is {row[label]!r}, expected one of {', '.join(spelt)}")
        found[label] = spelt[row[label]]
    return found


def _percent(text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise DataError(f"accuracy {text!r} is no number from 0 to 100")
    return value


def from_trials(name: str, space: ModelSpace, runs: Sequence[Sequence[Trial]]) -> Truth:
    """Make a truth from full trainings.

    Args:
        name: Name in tables.
        space: Space of the architectures.
        runs: Trials of each seed, on the same architectures. An architecture that failed with one of the seeds has no
            truth.
    """
    tables = [{key(canonical(space, t.architecture)): t for t in run if t.score is not None} for run in runs]
    shared = [name for name in tables[0] if all(name in table for table in tables)] if tables else []
    return Truth(
        name,
        {k: tuple(100 * float(table[k].scores["accuracy"]) for table in tables) for k in shared},
        {k: sum(table[k].cost_s for table in tables) for k in shared},
        {k: sum(table[k].image_steps for table in tables) for k in shared},
    )
