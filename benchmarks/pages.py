"""Pages: the measured tables in the documentation, each a part of a table of ``benchmarks/README.md``.

A page names the part in a comment, and the table follows::

    <!-- measured TITLE
    columns: set; accuracy %; above random, 95 % interval = above random
    where: ipc=10
    -->
    | set | accuracy % | above random |
    <!-- measured: end -->

Options: ``columns``, names separated by semicolons, each perhaps with ``=`` and a shorter name; ``rows``, a regular
expression for the whole entry of the first of them; ``where``, ``COLUMN=VALUE`` of the rows to keep; ``number``, of
several tables below the title; ``lines``, a regular expression for the beginning of statements below the table. What is
not there is an error: no page keeps a figure that the benchmarks no longer have.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

from benchmarks.record import HERE

BEGIN = "<!-- measured "
PAGES = [path for path in sorted((HERE.parent / "docs").rglob("*.md")) if BEGIN in path.read_text(encoding="utf-8")]
BLOCK = re.compile(r"(<!-- measured (.+)\n((?:[a-z]+: .+\n)*)-->\n)(?s:.*?)(<!-- measured: end -->)")


def rewritten(page: str, readme: str) -> str:
    """The text of a page with new tables from the text of ``benchmarks/README.md``."""

    def block(found: re.Match[str]) -> str:
        begin, title, options, end = found.groups()
        try:
            lines = chosen(below(readme, title), dict(line.split(": ", 1) for line in options.splitlines()))
        except (ValueError, IndexError, StopIteration) as error:
            raise ValueError(f"benchmarks/README.md, {title}: {error!r}") from error
        return "\n".join([begin, *lines, "", end])

    return BLOCK.sub(block, page)


def chosen(lines: Sequence[str], options: Mapping[str, str]) -> list[str]:
    """Lines of the part of a table among some lines."""
    header, _, *rows = tables(lines)[int(options.get("number", 1)) - 1]
    named = [part.strip().partition("=") for part in options.get("columns", ";".join(header)).split(";")]
    places = [header.index(name.strip()) for name, _, _ in named]
    pattern = re.compile(options.get("rows", ".*"))
    column, _, value = options.get("where", f"{header[0]}=").partition("=")
    given = header.index(column)
    kept = [row for row in rows if pattern.fullmatch(row[places[0]]) and value in ("", row[given])]
    if not kept:
        raise ValueError(f"no row matches {pattern.pattern!r} and {column}={value}")
    shown = markdown([short.strip() or name for name, _, short in named], [[row[i] for i in places] for row in kept])
    wanted = options.get("lines")
    told = [line for line in lines if wanted and re.match(f"- (?:{wanted})", line)]
    if wanted and not told:
        raise ValueError(f"no statement matches {wanted!r}")
    return [*shown, *([""] if told else []), *told]


def cells(line: str) -> list[str]:
    """Cells of a row of a Markdown table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def below(readme: str, title: str) -> list[str]:
    """Lines of the README below the title that begins with ``title``, up to the next title."""
    lines = readme.splitlines()
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
