import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from condensekit.compute import Compute, Machine
from condensekit.data import datasets
from condensekit.data.images import ClassImages
from condensekit.driver import condense
from condensekit.errors import ConfigError, DataError
from condensekit.methods import DistributionMatching
from condensekit.methods.encoders import Fresh
from condensekit.methods.recipe import Recipe
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw
from condensekit.selection.base import Chosen, selected_set
from condensekit.selection.clustering import plus_plus_centres, squared_distances
from condensekit.selection.embeddings import Embedding, Pixels, RandomEmbedding
from condensekit.selection.importance import (
    ImportanceKMeans,
    ImportanceKRR,
    inclusion,
    kmeans_sensitivity,
    ridge_for,
    ridge_leverage,
    with_replacement,
    without_replacement,
)
from condensekit.testing import LABELS, SelectionContract, shapes
from tests.reference import importance_twin as twin

NARROW = RandomEmbedding(ConvNet(width=8))
BOTH = [
    ImportanceKMeans(NARROW),
    ImportanceKMeans(NARROW, formula="bachem"),
    ImportanceKMeans(NARROW, clusters=2),
    ImportanceKRR(NARROW),
]
ids = [f"{type(s).__name__}{k}" for k, s in enumerate(BOTH)]


class TestKMeans(SelectionContract):
    def make(self):
        return ImportanceKMeans(NARROW)


class TestBachem(SelectionContract):
    def make(self):
        return ImportanceKMeans(Pixels(), formula="bachem")


class TestKRR(SelectionContract):
    def make(self):
        return ImportanceKRR(NARROW)


@pytest.fixture(scope="module")
def compute():
    with Compute(Machine("cpu", workers=0)) as compute:
        yield compute


def rows(n=40, d=6, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)) * [1, 1, 2, 3, 1, 0.1][:d]


# scores against their twins


@pytest.mark.parametrize("formula", ["default", "bachem"])
@pytest.mark.parametrize("k", [1, 2, 7])
def test_sensitivity_equals_its_twin(formula, k):
    x = rows(seed=k)
    got = kmeans_sensitivity(torch.from_numpy(x), torch.from_numpy(x[:k]), formula)
    np.testing.assert_allclose(got, twin.kmeans_sensitivity(x, x[:k], formula), rtol=1e-9)
    assert float(got.sum()) == pytest.approx(1)


@pytest.mark.parametrize(("n", "d"), [(40, 6), (6, 6), (5, 6)])
@pytest.mark.parametrize("total", [0.5, 2, 4])
def test_leverage_equals_its_twin_and_sums_to_what_is_asked(n, d, total):
    a = rows(n, d)
    got = ridge_leverage(torch.from_numpy(a), total)
    ridge = ridge_for(torch.linalg.svdvals(torch.from_numpy(a)).square(), total)
    np.testing.assert_allclose(got, twin.leverage(a, ridge), rtol=1e-8)
    assert float(got.sum()) == pytest.approx(total)
    assert (got <= 1).all()


def test_leverage_without_ridge_where_the_rank_is_too_small():
    a = np.repeat(rows(4, 6), 5, axis=0)
    got = ridge_leverage(torch.from_numpy(a), 10)
    np.testing.assert_allclose(got, np.diag(a @ np.linalg.pinv(a)), atol=1e-9)
    assert float(got.sum()) == pytest.approx(4)


def test_leverage_bounds_every_share_of_the_ridge_loss():
    a = torch.from_numpy(rows(40, 6))
    ridge = ridge_for(torch.linalg.svdvals(a).square(), 3)
    scores, generator = ridge_leverage(a, 3), torch.Generator().manual_seed(0)
    for _ in range(1000):
        w = torch.randn(6, generator=generator, dtype=torch.float64)
        loss = (a @ w).square()
        assert (loss / (loss.sum() + ridge * w.square().sum()) <= scores + 1e-12).all()


def test_leverage_in_the_class_bounds_leverage_among_all():
    """At one ridge: what lets every class be drawn from apart."""
    a, labels = rows(40, 6), np.arange(40) % 3
    joint = twin.leverage(np.concatenate([a, np.eye(3)[labels]], 1), 0.3)
    for label in range(3):
        own = a[labels == label]
        apart = twin.leverage(np.concatenate([own, np.ones((len(own), 1))], 1), 0.3)
        assert (apart >= joint[labels == label] - 1e-12).all()


def test_sensitivity_bounds_the_share_of_the_loss_up_to_a_constant():
    """Rough centres and both terms: no row's share in any loss exceeds a constant times k times its probability."""
    x = torch.from_numpy(rows(200))
    scores = kmeans_sensitivity(x, plus_plus_centres(x, 5, 0))
    for seed in range(100):
        gap = squared_distances(x, x[Draw(seed).permutation("centres", 200)[:5]]).min(1).values.clamp(min=0)
        assert (gap / gap.sum() <= 4 * 5 * scores).all()


