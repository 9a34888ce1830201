"""Chosen images in a number of bytes: how many there are, and how they are stored."""

import pytest
import torch

import condensekit as ck
from condensekit import catalog
from condensekit.compute import Compute, Machine
from condensekit.errors import ConfigError
from condensekit.rng import Draw
from condensekit.selection.base import selected_set
from condensekit.selection.classic import Random
from condensekit.selection.jpeg_random import JpegRandom
from condensekit.selection.number import largest, usual_number
from condensekit.sets.codecs import CODECS
from condensekit.sets.coding import plain_bytes
from condensekit.sets.formation import DTYPES, Formation
from condensekit.testing import LABELS, shapes

ROOM = 1_500
AVIF = Formation(dtype="avif-mosaic")


@pytest.fixture
def compute():
    with Compute(Machine("cpu", workers=0)) as compute:
        yield compute


@pytest.mark.parametrize("room", [5, 30, 500, 1_000, 40_000])
@pytest.mark.parametrize("power", [0.7, 1.0])
def test_the_largest_number_is_found_with_few_calls(room, power):
    calls = []

    def measured(number):
        calls.append(number)
        return 20 + 7 * number**power

    found = largest(measured, room, 3_000)
    wanted = max([n for n in range(1, 3_001) if 20 + 7 * n**power <= room], default=1)
    assert 0 <= wanted - found <= max(1, wanted // 16)
    assert len(calls) <= 9
    assert found == 1 or measured(found) <= room


@pytest.mark.parametrize("dtype", [*DTYPES, "2bit", "5bit"])
def test_what_has_a_fixed_size_fills_the_bytes(compute, dtype):
    data = shapes(per_class=40, size=8)
    made = selected_set(data, Random(), None, Draw(1), compute, Formation(dtype=dtype), ROOM)
    sizes = [made.select([label]).nbytes for label in made.classes]
    assert max(sizes) <= ROOM
    assert max(sizes) + max(sizes) // made.ipc > ROOM or made.ipc == 40


@pytest.mark.parametrize("dtype", ["jpeg", "jpeg-mosaic", "webp-mosaic", "avif-mosaic"])
def test_pictures_are_as_many_as_fit_at_about_the_usual_quality(compute, dtype):
    data = shapes(per_class=60, size=16)
    made = selected_set(data, Random(), None, Draw(1), compute, Formation(dtype=dtype), ROOM)
    assert all(made.select([label]).nbytes <= ROOM for label in LABELS)
    assert len(set(made.counts)) == 1
    assert 1 < made.ipc <= 60
    told = made.provenance["storage"]
    assert made.ipc == 60 or min(told["quality"]) <= CODECS[dtype].usual + 15
    assert made.provenance["room"] == ROOM
    assert made.provenance["ipc"] == round(ROOM / plain_bytes(data.spec.shape, 1))


def test_number_and_quality_are_given_apart(compute):
    data = shapes(per_class=20, size=16)
    few, many = (
        selected_set(data, Random(), n, Draw(1), compute, Formation(dtype="webp-mosaic"), ROOM) for n in (4, 12)
    )
    assert (few.ipc, many.ipc) == (4, 12)
    assert min(few.provenance["storage"]["quality"]) > max(many.provenance["storage"]["quality"])


def test_packed_images_in_a_mosaic(compute):
    data = shapes(per_class=40, size=16)
    made = selected_set(data, Random(), None, Draw(1), compute, Formation(2, "webp-mosaic"), 600)
    assert len(made.decode()[0]) == 4 * len(made)
    assert all(made.select([label]).nbytes <= 600 for label in LABELS)


def test_a_small_class_gives_what_it_has(compute):
    data = shapes(per_class=30, size=16)
    few = data.indices_of(LABELS[0])[5:]
    left = data.subset(data.order[~torch.isin(data.order, few)])
    made = selected_set(left, Random(), None, Draw(1), compute, Formation(dtype="webp-mosaic"), ROOM)
    assert made.counts[made.classes.index(LABELS[0])] == 5
    assert usual_number(left, Formation(dtype="webp-mosaic"), 10**9, Draw(1)) == max(map(left.count, left.classes))


def test_what_cannot_be_is_refused(compute):
    data = shapes(per_class=20, size=16)
    for wrong, text in (
        ({"ipc": None}, "give ipc=, the images of each class, or room="),
        ({"ipc": None, "room": 0}, "room must be an integer of at least 1"),
        ({"ipc": 3, "room": 40}, "take more than 40 bytes at the lowest quality of avif-mosaic"),
        ({"ipc": None, "room": 40}, "take more than 40 bytes at the lowest quality of avif-mosaic"),
    ):
        with pytest.raises(ConfigError, match=text):
            selected_set(
                data, Random(), draw=Draw(0), compute=compute, formation=Formation(dtype="avif-mosaic"), **wrong
            )
    with pytest.raises(ConfigError, match="jpeg-random images are stored as JPEG in the bytes of ipc= images"):
        selected_set(data, JpegRandom(), 2, Draw(0), compute, room=ROOM)


@pytest.mark.parametrize(
    ("text", "name", "formation"),
    [
        ("avif-kmeans", "kmeans", Formation(dtype="avif-mosaic")),
        ("webp-random", "random", Formation(dtype="webp-mosaic")),
        ("jpeg-herding", "herding", Formation(dtype="jpeg")),
        ("random storage=4bit", "random", Formation(dtype="4bit")),
        ("random storage=jpeg", "random", Formation(dtype="jpeg")),
        ("packed-kmeans", "kmeans", Formation(2)),
        ("packed-kmeans factor=3 storage=uint8", "kmeans", Formation(3, "uint8")),
        ("avif-random factor=2", "random", Formation(2, "avif-mosaic")),
    ],
)
def test_names_say_how_images_are_stored(text, name, formation):
    selection, found = catalog.baseline(text)
    assert (selection.name, found) == (name, formation)
    assert catalog.baseline_name(selection, found) == text


def test_unknown_names_are_refused():
    assert isinstance(catalog.baseline("jpeg-random")[0], JpegRandom)
    for wrong in ("avif-jpeg-random", "avif-nothing", "webp-"):
        with pytest.raises(ConfigError, match="unknown selection"):
            catalog.baseline(wrong)
    with pytest.raises(ConfigError, match="storage dtype must be one of"):
        catalog.baseline("random storage=gif")


def test_the_public_door_fills_bytes():
    data = shapes(per_class=40, size=16)
    made = ck.select(data, "random", storage="webp-mosaic", room=ROOM)
    assert made.name == "webp-random"
    assert all(made.select([label]).nbytes <= ROOM for label in LABELS)
    named = ck.select(data, "webp-random", ipc=2)
    room = plain_bytes(data.spec.shape, 2)
    assert named.provenance["room"] == room
    assert torch.equal(named.images, ck.select(data, "random", storage="webp-mosaic", room=room).images)
    assert ck.select(data, "random", storage="webp-mosaic", ipc=2).ipc == 2
    for wrong, text in (
        ({}, "give ipc="),
        ({"search": True, "ipc": 2}, "search=True finds the number"),
        ({"ipc": 2, "storage": "gif"}, "storage must be one of"),
    ):
        with pytest.raises(ConfigError, match=text):
            ck.select(data, "random", **wrong)


def test_a_baseline_fills_the_bytes_of_the_sets_that_it_is_compared_with():
    data = shapes(per_class=40, size=16)
    made = ck.select(data, "random", storage="webp-mosaic", room=ROOM)
    quick = ck.catalog.protocol("short")
    found = ck.evaluate(
        {"mine": made},
        data.subset(data.order[:2]),
        train=data,
        against=["random storage=jpeg-mosaic", "random storage=4bit", "random"],
        network="ConvNet-w8",
        networks=1,
        protocol=quick.__class__("tiny", epochs=1, full_epochs=1, steps=2, augmentation=None),
    )
    sizes = {row.set: row.nbytes for row in found.rows}
    assert max(sizes["random storage=jpeg-mosaic"], sizes["random storage=4bit"]) <= ROOM * len(LABELS)
    assert [row.ipc for row in found.rows] == [2] * 4
