"""Directive for the comparison with the figures of papers; every figure comes from a file that a benchmark wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from benchmarks.accuracy.cells import cells as benchmark_cells
from benchmarks.pages import markdown
from benchmarks.record import RESULTS, read

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PUBLISHED = Path(__file__).parents[2] / "benchmarks/accuracy/published.json"
REPOSITORY = "https://github.com/condensekit/condensekit/blob/main"
METHODS = ("dm", "m3d", "dc", "dsa", "random", "herding", "kmeans", "full")  # order of the rows
PAPER_COLUMNS = ("method", "data", "images per class", "published %", "here %", "state", "options of the command")
PACKED = ("m3d",)  # methods whose published rows have four images packed into one


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
    """Register the directive."""
    app.add_directive("papers", Papers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
