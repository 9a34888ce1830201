import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from condensekit.compute import without_subnormals
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, DataError
from condensekit.nas import ProxyData, ProxyProtocol, train_candidate
from condensekit.nas.engines.failures import TrialError
from condensekit.nas.names import SCORES
from condensekit.nas.rankers.training import FLIP_CROP
from condensekit.nas.rankers.training import tested_after as placed
from condensekit.nas.trials.time_budget import OutOfTimeError
from condensekit.rng import Draw
from condensekit.sets.condensed import CondensedSet


def images(n=90, classes=3, seed=0, size=8):
    """Classes told apart by where they are bright."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    pixels = rng.integers(0, 90, (n, 1, size, size))
    for i, label in enumerate(labels):
        pixels[i, 0, label * 2 : label * 2 + 2] += 120
    return ClassImages.from_arrays(pixels.astype(np.uint8), labels, mean=(0.3,), std=(0.3,))


@pytest.fixture(scope="module")
def data():
    train, test = images().split(0.5, Draw(0))
    return ProxyData(train, test)


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


QUICK = ProxyProtocol(epochs=8, lr=0.05, batch=16, augmentation=None)


def test_a_candidate_learns_and_every_score_is_there(data):
    heard: list[dict[str, Any]] = []
    result = train_candidate(linear, data, QUICK, report=heard.append)
    assert result.scores["accuracy"] > 0.9
    assert set(result.scores) == set(SCORES)
    assert -math.log(3) < result.scores["cross-entropy"] < 0
    assert 0 < result.scores["margin"] <= 1
    assert result.scores["tse"] == result.curve[-1]["tse"] < 0
    assert list(result.curve) == heard
    steps = math.ceil(8 * len(data.train) / 16)
    early, late = placed(steps, 5, 4)
    assert [entry["step"] for entry in heard] == [*early, *late]
    last = [entry["accuracy"] for entry in result.curve[-len(late) :]]
    assert result.scores["accuracy"] == pytest.approx(sum(last) / len(late))
    assert result.image_steps == steps * 16
    assert not result.problem
    assert not result.stopped


def test_the_same_seed_gives_the_same_bits_whatever_ran_before(data):
    protocol = ProxyProtocol(epochs=3, batch=16)
    first = train_candidate(linear, data, protocol, seed=4)
    torch.rand(7)
    again = train_candidate(linear, data, protocol, seed=4)
    other = train_candidate(linear, data, protocol, seed=5)
    assert first.scores == again.scores != other.scores


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="a processor that cannot")
def test_subnormal_numbers_count_as_zero_in_a_training_and_nowhere_else(data):
    seen = []

    def vanishing():
        seen.append(bool(tiny * 1 == 0))
        return linear()

    tiny = torch.tensor(1e-40)
    train_candidate(vanishing, data, ProxyProtocol(epochs=1))
    assert seen == [True]
    assert tiny * 1 > 0
    with without_subnormals():
        train_candidate(vanishing, data, ProxyProtocol(epochs=1))
        assert tiny * 1 == 0


def test_the_global_generator_and_threads_are_left_alone(data):
    torch.manual_seed(1)
    expected, threads = torch.rand(1), torch.get_num_threads()
    torch.manual_seed(1)
    train_candidate(linear, data, ProxyProtocol(epochs=1))
    assert torch.rand(1) == expected
    assert torch.get_num_threads() == threads


def test_dropout_is_the_same_for_candidates_of_different_size(data):
    """Common random numbers: what a module draws while it is built does not shift what it draws in training."""
    seen = []

    class Spy(nn.Module):
        def __init__(self, extra):
            super().__init__()
            self.body, self.unused = linear(), nn.Linear(extra, extra)

        def forward(self, x):
            if self.training:
                seen.append(torch.rand(1).item())
            return self.body(x)

    protocol = ProxyProtocol(epochs=1, batch=100, augmentation=None)
    for extra in (2, 9):
        train_candidate(partial(Spy, extra), data, protocol, last=1, checks=0)
    half = len(seen) // 2
    assert seen[:half] == seen[half:]


def test_a_condensed_set_with_soft_labels(data):
    train = data.train
    chosen = torch.cat([train.indices_of(label)[:4] for label in train.classes])
    labels = train.labels[chosen]
    soft = nn.functional.one_hot(labels, 3).float() * 0.9 + 0.1 / 3
    condensed = CondensedSet.from_images(train.gather(chosen), labels, train.spec, soft_labels=soft)
    result = train_candidate(linear, ProxyData(condensed, data.test), QUICK)
    assert result.scores["accuracy"] > 0.8
    assert result.image_steps == 6 * 16  # 8 passes over 12 images, in full batches
    wider = partial(nn.Sequential, nn.Flatten(), nn.Linear(64, 5))
    wide = train_candidate(wider, ProxyData(condensed, data.test), QUICK)
    assert wide.scores["accuracy"] > 0.8  # further outputs stand for no class


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            lambda y: (y, y),
            r"returns a tuple, expected a tensor \(16, 3\): one output for each class, without",
        ),
        (lambda y: y[:, :2], r"are \(16, 2\) of float32, expected a tensor \(16, 3\)"),
        (lambda y: y.mean(), r"are \(\) of float32"),
    ],
)
def test_outputs_that_are_no_logits_are_told_in_the_words_of_the_task(data, answer, told):
    class Answers(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = linear()

        def forward(self, x):
            return answer(self.body(x))

    with pytest.raises(TrialError, match=told):
        train_candidate(Answers, data, QUICK)


def test_a_diverging_candidate_says_so(data):
    result = train_candidate(linear, data, ProxyProtocol(epochs=50, lr=1e30, batch=16))
    assert result.problem.startswith("diverged by step 20 of ")
    assert result.scores == {}


def test_a_candidate_whose_outputs_become_infinite_only_in_tests(data):
    class Breaks(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = linear()

        def forward(self, x):
            return self.body(x) if self.training else self.body(x) * float("nan")

    assert "outputs not finite" in train_candidate(Breaks, data, ProxyProtocol(epochs=2)).problem


def test_a_hopeless_candidate_is_given_up(data):
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(3))

        def forward(self, x):
            return self.bias.expand(len(x), 3)

    protocol = ProxyProtocol(epochs=40, batch=100, augmentation=None)
    result = train_candidate(Constant, data, protocol, last=2, checks=3, hopeless=1.5)
    assert result.stopped
    assert len(result.curve) == 1
    assert result.image_steps < 15 * 100
    kept = train_candidate(linear, data, protocol, last=2, checks=3, hopeless=1.5)
    assert not kept.stopped


def test_steps_in_place_of_epochs(data):
    result = train_candidate(linear, data, ProxyProtocol(steps=5, batch=20, augmentation=None))
    assert result.image_steps == 5 * 20
    assert result.curve[-1]["step"] == 5


@pytest.mark.parametrize("size", [3, 21, 45])
def test_sets_of_any_size_pass_equally_many_images_and_are_tested_at_the_same_steps(data, size):
    """Each image equally often, one more or less, whether a batch holds several passes or a part of one."""
    seen: list[float] = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = linear()

        def forward(self, x):
            seen.extend(x.flatten(1).sum(1).tolist() if self.training else [])
            return self.body(x)

    train = data.train.subset(data.train.order[:size])
    protocol = ProxyProtocol(steps=30, batch=16, augmentation=None)
    result = train_candidate(Spy, ProxyData(train, data.test), protocol)
    assert result.image_steps == len(seen) == 30 * 16
    counts = np.unique(np.round(seen, 3), return_counts=True)[1]
    assert counts.sum() == 480
    assert counts.max() - counts.min() <= 1
    assert [entry["step"] for entry in result.curve] == [5, 11, 16, 22, 28, 29, 30]


def test_a_caller_may_stop_a_training(data):
    asked = iter([False, False, True])
    with pytest.raises(OutOfTimeError, match="after 2 of 30 training steps"):
        train_candidate(linear, data, ProxyProtocol(steps=30), stop=lambda: next(asked))


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_schedules_and_augmentation(data, schedule):
    protocol = ProxyProtocol(epochs=6, lr=0.05, schedule=schedule, nesterov=True, augmentation=FLIP_CROP)
    assert train_candidate(linear, data, protocol).scores["accuracy"] > 0.6


def test_flip_and_crop_change_images_one_after_the_other(data):
    batch = data.test.gather(data.test.order[:8])
    both = ProxyProtocol(augmentation=FLIP_CROP).augment(batch, Draw(0))
    one = ProxyProtocol(augmentation=FLIP_CROP[0]).augment(batch, Draw(0))
    assert not both.equal(one)
    assert ProxyProtocol(augmentation=None).augment(batch, Draw(0)).equal(batch)


def test_batch_norm_and_unused_parameters(data):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.unused = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(3, 3)
            self.last = nn.Linear(4 * 36, 3)

        def forward(self, x):
            return self.last(self.norm(self.conv(x)).flatten(1))

    assert train_candidate(Net, data, QUICK).scores["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0, "lr": -1}, "epochs must be an integer of at least 1, got 0; lr must be positive"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov needs"),
        ({"steps": 0}, "steps must be"),
    ],
)
def test_bad_protocols(options, message):
    with pytest.raises(ConfigError, match=message):
        ProxyProtocol(**options)


def test_bad_numbers_and_no_parameters(data):
    for options in ({"last": 0}, {"checks": -1}, {"hopeless": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            train_candidate(linear, data, QUICK, **options)
    with pytest.raises(ConfigError, match="no parameters"):
        train_candidate(nn.Flatten, data, QUICK)


def test_sets_that_do_not_fit():
    with pytest.raises(DataError, match="differ in shape"):
        ProxyData(images(size=8), images(size=9))
    assert ProxyData(images(classes=3), images(classes=2)).classes == (0, 1, 2)


@pytest.mark.parametrize(("steps", "last", "checks"), [(1, 5, 4), (10, 5, 4), (100, 5, 4), (100, 1, 0), (6, 5, 4)])
def test_when_there_are_tests(steps, last, checks):
    early, late = placed(steps, last, checks)
    assert late[-1] == steps
    assert min([*early, *late]) >= 1
    assert len(early) <= checks
    assert 1 <= len(late) <= last
    assert not set(early) & set(late)


def test_tests_stand_at_the_same_fractions_of_any_length():
    parts = [[step / steps for part in placed(steps, 5, 4) for step in part] for steps in (100, 500, 10_000)]
    assert parts[0] == parts[1] == parts[2]
    assert parts[0][-5:] == [0.92, 0.94, 0.96, 0.98, 1.0]
