"""FAULTS 1: kill -9 anywhere; the resumed run gives the images of an uninterrupted one."""

import csv
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from condensekit.sets.condensed import CondensedSet
from tests.faults.kill_child import METHODS, STEPS

pytestmark = pytest.mark.kill

CHILD = [sys.executable, "-m", "tests.faults.kill_child"]
ROOT = Path(__file__).parents[2]
POINTS = [("before-temporary", 3), ("mid-write", 9), ("before-rename", 5), ("after-rename", 6), ("mid-step", 27)]


def launch(folder, method, point="never", occurrence=0):
    return subprocess.Popen([*CHILD, str(folder), method, point, str(occurrence)], cwd=ROOT, stderr=subprocess.PIPE)


def finish(folder, method):
    child = launch(folder, method)
    _, errors = child.communicate(timeout=400)
    assert child.returncode == 0, errors.decode()
    with (folder / "metrics.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, STEPS + 1))
    return CondensedSet.load(folder / "set.safetensors").images


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return {name: finish(tmp_path_factory.mktemp(name) / "run", name) for name in METHODS}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("point", "occurrence"), POINTS)
def test_kill_at_a_named_point(tmp_path, whole, method, point, occurrence):
    child = launch(tmp_path / "run", method, point, occurrence)
    child.communicate(timeout=400)
    assert child.returncode == -signal.SIGKILL
    assert torch.equal(finish(tmp_path / "run", method), whole[method])


@pytest.mark.parametrize("method", METHODS)
def test_kill_at_random_times(tmp_path, whole, method):
    moments = random.Random(0)
    for _ in range(20):
        child = launch(tmp_path / "run", method)
        deadline = time.monotonic() + 60
        while not (tmp_path / "run" / "metrics.csv").exists() and child.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.15))
        child.kill()
        child.communicate()
    assert torch.equal(finish(tmp_path / "run", method), whole[method])
