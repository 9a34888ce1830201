import dataclasses
import logging
import math
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from condensekit.compute import Compute, Machine
from condensekit.data import datasets
from condensekit.data.images import ClassImages
from condensekit.driver import Saving, condense
from condensekit.errors import ConfigError
from condensekit.methods import DistributionMatching, sampling
from condensekit.methods.encoders import Fresh
from condensekit.methods.recipe import Recipe
from condensekit.methods.sampling import (
    Clustered,
    Importance,
    Ranked,
    Uniform,
    Weighted,
    relative,
    representatives,
)
from condensekit.methods.scorer import LIGHT, TrainedEmbedding, cross_entropies, lightly_trained
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw
from condensekit.selection.base import Noise
from condensekit.selection.classic import KMeans
from condensekit.selection.embeddings import Pixels, RandomEmbedding
from condensekit.sets.condensed import CondensedSet
from condensekit.testing import LABELS, SelectionContract, shapes
from condensekit.training.train import class_indices
from tests.reference import importance_twin as twin

TINY = ConvNet(width=8)
SHORT = dataclasses.replace(LIGHT, steps=5, batch=16)
IMPORTANCE = Importance("none", refresh=3, network=TINY, protocol=SHORT)
CLUSTERED = Clustered(clusters=3, refresh=3, embedding=RandomEmbedding(TINY))
ALL = [Uniform(), IMPORTANCE, dataclasses.replace(IMPORTANCE, weights="unbiased"), CLUSTERED]
ids = ["uniform", "importance", "unbiased", "kmeans"]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def compute():
    with Compute(Machine("cpu", workers=0)) as compute:
        yield compute


def probabilities(data, seed=0):
    parts = []
    for label in data.classes:
        losses = Draw(seed).uniform64("losses", torch.tensor([label]), data.count(label))[0] ** 3
        parts.append(relative(losses, 0.1))
    return parts


# what every sampling keeps


@pytest.mark.parametrize("sampling", ALL, ids=ids)
def test_batches_hold_images_of_their_class_and_weights_fit(sampling, compute):
    data = shapes()
    indices, weights = sampling.sampler(data, Draw(0, 1), compute).draw(data, data.classes, 20, Draw(0, 1))
    assert indices.shape == (4, 20)
    assert (data.labels[indices] == torch.tensor(data.classes)[:, None]).all()
    if weights is not None:
        assert weights.shape == (4, 20)
        assert weights.dtype == torch.float32
        assert (weights > 0).all()


@pytest.mark.parametrize("sampling", ALL, ids=ids)
def test_rows_do_not_depend_on_the_classes_asked_for(sampling, compute):
    data, draw = shapes(), Draw(0, 1)
    sampler = sampling.sampler(data, draw, compute)
    whole = sampler.draw(data, data.classes, 7, draw)
    for row, label in enumerate(data.classes):
        alone = sampler.draw(data, [label], 7, draw)
        assert torch.equal(whole[0][row : row + 1], alone[0])
        assert (whole[1] is None) == (alone[1] is None)
        assert whole[1] is None or torch.equal(whole[1][row : row + 1], alone[1])
    assert torch.equal(sampler.draw(data, data.classes[::-1], 7, draw)[0], whole[0].flip(0))


@pytest.mark.parametrize("sampling", ALL, ids=ids)
def test_a_separable_sampling_draws_the_same_when_classes_are_left_out(sampling, compute):
    data, draw = shapes(), Draw(0, 1)
    whole = sampling.sampler(data, draw, compute).draw(data, data.classes, 7, draw)[0]
    part = data.select(LABELS[1:3])
    alone = sampling.sampler(part, draw, compute).draw(part, part.classes, 7, draw)[0]
    assert torch.equal(whole[1:3], alone) == sampling.separable


@pytest.mark.parametrize("sampling", ALL, ids=ids)
def test_the_sampler_is_a_function_of_data_seed_and_turn(sampling, compute):
    """With or without the sampler of the step before, whatever the global generator does, on a retry too."""
    data, before = shapes(), None
    for step in range(1, 9):
        draw = Draw(4, step)
        before = sampling.sampler(data, draw, compute, before)
        torch.rand(3)
        again = sampling.sampler(data, dataclasses.replace(draw, attempt=1), compute)
        assert torch.equal(before.draw(data, data.classes, 9, draw)[0], again.draw(data, data.classes, 9, draw)[0])


