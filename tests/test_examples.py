"""Each example runs offline, and its claims hold."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from condensekit.data.objects import as_images
from condensekit.testing import MethodContract

EXAMPLES = Path(__file__).parents[1] / "examples"
FILES = sorted(EXAMPLES.glob("*.py"))
SAYS = {
    "quickstart": ["finished", "| dm ", "| random "],
    "own_dataset": ["folder: 96 images to condense, 24 held out", "arrays: 6 images", "data set object: 6 images"],
    "own_images": ["| dm ", "| random ", "Top1_Acc_Stream", "{'ranker': 'dm', "],
    "own_method": ["dm: finished", "moments: finished"],
    "m3d": ["a network for 5 steps, 4 images", "linear: finished", "moments-3: finished", "gaussian: finished"],
    "controls": ["random: 50 images", "packed-random: 200 images", "| jpeg-random "],
    "gradient_matching": ["dc: finished", "dsa: finished"],
    "kernel_ridge": ["fixed: finished", "| soft "],
    "provable_selection": ["importance-krr: 20 images", "| both "],
    "trained_encoders": ["hard labels", "| its prefix "],
    "replay": ["no memory: 0.", "random memory: 0.", "condensed memory: 0.", "20 images, 1,600 bytes"],
    "memory": ["Memory(Images(20), m3d factor=1", "20 images of 10 classes, 1,600 bytes)", "without a memory"],
    "nas": ["| dm ", "| dm+params ", "best: {"],
    "own_network": ["finished", "| Small ", "| ConvNet-w32 "],
    "own_memory": ["averages: 20 images of 10 classes", "random: 20 images", "| averages "],
    "export": ["as uint8", "a batch: (8, 1, 8, 8) torch.float32", "30 pictures"],
}


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_example_runs(file, tmp_path):
    done = subprocess.run([sys.executable, file], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert all(text in done.stdout for text in SAYS[file.stem]), done.stdout


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_example_is_short(file):
    assert len(file.read_text().splitlines()) < 120


def test_the_whole_way_on_a_folder_of_images(tmp_path):
    rng = np.random.default_rng(0)
    for label in range(4):
        folder = tmp_path / "photos" / f"class {label}"
        folder.mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 100, (16, 16, 3)) + 40 * label * np.array([1, 0, 0])
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    file = EXAMPLES / "own_images.py"
    done = subprocess.run([sys.executable, file, "photos"], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "'ranker': 'dm'" in done.stdout
    assert len(code_lines(file)) <= 25


def code_lines(file):
    """Lines without comments, docstrings and empty lines."""
    text = file.read_text()
    strings = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = enumerate(text.splitlines(), 1)
    return [
        line for number, line in lines if number not in strings and line.strip() and not line.strip().startswith("#")
    ]


def test_the_quickstart_is_a_handful_of_lines():
    assert len(code_lines(EXAMPLES / "quickstart.py")) <= 20


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_examples_walk_the_everyday_path(file):
    """What the public doors do inside is not spelt out outside; a method of one's own is a class, so it may be."""
    inside = {"Compute(", "Machine(", "Draw(", "Candidate(", "iterations"}
    inside -= {"Draw("} if file.stem == "own_memory" else set()  # the class draws its own numbers
    assert [name for name in inside if name in file.read_text()] == []


def test_every_example_is_checked():
    assert {file.stem for file in FILES} == set(SAYS)


class TestMomentMatching(MethodContract):
    """The method of the example keeps the contract."""

    def make(self):
        return load("own_method").MomentMatching(batch_real=8)


def test_the_three_sources_hold_the_same_images():
    module = load("own_dataset")
    import numpy as np

    rng = np.random.default_rng(1)
    pictures = {label: [module.draw(kind, rng) for _ in range(3)] for label, kind in module.SHAPES.items()}
    arrays, objects = as_images(module.as_arrays(pictures)), as_images(module.MyDataset(pictures))
    assert torch.equal(arrays.images, objects.images)
    assert arrays.classes == objects.classes == (3, 8, 11)


def test_the_options_of_the_own_network_work(cli, monkeypatch, tmp_path):
    """Those in its first lines: a run goes on with them, an edit of the network is refused, and evaluate finds it."""
    source = (EXAMPLES / "own_network.py").read_text()
    (tmp_path / "own_network.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    encoder, judged = re.findall(r"(--(?:encoder-)?network) (own_network:Small)", source)
    condense = ("condense", "--data", "digits", "--ipc", 1, *encoder, "--out", "run")
    assert cli(*condense, "--steps", 2)[0] == 0
    code, _, err = cli(*condense, "--steps", 4, "--resume")
    assert code == 0, err
    code, out, err = cli("evaluate", "run", *judged, "--networks", 1, "--against", "none", "--json")
    assert code == 0, err
    assert json.loads(out)["rows"][0]["network"] == "own_network:Small"
    replay = ("replay", "--data", "digits", "--memory", "random", "--regime", "from-scratch", "--ipc", 1, "--orders", 1)
    code, out, err = cli(*replay, *judged, "--train-epochs", 1, "--experiences", 5, "--out", "study", "--json")
    assert code == 0, err
    assert cli(*replay, *judged, "--train-epochs", 1, "--experiences", 5, "--out", "study", "--resume")[0] == 0
    sys.modules.pop("own_network")
    (tmp_path / "own_network.py").write_text(source.replace("GroupNorm(4, 32)", "GroupNorm(8, 32)"))
    code, _, err = cli(*condense, "--steps", 6, "--resume")
    assert code == 2
    assert "own_network.Small differs" in err
    sys.modules.pop("own_network")
