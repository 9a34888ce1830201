import pytest
import torch

from condensekit.data.images import ImageSpec
from condensekit.replay.memory.content import Content, first, mixed, turnover
from condensekit.replay.memory.decoded import DecodedImages
from condensekit.rng import Draw
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import Formation


def part(label, values, *, soft=None, classes=(0, 1), factor=1, dtype="uint8", coded=None):
    images = torch.tensor(values, dtype=torch.float32)[:, None, None, None] * torch.ones(1, 2, 4, 4)
    images[..., 0, 0] += 1
    spec = ImageSpec((2, 4, 4), (0.0, 0.0), (1.0, 1.0), {k: str(k) for k in classes})
    labels = torch.full((len(values),), label)
    return CondensedSet.from_images(
        images, labels, spec, formation=Formation(factor, dtype), soft_labels=soft, coded=coded
    )


@pytest.mark.parametrize(
    "found",
    [
        part(0, [1, 2, 3]),
        part(0, [1, 2, 3], dtype="float16", factor=2),
        part(0, [1, 2, 3], dtype="float32", coded=torch.tensor([9, 5, 6])),
        part(0, [1, 2, 3], factor=2, soft=torch.rand(12, 2)),
    ],
)
def test_bytes_of_the_images_sum_to_those_of_the_set(found):
    assert int(found.sizes().sum()) == found.nbytes
    assert found.sizes().tolist() == [found.take(torch.tensor([i])).nbytes for i in range(3)]


def test_joined_holds_all_classes_in_order():
    memory = Content({(0, 4): part(4, [7], classes=(4,)), (0, 1): part(1, [5, 6])}, {(0, 1): 9, (0, 4): 9})
    joined = memory.joined()
    assert joined.labels.tolist() == [1, 1, 4]
    assert joined.images[:, 0, 3, 3].tolist() == [0, 0, 0]
    torch.testing.assert_close(joined.decode()[0][:, 0, 3, 3], torch.tensor([5.0, 6.0, 7.0]))
    assert joined.spec.classes == (0, 1, 4)
    assert memory.nbytes == joined.nbytes
    assert len(memory) == 3


def test_a_label_in_two_tasks_is_two_groups():
    memory = Content({(1, 0): part(0, [8, 9]), (0, 1): part(1, [5])}, {(1, 0): 9, (0, 1): 9})
    assert memory.groups == ((0, 1), (1, 0))
    assert memory.joined().labels.tolist() == [1, 0, 0]
    found = DecodedImages(memory)
    assert found.tasks.tolist() == [0, 1, 1]
    assert found.rows_of((1, 0)).tolist() == [1, 2]
    torch.testing.assert_close(found.at(torch.tensor([2, 0]))[:, 0, 3, 3], torch.tensor([9.0, 5.0]))
    assert torch.equal(found.at(torch.arange(3)), memory.joined().decode()[0])


def test_soft_labels_are_widened_to_all_classes():
    a = part(0, [1], soft=torch.tensor([[0.75, 0.25]]), classes=(0, 2))
    b = part(1, [1], soft=torch.tensor([[0.5, 0.5]]), classes=(1, 3))
    memory = Content({(0, 0): a, (0, 1): b}, {})
    assert memory.joined().targets().tolist() == [[0.75, 0, 0.25, 0], [0, 0.5, 0, 0.5]]
    assert memory.nbytes == a.nbytes + b.nbytes < memory.joined().nbytes


def test_first_keeps_stored_bytes():
    whole = part(0, [1, 2, 3])
    assert torch.equal(first(whole, 2).images, whole.images[:2])
    assert torch.equal(first(whole, 2).ranges, whole.ranges[:2])
    assert first(whole, 3) is whole


def test_mixed_interleaves_without_quantising_again():
    old, new = part(0, [1, 2, 3, 4]), part(0, [11, 12], classes=(0, 5))
    both = mixed(old, new)
    torch.testing.assert_close(both.decode()[0][:, 0, 3, 3], torch.tensor([1.0, 11, 2, 3, 12, 4]))
    assert both.provenance["updates"] == 2
    assert mixed(both, new).provenance["updates"] == 3


def test_turnover_keeps_the_share_of_what_was_seen():
    draws = [turnover(10, 900, 100, 100, 10, Draw(0, step), 3) for step in range(2000)]
    assert all(kept + made == 10 for kept, made in draws)
    assert sum(made for _, made in draws) / 2000 == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("old", "seen", "fresh", "available", "room", "wanted"),
    [
        (3, 3, 100, 100, 10, (0, 10)),  # all but 3 of 103 are new
        (3, 3, 4, 4, 10, (3, 4)),  # room for everything
        (10, 50, 50, 50, 10, (5, 5)),
        (10, 0, 50, 50, 4, (0, 4)),
        (10, 50, 2, 0, 10, (10, 0)),  # too few for one packed image
    ],
)
def test_turnover(old, seen, fresh, available, room, wanted):
    kept, made = turnover(old, seen, fresh, available, room, Draw(0), 0)
    assert kept + made <= room
    assert (kept, made) == wanted or abs(made - wanted[1]) <= 1
