"""kill -9 while sets are evaluated: a repeated evaluation trains what lacks, and gives the same figures bit for bit.

What is printed after 28 minutes, and lost by a kill, was the friction of a user's first evening.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from condensekit.cli import main

pytestmark = pytest.mark.kill

ROOT = Path(__file__).parents[2]
OPTIONS = ("--networks", "3", "--network", "ConvNet-w8-d1", "--against", "random,kmeans", "--quiet", "--json")


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(SystemExit) as end:
        main(["select", "--data", "digits", "--selection", "herding", "--ipc", "2", "--out", str(folder)])
    assert end.value.code == 0
    return folder


def launch(folder):
    command = [sys.executable, "-m", "condensekit", "evaluate", str(folder), *OPTIONS]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(folder):
    out, errors = launch(folder).communicate(timeout=400)
    return json.loads(out), errors.decode()


def figures(result):
    timed = ("wall_s", "peak_mib")
    return [{name: value for name, value in row.items() if name not in timed} for row in result["rows"]]


def trained(folder):
    return sorted((folder / "trainings").glob("*.json"))


def test_an_evaluation_goes_on_after_kills_with_the_same_figures(run):
    moments, kept = random.Random(0), 0
    for _ in range(2):
        child, deadline = launch(run), time.monotonic() + 300
        while len(trained(run)) <= kept and child.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.3))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        kept = len(trained(run))
    assert kept >= 2
    before = {file: file.stat().st_mtime_ns for file in trained(run)}
    killed, said = finish(run)
    assert said == ""
    assert len(trained(run)) == 3 * 3
    assert all(file.stat().st_mtime_ns == when for file, when in before.items())
    for file in trained(run):
        file.unlink()
    whole, _ = finish(run)
    assert figures(killed) == figures(whole)


def test_ctrl_c_says_how_to_go_on(run):
    child, deadline = launch(run), time.monotonic() + 300
    while not trained(run):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    out, errors = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, b"")
    assert "To go on: repeat the command" in errors.decode()
    assert len(errors.splitlines()) == 1
