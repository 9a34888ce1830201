import json

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.cluster import kmeans_plusplus

from condensekit.compute import Compute, Machine
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, DataError
from condensekit.networks.convnet import ConvNet
from condensekit.networks.resnet import ResNet18
from condensekit.rng import Draw
from condensekit.selection.base import selected_set
from condensekit.selection.classic import Herding, KCenter, KMeans, Random
from condensekit.selection.clustering import cluster_centres, farthest_first, herd, nearest_distinct
from condensekit.selection.embeddings import Pixels, RandomEmbedding
from condensekit.sets.formation import Formation
from condensekit.testing import LABELS, SelectionContract, shapes
from tests.reference import selection_twin as twin

NARROW = RandomEmbedding(ConvNet(width=8))
ALL = [Random(), Herding(NARROW), KMeans(NARROW), KCenter(NARROW), Herding(Pixels()), KMeans(Pixels())]


class TestRandom(SelectionContract):
    def make(self):
        return Random()


class TestHerding(SelectionContract):
    def make(self):
        return Herding(NARROW)


class TestKMeans(SelectionContract):
    def make(self):
        return KMeans(NARROW)


class TestKCenter(SelectionContract):
    def make(self):
        return KCenter(NARROW)


class TestBatchNormEmbedding(SelectionContract):
    def make(self):
        return KCenter(RandomEmbedding(ResNet18(width=4)))


@pytest.fixture
def compute():
    with Compute(Machine("cpu", workers=0)) as compute:
        yield compute


def centred(n=40, d=6, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, d)) * [1, 1, 2, 3, 1, 0.1]
    return x - x.mean(0)


@pytest.mark.parametrize("seed", range(5))
def test_herding_equals_its_twin(seed):
    x = centred(seed=seed)
    assert herd(torch.from_numpy(x), 12).tolist() == twin.herding(x, 12)


@pytest.mark.parametrize("seed", range(5))
def test_farthest_first_equals_its_twin(seed):
    x = centred(seed=seed)
    assert farthest_first(torch.from_numpy(x), 12).tolist() == twin.farthest_first(x, 12)


@pytest.mark.parametrize("seed", range(5))
def test_nearest_equals_its_twin_and_takes_no_row_twice(seed):
    x, centres = centred(seed=seed), np.repeat(centred(6, seed=9), 2, axis=0)
    rows = nearest_distinct(torch.from_numpy(x), torch.from_numpy(centres)).tolist()
    assert rows == twin.nearest(x, centres)
    assert len(set(rows)) == 12


@pytest.mark.parametrize("seed", range(5))
def test_centres_are_those_of_scikit_learn(seed):
    x = centred(300, seed=seed)
    start = kmeans_plusplus(x, 7, random_state=seed)[0]
    expected = SklearnKMeans(7, init=start, n_init=1, tol=0).fit(x).cluster_centers_
    np.testing.assert_allclose(cluster_centres(torch.from_numpy(x), 7, seed), expected, rtol=1e-9, atol=1e-12)


def test_kmeans_finds_one_image_of_each_kind(compute):
    levels = torch.tensor([0, 60, 120, 250]).repeat_interleave(10)
    jitter = torch.arange(40) % 5
    images = (levels + jitter).to(torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4)
    chosen = KMeans(Pixels())(ClassImages.from_arrays(images, torch.zeros(40, dtype=torch.int64)), 4, Draw(0), compute)
    assert sorted(levels[chosen.indices].tolist()) == [0, 60, 120, 250]
    assert jitter[chosen.indices].tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("selection", ALL, ids=repr)
def test_identical_images_are_still_different_indices(selection, compute):
    data = ClassImages.from_arrays(torch.full((9, 3, 8, 8), 7, dtype=torch.uint8), torch.zeros(9, dtype=torch.int64))
    assert len(set(selection(data, 9, Draw(0), compute).indices.tolist())) == 9


