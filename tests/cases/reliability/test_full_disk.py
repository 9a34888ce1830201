"""A full disk costs no result, and the run goes on when there is room again."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cases.command import CONDENSE, EVALUATE, REPLAY, SEARCH, python


def found(what, *words):
    """What the command saw, and the text that it wrote before."""
    done = python("-m", "tests.cases.reliability.full_disk", what, *words)
    *text, last = done.out.strip().splitlines() or [""]
    try:
        return json.loads(last), "\n".join(text)
    except ValueError:
        raise RuntimeError(done.err) from None


def test_a_disk_that_is_full_of_metrics_leaves_the_result_and_the_run_goes_on(tmp_path):
    seen, _ = found("condense", tmp_path / "run")
    assert seen["ours"], seen["failure"]
    assert seen["kept"]
    assert seen["steps"] == 200


@pytest.mark.slow
def test_evaluating_on_a_full_disk_prints_the_table_or_trains_nothing(cli, tmp_path):
    code, _, err = cli(*CONDENSE, "--out", tmp_path / "run")
    if code != 0:
        raise RuntimeError(err)
    seen, text = found("evaluate", tmp_path / "run")
    assert seen["steps"] == 0 or re.search(r"\d\.\d", text)


@pytest.mark.slow
@pytest.mark.parametrize("words", [REPLAY, SEARCH])
def test_a_result_that_cannot_be_written_is_printed(cli, tmp_path, words):
    """What hours have found is on the screen, even if its file is not on the disk."""
    code, _, err = cli(*words, "--out", tmp_path / "run")
    if code != 0:
        raise RuntimeError(err)
    seen, text = found("resume", *words, "--out", tmp_path / "run")
    assert seen["code"] == 4
    assert re.search(r"^\| random \|", text, re.MULTILINE)


def test_a_table_that_cannot_be_written_is_printed(cli, tmp_path):
    code, _, err = cli(*REPLAY, "--experiences", 2, "--out", tmp_path / "run")
    if code != 0:
        raise RuntimeError(err)
    (tmp_path / "run/replay.md").unlink()
    (tmp_path / "run/replay.md").mkdir()
    code, out, err = cli(*REPLAY, "--experiences", 2, "--out", tmp_path / "run", "--resume")
    assert code == 4
    assert "replay.md: cannot write: it is a folder" in err
    assert "| random |" in out


def test_evaluating_refuses_a_place_that_cannot_be_written_before_it_trains(cli, tmp_path, monkeypatch):
    code, _, err = cli(*CONDENSE, "--out", tmp_path / "run")
    if code != 0:
        raise RuntimeError(err)
    (tmp_path / "run/evaluation.json").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr("condensekit.cli.evaluate.evaluate", None)
    code, out, err = cli(*EVALUATE, tmp_path / "run")
    assert (code, out) == (4, "")
    assert "evaluation.json: cannot write: it is a symbolic link" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_output_that_cannot_be_written_is_one_line():
    with open("/dev/full", "w") as full:
        words = (sys.executable, "-P", "-m", "condensekit", "methods", "--json")
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (4, "Error: cannot write the output: No space left on device\n")
