"""A rank that dies at each stage: the others end, or make what it has left, and no work is lost or wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.kill


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    command = [sys.executable, "-m", "tests.ranks.stages", str(tmp_path_factory.mktemp("stages"))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_one_process_ends_its_work(found):
    assert found["whole"] == [0]


@pytest.mark.parametrize(
    ("stage", "codes"), [("encoders", [1, -9]), ("first images", [-9, 1]), ("step", [1, -9]), ("checkpoint", [-9, 1])]
)
def test_a_condensation_ends_with_the_rank_and_goes_on_with_the_same_bits(found, stage, codes):
    *ended, resumed, same = found[stage]
    assert (ended, resumed, same) == (codes, 0, True)


@pytest.mark.parametrize(
    ("stage", "codes", "written"),
    [("evaluate", [0, -9], True), ("replay", [0, -9], True), ("replay, rank 0", [-9, 0], False)],
)
def test_the_cells_of_a_dead_rank_are_made_by_the_other(found, stage, codes, written):
    *ended, there, resumed, same, locks = found[stage]
    assert (ended, there, resumed, same, locks) == (codes, written, 0, True, 0)


def test_a_cell_of_a_benchmark_is_made_by_the_other(found):
    assert found["benchmark"] == [0, -9, 7, 6, 6]
