"""Which networks a search ranks, what a score makes of their layers, what the winner's file tells."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from condensekit.nas import build
from tests.cases.search.spaces import Blocks, Coloured

pytestmark = pytest.mark.nni
SPACES = "tests.cases.search.spaces"


@pytest.fixture
def search(cli, tmp_path):
    """Search in this process: (exit code, all that was written); the files lie in ``out``."""

    def run(space, words):
        code, out, err = cli("search", "--space", f"{SPACES}:{space}", *words.split(), "--out", tmp_path / "out")
        return code, out + err

    return run


def test_the_same_network_is_ranked_once(search, tmp_path):
    code, text = search("Blocks", "--data digits --rankers params --ipc 2 --trials 24 --engine sequential")
    if code != 0:
        raise RuntimeError(text)
    lines = map(json.loads, (tmp_path / "out/trials.jsonl").read_text().splitlines())
    ranked = [line["architecture"] for line in lines if "architecture" in line]
    networks = {str(build(Blocks(), architecture)) for architecture in ranked}
    assert len(ranked) == len(networks) == 14


def test_zen_scores_or_refuses_batch_norm_of_flat_features(search, tmp_path):
    code, text = search("FlatNorm", "--data digits --rankers zen --ipc 2 --trials 3 --engine sequential")
    log = tmp_path / "out/trials.jsonl"
    assert code in (0, 2, 3)
    assert not re.search(r"(Index|Runtime|Type|Value)Error", text + (log.read_text() if log.exists() else ""))


def pictures(each):
    """Ten classes of faint colours: the scale of the inputs matters."""
    noise = np.random.default_rng(each)
    palette = np.random.default_rng(0).integers(100, 140, (10, 3))
    labels = np.arange(10).repeat(each)
    images = palette[labels][:, None, None] + noise.normal(0, 12, (len(labels), 8, 8, 3))
    return images.clip(0, 255).astype(np.uint8), labels


def holds(found, values):
    """Whether a JSON value has this list of numbers somewhere."""
    if isinstance(found, dict):
        return any(holds(inner, values) for inner in found.values())
    if not isinstance(found, list):
        return False
    if len(found) == len(values) and all(isinstance(value, int | float) for value in found):
        return np.allclose(found, values, atol=5e-3)
    return any(holds(inner, values) for inner in found)


def parsed(text):
    try:
        return json.loads(text)
    except ValueError:
        return text


def told(out):
    """What the JSON files of a search and the metadata of the winner's weights say."""
    with safe_open(out / "retrained.safetensors", "pt") as file:
        metadata = [parsed(value) for value in (file.metadata() or {}).values()]
    return metadata + [parsed(file.read_text()) for file in out.glob("*.json")]


def test_the_winner_comes_with_its_normalisation(search, tmp_path):
    (images, labels), (test_images, test_labels) = pictures(40), pictures(20)
    data, out = tmp_path / "data.npz", tmp_path / "out"
    np.savez(data, images=images, labels=labels, test_images=test_images, test_labels=test_labels)
    words = "--rankers random --ipc 5 --train-steps 4 --trials 2 --engine sequential --retrain --full-epochs 20"
    code, text = search("Coloured", f"--data {data} {words}")
    if code != 0:
        raise RuntimeError(text)
    levels = torch.from_numpy(images).float() / 255
    mean, std = levels.mean((0, 1, 2)), levels.std((0, 1, 2))
    winner = build(Coloured(), parsed((out / "search.json").read_text())["best"]["architecture"])
    winner.load_state_dict(load_file(out / "retrained.safetensors"))
    pixels = torch.from_numpy(test_images).permute(0, 3, 1, 2).float() / 255
    right = torch.from_numpy(test_labels)
    with torch.no_grad():
        fed_pixels, fed_normalised = (
            float((winner.eval()(inputs).argmax(1) == right).float().mean())
            for inputs in (pixels, (pixels - mean[:, None, None]) / std[:, None, None])
        )
    named = any(holds(value, mean.tolist()) and holds(value, std.tolist()) for value in told(out))
    assert named or fed_pixels > fed_normalised - 0.05
