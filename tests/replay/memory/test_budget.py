import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from condensekit.errors import ConfigError
from condensekit.replay.memory.budget import Bytes, Images


@pytest.mark.parametrize(
    ("budget", "present", "classes", "each", "wanted"),
    [
        (Images(20), 2, 2, 1, [10, 10]),
        (Images(20), 7, 7, 1, [3, 3, 3, 3, 3, 3, 2]),
        (Images(19), 3, 10, 1, [2, 2, 2]),
        (Images(5), 7, 7, 1, [1, 1, 1, 1, 1, 0, 0]),
        (Images(per_class=3), 7, 9, 1, [3] * 7),
        (Bytes(1000), 2, 2, 100, [5, 5]),
        (Bytes(1000), 2, 2, 101, [5, 4]),
        (Bytes(1000), 1, 3, 101, [3]),
        (Bytes(per_class=250), 2, 9, 100, [2, 2]),
        (Bytes(99), 2, 2, 100, [0, 0]),
    ],
)
def test_images_of_each_class(budget, present, classes, each, wanted):
    assert budget.counts(present, classes, each) == wanted


@given(total=st.integers(1, 3000), classes=st.integers(1, 40), each=st.integers(1, 400), in_images=st.booleans())
def test_a_total_is_filled_and_never_exceeded(total, classes, each, in_images):
    budget = (Images if in_images else Bytes)(total)
    found = budget.counts(classes, classes, each)
    unit = 1 if in_images else each
    assert sum(found) == total // unit
    assert max(found) - min(found) <= 1
    assert budget.fitting([torch.full((3000,), each)] * classes, classes) == found


@given(total=st.integers(1, 30_000), classes=st.integers(1, 40), each=st.integers(1, 900))
def test_a_class_keeps_what_the_counts_give_it_whenever_it_comes(total, classes, each):
    budget = Bytes(total)
    for present in range(1, classes + 1):
        counts = budget.counts(present, classes, each)
        sizes = [torch.full((count,), each) for count in counts]
        assert budget.fitting(sizes, classes) == counts


@pytest.mark.parametrize(
    ("budget", "way_out"),
    [(Images(6), Images(7)), (Bytes(699), Bytes(700)), (Bytes(per_class=99), Bytes(per_class=100))],
)
def test_the_least_budget(budget, way_out):
    assert budget.least(7, 100) == way_out


@pytest.mark.parametrize("kind", [Images, Bytes])
@pytest.mark.parametrize(
    "sizes", [{}, {"total": 1, "per_class": 1}, {"total": 0}, {"total": -3}, {"per_class": 2.5}, {"total": True}]
)
def test_sizes_that_make_no_sense(kind, sizes):
    with pytest.raises(ConfigError, match=kind.__name__):
        kind(**sizes)


def test_room_counts_from_the_first_image():
    sizes = torch.tensor([40, 10, 60, 1])
    assert Images(per_class=3).fitting([sizes, sizes[:2]], 2) == [3, 2]
    found = [Bytes(per_class=n).fitting([sizes], 2)[0] for n in (39, 40, 50, 109, 110, 111, 9999)]
    assert found == [0, 1, 2, 2, 3, 4, 4]


def test_what_is_left_goes_to_the_first_classes():
    sizes = [torch.tensor([30, 30, 30]), torch.tensor([20, 20, 20])]
    assert Bytes(99).fitting(sizes, 2) == [1, 3]  # 49 bytes for each; 29 bytes are left
    assert Bytes(110).fitting(sizes, 2) == [2, 2]
    assert Bytes(110).fitting([torch.tensor([30, 28, 30])], 2) == [1]  # 55 bytes belong to a class that has not come


def test_only_a_total_shrinks():
    assert Images(5).shrinks
    assert Bytes(5).shrinks
    assert not Images(per_class=5).shrinks
