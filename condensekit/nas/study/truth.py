"""Truth: what architectures are really worth, from a benchmark table or from training on all of the data."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from nni.mutable import Categorical
from nni.nas.nn.pytorch import ModelSpace

from condensekit.errors import DataError
from condensekit.nas.spaces.architecture import Architecture, key
from condensekit.nas.spaces.equivalence import canonical
from condensekit.nas.spaces.nasbench201 import NasBench201Space, from_table
from condensekit.nas.spaces.spaces import choices
from condensekit.nas.study.ranking import Floats
from condensekit.nas.trials.log import Trial
from condensekit.runs.files import regular

CELL_COLUMN = "net_str"  # of a NAS-Bench-201 table
ACCURACY_COLUMNS = ("val_accs", "accuracy")  # names of columns with truths, or their beginnings


@dataclass(frozen=True)
class Truth:
    """Accuracies in percent, by architecture.

    Args:
        name: What tables call it.
        values: Measurements by the :func:`~condensekit.nas.spaces.architecture.key` of the :func:`canonical`
            architecture, each the same number of them.
        cost_s: Seconds that all measurements of an architecture took; empty where that is not known.
        image_steps: Images that passed through in them; empty where that is not known.
    """

    name: str
    values: Mapping[str, tuple[float, ...]]
    cost_s: Mapping[str, float] = field(default_factory=dict)
    image_steps: Mapping[str, int] = field(default_factory=dict)

    def holds(self, space: ModelSpace, architecture: Architecture) -> bool:
        """Whether there is a truth for this architecture."""
        return key(canonical(space, architecture)) in self.values

    def of(self, space: ModelSpace, architectures: Sequence[Architecture]) -> Floats:
        """(N, R) the measurements of each architecture.

        Raises:
            DataError: Architectures without a truth; the text counts them and names the first.
        """
        missing = [a for a in architectures if not self.holds(space, a)]
        if missing:
            raise DataError(
                f"{self.name} lacks {len(missing)} of {len(architectures)} architectures, the first is "
                f"{key(missing[0])}: add them, or measure all by full training"
            )
        return np.array([self.values[key(canonical(space, a))] for a in architectures], dtype=np.float64)

    def seconds(self, space: ModelSpace, architectures: Iterable[Architecture]) -> float | None:
        """What measuring these took together; None where it is not known."""
        if not self.cost_s:
            return None
        return sum(self.cost_s[key(canonical(space, a))] for a in architectures)


def read_table(path: Path, space: ModelSpace) -> Truth:
    """A truth from a CSV file.

    The architecture stands in a column ``net_str`` (NAS-Bench-201's own text), or in one column for each label of the
    space; the accuracies, in percent, in ``val_accs``, or in one or more columns whose names start with ``accuracy``,
    one for each training seed. Other columns are passed over.

    Raises:
        DataError: No such file, missing columns, labels that are no single choices, an architecture that the space
            does not have or that stands twice, an accuracy that is no number in 0 to 100; the text names the line.
    """
    try:
        regular(path)
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets begin a file with a mark
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
    """The choice of each label whose text the row has."""
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
    """A truth from full trainings.

    Args:
        name: What tables call it.
        space: Of the architectures.
        runs: The trials of each seed, over the same architectures. An architecture that failed with any seed has no
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
