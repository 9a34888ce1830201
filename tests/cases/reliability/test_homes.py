"""A home that is missing or cannot be written stops no command, and one that can gets no file.

Sources: containers and batch systems that run as a user without a home; Avalanche's and NNI's files in a user's home.
"""

import os
import subprocess
import sys

import pytest

from tests.cases.command import CONDENSE, EVALUATE, REPLAY, ROOT, SEARCH

COMMANDS = {
    "condense": (*CONDENSE, "--out", "out"),
    "select": ("select", "--data", "digits", "--ipc", "1", "--out", "out"),
    "evaluate": (*EVALUATE, "run"),
    "export": ("export", "run", "--grid", "grid.png"),
    "replay": (*REPLAY, "--memory", "random,reservoir", "--er-epochs", "1", "--regime", "er", "--out", "out"),
    "sequential": (*SEARCH, "--out", "out"),
    "pool": (*SEARCH, "--engine", "pool", "--out", "out"),
    "nni": (*SEARCH, "--engine", "nni", "--port", "8733", "--out", "out"),
}
CACHES = {".cache", ".config/matplotlib"}  # of fonts and compiled code


def call(words, home, cwd):
    """Run a command in a folder with another home."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "condensekit", *words],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def run(cli, tmp_path):
    """A finished run in the folder ``run``."""
    code, _, err = cli(*CONDENSE, "--out", tmp_path / "run")
    if code != 0:
        raise RuntimeError(err)


@pytest.mark.slow
@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_home_that_cannot_be_written_stops_no_command(tmp_path, name):
    home = tmp_path / "home"
    home.touch()  # a file: not even root makes a folder in it
    call(COMMANDS[name], home, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["replay", "nni"])
def test_libraries_write_nothing_into_the_home(tmp_path, name):
    home = tmp_path / "home"
    home.mkdir()
    call(COMMANDS[name], home, tmp_path)
    left = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    assert {file for file in left if not file.startswith(tuple(CACHES))} == set()
