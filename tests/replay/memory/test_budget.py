import pytest
import torch

from condensekit.errors import ConfigError
from condensekit.replay.memory.budget import Bytes, Images


@pytest.mark.parametrize(
    ("budget", "classes", "each", "wanted"),
    [
        (Images(20), 2, 1, 10),
        (Images(20), 7, 1, 2),
        (Images(per_class=3), 7, 1, 3),
        (Bytes(1000), 2, 100, 5),
        (Bytes(1000), 2, 101, 4),
        (Bytes(per_class=250), 9, 100, 2),
    ],
)
def test_images_of_a_class(budget, classes, each, wanted):
    assert budget.images(classes, each) == wanted


@pytest.mark.parametrize(
    ("budget", "way_out"),
    [
        (Images(6), r"Images\(7\)"),
        (Bytes(699), r"Bytes\(700\)"),
        (Bytes(per_class=99), r"Bytes\(per_class=100\)"),
    ],
)
def test_less_than_one_image_for_each_class_names_the_way_out(budget, way_out):
    with pytest.raises(ConfigError, match=f"less than one image .* 7 classes: use at least {way_out}"):
        budget.images(7, 100)


@pytest.mark.parametrize("kind", [Images, Bytes])
@pytest.mark.parametrize(
    "sizes", [{}, {"total": 1, "per_class": 1}, {"total": 0}, {"total": -3}, {"per_class": 2.5}, {"total": True}]
)
def test_sizes_that_make_no_sense(kind, sizes):
    with pytest.raises(ConfigError, match=kind.__name__):
        kind(**sizes)


def test_room_counts_from_the_first_image():
    sizes = torch.tensor([40, 10, 60, 1])
    assert Images(6).fitting(2, sizes) == 3
    assert [Bytes(n).fitting(2, sizes) for n in (78, 80, 100, 219, 220, 222, 9999)] == [0, 1, 2, 2, 3, 4, 4]


def test_only_a_total_shrinks():
    assert Images(5).shrinks
    assert Bytes(5).shrinks
    assert not Images(per_class=5).shrinks
