"""Directives for measured tables: a part of one, and the comparison with the figures of papers.

Every figure comes from a file that a benchmark wrote.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

from benchmarks.accuracy.cells import cells as benchmark_cells
from benchmarks.record import RESULTS, read

if TYPE_CHECKING:
    from sphinx.application import Sphinx

TABLES = Path(__file__).parents[2] / "benchmarks/README.md"
PUBLISHED = TABLES.parent / "accuracy/published.json"
REPOSITORY = "https://github.com/condensekit/condensekit/blob/main"
METHODS = ("dm", "m3d", "dc", "dsa", "random", "herding", "kmeans", "full")  # order of the rows
PAPER_COLUMNS = ("method", "data", "images per class", "published %", "here %", "state", "options of the command")
PACKED = ("m3d",)  # methods whose published rows have four images packed into one


def cells(line: str) -> list[str]:
    """Cells of a row of a Markdown table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def below(title: str) -> list[str]:
    """Lines of ``benchmarks/README.md`` below the title that begins with ``title``, up to the next title."""
    lines = TABLES.read_text(encoding="utf-8").splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith(("**", "## "))]
    first = next(i for i in starts if lines[i].startswith((f"**{title}", f"## {title}")))
    return lines[first + 1 : next((i for i in starts if i > first), len(lines))]


def tables(lines: Iterable[str]) -> list[list[list[str]]]:
    """The tables among some lines, each with its header and the line below the header."""
    parts = itertools.groupby(lines, key=lambda line: line.startswith("|"))
    return [[cells(line) for line in part] for is_table, part in parts if is_table]


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


class Measured(SphinxDirective):
    """A part of a measured table: the title of the table, the columns to show and the rows to keep.

    Options: ``columns``, names separated by semicolons, each perhaps with ``=`` and a shorter name; ``rows``, a regular
    expression for the whole entry of the first of them; ``where``, ``COLUMN=VALUE`` of the rows to keep; ``number``, of
    several tables below the title; ``lines``, a regular expression for the beginning of statements below the table.
    What is not there is an error: no page keeps a figure that the benchmarks no longer have.
    """

    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, Any]] = {
        "columns": directives.unchanged_required,
        "rows": directives.unchanged_required,
        "where": directives.unchanged_required,
        "number": directives.positive_int,
        "lines": directives.unchanged_required,
    }

    def run(self) -> list[nodes.Node]:
        """Read the tables, choose, and parse what is left."""
        self.env.note_dependency(str(TABLES))
        try:
            lines = self.chosen()
        except (ValueError, IndexError, StopIteration) as error:
            raise self.error(f"{TABLES.name}, {self.arguments[0]}: {error}") from None
        return self.parse_text_to_nodes("\n".join(lines))

    def chosen(self) -> list[str]:
        """Lines of the chosen part."""
        lines = below(self.arguments[0])
        header, _, *rows = tables(lines)[self.options.get("number", 1) - 1]
        named = [part.strip().partition("=") for part in self.options.get("columns", ";".join(header)).split(";")]
        places = [header.index(name.strip()) for name, _, _ in named]
        pattern = re.compile(self.options.get("rows", ".*"))
        column, _, value = self.options.get("where", f"{header[0]}=").partition("=")
        given = header.index(column)
        kept = [row for row in rows if pattern.fullmatch(row[places[0]]) and value in ("", row[given])]
        if not kept:
            raise ValueError(f"no row matches {pattern.pattern!r} and {column}={value}")
        shown = markdown(
            [short.strip() or name for name, _, short in named], [[row[i] for i in places] for row in kept]
        )
        wanted = self.options.get("lines")
        told = [line for line in lines if wanted and re.match(f"- (?:{wanted})", line)]
        if wanted and not told:
            raise ValueError(f"no statement matches {wanted!r}")
        return [*shown, "", *told]


class Papers(SphinxDirective):
    """A row for each published accuracy: what was measured here, the difference, the command and its file."""

    def run(self) -> list[nodes.Node]:
        """Compare ``published.json`` with the records in ``benchmarks/results``."""
        found = json.loads(PUBLISHED.read_text(encoding="utf-8"))
        files = [path for path in sorted(RESULTS.glob("*.json")) if re.match("[cg]pu-", path.name)]
        records = [(path.name, read(path)) for path in files]
        order = {name: place for place, name in enumerate(METHODS)}
        entries = sorted(found["accuracy_percent"], key=lambda entry: (order.get(entry["set"], 99), entry["data"]))
        lines = markdown(PAPER_COLUMNS, [paper_row(entry, records) for entry in entries])
        lines += ["", *(f"- *{name}*: {text}." for name, text in found["sources"].items())]
        return self.parse_text_to_nodes("\n".join(lines))


def paper_row(entry: dict[str, Any], records: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """One row: the best record of the same data, images per class, method and packing, in the table of all methods."""
    name, data, ipc, value = entry["set"], entry["data"], entry["ipc"], entry["value"]
    ours = [
        (100 * record["rows"][0]["accuracy_mean"], record["cell"], file)
        for file, record in records
        if (record["cell"]["data"], record["cell"]["ipc"], record["cell"]["study"]) == (data, ipc, "")
        and record["cell"]["name"].split("-")[0] == name
        and (record["factor"] > 1) == (name in PACKED)
    ]
    spread = "" if entry["std"] is None else f" ± {entry['std']}"
    start = [name, data, str(ipc or "all"), f"{value}{spread} ({entry['source']})"]
    if not ours:
        planned = (
            cell.stem for cell in benchmark_cells("gpu") if (cell.data, cell.ipc, cell.name) == (data, ipc, name)
        )
        return [*start, "-", "not run", next((f"`--scale gpu --only {stem}`" for stem in planned), "no cell yet")]
    best, cell, file = max(ours, key=lambda one: one[0])
    gap = best - value
    steps = f", {cell['steps']:,} steps" if cell["steps"] else ""
    state = f"short by {-gap:.1f}" if gap < 0 else f"reached (+{gap:.1f})"
    options = f"`--scale {cell['scale']} --only {file.removesuffix('.json')}`"
    link = f"[{cell['name']}{steps}]({REPOSITORY}/benchmarks/results/{file})"
    return [*start, f"{best:.1f} ({link})", state, options]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("measured", Measured)
    app.add_directive("papers", Papers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
