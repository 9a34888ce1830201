"""Search result: the best architecture, every trial, and a row for each ranker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from condensekit import tables
from condensekit.nas.spaces.architecture import key
from condensekit.nas.study import report
from condensekit.nas.study.report import RankingRow
from condensekit.nas.trials.log import Trial

TRIAL_FIELDS = ("ranker", "architecture", "score", "cost_s", "status", "reason")  # of a trial in ``search.json``


@dataclass(frozen=True, repr=False)
class SearchResult:
    """What :meth:`condensekit.nas.Contest.run` found; ``print`` shows the table.

    Args:
        best: The first choice of the first ranker that scored any: ``ranker``, ``architecture``, ``score``, ``params``,
            ``flops``, ``truth``; None where no candidate was scored.
        trials: Every ranker's trials, combinations included.
        rows: One for each ranker.
        truth: The truth's name, its repeats' agreement and its noise; None where there is none.
        values: The truth's measurements in percent by key of the architecture.
        notes: What the reader should know, a sentence each.
    """

    best: dict[str, Any] | None
    trials: tuple[Trial, ...]
    rows: tuple[RankingRow, ...]
    truth: dict[str, Any] | None
    values: Mapping[str, tuple[float, ...]]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What ``search.json`` holds."""
        return {
            "best": self.best,
            "trials": [self._told(trial) for trial in self.trials],
            "ranking": [asdict(row) for row in self.rows],
            "truth": self.truth,
            "notes": list(self.notes),
        }

    def _told(self, trial: Trial) -> dict[str, Any]:
        record, values = trial.to_json(), self.values.get(key(trial.architecture))
        truth = sum(values) / len(values) if values else None
        return {**{name: record[name] for name in TRIAL_FIELDS}, "truth": truth}

    def table(self) -> str:
        """The rows in Markdown; without a truth only cost and agreement."""
        return report.table(self.rows)

    def to_pandas(self) -> Any:
        """The rows as a pandas data frame. Raises ConfigError without pandas."""
        return tables.as_frame(self.rows)

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        shown = ", ".join(f"{row.ranker}{_rho(row)}" for row in self.rows[:3]) + ", ..." * (len(self.rows) > 3)
        return f"SearchResult({shown}; {len(self.trials)} trials; print it for the table)"

    def _repr_html_(self) -> str:
        return tables.as_html(*report.cells(self.rows))


def _rho(row: RankingRow) -> str:
    return "" if row.spearman is None else f" rho {row.spearman:.2f}"