@pytest.mark.parametrize("sampling", ALL[1:], ids=ids[1:])
def test_a_refresh_is_due_every_so_many_steps_and_only_then(sampling, compute):
    data, before, seen = shapes(), None, []
    for step in range(1, 8):
        sampler = sampling.sampler(data, Draw(0, step), compute, before)
        seen.append(sampler is not before)
        before = sampler
    assert seen == [True, False, False, True, False, False, True]


@pytest.mark.parametrize("sampling", ALL[1:], ids=ids[1:])
def test_each_turn_and_each_seed_has_its_own_network(sampling, compute):
    data = shapes(40)
    batches = [
        sampling.sampler(data, Draw(seed, step), compute).draw(data, data.classes, 5, Draw(0, 1))[0]
        for seed, step in ((0, 1), (0, 4), (1, 1))
    ]
    assert not torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[0], batches[2])


@pytest.mark.parametrize("sampling", ALL, ids=ids)
def test_classes_of_one_image_and_equal_images(sampling, compute):
    images = torch.full((7, 3, 8, 8), 9, dtype=torch.uint8)
    data = ClassImages.from_arrays(images, torch.tensor([4, 0, 0, 0, 0, 0, 0]))
    indices, weights = sampling.sampler(data, Draw(0, 1), compute).draw(data, (0, 4), 6, Draw(0, 1))
    assert sorted(indices[0].tolist()) == [1, 2, 3, 4, 5, 6]
    assert indices[1].tolist() == [0] * 6
    if weights is not None:
        torch.testing.assert_close(weights, torch.ones(2, 6))


@pytest.mark.parametrize("sampling", ALL, ids=ids)
def test_only_listed_images_are_drawn(sampling, compute):
    data = shapes().split(0.5, Draw(0))[0]
    indices, _ = sampling.sampler(data, Draw(0, 1), compute).draw(data, data.classes, 30, Draw(0, 1))
    assert set(indices.flatten().tolist()) <= set(data.order.tolist())


@pytest.mark.parametrize("sampling", ALL, ids=ids)
def test_condenses(sampling):
    recipe = Recipe(DistributionMatching(batch_real=8), Fresh(TINY), sampling=sampling)
    result = condense(shapes(), recipe, ipc=2, steps=5, machine=Machine("cpu", workers=1))
    assert result.status.value == "finished"
    assert torch.isfinite(result.set.images).all()
    assert result.set.provenance["config"]["sampling"]["name"] == sampling.name
    assert result.set.provenance["separable"] == sampling.separable


def test_names_and_bad_options():
    assert [s.name for s in ALL] == ["uniform", "importance", "importance", "kmeans"]
    with pytest.raises(ConfigError, match="weights must be one of unbiased, none, got 'some'; epsilon must lie in"):
        Importance(weights="some", epsilon=1.5)
    with pytest.raises(ConfigError, match="needs epsilon above 0"):
        Importance(epsilon=0)
    with pytest.raises(ConfigError, match="refresh must be an integer of at least 1, got 0"):
        Importance(refresh=0)
    with pytest.raises(ConfigError, match=r"clusters must be an integer .* got 0; refresh .* got 1\.5"):
        Clustered(clusters=0, refresh=1.5)


# probabilities


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20), st.floats(0, 1))
def test_relative_equals_its_twin(losses, epsilon):
    got = relative(torch.tensor(losses, dtype=torch.float64), epsilon)
    np.testing.assert_allclose(got, twin.relative(losses, epsilon), rtol=1e-9, atol=1e-12)
    assert float(got.sum()) == pytest.approx(1)
    assert (got >= 0.999 * epsilon / len(losses)).all()


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_losses_that_are_zero_or_not_finite_give_equal_probabilities(bad):
    losses = torch.tensor([0, 0, bad, 0], dtype=torch.float64)
    assert relative(losses, 0.0).tolist() == [0.25] * 4


