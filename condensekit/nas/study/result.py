"""Search result: the best architecture, every trial, and a row for each ranker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from condensekit import tables
from condensekit.nas.spaces.architecture import key
from condensekit.nas.study import report
from condensekit.nas.study.report import RankingRow
from condensekit.nas.trials.log import Trial
from condensekit.runs.files import fitting, read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from condensekit.nas.study.notes import Late  # it imports NNI, which no reader of a result needs

FILE = "search.json"
TRIAL_FIELDS = ("ranker", "architecture", "score", "cost_s", "status", "reason")  # fields of a trial in search.json


@dataclass(frozen=True, repr=False)
class SearchResult:
    """Result of :meth:`condensekit.nas.Contest.run`; ``print`` shows its table.

    >>> from condensekit.nas import SearchResult, Trial
    >>> found = SearchResult(None, (Trial("dm", {"width": 16}, score=0.75),), (), None, {})
    >>> found.trials[0].score
    0.75

    Args:
        best: The best architecture of the first ranker that scored an architecture: ``ranker``, ``architecture``,
            ``score``, ``params``, ``flops``, ``truth`` (each of these three None: unknown); None: no architecture was
            scored.
        trials: Trials of all rankers, including combinations.
        rows: A row for each ranker.
        truth: Name of the truth, agreement of its repeats, and its noise; None: there is no truth.
        values: Measurements of the truth in percent, by key of the architecture.
        notes: Notes for the reader, one sentence each.
        late: Rankers that scored no candidate because the time was over; a file does not keep them.
    """

    best: dict[str, Any] | None
    trials: tuple[Trial, ...]
    rows: tuple[RankingRow, ...]
    truth: dict[str, Any] | None
    values: Mapping[str, tuple[float, ...]]
    notes: tuple[str, ...] = ()
    late: tuple[Late, ...] = ()

    @classmethod
    def load(cls, path: str | Path) -> SearchResult:
        """Read the result of a run folder, or a ``search.json``; files of version 0.1 are read, too.

        Raises:
            DataError: The file does not exist.
            StoreError: The file is damaged.
        """
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        found = read_json(path, dict)
        rows = found.get("ranking")
        if isinstance(rows, list):
            found["ranking"] = [_renewed(row) if isinstance(row, dict) else row for row in rows]
        fitting(path, found, _File)
        known = {
            key(entry["architecture"]): (entry["truth"],) for entry in found["trials"] if entry["truth"] is not None
        }
        return cls(
            found["best"],
            tuple(map(Trial.from_json, found["trials"])),
            tuple(
                RankingRow(**{f.name: row[f.name] for f in fields(RankingRow) if f.name in row})
                for row in found["ranking"]
            ),
            found["truth"],
            known,
            tuple(found["notes"]),
        )

    def to_json(self) -> dict[str, Any]:
        """The contents of ``search.json``, as JSON values."""
        return {
            "best": self.best,
            "trials": [self._entry(trial) for trial in self.trials],
            "ranking": [asdict(row) for row in self.rows],
            "truth": self.truth,
            "notes": list(self.notes),
        }

    def _entry(self, trial: Trial) -> dict[str, Any]:
        record, values = trial.to_json(), self.values.get(key(trial.architecture))
        truth = sum(values) / len(values) if values else None
        return {**{name: record[name] for name in TRIAL_FIELDS}, "truth": truth}

    @property
    def truth_name(self) -> str | None:
        """Name of the truth; None: there is no truth."""
        return str(self.truth["name"]) if self.truth else None

    def table(self, width: int | None = None) -> str:
        """The rows as text, with what they say; without a truth costs and agreement only.

        Args:
            width: Longest line in characters; None: that of the terminal, or 100.
        """
        caption = report.caption(self.rows, self.truth_name)
        return tables.text(*report.cells(self.rows), caption=caption, settings=(report.SIZE,), width=width)

    def to_pandas(self) -> Any:
        """The rows as a pandas data frame. Raises ConfigError if pandas is not installed."""
        return tables.as_frame(self.rows)

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        shown = ", ".join(f"{row.ranker}{_rho(row)}" for row in self.rows[:3]) + ", ..." * (len(self.rows) > 3)
        return f"SearchResult({shown}; {len(self.trials)} trials; print it for the table)"

    def _repr_html_(self) -> str:
        from condensekit.html import standalone
        from condensekit.html.layout import charts
        from condensekit.nas.study.pieces import rankers, scatters

        drawn = scatters(self.trials, self.values, self.rows)
        told = rankers(self.rows, self.truth_name, self.best, self.notes)
        return standalone(*told, charts(drawn) if drawn else "")

    def plot(self) -> Figure:
        """The scores of each ranker against the truth, or by rank without a truth, as a matplotlib figure.

        Raises:
            ConfigError: No candidate was scored.
        """
        from condensekit.nas.study.plots import figure

        return figure(self.trials, self.values)


class _Entry(TypedDict):
    """A trial in a file."""

    ranker: str
    architecture: dict[str, Any]
    score: float | None
    cost_s: float
    status: str
    reason: str
    truth: float | None


class _File(TypedDict):
    """What ``search.json`` holds."""

    best: dict[str, Any] | None
    trials: list[_Entry]
    ranking: list[RankingRow]
    truth: dict[str, Any] | None
    notes: list[str]


def _renewed(row: dict[str, Any]) -> dict[str, Any]:
    """A row of version 0.1 as one of today: it knows no work, and its FLOPs are a float."""
    flops = row.get("flops")
    return {"work": {}, **row, "flops": int(flops) if isinstance(flops, float) else flops}


def _rho(row: RankingRow) -> str:
    return "" if row.spearman is None else f" rho {row.spearman:.2f}"
