"""The memory without a framework: tensors in, tensors out."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import condensekit as ck
from condensekit.compute import Machine
from condensekit.data.images import ImageSpec
from condensekit.errors import ConfigError, DataError, StoreError
from condensekit.methods.distribution import DistributionMatching
from condensekit.replay import Bytes, Images, Memory
from condensekit.replay.study.memories import AVALANCHE, EQUAL_BYTES
from condensekit.rng import isolated
from condensekit.selection.classic import Random
from condensekit.selection.jpeg_random import JpegRandom
from tests.cases.streams.digits import digits, smooth

CPU = Machine("cpu")
SPEC = ImageSpec((3, 32, 32), (0.5,) * 3, (0.25,) * 3)
RECIPES = ["random", "herding", "dm batch_real=8", "hybrid-dm-50", "packed-random"]


def memory(budget=None, recipe="random", **options):
    return Memory(budget or Images(20), recipe, **{"machine": CPU, "steps": 2, **options})


def part(*labels, count=60):
    """The first images of these digits."""
    images, found = digits()
    rows = torch.isin(found, torch.tensor(labels)).nonzero()[:count, 0]
    return images[rows], found[rows]


@pytest.mark.parametrize("recipe", RECIPES)
def test_tensors_in_tensors_out(recipe):
    found = memory(recipe=recipe)
    found.observe(*part(0, 1))
    found.observe(*part(2, 3))
    images, labels, tasks = found.images()
    factor = 4 if recipe.startswith("packed") else 1
    assert images.shape == (20 * factor, 1, 8, 8)
    assert images.dtype == torch.float32
    assert torch.unique(labels, return_counts=True)[1].tolist() == [5 * factor] * 4
    assert tasks.tolist() == [0] * len(labels)
    assert len(found) == 20
    assert found.nbytes == 20 * (64 + 8 + 8)


def test_a_sample_has_each_image_once_before_any_image_twice():
    found = memory(Images(6))
    found.observe(*part(0, 1))
    whole = found.images()[0]

    def row(image):
        return int((whole == image).flatten(1).all(1).nonzero()[0])

    drawn = [row(image) for _ in range(6) for image in found.sample(4)[0]]
    for start in range(0, 24, 6):
        assert sorted(drawn[start : start + 6]) == list(range(6))
    assert drawn[:6] != drawn[6:12]
    assert len(found.sample(20)[0]) == 20
    other = memory(Images(6))
    other.observe(*part(0, 1))
    assert [row(image) for image in other.sample(24)[0]] == drawn  # the same whatever the size of a batch


def test_one_label_in_two_tasks():
    found = memory(Images(8))
    for task, labels in enumerate([(0, 1), (2, 3)]):
        images, own = part(*labels)
        found.observe(images, own - 2 * task, task)
    assert found.groups == ((0, 0), (0, 1), (1, 0), (1, 1))
    images, labels, tasks = found.images()
    assert list(zip(tasks.tolist(), labels.tolist(), strict=True)) == [g for g in found.groups for _ in range(2)]
    for task in (0, 1):
        own = part(2 * task, 2 * task + 1)[0]
        gaps = (images[tasks == task][:, None] - own[None]).abs().flatten(2).amax(2).amin(1)
        assert gaps.max() < 0.01


def test_several_tasks_in_one_observation_of_a_class():
    """A group that appears again shares its part; other groups keep theirs."""
    found = memory(Images(6), classes=3)
    found.observe(*part(0, 1))
    before = found.content.parts[0, 1]
    found.observe(*part(0, 4))
    assert torch.equal(found.content.parts[0, 1].images, before.images)
    assert len(found.content.parts[0, 0]) == 2
    assert found.content.seen[0, 0] > found.content.seen[0, 1]


def test_pixels_come_back_as_pixels():
    images = (part(0, 1)[0] * 255).to(torch.uint8)
    labels = part(0, 1)[1]
    found = memory()
    found.observe(images, labels)
    shown, _, _ = found.sample(20)
    assert shown.dtype == torch.uint8
    gaps = (shown[:, None].int() - images[None].int()).abs().flatten(2).amax(2).amin(1)
    assert gaps.max() <= 1
    with pytest.raises(DataError, match=r"images are torch.float32, those before were uint8: convert them"):
        found.observe(*part(2))
    found.observe(images[:4], torch.full((4,), 7))
    assert found.content.parts[0, 7].spec.mean == found.content.parts[0, 0].spec.mean


@pytest.mark.parametrize("recipe", [*RECIPES, "jpeg-random-4"])
@pytest.mark.parametrize("pixels", [True, False])
def test_through_a_file(tmp_path, recipe, pixels):
    coded = recipe.startswith("jpeg")
    made = memory(Bytes(8 * 3080) if coded else Images(19), recipe, spec=SPEC, classes=None)
    with isolated(0):
        noise = torch.rand(2, 24, 3, 4, 4)
    pictures = (torch.nn.functional.interpolate(noise.flatten(0, 1), size=32, mode="bilinear") * 255).round()
    values = pictures.to(torch.uint8) if pixels else (pictures / 255 - 0.5) / 0.25
    months = values.reshape(2, 24, 3, 32, 32)
    made.observe(months[0], torch.arange(24) % 2, task=3)
    made.sample(5)
    made.save(tmp_path / "memory")
    again = Memory.load(tmp_path / "memory", machine=CPU)
    assert again.nbytes == made.nbytes
    assert repr(again) == repr(made)
    for one in (made, again):
        one.observe(months[1], torch.arange(24) % 2 + 2)
        one.sample(3)
    for mine, theirs in zip(made.images(), again.images(), strict=True):
        assert torch.equal(mine, theirs)
    for mine, theirs in zip(made.sample(7), again.sample(7), strict=True):
        assert torch.equal(mine, theirs)
    if coded:
        assert (tmp_path / "memory").stat().st_size < 2 * made.nbytes + 32 * 1024


def test_files_name_no_code(tmp_path):
    made = memory(recipe=Random())
    made.observe(*part(0, 1))
    made.save(tmp_path / "memory")
    with pytest.raises(ConfigError, match="was not filled by a recipe that has a name: pass recipe="):
        Memory.load(tmp_path / "memory")
    assert torch.equal(Memory.load(tmp_path / "memory", Random()).images()[0], made.images()[0])
    made = memory(recipe="condensekit.methods.distribution:DistributionMatching batch_real=8")
    made.observe(*part(0, 1))
    made.save(tmp_path / "other")
    with pytest.raises(ConfigError, match="is not built in, and only a file names it: give it again"):
        Memory.load(tmp_path / "other")
    (tmp_path / "broken").write_bytes((tmp_path / "memory").read_bytes()[:-9])
    with pytest.raises(StoreError):
        Memory.load(tmp_path / "broken")
    with pytest.raises(DataError):
        Memory.load(tmp_path / "none")


@pytest.mark.parametrize("recipe", [JpegRandom(), "jpeg-random-9"])
def test_a_class_that_appears_again_keeps_its_share_of_a_coded_memory(recipe):
    data = smooth(1, 90)
    images, labels = torch.stack([data[i][0] for i in range(90)]), torch.zeros(90, dtype=torch.int64)
    found = memory(Bytes(per_class=4 * 3080 + 1000), recipe, spec=SPEC)
    found.observe(images[:60], labels[:60])
    before = len(found)
    assert before > 12
    found.observe(images[60:], labels[60:])
    assert 0.7 * before < len(found) <= before + 9
    assert 0.8 * (4 * 3080 + 1000) < found.nbytes <= 4 * 3080 + 1000


def test_coded_images_are_decoded_for_each_batch():
    data = smooth(2, 40)
    images = torch.stack([data[i][0] for i in range(80)])
    found = memory(Bytes(per_class=4 * 3080), "jpeg-random-9", spec=SPEC)
    found.observe(images, torch.tensor(data.targets))
    rows = torch.tensor([3, 40, 7, 3])
    assert torch.equal(found.decoded.at(rows), found.images()[0][rows])
    assert found.stored.images.ndim == 1
    held = [value for value in vars(found.decoded).values() if isinstance(value, torch.Tensor)]
    assert sum(t.nbytes for t in held) < found.nbytes


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(4, 8, 8), torch.zeros(4), r"must be \(N, C, H, W\) with N >= 1, got shape \(4, 8, 8\)"),
        (torch.zeros(0, 1, 8, 8), torch.zeros(0), "N >= 1"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.float64), torch.arange(4), "got torch.float64: convert them"),
        (torch.zeros(4, 1, 8, 8), torch.arange(3), "expected 4 labels"),
        (torch.full((4, 1, 8, 8), torch.nan), torch.arange(4), "not finite"),
        ("images", torch.arange(3), "images must be"),
        (torch.zeros(2, 1, 8, 8), ["cat", "dog"], "labels must be"),
    ],
)
def test_bad_observations_lose_nothing(images, labels, message):
    found = memory()
    found.observe(*part(0, 1))
    before = found.images()[0]
    with pytest.raises((DataError, ConfigError), match=message):
        found.observe(images, labels)
    with pytest.raises(DataError, match=r"images have shape \(1, 4, 4\), those in the memory \(1, 8, 8\)"):
        found.observe(torch.zeros(2, 1, 4, 4), torch.arange(2))
    with pytest.raises(ConfigError, match="task must be"):
        found.observe(*part(0), task=-1)
    assert torch.equal(found.images()[0], before)


def test_bad_options():
    with pytest.raises(ConfigError, match="budget must be"):
        Memory(20)
    with pytest.raises(ConfigError, match="a budget in bytes"):
        Memory(Images(20), "jpeg-dm-4")
    found = memory(recipe=DistributionMatching(batch_real=8))
    with pytest.raises(DataError, match="the memory is empty"):
        found.sample(3)
    found.observe(*part(0, 1))
    with pytest.raises(ConfigError, match="n must be"):
        found.sample(0)
    with pytest.raises(DataError, match="not the state of a memory"):
        found.load_state_dict({"formation": [1, "uint8"]})


def test_no_framework_is_imported():
    code = (
        "import sys, torch; from condensekit.replay import Images, Memory; m = Memory(Images(4), 'random');"
        "m.observe(torch.rand(8, 1, 8, 8), torch.arange(8) % 2); m.sample(3);"
        "print([name for name in ('avalanche', 'nni', 'pytorchcv') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_bytes_below_one_image_of_each_announced_class_are_refused_at_the_first_class():
    images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 2  # of unknown scale: 64 values, a range and a label
    need = Memory(Bytes(10**6), "random")
    need.observe(images, labels)
    each = need.nbytes // len(need)
    with pytest.raises(
        ConfigError, match=rf"is less than one image of {each} bytes for each of 10 classes: use at lea"
    ):
        Memory(Bytes(10 * each - 1), "random", classes=10).observe(images, labels)
    memory = Memory(Bytes(10 * each), "random", classes=10)
    memory.observe(images, labels)
    assert len(memory) == 2


def sessions(folder):
    """Three folders of two classes each; a class comes again, under another number of its folder."""
    for number, classes in enumerate([("bear", "mouse"), ("beetle", "worm"), ("ant", "bear")]):
        for name in classes:
            place = folder / f"session{number}" / name
            place.mkdir(parents=True)
            for i in range(8):
                level = 20 * number + 5 * i + len(name)
                Image.new("RGB", (16, 16), (level, 2 * level, 10)).save(place / f"{i}.png")
    return [folder / f"session{number}" for number in range(3)]


def test_the_loop_over_folders_of_the_tutorial(tmp_path, monkeypatch):
    sessions(tmp_path)
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[3] / "docs/tutorials/replay.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"### A stream of folders\n.*?```python\n(.*?)```", page, re.DOTALL)
    found: dict[str, Any] = {}
    exec(code, found)
    names = {0: "bear", 1: "mouse", 2: "beetle", 3: "worm", 4: "ant"}
    assert found["train"].spec.class_names == names
    assert [test.classes for test in found["tests"]] == [(0, 1), (2, 3), (0, 4)]
    assert len({test.spec.mean for test in found["tests"]}) == 1
    assert found["memory"].stored.spec.class_names == names
    assert found["memory"].content.seen[0, 0] == 2 * found["memory"].content.seen[0, 1]
    drawn = found["train"].spec.normalise(found["memory"].sample(4)[0])
    assert drawn.min() >= found["train"].spec.range[0][0]


def test_a_label_that_names_another_class_is_refused(tmp_path):
    trains = [ck.load(folder)[0] for folder in sessions(tmp_path)]
    found = memory()
    found.observe(trains[0])
    with pytest.raises(DataError, match=r"label 0 is 'beetle' here and 'bear' in the memory: .*load\(\.\.\., like="):
        found.observe(trains[1])
    found.observe(trains[1], task=1)  # another task has labels of its own
    found.observe(trains[0].images, trains[0].labels)  # tensors have no names
    with pytest.raises(DataError, match="label 0 is 'ant' here and 'bear' in the memory"):
        found.observe(trains[2])
    with pytest.raises(ConfigError, match="images bring their labels: leave out labels"):
        found.observe(trains[0], trains[0].labels)


def test_a_spec_of_to_tensor_alone_is_a_spec():
    pixels = torch.nn.functional.interpolate(part(0, 1)[0], size=16).repeat(1, 3, 1, 1)
    images = (pixels * 255).round() / 255  # as ToTensor makes them
    spec = ImageSpec((3, 16, 16), (0.0,) * 3, (1.0,) * 3)
    found = memory(Bytes(8 * 776), "jpeg-random-4", spec=spec, classes=2)
    found.observe(images, part(0, 1)[1])
    assert found.sample(2)[0].dtype == torch.float32
    assert len(found) > 8
    with pytest.raises(DataError, match="is not an 8-bit image under mean"):
        memory(spec=spec).observe(images * 2, part(0, 1)[1])


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (torch.zeros(4, 16, 16, 3), torch.arange(4), r"shape \(4, 16, 16, 3\): pass images.permute\(0, 3, 1, 2\)"),
        (torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, -1, -1]), "labels must be at least 0, got -1: leave out"),
        (torch.zeros(4, 1, 8, 8), torch.eye(4), r"got torch.float32 of shape \(4, 4\): pass labels.argmax\(1\)"),
        (torch.zeros(4, 1, 8, 8), torch.arange(4)[:, None], r"of shape \(4, 1\): pass labels\[:, 0\]"),
        (torch.zeros(4, 1, 8, 8), torch.arange(4.0), r"labels must be \(N,\) integers, got torch.float32"),
    ],
)
def test_images_and_labels_of_another_form_are_refused(images, labels, words):
    with pytest.raises(DataError, match=words):
        memory().observe(images, labels)


def test_a_memory_shows_its_text_and_what_it_replays():
    found = memory(Images(8), "packed-random factor=2")
    found.observe(*part(0, 1))
    assert (
        repr(found) == "Memory(Images(8), packed-random factor=2: 8 stored, 32 replayed images of 2 classes, 640 bytes)"
    )
    assert repr(memory(Images(8), "unpacked-m3d lr=3")) == "Memory(Images(8), unpacked-m3d lr=3: empty)"
    assert repr(memory(Images(8), Random())) == "Memory(Images(8), random: empty)"


def test_mistakes_are_told_in_the_words_of_the_user():
    with pytest.raises(
        DataError, match=r"^downscaled-8 packs 8 x 8 = 64 images into one, .* has 20: use downscaled-4$"
    ):
        memory(recipe="downscaled-8").observe(torch.rand(40, 3, 16, 16), torch.arange(40) % 2)
    with pytest.raises(DataError, match=r"^packed-random packs 2 x 2 = 4 images into one, .* has 3: use factor=1$"):
        memory(recipe="packed-random").observe(torch.rand(6, 3, 16, 16), torch.arange(6) % 2)
    for name in (EQUAL_BYTES, *AVALANCHE):
        with pytest.raises(
            ConfigError, match=r"is a memory of `condensekit replay` only: here .* the same Bytes\(n\)$"
        ):
            memory(recipe=name)
    with pytest.raises(ConfigError, match=r"^percent of 'hybrid-dm-150' must lie in \[0, 100\], got 150.0$"):
        memory(recipe="hybrid-dm-150")
    with pytest.raises(ConfigError, match=r"budget must be a Budget, got 20 \(int\): pass Images\(20\)"):
        memory(20)


@pytest.mark.parametrize("storage", ["4bit", "avif-mosaic", "jpeg"])
def test_a_memory_stores_values_one_by_one(storage):
    known = "storage of a memory must be one of float32, float16, uint8, got"
    with pytest.raises(ConfigError, match=known):
        Memory(Images(20), f"random storage={storage}")
    for recipe in ("random", "dm"):
        with pytest.raises(ConfigError, match=known):
            Memory(Images(20), recipe, storage=storage)