# probabilities and draws

scores_of = st.lists(st.one_of(st.just(0.0), st.floats(1e-9, 1e9)), min_size=1, max_size=30).filter(any)


@given(scores_of, st.data())
@settings(deadline=None)
def test_inclusion_sums_to_n_and_keeps_the_order_of_the_scores(scores, data):
    n = data.draw(st.integers(1, len(scores)))
    scores = torch.tensor(scores, dtype=torch.float64)
    probability = inclusion(scores, n)
    assert float(probability.sum()) == pytest.approx(n)
    assert ((probability >= 0) & (probability <= 1)).all()
    ordered = probability[scores.argsort()]
    assert (ordered.diff() >= -1e-9).all()


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=30), st.data())
@settings(deadline=None)
def test_inclusion_equals_its_twin(scores, data):
    n = data.draw(st.integers(1, len(scores) - 1))
    got = inclusion(torch.tensor(scores, dtype=torch.float64), n)
    np.testing.assert_allclose(got, twin.inclusion(scores, n), atol=1e-8)


@given(scores_of, st.data())
@settings(deadline=None)
def test_without_replacement_gives_different_rows(scores, data):
    n = data.draw(st.integers(1, len(scores)))
    scores = torch.tensor(scores, dtype=torch.float64)
    chosen, weights = without_replacement(scores, n, Draw(data.draw(st.integers(0, 9))))
    assert len(set(chosen.tolist())) == n
    assert (weights >= 1).all()
    torch.testing.assert_close(weights, 1 / inclusion(scores, n)[chosen])


def test_rows_are_taken_with_their_probability():
    scores = torch.tensor([0.0, 1, 1, 2, 3, 5, 40], dtype=torch.float64)
    taken = torch.zeros(7)
    for seed in range(4000):
        taken[without_replacement(scores, 3, Draw(seed))[0]] += 1
    torch.testing.assert_close(taken / 4000, inclusion(scores, 3).float(), atol=0.03, rtol=0)
    assert taken[0] == 0
    assert taken[6] == 4000


@pytest.mark.parametrize("take", [with_replacement, without_replacement])
def test_weighted_sums_are_unbiased(take):
    """Mean of 4,000 estimates within 4 standard errors of the sum over all rows."""
    x = rows(30, 3)
    scores = kmeans_sensitivity(torch.from_numpy(x), torch.from_numpy(x[:3]))
    value = torch.from_numpy(x[:, 0] ** 2 + 1)
    sums = []
    for seed in range(4000):
        chosen, weights = take(scores, 8, Draw(seed))
        sums.append((weights * value[chosen]).sum())
    estimates = torch.stack(sums)
    assert abs(estimates.mean() - value.sum()) < 4 * estimates.std() / 4000**0.5


def test_with_replacement_an_image_can_stand_twice():
    scores = torch.tensor([1.0, 0, 99], dtype=torch.float64)
    chosen, weights = with_replacement(scores, 50, Draw(0))
    assert set(chosen.tolist()) == {0, 2} or set(chosen.tolist()) == {2}
    torch.testing.assert_close(weights[chosen == 2], torch.full_like(weights[chosen == 2], 100 / (50 * 99)))


def test_the_rows_come_in_random_order():
    """So that the first few are no worse drawn than the rest: certain ones are not put first."""
    scores = torch.tensor([1.0] * 20 + [1e6] * 5, dtype=torch.float64)
    first = {int(without_replacement(scores, 10, Draw(seed))[0][0]) >= 20 for seed in range(20)}
    assert first == {True, False}


# selections


@pytest.mark.parametrize("selection", BOTH, ids=ids)
def test_the_whole_class_counts_every_image_once(selection, compute):
    data = ClassImages.from_arrays(shapes().images[:12], torch.zeros(12, dtype=torch.int64))
    chosen = selection(data, 12, Draw(0), compute)
    assert sorted(chosen.indices.tolist()) == list(range(12))
    torch.testing.assert_close(chosen.weights, torch.ones(12))


@pytest.mark.parametrize("selection", BOTH, ids=ids)
@pytest.mark.parametrize("replacement", [False, True])
def test_equal_features_are_drawn_uniformly(selection, replacement, compute):
    data = ClassImages.from_arrays(torch.full((9, 3, 8, 8), 7, dtype=torch.uint8), torch.zeros(9, dtype=torch.int64))
    selection = dataclasses.replace(selection, replacement=replacement)
    seen = [selection(data, 3, Draw(seed), compute) for seed in range(40)]
    assert {int(i) for chosen in seen for i in chosen.indices} == set(range(9))
    for chosen in seen:
        torch.testing.assert_close(chosen.weights, torch.full((3,), 3.0))


