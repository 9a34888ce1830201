"""Runs that processes of torchrun share: the same bits as one process, whatever their number."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import condensekit as ck
from condensekit.progress import SILENT
from condensekit.testing import shapes
from tests.ranks.child import MACHINE, Dying

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.kill  # processes of its own
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def torchrun(ranks, *words, restarts=0):
    """Exit code, output and errors of a module that several processes run."""
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks))
    command = [sys.executable, "-m", *launcher, "--max-restarts", str(restarts), "-m", *words]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


def child(ranks, case, folder):
    code, out, errors = torchrun(ranks, "tests.ranks.child", case, str(folder))
    assert code == 0, errors
    return json.loads(out)


def test_three_ranks_give_the_bits_of_one(tmp_path):
    found = child(3, "equal", tmp_path)
    assert found.pop("status") == "diverged"
    assert found.pop("ranks") == 3
    attempts = {name: found.pop(name) for name in list(found) if name.endswith("attempts")}
    assert attempts.pop("bad attempts") == [0, 1, 0, 1]
    assert {tuple(each) for each in attempts.values()} == {(0, 0, 0, 0)}
    assert all(found.values()), found


def test_a_run_goes_on_with_another_number_of_ranks(tmp_path):
    assert child(2, "resume", tmp_path) == {"fewer": [True, "finished"], "more": [True, "finished"]}


def test_ranks_that_cannot_share_a_run_are_refused_alike(tmp_path):
    found = child(2, "refuse", tmp_path)
    assert all(len(texts) == 1 for texts in found.values()), found
    said = {name: texts[0] for name, texts in found.items()}
    assert "rank 1 (here) and rank 0 (there) differ (steps: 2 there, 3 here): start all ranks alike" in said["options"]
    assert "saving.every: 1 there, 2 here" in said["saving"]
    assert "data_fingerprint" in said["data"]
    assert said["classes"] == "2 ranks cannot share 1 classes: start at most 1"
    assert said["krr"].startswith("ranks cannot share a step of krr")
    assert "batch norm" in said["norm"]
    assert "exists and is not empty" in said["folder"]
    assert set(found) == {"options", "saving", "data", "classes", "krr", "norm", "folder"}


def test_a_killed_rank_ends_the_run_which_goes_on_from_its_checkpoint(tmp_path):
    code, _, errors = torchrun(2, "tests.ranks.child", "die", str(tmp_path), restarts=1)
    assert code == 1
    assert "another rank has ended" in errors
    assert "rank      : 1" in errors.partition("Root Cause")[2]
    saving = ck.Saving(tmp_path / "run", resume=True, every=2)
    rest = ck.condense(shapes(), Dying(), ipc=2, steps=6, machine=MACHINE, saving=saving, progress=SILENT)
    whole = ck.condense(shapes(), Dying(), ipc=2, steps=6, machine=MACHINE, progress=SILENT)
    assert [row["step"] for row in rest.history] == [5, 6]
    assert torch.equal(rest.set.images, whole.set.images)


def test_ranks_share_a_study_and_the_cells_of_a_benchmark(tmp_path):
    code, out, errors = torchrun(2, "tests.ranks.child", "replay", str(tmp_path))
    assert code == 0, errors
    *told, result = out.splitlines()
    found = json.loads(result)
    assert found["equal"] == [True, True]
    assert found["rows"] == 4
    assert "(ipc: 1 there, 2 here; room: 80 there, 160 here): start all ranks alike" in found["ipc"][0]
    assert "orders: 1 there, 2 here" in found["orders"][0]
    assert [found[name][1:] for name in ("ipc", "orders")] == [[False], [False]]
    assert (tmp_path / "shared" / "replay.json").exists()
    assert not list(tmp_path.rglob("?*.lock"))
    lines = (tmp_path / "cells" / "log.txt").read_text().splitlines()
    assert sorted(line for line in lines if "begins" in line) == [f"cell-{number} begins" for number in range(6)]
    common = [line for line in lines if line[:6] in ("cell-3", "cell-4", "cell-5")]
    assert [line.endswith("begins") for line in common] == [True, False] * 3
    assert sum(line.endswith("in 0 s") for line in told) == 6
    assert len({json.loads(file.read_text())["by"] for file in (tmp_path / "cells").glob("*.json")}) == 2


def test_commands_speak_once(tmp_path):
    run = tmp_path / "run"
    options = ("--data", "digits", "--ipc", "1", "--device", "cpu", "--workers", "1")
    condense = ("condensekit", "condense", *options, "--steps", "2", "--encoder-network", "ConvNet-w8-d1")
    code, out, errors = torchrun(2, *condense, "--out", str(run))
    assert code == 0, errors
    assert out.count("finished 2 steps") == errors.count("Data:") == 1
    code, out, errors = torchrun(2, *condense, "--out", str(run))
    assert code == 1
    assert [line for line in errors.splitlines() if "Error: " in line and "Child" not in line] == [
        f"Error: {run} exists and is not empty: continue its run with --resume, or choose another --out"
    ]
    assert "exitcode  : 2" in errors
    evaluate = ("condensekit", "evaluate", str(run), "--networks", "2", "--network", "ConvNet-w8-d1")
    code, out, errors = torchrun(2, *evaluate, "--against", "kmeans", "--json", "--quiet", "--device", "cpu")
    assert code == 0, errors
    shared = json.loads(out)["rows"]
    assert sorted(file.suffix for file in (run / "trainings").iterdir()) == [".json"] * 4
    train, test = ck.load("digits", progress=SILENT)
    network, networks = "ConvNet-w8-d1", 2
    once = ck.evaluate(run, test, train=train, against="kmeans", network=network, networks=networks, progress=SILENT)
    assert [row["accuracies"] for row in shared] == [row.accuracies for row in once.rows]
    study = ("--ipc", "1", "--memory", "random", "--experiences", "2", "--orders", "2", "--train-epochs", "1")
    out = ("--data", "digits", "--network", "ConvNet-w8-d1", "--device", "cpu", "--out", str(tmp_path / "study"))
    code, out, errors = torchrun(2, "condensekit", "replay", *study, *out, "--json")
    assert code == 0, errors
    assert len(json.loads(out)["rows"]) == 1
    assert errors.count("Data:") == 1
