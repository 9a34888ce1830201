"""What version 0.1 wrote: sets, runs and logs open, or are refused by name with the way out."""

import shutil
from pathlib import Path

import pytest
import torch

import condensekit as ck
from condensekit.sets import found
from condensekit.sets.condensed import CondensedSet

FORMER = Path(__file__).parent / "assets" / "v0.1"
RUNS = ("dm", "m3d", "krr-soft", "trained", "kmeans", "jpeg-random")


@pytest.fixture
def former(tmp_path):
    """A copy of a run folder that version 0.1 made."""

    def copied(name):
        return Path(shutil.copytree(FORMER / name, tmp_path / name))

    return copied


@pytest.mark.parametrize("name", RUNS)
def test_a_set_opens(name):
    made = CondensedSet.load(FORMER / name / "set.safetensors")
    images, labels = made.decode()
    assert torch.isfinite(images).all()
    assert len(images) == len(labels) > 0
    assert made.classes == tuple(range(10))
    assert made.name.startswith({"krr-soft": "krr", "trained": "dm"}.get(name, name))


@pytest.mark.parametrize("path", sorted(FORMER.glob("*/sets/**/*.safetensors")), ids=lambda path: path.stem[:40])
def test_sets_of_replay_and_search_open(path):
    if "checkpoints" not in path.parts and "prepared" not in path.name:
        assert len(CondensedSet.load(path)) > 0


def test_runs_form_rows_and_are_evaluated():
    train, test = ck.load("digits")
    groups = found.groups([FORMER / name for name in ("dm", "m3d", "kmeans")])
    assert [group.name.split()[0] for group in groups] == ["dm", "m3d", "kmeans"]
    result = ck.evaluate([FORMER / "dm", FORMER / "kmeans"], test, train=train, network="ConvNet-w8", networks=1)
    assert [row.set.split()[0] for row in result.rows] == ["dm", "kmeans", "random"]


@pytest.mark.parametrize("command", ["inspect", "export"])
def test_commands_read_a_run(cli, former, tmp_path, command):
    more = ("--to", tmp_path / "images") if command == "export" else ()
    code, out, err = cli(command, former("m3d"), *more)
    assert code == 0, err
    assert out


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("dm", "condense --data digits --method dm --encoder-network ConvNet-w8 --batch-real 8 --ipc 1 --steps 6"),
        ("kmeans", "select --data digits --selection kmeans --ipc 1"),
        (
            "replay",
            "replay --data digits --experiences 2 --ipc 1 --memory dm,random --orders 1 --network ConvNet-w8 --steps 2",
        ),
        (
            "search",
            "search --data digits --space convnet-small --rankers random,params --trials 4 --ipc 1 --steps 2 "
            "--engine sequential --train-steps 2",
        ),
    ],
)
def test_a_run_is_not_continued_but_refused_by_name(cli, former, name, command):
    folder = former(name)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
    code, _, err = cli(*command.split(), "--out", folder, "--resume")
    assert code == 2, err
    assert "condensekit 0.1" in err
    assert "another --out" in err
    assert all(path.read_bytes() == data for path, data in before.items())
