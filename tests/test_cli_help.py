"""The help of each command, in terminals of several widths and without UTF-8; the lists of names."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable

import click
import pytest

from condensekit import catalog
from condensekit.cli import COMMANDS, imported
from condensekit.cli.layout import GROUPS
from condensekit.data import datasets
from condensekit.nas.rankers.by_name import ranker
from condensekit.replay.study.memories import Making, memory

METAVARS = {"N", "X", "NAME", "LIST", "FILE", "FOLDER", "RUN", "TIME", "NAME|PATH", "NAME=VALUE"}
COMPUTING = ("condense", "select", "encoders", "evaluate", "replay", "search", "demo")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def options(name):
    """The options of a command."""
    return [param for param in imported(name).params if isinstance(param, click.Option)]


def flags(name):
    """All spellings of the options of a command."""
    return {flag for one in options(name) for flag in (*one.opts, *one.secondary_opts)} | {"--help"}


@pytest.fixture
def shown(cli, monkeypatch):
    """The help of a command in a terminal of some columns."""

    def show(*words, columns=80):
        monkeypatch.setenv("COLUMNS", str(columns))
        code, out, err = cli(*words)
        assert (code, err) == (0, "")
        return out

    return show


def test_help_lists_every_command(shown):
    out = shown("--help")
    assert all(name in out for name in COMMANDS)
    assert "Exit codes" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("help_option", ["--help", "--help-all"])
def test_help_fits_the_terminal(shown, name, help_option):
    for columns in (80, 100):
        out = shown(name, help_option, columns=columns)
        assert f"condensekit {name}" in out
        assert "Example" in out
        assert max(map(len, out.splitlines())) <= columns
    narrow = [line for line in shown(name, help_option, columns=40).splitlines() if not line.startswith("  ")]
    assert max(map(len, narrow)) <= 40


@pytest.mark.parametrize("name", COMMANDS)
def test_options_stand_under_headings_with_the_common_ones_first(shown, name):
    short, whole = (shown(name, which) for which in ("--help", "--help-all"))
    assert set(re.findall(r"^(\w+):$", whole, re.MULTILINE)) <= {*GROUPS, "Examples", "Example"}
    assert all(f"  {flag}" in whole for flag in (one.opts[0] for one in options(name)) if flag != "--help-all")
    listed = re.findall(r"^  (?:-h, )?(--[a-z-]+)", short, re.MULTILINE)
    assert len(listed) <= 20
    hidden = len(options(name)) - len([flag for flag in listed if flag != "--help"])
    if imported(name).common:
        assert short.splitlines()[-1] == f"`condensekit {name} --help-all` shows {hidden} more options."
        assert {f"--{one}" for one in imported(name).common} <= flags(name)
    assert ("--config" in flags(name)) == (name in COMPUTING)


@pytest.mark.parametrize("name", COMMANDS)
def test_metavars_and_defaults(shown, name):
    whole = shown(name, "--help-all", columns=100)
    found = re.findall(r"^  --[a-z-]+ ([A-Z|=]+)(?:  |$)", whole, re.MULTILINE)
    assert set(found) <= METAVARS
    assert not re.search(r"\d<=x|x<=|INTEGER|FLOAT|TEXT|RANGE|None\]", whole)
    for one in options(name):
        default = "" if one.multiple or not isinstance(one.default, str | int | float) else str(one.default)
        if default and not one.is_flag:
            assert f"default:{default}]" in "".join(whole.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_short_and_names_what_there_is(shown, name):
    """Once the help of search named an option of condense, and a list of memories was 1,000 characters long."""
    command = imported(name)
    for one in options(name):
        assert len(one.help) < 400
        assert set(FLAG.findall(one.help)) <= flags(name), one.opts
        assert "unused here" not in one.help
    prose: list[str] = []
    examples: list[str] = []
    for line in command.help.replace("\\\n", " ").splitlines():
        (examples if line.startswith("  condensekit ") else prose).append(line)
    assert set(FLAG.findall("\n".join(prose))) <= {*flags(name), "--help-all"}
    for line in examples:
        words = shlex.split(line)
        assert {word for word in words if word.startswith("--")} <= flags(words[1]), line
    assert max(len(part) for part in command.help.split("\n\n") if "\n  " not in part) < 600


def test_without_utf8_help_and_errors_work(tmp_path):
    """Locales of containers and cron jobs have no UTF-8."""
    environment = os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "COLUMNS": "40"}
    script = (
        "import sys\nfrom condensekit.cli import COMMANDS, main\n"
        "for words in [[name, '--help-all'] for name in COMMANDS] + [['inspect', '\\u00f6'], "
        "['condense', '--gr\\u00f6\\u00dfe', '3'], ['list', '\\u00ef'], ['condense', '--config', '\\u00f6.toml']]:\n"
        "    try:\n        main(words)\n    except SystemExit as end:\n        print(end.code, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=tmp_path, capture_output=True, check=True
    )
    assert b"Traceback" not in done.stderr
    codes = [line for line in done.stderr.decode().splitlines() if line in ("0", "2")]
    assert codes == ["0"] * len(COMMANDS) + ["2"] * 4


LISTS: dict[str, Iterable[str]] = {
    "methods": catalog.PUBLISHED,
    "selections": catalog.SELECTIONS,
    "networks": catalog.NETWORKS,
    "data": datasets.NAMES,
    "memories": ("dm", "kmeans", "class-balanced", "icarl", "joint"),
    "rankers": ("dm", "random", "params", "synflow", "early-stop", "additive"),
}


@pytest.mark.parametrize("kind", LISTS)
def test_list_has_a_line_for_each_name(shown, kind):
    record = json.loads(shown("list", kind, "--json"))[kind]
    assert set(LISTS[kind]) <= set(record)
    lines = shown("list", kind).splitlines()
    assert max(map(len, lines)) <= 100
    assert [line.split("  ")[0] for line in lines[: len(record)]] == list(record)
    for name in record:
        if name.islower() and kind in ("memories", "rankers") and ":" not in name:
            memory(name, Making()) if kind == "memories" else ranker(name)
