"""The documentation has an entry for each public name, builds without a warning, and asks nothing of a network."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import pages
from condensekit.cli import imported

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
PACKAGES = ("condensekit", "condensekit.replay", "condensekit.nas")
ENTRY = re.compile(r"^\.\. (?:auto\w+|py:\w+):: (\S+)$", re.MULTILINE)
INCLUDED = re.compile(r"^```\{literalinclude\} (\S+)$", re.MULTILINE)
LOADED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//|<link\b[^>]*href=["']?(?:https?:)?//"""
)


def test_each_public_name_has_one_entry_in_the_reference():
    entries = [name for page in PAGES for name in ENTRY.findall(page.read_text(encoding="utf-8"))]
    for package in PACKAGES:
        public = [f"{package}.{name}" for name in importlib.import_module(package).__all__]
        homes = {"condensekit.recipes": "condensekit.catalog.recipes"}  # the module is documented where it lies
        assert {name: entries.count(homes.get(name, name)) for name in public} == dict.fromkeys(public, 1)


@pytest.mark.parametrize("kind", ["data", "network", "method", "memory", "space"])
def test_each_part_of_your_own_is_one_example_file(kind):
    page = ROOT / "docs/own" / f"{kind}.md"
    (shown,) = INCLUDED.findall(page.read_text(encoding="utf-8"))
    assert (page.parent / shown).resolve().parent == ROOT / "examples"


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("sphinx", reason="the documentation needs the development extra")
    build = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", str(ROOT / "docs"), str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        assert LOADED.search(page.read_text(encoding="utf-8")) is None, page.name


def commands():
    """The words of each command of the command line in a block of the pages."""
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            yield from (shlex.split(line, comments=True) for line in lines if line.startswith("condensekit "))


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_of_the_pages_has_the_options_that_it_names(words):
    command = imported(words[1])
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.stem)
def test_measured_tables_stand_in_the_pages_and_are_current(page):
    """``python benchmarks/tables.py`` writes them."""
    text = page.read_text(encoding="utf-8")
    assert text.count("<!-- measured ") == text.count("<!-- measured: end -->") == len(pages.BLOCK.findall(text)) > 0
    assert pages.rewritten(text, (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")) == text


def test_a_part_that_the_benchmarks_lack_is_an_error():
    readme = "**fruit**\n\n| name | price |\n|---|---|\n| pear | 1 |\n| fig | 2 |\n\n- fig is dear\n"
    block = "<!-- measured fruit\nrows: {}\nlines: fig\n-->\n<!-- measured: end -->\n"
    made = pages.rewritten(block.format("fig"), readme)
    assert "-->\n\n| name | price |\n| --- | --- |\n| fig | 2 |\n\n- fig is dear\n\n<!--" in made
    assert pages.rewritten(made, readme) == made
    with pytest.raises(ValueError, match=r"README\.md, fruit: .*no row matches 'plum'"):
        pages.rewritten(block.format("plum"), readme)
