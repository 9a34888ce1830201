"""What ``export`` and ``code`` make of a set: every grey level, every number of a class."""

import json

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from condensekit.sets.condensed import CondensedSet

LEVELS = 64


@pytest.fixture
def normalised(cli, tmp_path):
    """The run of two images a class, of 64 grey levels scaled to -1..1, that lie in smooth blocks: JPEG keeps them."""
    ramp = np.linspace(0, 255, LEVELS).reshape(8, 8).round()
    images = np.kron(ramp, np.ones((4, 4)))[None, None].repeat(40, 0)
    np.savez(tmp_path / "data.npz", images=(images / 127.5 - 1).astype(np.float32), labels=np.arange(40) % 2)
    return chosen(cli, tmp_path, 2)


def chosen(cli, folder, ipc):
    """A run of random images."""
    words = ("--data", folder / "data.npz", "--selection", "random", "--ipc", ipc, "--out", folder / "run")
    code, _, err = cli("select", *words)
    if code != 0:
        raise RuntimeError(err)
    return folder / "run"


def decoded(run):
    return CondensedSet.load(run / "set.safetensors").decode()[0]


def test_export_keeps_the_levels_of_normalised_images(cli, normalised, tmp_path):
    code, _, _ = cli("export", normalised, "--to", tmp_path / "png")
    if code in (2, 4):
        return
    assert code == 0
    files = [np.array(Image.open(file)) for file in (tmp_path / "png").rglob("*.png")]
    assert len(np.unique(np.stack(files))) >= LEVELS - 4


def test_code_keeps_the_range_of_normalised_images(cli, normalised, tmp_path):
    code, _, _ = cli("code", normalised, "--ipc", 1, "--out", tmp_path / "coded")
    if code in (2, 4):
        return
    assert code == 0
    before, after = decoded(normalised)[0], decoded(tmp_path / "coded")[0]
    assert (before - after).abs().mean() / (before.max() - before.min()) < 0.08


def dictionaries(value):
    """Every dictionary inside a JSON value."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from dictionaries(inner)


def told(folder, labels):
    """Whether a JSON file has a dictionary of the numbers by name, or the names by number."""
    values = (json.loads(file.read_text()) for file in folder.rglob("*.json"))
    tables = (table for value in values for table in dictionaries(value))
    return any(all(table.get(str(label)) in (label, str(label)) for label in labels) for table in tables)


def test_an_exported_folder_gives_the_numbers_of_the_classes(cli, tmp_path):
    labels = range(12)
    images = np.random.default_rng(0).integers(0, 256, (120, 8, 8), dtype=np.uint8)
    for label in labels:
        images[label::12, 0, 0] = 20 * label  # tells the class of an exported picture
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(120) % 12)
    code, _, err = cli("export", chosen(cli, tmp_path, 1), "--to", tmp_path / "png")
    if code != 0:
        raise RuntimeError(err)
    pictures = ImageFolder(tmp_path / "png")
    numbers = [round(image.convert("L").getpixel((0, 0)) / 20) for image, _ in pictures]
    assert numbers == pictures.targets or told(tmp_path / "png", labels)
