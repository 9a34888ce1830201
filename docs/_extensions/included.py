"""Directives for text that stands elsewhere: the help of commands, sections of files, links to notebooks."""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from unittest import mock

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

from condensekit.cli import COMMANDS, main

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
REPOSITORY = "https://github.com/condensekit/condensekit/blob/main"
LINK = re.compile(r"\]\((?!https?:|#)([^)]+)\)")
HELP_COLUMNS = 92


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
        """One section for the group, and one for each command."""
        self.env.note_reread()
        lines = ["## condensekit", "", *fenced(help_of([]))]
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


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("sections", Sections)
    app.add_directive("commands", Commands)
    app.add_directive("notebooks", Notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