@pytest.mark.parametrize("n", [1, 5, 40])
def test_draws_equal_the_twin(n):
    data, draw = shapes(), Draw(3, 2)
    parts = probabilities(data)
    indices, weights = Weighted(0, data, parts, True).draw(data, data.classes, n, draw)
    within = draw.uniform64("real", torch.tensor(data.classes), n)
    for row, label in enumerate(data.classes):
        p = parts[row].tolist()
        places = [twin.inverse_cdf(p, (j + float(within[row, j])) / n) for j in range(n)]
        assert weights is not None
        assert indices[row].tolist() == data.indices_of(label)[places].tolist()
        inverse = np.array([1 / (data.count(label) * p[place]) for place in places])
        np.testing.assert_allclose(weights[row], inverse / inverse.mean(), rtol=1e-6)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12).filter(lambda p: sum(p) > 1e-3), st.integers(1, 50))
@settings(deadline=None)
def test_every_image_is_drawn_about_as_often_as_it_should(p, n):
    """Stratified: within 2 of n p, for any distribution; never one of probability 0, even at the ends."""
    p = torch.tensor(p, dtype=torch.float64)
    p = p / p.sum()
    images = torch.zeros(2 * len(p), 1, 2, 2, dtype=torch.uint8)
    data = ClassImages.from_arrays(images, torch.arange(2).repeat_interleave(len(p)))
    indices, _ = Weighted(0, data, [p, p], False).draw(data, (1, 0), n, Draw(1))
    for row, start in ((0, len(p)), (1, 0)):
        times = torch.bincount(indices[row] - start, minlength=len(p))
        assert ((times - n * p).abs() < 2 + 1e-9).all()
        assert (times[p == 0] == 0).all()


def test_a_point_that_rounds_up_to_the_end_stays_in_its_class(monkeypatch):
    data = shapes()
    top = torch.nextafter(torch.ones(4, 3, dtype=torch.float64), torch.zeros(()).double())
    monkeypatch.setattr(Draw, "uniform64", lambda *_: top)
    parts = [torch.eye(data.count(label), dtype=torch.float64)[0] for label in data.classes]  # only the first image
    indices, _ = Weighted(0, data, parts, False).draw(data, data.classes, 3, Draw(0))
    assert indices.tolist() == [[int(data.indices_of(label)[0])] * 3 for label in data.classes]


def test_probabilities_of_the_draws():
    data = shapes()
    parts = probabilities(data)
    sampler = Weighted(0, data, parts, False)
    drawn = [sampler.draw(data, data.classes, 3, Draw(0, step))[0] for step in range(3000)]
    times = torch.bincount(torch.stack(drawn).flatten(), minlength=len(data)).double()
    torch.testing.assert_close(times[data.order] / 9000, torch.cat(parts), atol=0.01, rtol=0)


@pytest.mark.parametrize("n", [16, 64])
def test_unbiased_weights_give_the_class_mean(n):
    """2,000 weighted batch means: off by at most 1 / n of the spread on average, and closer than with weights that
    are exactly unbiased; means without weights are of something else."""
    data = shapes()
    value = 3 + Draw(8).uniform64("losses", torch.arange(1), len(data.labels))[0]
    parts = probabilities(data)
    sampler, p = Weighted(0, data, parts, True), torch.cat(parts)[data.order.argsort()]
    weighted, exact, plain = [], [], []
    for step in range(2000):
        indices, weights = sampler.draw(data, data.classes, n, Draw(0, step))
        size = torch.tensor([data.count(label) for label in data.classes])[:, None]
        assert weights is not None
        weighted.append((weights * value[indices]).mean(1))
        exact.append((value[indices] / (size * p[indices])).mean(1))
        plain.append(value[indices].mean(1))
    wanted = torch.stack([value[data.indices_of(label)].mean() for label in data.classes])
    errors = [torch.stack(means) - wanted for means in (weighted, exact, plain)]
    assert (errors[0].mean(0).abs() < 1 / n).all()
    assert (errors[0].square().mean(0) < errors[1].square().mean(0)).all()
    assert (errors[2].mean(0).abs().max() > 4 * errors[0].mean(0).abs().max()).all()