@pytest.mark.parametrize("selection", BOTH, ids=ids)
@pytest.mark.parametrize("replacement", [False, True])
def test_classes_of_one_image(selection, replacement, compute):
    data = ClassImages.from_arrays(shapes().images[:3], torch.tensor([5, 1, 9]))
    chosen = dataclasses.replace(selection, replacement=replacement)(data, 1, Draw(0), compute)
    assert chosen.indices.tolist() == [1, 0, 2]
    torch.testing.assert_close(chosen.weights, torch.ones(3))


@pytest.mark.parametrize("selection", BOTH, ids=ids)
def test_repeated_images_make_no_difference_to_the_weight_of_a_class(selection, compute):
    """A singular matrix: 30 copies of 3 images, more drawn than its rank."""
    images = shapes().images[:3].repeat(10, 1, 1, 1)
    chosen = selection(ClassImages.from_arrays(images, torch.zeros(30, dtype=torch.int64)), 8, Draw(0), compute)
    assert torch.isfinite(chosen.weights).all()
    assert float(chosen.weights.sum()) == pytest.approx(30, rel=0.35)


@pytest.mark.parametrize("selection", BOTH, ids=ids)
def test_initialises_a_condensation_and_is_a_baseline(selection, compute):
    data = shapes()
    recipe = Recipe(DistributionMatching(batch_real=4, lr=1e-30), Fresh(ConvNet(width=8)), init=selection)
    made = condense(data, recipe, ipc=2, steps=1, machine=Machine("cpu", workers=1)).set
    wanted = data.gather(selection(data, 2, Draw(0), compute).indices)
    torch.testing.assert_close(made.decode()[0], wanted)
    baseline = selected_set(data, selection, 2, Draw(0), compute)
    torch.testing.assert_close(baseline.decode()[0], wanted)
    assert baseline.provenance["selection"] == selection.name


def test_names_and_bad_options(compute):
    assert (ImportanceKMeans().name, ImportanceKRR().name) == ("importance-kmeans", "importance-krr")
    with pytest.raises(ConfigError, match="formula must be one of default, bachem, got 'other'; clusters must be"):
        ImportanceKMeans(formula="other", clusters=0)
    with pytest.raises(DataError, match=r"class -3 has 12 images but ipc=13"):
        ImportanceKRR(NARROW, replacement=True)(shapes(), 13, Draw(0), compute)


def test_an_outlier_is_drawn_and_counts_little(compute):
    """It matters to the loss, so it is taken; it stands for itself alone, so it weighs 1."""
    images = torch.full((100, 1, 4, 4), 10, dtype=torch.uint8)
    images += (torch.arange(100) % 3).to(torch.uint8)[:, None, None, None]
    images[7] = 255
    data = ClassImages.from_arrays(images, torch.zeros(100, dtype=torch.int64))
    for selection in (ImportanceKMeans(Pixels(), clusters=2), ImportanceKRR(Pixels())):
        chosen = selection(data, 10, Draw(0), compute)
        assert 7 in chosen.indices.tolist()
        assert chosen.weights is not None
        assert float(chosen.weights[chosen.indices == 7]) < 2.5


# the guarantee, on real images


@dataclasses.dataclass(frozen=True)
class Fixed(Embedding):
    """One embedding for every seed of the draw, so that all draws are judged by the same loss."""

    inner: Embedding

    def prepare(self, data, draw, compute):
        return self.inner.prepare(data, Draw(99), compute)


CONV, PIXELS = Fixed(RandomEmbedding(ConvNet(width=16))), Fixed(Pixels())
CLUSTERS, SEEDS = 10, 8


@pytest.fixture(scope="module")
def digits():
    train, _ = datasets.load("digits")
    return ClassImages.from_arrays(train.images[train.order], train.labels[train.order])


@pytest.fixture(scope="module")
def faded(digits):
    """The digits with 30 scans of 1,438 in full ink and the rest at a fifth of it: few images, most of the loss."""
    images = digits.images.clone()
    images[Draw(5).permutation("faded", len(images))[30:]] //= 5
    return ClassImages.from_arrays(images, digits.labels)


