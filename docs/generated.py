"""Directives for what no page writes by hand: measured tables, the command line, comparisons with papers, formulas.

Every figure comes from a file that a benchmark wrote, and every help text from the command itself.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import itertools
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from unittest import mock

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

from benchmarks.record import RESULTS, read
from condensekit.cli import COMMANDS, main

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment
    from sphinx.writers.html5 import HTML5Translator

ROOT = Path(__file__).parents[1]
TABLES = ROOT / "benchmarks/README.md"
PUBLISHED = ROOT / "benchmarks/accuracy/published.json"
REPOSITORY = "https://github.com/condensekit/condensekit/blob/main"
RUN = "python benchmarks/accuracy/run.py"
LINK = re.compile(r"\]\((?!https?:|#)([^)]+)\)")
METHODS = ("dm", "m3d", "dc", "dsa", "random", "herding", "kmeans", "full")  # order of the rows
PAPER_COLUMNS = ("method", "data", "images per class", "published %", "here %", "state", "command", "file")
HELP_COLUMNS = 102


def cells(line: str) -> list[str]:
    """Cells of a row of a Markdown table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def below(title: str) -> list[str]:
    """Lines of ``benchmarks/README.md`` below the bold title that begins with ``title``, up to the next title."""
    lines = TABLES.read_text(encoding="utf-8").splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith(("**", "## "))]
    first = next(i for i in starts if lines[i].startswith(f"**{title}"))
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
        entries = sorted(found["accuracy_percent"], key=lambda entry: (METHODS.index(entry["set"]), entry["data"]))
        lines = markdown(PAPER_COLUMNS, [paper_row(entry, records) for entry in entries])
        lines += ["", *(f"- *{name}*: {text}." for name, text in found["sources"].items())]
        return self.parse_text_to_nodes("\n".join(lines))