def test_unbiased_weights_stay_below_one_over_epsilon(compute):
    data, draw = shapes(), Draw(0, 1)
    sampler = Importance(epsilon=0.25, network=TINY, protocol=SHORT).sampler(data, draw, compute)
    assert isinstance(sampler, Weighted)
    sizes = data.offsets.diff().repeat_interleave(data.offsets.diff())
    assert (1 / (sizes * sampler.probability)).max() <= 4.001


# the scorer


def test_losses_are_those_of_the_network_on_listed_images(compute):
    data = shapes().split(0.5, Draw(0))[0]
    module = lightly_trained(data, TINY, SHORT, Draw(0), compute)
    losses = cross_entropies(module, data, compute)
    for place in (0, 7, len(data) - 1):
        index = data.order[place]
        logits = module(data.gather(index[None])).double()[0]
        target = int(class_indices(data.labels[index], data.classes))
        expected = logits.logsumexp(0) - logits[target]
        assert float(losses[place]) == pytest.approx(float(expected), rel=1e-4, abs=1e-6)


def test_images_of_another_class_are_drawn_more_often(compute):
    """Twenty digits that carry a wrong label are what the scorer finds hard."""
    train, _ = datasets.load("digits")
    labels = train.labels.clone()
    wrong = train.indices_of(3)[:20]
    labels[wrong] = 8
    data = ClassImages(train.images, labels, train.spec).subset(train.order)
    draw = Draw(0, 1)
    sampler = Importance(network=TINY).sampler(data, draw, compute)
    share = torch.isin(sampler.draw(data, [8], 1000, draw)[0], wrong).double().mean()
    assert share > 1.5 * 20 / data.count(8)


def test_one_class_alone_is_drawn_uniformly(compute):
    data, draw = shapes().select([7]), Draw(0, 1)
    sampler = IMPORTANCE.sampler(data, draw, compute)
    assert isinstance(sampler, Weighted)
    torch.testing.assert_close(sampler.probability, torch.full((14,), 1 / 14, dtype=torch.float64))


def test_a_scorer_that_diverges_is_reported_and_its_classes_drawn_uniformly(compute, caplog, monkeypatch):
    data = shapes()
    monkeypatch.setattr(sampling, "cross_entropies", lambda *_: torch.full((len(data),), math.nan).double())
    with caplog.at_level(logging.WARNING, "condensekit"):
        sampler = IMPORTANCE.sampler(data, Draw(0, 1), compute)
    assert "the scorer diverged" in caplog.text
    assert isinstance(sampler, Weighted)
    assert sampler.probability[0] == pytest.approx(1 / 12)


class TestTrainedEmbedding(SelectionContract):
    """As an embedding of selections it keeps their contract, but for the classes, which it sees together."""

    def make(self):
        return KMeans(TrainedEmbedding(TINY, SHORT))

    test_classes_apart_equal_classes_together = None  # type: ignore[assignment]


def test_clusters_of_a_trained_network(compute):
    sampling = dataclasses.replace(CLUSTERED, embedding=TrainedEmbedding(TINY, SHORT))
    assert not sampling.separable
    data = shapes()
    indices, _ = sampling.sampler(data, Draw(0, 1), compute).draw(data, data.classes, 3, Draw(0, 1))
    assert all(len(set(row)) == 3 for row in indices.tolist())


# clusters


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 4, 30])
def test_representatives_equal_their_twin(seed, k):
    x = np.random.default_rng(seed).standard_normal((30, 5))
    got = representatives(torch.from_numpy(x), torch.from_numpy(x[:k] + 0.1))
    order, cluster = got
    assert order.tolist() == twin.representatives(x, x[:k] + 0.1)
    assert sorted(order.tolist()) == list(range(30))
    assert cluster.tolist() == [int(((x[:k] + 0.1 - x[row]) ** 2).sum(1).argmin()) for row in order]


