"""Directives for what no page writes by hand: measured tables, the command line, comparisons with papers, formulas.

Every figure comes from a file that a benchmark wrote, and every help text from the command itself.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

from condensekit.cli import COMMANDS, main

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment
    from sphinx.writers.html5 import HTML5Translator

ROOT = Path(__file__).parents[1]
TABLES = ROOT / "benchmarks/README.md"
HELP_COLUMNS = 102


def column(line: str) -> list[str]:
    """Cells of a row of a Markdown table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def table(title: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table in ``benchmarks/README.md`` below the bold title that begins with ``title``.

    Raises:
        ValueError: No such title.
    """
    lines = iter(TABLES.read_text(encoding="utf-8").splitlines())
    if not any(line.startswith(f"**{title}") for line in lines):
        raise ValueError(f"{TABLES.name} has no table **{title}")
    rows: list[list[str]] = []
    for line in lines:
        if line.startswith("|"):
            rows.append(column(line))
        elif rows:
            break
    return rows[0], rows[2:]


def markdown(header: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


class Measured(SphinxDirective):
    """A part of a measured table: ``{measured} TITLE``, with the columns to show and the rows to keep.

    Options: ``columns``, names of columns separated by semicolons; ``rows``, a regular expression that matches the
    whole first of these columns which is not a number; ``where``, ``COLUMN=VALUE``.
    """

    required_arguments = 1
    final_argument_whitespace = True
    option_spec = {  # noqa: RUF012 - as in Sphinx
        "columns": directives.unchanged_required,
        "rows": directives.unchanged_required,
        "where": directives.unchanged_required,
        "key": directives.unchanged_required,
    }

    def run(self) -> list[nodes.Node]:
        """Read the table, choose, and parse what is left."""
        self.env.note_dependency(str(TABLES))
        try:
            lines = list(self.chosen())
        except ValueError as error:
            raise self.error(str(error)) from None
        return self.parse_text_to_nodes("\n".join(lines))

    def chosen(self) -> Iterator[str]:
        """Lines of the chosen part. Raises ValueError if a column is missing or no row is left."""
        header, rows = table(self.arguments[0])
        wanted = [name.strip() for name in self.options.get("columns", ";".join(header)).split(";")]
        key = header.index(self.options.get("key", wanted[0]))
        pattern = re.compile(self.options.get("rows", ".*"))
        where, _, value = self.options.get("where", "").partition("=")
        kept = [row for row in rows if pattern.fullmatch(row[key]) and (not where or row[header.index(where)] == value)]
        if not kept:
            raise ValueError(f"no row of {self.arguments[0]} matches {pattern.pattern}")
        yield from markdown(wanted, [[row[header.index(name)] for name in wanted] for row in kept])


class Commands(SphinxDirective):
    """The help of every command, as the command prints it."""

    def run(self) -> list[nodes.Node]:
        """One section for each command."""
        lines = [*fenced(help_of([]))]
        for name in COMMANDS:
            lines += ["", f"## condensekit {name}", "", *fenced(help_of([name]))]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


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
    app.add_directive("commands", Commands)
    app.connect("autodoc-skip-member", once)
    app.connect("missing-reference", by_public_name)
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
