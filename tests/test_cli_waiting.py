"""The command line while people wait: signs of life, costs, event files, longer runs, and Ctrl-C."""

import json
import os
import re
import signal
import time

import pytest
import torch

from condensekit.cli import show, waiting
from condensekit.driver import Status
from condensekit.methods import DistributionMatching
from condensekit.runs import budget
from condensekit.sets.condensed import CondensedSet
from tests.conftest import patterns

FAST = ["--ipc", "2", "--steps", "4", "--batch-real", "4", "--encoder-network", "ConvNet-w8-d1", "--workers", "1"]
NETWORK = ["--networks", "1", "--network", "ConvNet-w8-d1"]


@pytest.fixture
def data(tmp_path):
    patterns(tmp_path / "data.npz", 12)
    return tmp_path / "data.npz"


def condense(cli, data, out, *options):
    code, printed, err = cli("condense", "--data", data, *FAST, "--out", out, *options)
    assert code == 0, err
    return printed, err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["condense", "--data", "digits"], "condensekit condense: loading PyTorch and the data\n"),
        (["search"], "condensekit search: loading PyTorch and the data\n"),
        (["condense", "--quiet"], ""),
        (["replay", "--help"], ""),
        (["methods"], ""),
        ([], ""),
    ],
)
def test_a_command_that_computes_says_something_at_once(monkeypatch, capsys, words, says):
    """Friction 3: 29 s without output."""
    monkeypatch.setattr(waiting, "AFTER", 0)
    waiting.begin(words)
    found = wait_for(capsys, says)
    waiting.end()
    assert found == says


def test_it_says_so_again_until_the_command_speaks(monkeypatch, capsys):
    for name in ("AFTER", "EACH"):
        monkeypatch.setattr(waiting, name, 0.01)
    waiting.begin(["replay"])
    assert "replay: loading PyTorch and the data, 0 s so far\n" in wait_for(capsys, "so far\n" * 2)
    with show.progress(quiet=False).stage("read", 1):
        show.tell("Data: digits")
    assert waiting._ended.is_set()


def wait_for(capsys, words):
    """What is said on standard error, until it has as many lines as ``words``."""
    found, limit = "", time.monotonic() + 30
    while found.count("\n") < words.count("\n") and time.monotonic() < limit:
        found += capsys.readouterr().err
    return found


def test_it_says_nothing_where_the_command_is_quicker(monkeypatch, capsys):
    monkeypatch.setattr(waiting, "AFTER", 60)
    waiting.begin(["condense"])
    waiting.end()
    assert waiting._ended.wait(0)
    assert capsys.readouterr().err == ""


def test_a_finished_run_is_made_longer(cli, data, tmp_path):
    """Friction 15."""
    condense(cli, data, tmp_path / "run")
    code, printed, err = cli("condense", "--resume", "--out", tmp_path / "run", "--steps", 7)
    assert code == 0, err
    assert "finished 7 steps" in printed
    condense(cli, data, tmp_path / "straight", "--steps", 7)
    made, straight = (CondensedSet.load(tmp_path / name / "set.safetensors") for name in ("run", "straight"))
    assert torch.equal(made.images, straight.images)
    code, printed, err = cli("condense", "--resume", "--out", tmp_path / "run", "--steps", 6)
    assert (code, printed) == (2, "")
    assert "has made 7 steps, got --steps 6: give at least as many, or use another --out" in err
    code, printed, err = cli("condense", "--resume", "--out", tmp_path / "run")  # the steps of the last command
    assert "finished 7 steps" in printed


def test_minutes_are_made_longer(cli, data, tmp_path):
    words = FAST[:2] + FAST[4:]  # without the steps
    code, printed, err = cli("condense", "--data", data, *words, "--minutes", 1e-9, "--out", tmp_path / "run")
    assert (code, "finished 1 step " in printed) == (0, True), err
    code, printed, err = cli("condense", "--resume", "--out", tmp_path / "run", "--minutes", 0.1)
    assert code == 0, err
    assert re.search(r"finished ([2-9]|\d\d+) steps", printed)


def test_costs_and_numbers_of_sets_are_told(cli, data, tmp_path, monkeypatch):
    """Friction 6 and 18."""
    for name in ("TOLD_FROM", "SLOW"):
        monkeypatch.setattr(budget, name, 0.0)
    _, err = condense(cli, data, tmp_path / "runs", "--seeds", 2)
    costs = re.findall(r"^set (\d) of 2: 2 more steps: about 36 image passes, about \d+ s .*\(1 worker\)$", err, re.M)
    assert costs == ["1", "2"]
    printed, err = condense(cli, data, tmp_path / "json", "--json", "--quiet")
    assert json.loads(printed)["runs"][0]["steps"] == 4
    assert err == ""
    code, _, err = cli("evaluate", tmp_path / "runs", *NETWORK)
    assert (code, "4 trainings, " in err) == (0, True)


def test_every_long_command_writes_for_tensorboard(cli, data, tmp_path):
    pytest.importorskip("tensorboard")
    condense(cli, data, tmp_path / "run", "--tensorboard")
    assert cli("evaluate", tmp_path / "run", *NETWORK, "--tensorboard")[0] == 0
    assert {p.name for p in (tmp_path / "run/tensorboard").iterdir()} == {"condense-dm", "evaluate"}
    replay = "--ipc 1 --memory random,dm --experiences 3 --orders 1 --network ConvNet-w8-d1 --train-epochs 2 --steps 2"
    out = tmp_path / "replay"
    code, _, err = cli("replay", "--data", data, *replay.split(), "--out", out, "--tensorboard", "--workers", 1)
    assert code == 0, err
    assert "6 trainings, 3 condensations of 2 steps" in err
    assert "random-order-0" in {p.name for p in (out / "tensorboard").iterdir()}


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(cli, data, tmp_path, monkeypatch):
    step, out = DistributionMatching.step, tmp_path / "run"

    def pressed(self, state, ctx):
        if ctx.draw.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, state, ctx)

    monkeypatch.setattr(DistributionMatching, "step", pressed)
    code, printed, _ = cli("condense", "--data", data, *FAST, "--out", out)
    assert code == 130
    assert f"{out}: {Status.INTERRUPTED.value} by SIGINT after step 2 of 4" in printed
    assert printed.endswith(f"kept in the last checkpoint. To go on: condensekit condense --resume --out {out}\n")
    monkeypatch.undo()
    assert "finished 4 steps" in cli("condense", "--resume", "--out", out)[1]


def test_ctrl_c_outside_the_steps(cli, data, tmp_path, monkeypatch):
    def pressed(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("condensekit.cli.condense.condense", pressed)
    code, printed, err = cli("condense", "--data", data, *FAST, "--out", tmp_path / "run")
    assert (code, printed) == (130, "")
    assert err.endswith("\nInterrupted: nothing is kept\n")
    monkeypatch.undo()
    condense(cli, data, tmp_path / "run")
    monkeypatch.setattr("condensekit.cli.condense.condense", pressed)
    code, _, err = cli("condense", "--resume", "--out", tmp_path / "run")
    assert code == 130
    assert f"kept in {tmp_path / 'run'}. To go on: condensekit condense --resume --out {tmp_path / 'run'}\n" in err
