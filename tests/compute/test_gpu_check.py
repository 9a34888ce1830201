"""benchmarks/gpu.sh, as far as it goes without a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.speed import gpu_check
from condensekit.catalog import PUBLISHED
from condensekit.driver import READ_EVERY
from tests.compute.gpu import stand_in

ROOT = Path(__file__).parents[2]
NEEDED = """
import runpy, sys
for script in ("speed/gpu_check.py", "speed/run.py", "accuracy/run.py"):
    runpy.run_path("benchmarks/" + script)
sys.exit(", ".join({"avalanche", "nni"} & set(sys.modules)) or 0)
"""


def rows(out, device, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--device", device, "--tiny", "--out", str(out)])
    gpu_check.main()
    return json.loads(out.read_text())["rows"]


def test_a_device_is_equal_to_itself(tmp_path, monkeypatch):
    found = rows(tmp_path / "check.json", "cpu", monkeypatch)
    assert [row["recipe"] for row in found] == list(PUBLISHED)
    assert {row[error] for row in found for error in ("error", "error_median_image", "loss_error")} == {0}
    assert rows(tmp_path / "check.json", "cpu", monkeypatch) == found  # nothing is measured twice


def test_the_check_runs_on_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
    monkeypatch.setitem(READ_EVERY, "cuda", 1)
    with stand_in():
        found = rows(tmp_path / "check.json", "cuda:0", monkeypatch)
    assert [row["recipe"] for row in found] == list(PUBLISHED)
    assert all(row["error"] > 0 for row in found)  # a stand-in has no right numbers
    graphs = {row["recipe"]: row["graphs"] for row in found}
    assert {name for name, count in graphs.items() if count is None} == {"dc", "dsa"}
    assert all(count > 1 and row["step_ms_graphs"] for row in found if (count := row["graphs"]) is not None)
    trained = json.loads((tmp_path / "check.json").read_text())["training"]
    assert [row["compiled"] for row in trained] == [False, True]


def test_the_scripts_take_neither_avalanche_nor_nni():
    assert subprocess.run([sys.executable, "-c", NEEDED], cwd=ROOT, timeout=300).returncode == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU would be measured")
def test_the_script_without_data_or_gpu_says_what_it_lacks(tmp_path):
    script = [str(ROOT / "benchmarks/gpu.sh")]
    asked = subprocess.run(script, capture_output=True, text=True, timeout=300)
    assert asked.returncode == 2
    assert "benchmarks/gpu.sh DATA_ROOT [REFERENCE]" in asked.stderr
    environment = {"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"}
    none = subprocess.run([*script, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=300)
    assert none.returncode == 1
    assert none.stderr.strip() == "torch sees no CUDA GPU here"
