"""The search for the number of images in the bytes of a class."""

import re
from functools import partial
from typing import Any

import pytest

import condensekit as ck
from condensekit.compute import Compute, Machine
from condensekit.errors import ConfigError
from condensekit.networks.convnet import ConvNet
from condensekit.selection.classic import Random
from condensekit.sets.formation import Formation
from condensekit.testing import shapes
from condensekit.training import number
from condensekit.training.number import NumberSearch, Tried, search_number
from condensekit.training.train import TrainProtocol

QUICK: dict[str, Any] = {
    "network": ConvNet(width=8),
    "networks": 1,
    "protocol": TrainProtocol("tiny", 1, 1, steps=3, batch=8),
}


@pytest.fixture
def compute():
    with Compute(Machine("cpu", workers=0)) as compute:
        yield compute


def test_each_number_is_stored_at_the_best_quality_and_judged(compute):
    data, webp = shapes(per_class=30, size=16), Formation(dtype="webp-mosaic")
    found = search_number(data, Random(), webp, 400, compute=compute, numbers=[2, 27, 8], **QUICK)
    assert [one.images for one in found.tried] == [2, 8, 27]
    assert all(one.nbytes <= 400 * len(data.classes) for one in found.tried)
    assert (found.tried[0].quality or (0,)) > (found.tried[1].quality or (0,))
    assert found.number in (2, 8, 27)
    assert "| 2" in found.table()
    again = search_number(data, Random(), webp, 400, compute=compute, numbers=[2, 27, 8], **QUICK)
    assert again == found


def test_numbers_lie_around_the_usual_one(compute):
    data = shapes(per_class=60, size=8)
    found = search_number(data, Random(), Formation(dtype="4bit"), 420, compute=compute, **QUICK)
    fitting = [one for one in found.tried if one.accuracies]
    assert len(fitting) < len(found.tried)  # more images than fit are told, not tried
    assert found.number == max(found.tried, key=lambda one: sum(one.accuracies)).images
    assert "does not fit" in found.table()


def test_the_best_mean_wins():
    tried = (Tried(2, 10, None, (0.5, 0.7)), Tried(4, 10, (3, 9), (0.61, 0.61)), Tried(8))
    found = NumberSearch("avif-mosaic", 10, tried)
    assert found.number == 4
    assert re.search(r"4 \(best\) +\| 10 +\| 3 to 9 +\| 61.0", found.table())
    assert found.to_json()[2] == {"images": 8, "nbytes": 0, "quality": None, "accuracies": ()}


def test_what_cannot_be_is_refused(compute):
    data, avif = shapes(per_class=20, size=16), Formation(dtype="avif-mosaic")
    with pytest.raises(ConfigError, match="take more than 50 bytes at the lowest quality"):
        search_number(data, Random(), avif, 50, compute=compute, **QUICK)
    with pytest.raises(ConfigError, match="numbers is empty"):
        search_number(data, Random(), avif, 500, compute=compute, numbers=[], **QUICK)
    with pytest.raises(ConfigError, match="a number of images must be an integer of at least 1"):
        search_number(data, Random(), avif, 500, compute=compute, numbers=[0], **QUICK)


def test_the_public_door_searches(monkeypatch):
    monkeypatch.setattr("condensekit.everyday.search_number", partial(search_number, numbers=[2, 4], **QUICK))
    assert number.PROTOCOL.steps == 800
    made = ck.select(shapes(per_class=20, size=16), "random", storage="webp-mosaic", room=600, search=True)
    assert made.ipc in (2, 4)
    assert [one["images"] for one in made.provenance["search"]] == [2, 4]