def features_of(data, embedding, compute):
    return embedding.prepare(data, Draw(0), compute)(torch.arange(len(data.images))).double()


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Equal probabilities, drawn in the same way as what is compared with it."""

    replacement: bool

    def __call__(self, data, n, draw, compute):
        take = with_replacement if self.replacement else without_replacement
        parts = [(own, take(torch.ones(len(own)).double(), n, draw)) for own in map(data.indices_of, data.classes)]
        return Chosen(torch.cat([own[rows] for own, (rows, _) in parts]), torch.cat([w for _, (_, w) in parts]))


def kmeans_errors(select, data, embedding, n, compute):
    """(seeds, 100) relative errors of the weighted k-means cost; a hundred sets of centres, data as one class."""
    data = ClassImages.from_arrays(data.images, torch.zeros(len(data.images), dtype=torch.int64))
    x = features_of(data, embedding, compute)
    x -= x.mean(0)
    sets = [
        plus_plus_centres(x, CLUSTERS, s) if s % 2 else x[Draw(s).permutation("c", len(x))[:10]] for s in range(100)
    ]
    gaps = torch.stack([squared_distances(x, centres).min(1).values for centres in sets])
    errors = []
    for seed in range(SEEDS):
        chosen = select(data, n, Draw(seed), compute)
        errors.append((gaps[:, chosen.indices] @ chosen.weights.double() / gaps.sum(1) - 1).abs())
    return torch.stack(errors)


def ridge_excess(select, data, embedding, n, compute, ridge=1.0):
    """(seeds, 100) relative excess, at least 0, of the loss on all data of the regressor fitted to the weighted sample.

    The labellings are a hundred random splits of the ten classes in two.
    """
    x = features_of(data, embedding, compute)
    x /= x.square().sum(1).mean().sqrt()
    sides = torch.stack([Draw(s).uniform("sides", torch.arange(10), 1)[:, 0] > 0.5 for s in range(100)], 1)
    y, eye = 2.0 * sides[data.labels].double() - 1, ridge * torch.eye(x.shape[1], dtype=torch.float64)

    def fit(x, y, w):
        return torch.linalg.solve(x.T @ (w[:, None] * x) + eye, x.T @ (w[:, None] * y))

    def loss(regressors):
        return (x @ regressors - y).square().sum(0) + ridge * regressors.square().sum(0)

    best = loss(fit(x, y, torch.ones(len(x), dtype=torch.float64)))
    excess = []
    for seed in range(SEEDS):
        chosen = select(data, n, Draw(seed), compute)
        excess.append(loss(fit(x[chosen.indices], y[chosen.indices], chosen.weights.double())) / best - 1)
    return torch.stack(excess)


@pytest.mark.parametrize("formula", ["default", "bachem"])
@pytest.mark.parametrize("replacement", [False, True])
def test_kmeans_guarantee(digits, faded, formula, replacement, compute):
    """Of 100 sets of centres none has a cost off by more than epsilon, on benign and on skewed images alike.

    On the balanced digits uniform draws do as well; on the skewed ones they miss by several times as much.
    """
    select = ImportanceKMeans(CONV, replacement, formula, CLUSTERS)
    errors = kmeans_errors(select, digits, CONV, 200, compute)
    assert errors.max() < 0.15
    assert errors.mean() < 1.2 * kmeans_errors(Uniform(replacement), digits, CONV, 200, compute).mean()
    select = ImportanceKMeans(PIXELS, replacement, formula, CLUSTERS)
    errors = kmeans_errors(select, faded, PIXELS, 200, compute)
    assert errors.max() < 0.15
    assert errors.mean() < 0.3 * kmeans_errors(Uniform(replacement), faded, PIXELS, 200, compute).mean()


@pytest.mark.parametrize("replacement", [False, True])
def test_ridge_guarantee(digits, faded, replacement, compute):
    """Of 100 labellings none is fitted worse than epsilon from a sample of 40 images of each class.

    Less excess than uniform draws, even on the balanced digits, where nothing is rare.
    """
    excess = ridge_excess(ImportanceKRR(CONV, replacement), digits, CONV, 40, compute)
    assert excess.max() < 0.15
    assert excess.mean() < ridge_excess(Uniform(replacement), digits, CONV, 40, compute).mean()
    excess = ridge_excess(ImportanceKRR(PIXELS, replacement), faded, PIXELS, 40, compute)
    assert excess.max() < (0.4 if replacement else 0.15)
    assert excess.mean() < 0.6 * ridge_excess(Uniform(replacement), faded, PIXELS, 40, compute).mean()


def test_weighted_cost_equals_its_twin(digits, compute):
    x = features_of(digits, PIXELS, compute)[:50].numpy()
    weights = np.linspace(0.5, 2, 50)
    got = squared_distances(torch.from_numpy(x), torch.from_numpy(x[:4])).min(1).values @ torch.from_numpy(weights)
    assert float(got) == pytest.approx(twin.kmeans_cost(x, x[:4], weights))


def test_more_images_come_closer(digits, compute):
    errors = [
        float(kmeans_errors(ImportanceKMeans(CONV, clusters=CLUSTERS), digits, CONV, n, compute).mean())
        for n in (25, 200)
    ]
    assert errors[1] < 0.5 * errors[0]


def test_labels_have_gaps(compute):
    chosen = ImportanceKMeans(NARROW)(shapes(), 2, Draw(0), compute)
    assert shapes().labels[chosen.indices].tolist() == [label for label in LABELS for _ in range(2)]