def test_a_batch_represents_every_kind(compute):
    """Of three kinds, 40, 8 and 4 images, each gives its middle ones, a third, weighing its share."""
    levels = torch.tensor([0, 120, 250]).repeat_interleave(torch.tensor([40, 8, 4]))
    images = (levels + torch.arange(52) % 5).to(torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4)
    data = ClassImages.from_arrays(images, torch.zeros(52, dtype=torch.int64))
    sampler = Clustered(clusters=3, embedding=Pixels()).sampler(data, Draw(0, 1), compute)
    indices, weights = sampler.draw(data, [0], 6, Draw(0, 1))
    assert weights is not None
    assert levels[indices[0]].tolist() == [0, 120, 250] * 2
    torch.testing.assert_close(weights[0], torch.tensor([40, 8, 4] * 2) * 3 / 52)


def test_a_small_class_is_used_again():
    data = shapes()
    sampler = Ranked(0, {7: (torch.tensor([30, 28, 29]), torch.tensor([1, 0, 1]))})
    indices, weights = sampler.draw(data, [7], 8, Draw(0))
    assert indices.tolist() == [[30, 28, 29, 30, 28, 29, 30, 28]]
    torch.testing.assert_close(
        weights, torch.tensor([[2 / 5, 1 / 3, 2 / 5, 2 / 5, 1 / 3, 2 / 5, 2 / 5, 1 / 3]]) * 8 / 3
    )


@pytest.mark.parametrize("n", [8, 64, 128])
def test_clustered_batches_come_closer_to_the_class_mean_than_uniform_ones(compute, n):
    """Also closer than without weights, which stand for the rare as if it were common."""
    train, _ = datasets.load("digits")
    draw, features = Draw(0, 1), train.gather(torch.arange(len(train.labels))).flatten(1)
    sampler = Clustered(clusters=n, embedding=Pixels()).sampler(train, draw, compute)
    mean = torch.stack([features[train.indices_of(label)].mean(0) for label in train.classes])

    def gap(indices, weights):
        return ((features[indices] * weights[..., None]).mean(1) - mean).square().sum(1).mean()

    indices, weights = sampler.draw(train, train.classes, n, draw)
    assert weights is not None
    equal = torch.ones_like(weights)
    assert gap(indices, weights) < gap(indices, equal)
    assert gap(indices, weights) < gap(train.draw_indices(train.classes, n, draw), equal)


# resume

CHILD = """
import os, signal, sys
from pathlib import Path
from condensekit.driver import Saving
from condensekit.methods import DistributionMatching
from tests.methods.test_sampling import CLUSTERED, IMPORTANCE, long_run

real = DistributionMatching.step

def step(self, state, ctx):
    if ctx.draw.step == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, state, ctx)

DistributionMatching.step = step
long_run({"importance": IMPORTANCE, "kmeans": CLUSTERED}[sys.argv[1]], Saving(Path(sys.argv[2]), every=5))
"""


def long_run(sampling, saving=None):
    recipe = Recipe(DistributionMatching(batch_real=8), Fresh(TINY), sampling=sampling, init=Noise())
    return condense(shapes(), recipe, ipc=2, steps=12, machine=Machine("cpu", workers=1), saving=saving)


@pytest.mark.parametrize("sampling", [IMPORTANCE, CLUSTERED], ids=["importance", "kmeans"])
def test_killed_after_a_refresh_and_resumed_gives_the_same_bits(sampling, tmp_path):
    """Killed in step 8, after the refresh at step 7; the checkpoint of step 5 lies within the turn before it."""
    folder = tmp_path / "run"
    child = subprocess.run([sys.executable, "-c", CHILD, sampling.name, str(folder)], cwd=ROOT, capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    assert [path.name for path in (folder / "checkpoints").glob("*")] == ["step-000005.safetensors"]
    resumed = long_run(sampling, Saving(folder, resume=True, every=5))
    assert [row["step"] for row in resumed.history] == list(range(6, 13))
    whole = long_run(sampling).set.images
    assert torch.equal(resumed.set.images, whole)
    assert torch.equal(CondensedSet.load(folder / "set.safetensors").images, whole)
    assert not torch.equal(whole, long_run(Uniform()).set.images)
