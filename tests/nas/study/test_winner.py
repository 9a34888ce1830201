"""The winner's file says how to feed it. Fed raw pixels, a winner on faint colours had 21 % instead of 48 %."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import nn

from condensekit.data.datasets import load
from condensekit.errors import ConfigError, DataError, StoreError
from condensekit.nas import FullTraining, ProxyProtocol, load_winner, retrain, space
from condensekit.runs.files import load_tensors, save_tensors
from tests.nas import toy

pytestmark = pytest.mark.nni
PAGE = Path(__file__).parents[3] / "docs/tutorials/search.md"
SPACE = space("convnet-small", (1, 8, 8), 10)
ARCHITECTURE = {"depth": 1, "width": 16, "activation": "relu", "norm": "batch", "pooling": "avg"}


@pytest.fixture(scope="module")
def full():
    train, test = load("digits")
    return FullTraining(train, test, ProxyProtocol(epochs=4, augmentation=None))


@pytest.fixture(scope="module")
def file(full, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "runs/nas/retrained.safetensors"
    _, accuracy = retrain(SPACE, ARCHITECTURE, full, 0, path)
    return path, accuracy


def test_a_loaded_winner_is_as_good_as_it_was(full, file):
    path, accuracy = file
    winner = load_winner(path, SPACE)
    names = winner.classify(full.test.images)
    right = [
        name == full.test.spec.class_names[int(label)] for name, label in zip(names, full.test.labels, strict=True)
    ]
    assert np.mean(right) == pytest.approx(accuracy) == winner.accuracy
    assert (winner.classes, winner.architecture) == (tuple(range(10)), ARCHITECTURE)
    assert winner.spec == full.train.spec
    assert not winner.network.training
    with pytest.raises(DataError, match=r"images must be \(N, 1, 8, 8\), got \(2, 8, 8\)"):
        winner.classify(torch.zeros(2, 8, 8))


def test_the_lines_of_the_page_run(full, file, monkeypatch, capsys):
    path, accuracy = file
    monkeypatch.chdir(path.parents[2])
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    pictures = full.test.images.permute(0, 2, 3, 1).numpy()
    for block in blocks:
        exec(block, {"torch": torch, "pictures": pictures})
    names, told = capsys.readouterr().out.splitlines()
    right = [name == str(int(label)) for name, label in zip(eval(names), full.test.labels, strict=True)]
    assert np.mean(right) == pytest.approx(accuracy)
    assert str(list(full.train.spec.mean)) in told


def test_outputs_of_labels_with_gaps_have_the_names_of_their_labels(full, tmp_path):
    some = FullTraining(full.train.select([3, 7]), full.test.select([3, 7]), full.protocol)
    two = space("convnet-small", (1, 8, 8), 2)
    _, accuracy = retrain(two, ARCHITECTURE, some, 0, tmp_path / "two.safetensors")
    winner = load_winner(tmp_path / "two.safetensors", two)
    assert winner.classes == (3, 7)
    chosen = some.test.order
    names = winner.classify(some.test.images[chosen])
    right = [name == str(int(label)) for name, label in zip(names, some.test.labels[chosen], strict=True)]
    assert np.mean(right) == pytest.approx(accuracy)
    assert accuracy > 0.9


def test_a_file_of_another_space_is_refused(file, tmp_path):
    path, _ = file
    with pytest.raises(ConfigError, match="holds a network of another space: give the space of its search"):
        load_winner(path, toy.Toy())
    tensors, about = load_tensors(path, "network")
    save_tensors(tmp_path / "old.safetensors", tensors, {k: v for k, v in about.items() if k != "spec"}, "network")
    with pytest.raises(StoreError, match="does not tell how to feed the network: delete it, and retrain"):
        load_winner(tmp_path / "old.safetensors", SPACE)
    edited = {**about, "code": {"mine.Block": "1"}}
    save_tensors(tmp_path / "edited.safetensors", tensors, edited, "network")
    with pytest.raises(
        ConfigError, match=r"by code that was edited or replaced since \(mine.Block is gone\): undo the edit$"
    ):
        load_winner(tmp_path / "edited.safetensors", SPACE)


class Tied(ModelSpace):
    """Two layers that share a weight, and one that is lazy."""

    def __init__(self):
        super().__init__()
        self.first, self.next, self.last = nn.Linear(64, 64), nn.Linear(64, 64), nn.LazyLinear(10)
        self.next.weight = self.first.weight

    def forward(self, x):
        return self.last(torch.relu(self.next(torch.relu(self.first(x.flatten(1))))))


def test_weights_that_share_memory_are_written_and_read(full, tmp_path):
    _, accuracy = retrain(Tied(), {}, full, 0, tmp_path / "tied.safetensors")
    winner = load_winner(tmp_path / "tied.safetensors", Tied())
    names = winner.classify(full.test.images)
    right = [name == str(int(label)) for name, label in zip(names, full.test.labels, strict=True)]
    assert np.mean(right) == pytest.approx(accuracy)
    assert json.loads(json.dumps(winner.spec.to_json())) == full.train.spec.to_json()


def test_the_winner_of_the_command_line_is_read(cli, full, tmp_path):
    """Its training runs in a worker, to which NNI sends the space as JSON."""
    out = tmp_path / "run"
    search = ("search", "--data", "digits", "--space", "convnet-small", "--rankers", "params", "--trials", 2)
    code, _, err = cli(*search, "--full-epochs", 1, "--retrain", "--workers", 2, "--out", out)
    assert code == 0, err
    winner = load_winner(out / "retrained.safetensors", SPACE)
    assert winner.architecture == json.loads((out / "search.json").read_text())["best"]["architecture"]
    assert len(winner.classify(full.test.images)) == len(full.test)


def test_a_winner_of_a_worker_of_an_earlier_version_is_read(file, tmp_path):
    path, _ = file
    tensors, about = load_tensors(path, "network")
    save_tensors(tmp_path / "sent.safetensors", tensors, {**about, "space": "12a7197e6bfab7e4"}, "network")
    assert load_winner(tmp_path / "sent.safetensors", SPACE).architecture == ARCHITECTURE
