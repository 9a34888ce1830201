import json
import os
import runpy
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import condensekit as ck
from condensekit.data.images import ImageSpec, spec_of
from condensekit.errors import ConfigError, DataError, StoreError
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.export import picture, to_folder, to_npz, to_png_grid
from condensekit.sets.formation import Formation
from condensekit.sets.grid import GAP, SMALLEST, read_grid


def make(channels=3, size=4, labels=(0, 0, 7), names=None, factor=1):
    names = names or {0: "cat", 7: "horse"}
    spec = ImageSpec((channels, size, size), (0.5,) * channels, (0.25,) * channels, names)
    images = torch.randn(len(labels), channels, size, size, generator=torch.Generator().manual_seed(0))
    return CondensedSet.from_images(images, torch.tensor(labels), spec, formation=Formation(factor=factor))


def tree(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*.png"))


def read_back(folder):
    """What load.py of an exported folder returns."""
    return runpy.run_path(str(folder / "load.py"))["load"](folder)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_holds_the_pixels_by_class_name(tmp_path, channels):
    condensed = make(channels)
    assert to_folder(condensed, tmp_path / "new" / "out") == 3
    out = tmp_path / "new" / "out"
    assert tree(out) == ["cat/00000.png", "cat/00001.png", "horse/00000.png"]
    read = np.asarray(Image.open(out / "horse" / "00000.png")).reshape(4, 4, channels)
    expected = condensed.spec.to_pixels(condensed.images[2]).permute(1, 2, 0).numpy() * 255
    assert np.abs(read - expected).max() <= 0.5 + 1e-4
    assert os.listdir(tmp_path / "new") == ["out"]


def test_a_folder_is_read_by_image_folder(tmp_path):
    from torchvision.datasets import ImageFolder

    to_folder(make(), tmp_path / "out")
    dataset = ImageFolder(tmp_path / "out")
    assert dataset.classes == ["cat", "horse"]
    assert dataset.targets == [0, 0, 1]


def test_packed_images_are_unpacked(tmp_path):
    assert to_folder(make(factor=2), tmp_path / "out") == 12


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        ({0: "a/b", 7: "../up"}, ["_up", "a_b"]),
        ({0: "Cat", 7: "cat"}, ["Cat_0", "cat_7"]),
        ({0: "..", 7: "St. été"}, ["St. été", "_0"]),
        ({0: "con", 7: "LPT1.x"}, ["LPT1_x_7", "con_0"]),
        ({0: "labels.json", 7: "line\nbreak"}, ["labels_json_0", "line_break"]),
        ({0: "n" * 300, 7: "n" * 299 + "m"}, ["n" * 60 + "_0", "n" * 60 + "_7"]),
        ({0: "é", 7: "e\u0301"}, ["é_0", "é_7"]),
    ],
)
def test_class_names_become_harmless_distinct_folders(tmp_path, names, folders):
    to_folder(make(names=names), tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir()) == folders
    assert os.listdir(tmp_path) == ["out"]


def test_names_that_take_each_others_folders_stay_apart(tmp_path):
    names = {0: "a/b", 1: "a_b", 2: "a_b_1", 3: "A:B"}
    to_folder(make(labels=(0, 1, 2, 3), names=names), tmp_path / "out")
    told = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert len({name.casefold() for name in told["labels"]}) == 4
    assert {told["labels"][folder]: name for folder, name in told["names"].items()} == names


@pytest.mark.parametrize("channels", [1, 3])
def test_an_exported_folder_is_read_back(tmp_path, channels):
    """Labels from 0 to 11, whose folders another tool sorts as 0, 1, 10, 11, 2, ..."""
    labels = tuple(range(12))
    made = make(channels, labels=labels, names={k: str(k) for k in labels}).with_soft_labels(torch.eye(12), labels)
    to_folder(made, tmp_path / "out")
    images, read, soft = read_back(tmp_path / "out")
    order = np.argsort(read)
    assert read[order].tolist() == list(labels)
    wanted = made.spec.normalise((made.spec.to_pixels(made.images) * 255).round().byte()).permute(0, 2, 3, 1)
    assert np.allclose(images[order], wanted.numpy(), atol=1e-5)
    assert np.array_equal(soft[order], np.eye(12))


def test_an_exported_folder_taken_for_data_says_what_it_is(tmp_path):
    to_folder(make(labels=(0, 0, 1, 1)), tmp_path / "out")
    train, _ = ck.load(tmp_path / "out")
    assert "this is an exported set: its load.py reads all images" in " ".join(train.notes)


def test_values_that_are_no_pixels_are_mapped_and_read_back(tmp_path):
    """Floats from -1 to 1, as Normalize(0.5, 0.5) of many tutorials makes them."""
    images = torch.linspace(-1, 3, 3 * 3 * 16).reshape(3, 3, 4, 4)
    spec = ImageSpec((3, 4, 4), (0.0,) * 3, (1.0,) * 3, {0: "cat", 7: "horse"}, pixels=False)
    made = CondensedSet.from_images(images, torch.tensor([0, 0, 7]), spec)
    to_folder(made, tmp_path / "out")
    read, labels, soft = read_back(tmp_path / "out")
    assert labels.tolist() == [0, 0, 7]
    assert soft is None
    assert np.abs(read - images.permute(0, 2, 3, 1).numpy()).max() <= 4 / 255 / 2 + 1e-5
    assert json.loads((tmp_path / "out" / "labels.json").read_text())["range"] == [-1, 3]
    flat = replace(made, images=torch.full_like(images, 2.0))
    assert (np.asarray(flat.pixels()[0]) == 0).all()