def test_a_tighter_cluster_gives_a_smaller_cost_than_random(compute):
    data = shapes(40)
    features = Pixels().prepare(data, Draw(0), compute)

    def cost(selection):
        rows = selection(data, 4, Draw(0), compute).indices.reshape(len(LABELS), 4)
        pairs = zip(data.classes, rows, strict=True)
        return sum(torch.cdist(features(data.indices_of(k)), features(r)).amin(1).square().sum() for k, r in pairs)

    assert cost(KMeans(Pixels())) < cost(Random())


def test_random_is_uniform_nested_and_new_for_each_seed(compute):
    data = ClassImages.from_arrays(torch.zeros(10, 1, 2, 2, dtype=torch.uint8), torch.zeros(10, dtype=torch.int64))
    counts = torch.zeros(10)
    for seed in range(2000):
        rows = Random()(data, 3, Draw(seed), compute).indices
        assert torch.equal(rows[:2], Random()(data, 2, Draw(seed), compute).indices)
        counts[rows] += 1
    assert (counts - 600).abs().max() < 5 * (2000 * 0.3 * 0.7) ** 0.5


def test_the_embedding_is_drawn_from_the_seed_and_same_on_any_machine(compute):
    data = shapes()
    first, second = (NARROW.prepare(data, Draw(s), compute)(data.order) for s in (0, 1))
    assert not torch.allclose(first, second)
    with Compute(Machine("cpu", chunk=4, workers=2)) as other:
        torch.testing.assert_close(NARROW.prepare(data, Draw(0), other)(data.order), first, rtol=1e-5, atol=1e-5)


def test_candidates_are_a_random_part_of_each_class(compute):
    data = shapes()
    some, others = (KMeans(Pixels(), candidates=5)(data, 5, Draw(s), compute).indices for s in (0, 1))
    assert sorted(some.tolist()) != sorted(others.tolist())  # as many as are chosen: all candidates
    whole = max(len(data.indices_of(label)) for label in data.classes)
    every, limited = (KMeans(Pixels(), candidates=n)(data, 2, Draw(0), compute).indices for n in (0, whole))
    assert torch.equal(every, limited)
    with pytest.raises(ConfigError, match="3 images per class cannot be chosen among 2 candidates"):
        Herding(Pixels(), candidates=2)(data, 3, Draw(0), compute)
    with pytest.raises(ConfigError, match="candidates must be an integer of at least 0, got -1"):
        KCenter(candidates=-1)


@pytest.mark.parametrize("selection", [Random(), KCenter(Pixels())], ids=repr)
def test_bad_ipc_is_refused(selection, compute):
    for ipc in (0, -1, 2.5):
        with pytest.raises(ConfigError, match=rf"ipc .* got {ipc}"):
            selection(shapes(), ipc, Draw(0), compute)
    named = ClassImages.from_arrays(
        torch.zeros(13, 1, 2, 2, dtype=torch.uint8), torch.tensor([1] * 10 + [7] * 3), class_names={7: "horse"}
    )
    with pytest.raises(DataError, match=r"class 7 \('horse'\) has 3 images but ipc=4: lower ipc"):
        selection(named.select([7]), 4, Draw(0), compute)


def test_selected_set_holds_the_images_and_where_they_came_from(compute):
    data = shapes()
    made = selected_set(data, Random(), 3, Draw(4), compute)
    indices = torch.tensor(made.provenance["indices"])
    assert made.labels.tolist() == [label for label in LABELS for _ in range(3)]
    assert torch.equal(made.labels, data.labels[indices])
    assert torch.equal(made.decode()[0], data.gather(indices))
    assert made.provenance["selection"] == "random"
    assert made.provenance["seed"] == 4
    assert made.provenance["data"] == data.fingerprint()
    assert json.loads(json.dumps(made.provenance)) == made.provenance


def test_selected_set_in_another_formation(compute):
    assert selected_set(shapes(), Random(), 2, Draw(0), compute, Formation(dtype="uint8")).images.dtype == torch.uint8