def paper_row(entry: dict[str, Any], records: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """One row: the best record of the same data, images per class and method, in any variant without a study."""
    name, data, ipc, value = entry["set"], entry["data"], entry["ipc"], entry["value"]
    ours = [
        (100 * record["rows"][0]["accuracy_mean"], record["cell"], file)
        for file, record in records
        if (record["cell"]["data"], record["cell"]["ipc"], record["cell"]["study"]) == (data, ipc, "")
        and record["cell"]["name"].split("-")[0] == name
    ]
    spread = "" if entry["std"] is None else f" ± {entry['std']}"
    start = [name, data, str(ipc or "all"), f"{value}{spread} ({entry['source']})"]
    if not ours:
        pattern = f"{data}-{f'ipc{ipc}' if ipc else 'all'}-{name}"
        return [*start, "-", "not run", f"`{RUN} --scale gpu --only {pattern}`", "-"]
    best, cell, file = max(ours, key=lambda one: one[0])
    gap = best - value
    stem = file.removesuffix(".json")
    steps = f", {cell['steps']:,} steps" if cell["steps"] else ""
    state = f"short by {-gap:.1f}" if gap < 0 else f"reached (+{gap:.1f})"
    return [
        *start,
        f"{best:.1f} ({cell['name']}{steps})",
        state,
        f"`{RUN} --scale {cell['scale']} --only {stem}`",
        file,
    ]


class Sections(SphinxDirective):
    """Sections of a Markdown file of the repository, with links to the repository; ``only`` names some of them."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {"only": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """Cut the file at its headings of the second level."""
        path = ROOT / self.arguments[0]
        self.env.note_dependency(str(path))
        parts = path.read_text(encoding="utf-8").split("\n## ")[1:]
        titled = {part.partition("\n")[0]: f"## {part}" for part in parts}
        wanted = [name.strip() for name in self.options.get("only", ";".join(titled)).split(";")]
        missing = [name for name in wanted if name not in titled]
        if missing:
            raise self.error(f"{path.name} has no section {missing[0]!r}")
        here = (ROOT / "docs" / self.env.docname).parent

        def link(found: re.Match[str]) -> str:
            target = path.parent / found[1]
            if target.suffix == ".png":
                return f"]({os.path.relpath(target, here)})"
            return f"]({REPOSITORY}/{os.path.relpath(target, ROOT)})"

        text = "\n".join(titled[name] for name in wanted)
        return self.parse_text_to_nodes(LINK.sub(link, text), allow_section_headings=True)


class Commands(SphinxDirective):
    """The help of every command, as the command prints it."""

    def run(self) -> list[nodes.Node]:
        """One section for each command."""
        lines = [*fenced(help_of([]))]
        for name in COMMANDS:
            lines += ["", f"## condensekit {name}", "", *fenced(help_of([name]))]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


class Notebooks(SphinxDirective):
    """Links to the notebooks of ``examples/notebooks``, if the checkout has any."""

    def run(self) -> list[nodes.Node]:
        """One line for each notebook."""
        found = sorted((ROOT / "examples/notebooks").glob("*.ipynb"))
        lines = [f"- [{path.stem}]({REPOSITORY}/{path.relative_to(ROOT).as_posix()})" for path in found]
        return self.parse_text_to_nodes("\n".join(lines))


def help_of(command: list[str]) -> str:
    """The full help of a command, as it stands in a terminal of ``HELP_COLUMNS`` columns."""
    for option in ("--help-all", "--help"):
        printed = io.StringIO()
        with (
            mock.patch.dict(os.environ, COLUMNS=str(HELP_COLUMNS)),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.suppress(SystemExit),
        ):
            main([*command, option])
        if printed.getvalue():
            return printed.getvalue()
    raise RuntimeError(f"condensekit {' '.join(command)} --help printed nothing")


def fenced(text: str) -> list[str]:
    """Lines of a block of text without highlighting."""
    return ["```text", *text.rstrip().splitlines(), "```"]


def mathml(translator: HTML5Translator, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers show without a script from elsewhere."""
    block = isinstance(node, nodes.math_block)
    tag = "div" if block else "span"
    translator.body.append(translator.starttag(node, tag, "", CLASS="math"))
    translator.body.append(str(tex2mathml(node.astext(), as_block=block)))
    translator.body.append(f"</{tag}>")
    raise nodes.SkipNode


PACKAGES = ("condensekit", "condensekit.replay", "condensekit.nas")


@functools.cache
def public_names() -> dict[str, str]:
    """The public name of each object that is defined elsewhere, by its name where it is defined."""
    packages = {package: importlib.import_module(package) for package in PACKAGES}
    found = {
        f"{package}.{name}": getattr(module, name) for package, module in packages.items() for name in module.__all__
    }
    return {f"{o.__module__}.{o.__qualname__}": name for name, o in found.items() if hasattr(o, "__qualname__")}


def once(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Leave a public object out of the page of its module: it has its entry under the public name."""
    own = f"{getattr(obj, '__module__', '')}.{getattr(obj, '__qualname__', '')}"
    return True if what == "module" and own in public_names() else None


def by_public_name(
    app: Sphinx, env: BuildEnvironment, node: nodes.Element, content: nodes.Element
) -> nodes.Element | None:
    """Resolve a reference to an object where it is defined by its entry under the public name."""
    target = node.get("reftarget", "")
    public = next(
        (name + target.removeprefix(own) for own, name in public_names().items() if f"{target}.".startswith(f"{own}.")),
        None,
    )
    entries = env.domains.python_domain.objects
    if public not in entries:
        return None
    return make_refnode(app.builder, node["refdoc"], entries[public].docname, public, content, public)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives and the renderer of formulas."""
    app.add_directive("measured", Measured)
    app.add_directive("papers", Papers)
    app.add_directive("sections", Sections)
    app.add_directive("commands", Commands)
    app.add_directive("notebooks", Notebooks)
    app.connect("autodoc-skip-member", once)
    app.connect("missing-reference", by_public_name)
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