def test_the_loader_runs_alone(tmp_path):
    to_folder(make(), tmp_path / "out")
    done = subprocess.run([sys.executable, tmp_path / "out" / "load.py"], capture_output=True, text=True, check=True)
    assert done.stdout == "(3, 4, 4, 3) (3,) with labels\n"


def test_an_existing_folder_is_not_written_into(tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ConfigError, match="not an empty folder"):
        to_folder(make(), tmp_path)
    with pytest.raises(ConfigError, match="not an empty folder"):
        to_folder(make(), tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    to_folder(make(), tmp_path / "empty")
    assert len(tree(tmp_path / "empty")) == 3


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(StoreError, match="out: cannot write: No space left"):
        to_folder(make(), tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_a_grid_has_a_row_for_each_class(tmp_path):
    condensed = make(size=40)
    to_png_grid(condensed, tmp_path / "new" / "grid.png")
    grid = np.asarray(Image.open(tmp_path / "new" / "grid.png"))
    side = 40 + GAP
    assert grid.shape == (2 * side + GAP, 2 * side + GAP, 3)
    corner = condensed.spec.to_pixels(condensed.images[2])[:, 0, 0].numpy() * 255
    assert np.abs(grid[GAP + side, GAP] - corner).max() <= 0.5 + 1e-4
    assert (grid[GAP + side :, GAP + side :] == 255).all()  # horse has no second image


def test_a_grid_enlarges_small_images_and_limits_its_rows(tmp_path):
    to_png_grid(make(channels=1, size=8), tmp_path / "grid.png", per_class=1)
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    assert grid.shape == (2 * (SMALLEST + GAP) + GAP, SMALLEST + 2 * GAP)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_shows_each_image_with_the_name_of_its_class(tmp_path, channels):
    """A picture of blobs without labels was the first thing that a user saw."""
    made = make(channels, 8)
    picture(made, tmp_path / "images.png")
    shown = np.asarray(Image.open(tmp_path / "images.png"))
    side = 48  # an image of 8 pixels, six times as large
    for image in made.pixels()[0]:
        large = image.repeat(6, 0).repeat(6, 1)
        windows = np.lib.stride_tricks.sliding_window_view(shown, large.shape).reshape(-1, *large.shape)
        assert any((window == large).all() for window in windows)
    assert shown.shape[0] > 2 * side
    assert (shown[:, : shown.shape[1] // 4] < 100).any()  # letters


def test_a_picture_of_many_large_images_is_bounded(tmp_path):
    images, labels = torch.rand(70, 3, 300, 200), torch.arange(70)
    picture(CondensedSet.from_images(images, labels, spec_of(images, labels, None)), tmp_path / "images.png")
    with Image.open(tmp_path / "images.png") as shown:
        assert max(shown.size) < 2000


def test_arrays_are_what_networks_see(tmp_path):
    made = make()
    soft = torch.full((len(made), 2), 0.5)
    made = made.with_soft_labels(soft, made.spec.classes)
    to_npz(made, tmp_path / "set.npz")
    images, labels = made.decode()
    with np.load(tmp_path / "set.npz") as found:
        assert np.array_equal(found["images"], images.numpy())
        assert found["labels"].tolist() == labels.tolist()
        assert np.array_equal(found["soft_labels"], soft.numpy())
        assert dict(zip(found["classes"].tolist(), found["class_names"].tolist(), strict=True)) == made.spec.class_names
    with pytest.raises(ConfigError, match="exists: choose another name"):
        to_npz(made, tmp_path / "set.npz")


def test_two_channels_are_no_picture(tmp_path):
    for write in (to_folder, to_png_grid, picture):
        with pytest.raises(ConfigError, match="these have 2"):
            write(make(channels=2), tmp_path / "out.png")
    assert os.listdir(tmp_path) == []


def test_a_class_name_that_is_no_text(tmp_path):
    """A folder of an archive made on another system, whose name is Latin-1."""
    to_folder(make(names={0: os.fsdecode(b"caf\xe9"), 7: "tea"}), tmp_path / "out")
    assert len(read_back(tmp_path / "out")[1]) > 0


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [4, 40])
def test_a_grid_is_read_again(channels, size):
    made = make(channels, size, labels=(0, 0, 0, 7))
    pixels, _ = made.pixels()
    found = read_grid(made.picture(), made.spec.shape, made.counts)
    assert [len(row) for row in found] == [3, 1]
    assert all(np.array_equal(a, b) for a, b in zip([*found[0], *found[1]], pixels, strict=True))
    assert [len(row) for row in read_grid(made.picture(per_class=2), made.spec.shape, made.counts)] == [2, 1]


@pytest.mark.parametrize(
    ("picture", "counts"),
    [(b"", (3, 1)), (b"\x89PNG\r\n\x1a\nrest", (3, 1)), (make(labels=(0, 7)).picture(), (1, 1, 1))],
)
def test_a_picture_that_is_no_grid_of_the_images(picture, counts):
    with pytest.raises(DataError, match=r"no PNG file|no grid of these images"):
        read_grid(picture, (3, 4, 4), counts)
