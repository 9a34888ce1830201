"""Batch norm tested with the statistics of real images."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from condensekit.errors import ConfigError, DataError
from condensekit.nas import ProxyData, train_candidate
from condensekit.nas.rankers.base import Setting
from condensekit.nas.rankers.batch_norm import in_evaluation, real_images
from condensekit.nas.rankers.sets import Maker
from condensekit.nas.rankers.training import ProxyProtocol
from condensekit.rng import Draw
from tests.nas.rankers.test_training import images

PROTOCOL = ProxyProtocol(epochs=4, lr=0.05, batch=16, augmentation=None)


def with_norm():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.5), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
    )


def forward_all(module, real):
    module(real.gather(real.order))  # lazy layers learn their size


def test_the_statistics_are_those_of_the_images_the_mean_over_batches():
    real = images(n=200).compact()
    module = with_norm()
    forward_all(module, real)
    norm = module[1]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with in_evaluation(module, real, torch.device("cpu")):
        assert not any(part.training for part in module.modules())
        order = real.order[Draw(0).permutation("statistics", len(real))]
        maps = [module[0](real.gather(part)).transpose(0, 1).flatten(1) for part in order.split(50)]
        torch.testing.assert_close(norm.running_mean, torch.stack([m.mean(1) for m in maps]).mean(0))
        torch.testing.assert_close(norm.running_var, torch.stack([m.var(1) for m in maps]).mean(0))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert norm.momentum == 0.1
    assert all(part.training for part in module.modules())


class Frozen(nn.BatchNorm2d):
    def train(self, mode=True):
        return super().train(False)


class KeepsItFrozen(nn.Sequential):
    def train(self, mode=True):
        super().train(mode)
        self[1].eval()
        return self


@pytest.mark.parametrize("make", [lambda c: nn.Sequential(c, Frozen(6)), lambda c: KeepsItFrozen(c, nn.BatchNorm2d(6))])
def test_frozen_batch_norm_is_left_alone(make):
    real = images(n=80)
    module = make(nn.Conv2d(1, 6, 3)).train()
    module[1].running_mean += 3
    with in_evaluation(module, real, torch.device("cpu")):
        assert torch.equal(module[1].running_mean, torch.full((6,), 3.0))


def test_an_interrupted_test_leaves_the_module_as_it_was():
    real = images(n=80)
    module = with_norm()
    forward_all(module, real)
    before = {name: value.clone() for name, value in module.state_dict().items()}

    def interrupt(*_):
        raise KeyboardInterrupt

    module[3].register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt), in_evaluation(module, real, torch.device("cpu")):
        pass
    assert all(part.training for part in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("real", "message"),
    [(images(size=9), "'the images for batch norm' and the test images differ"), (None, "at least 2 images, got 1")],
)
def test_images_that_do_not_fit_are_refused(real, message):
    train, test = images().split(0.5, Draw(0))
    with pytest.raises(DataError, match=message):
        ProxyData(train, test, real or train.subset(train.order[:1]))


def test_the_training_goes_on_as_if_there_had_been_no_test():
    train, test = images().split(0.5, Draw(0))
    data = ProxyData(train, test, real_images(train, 30))
    often, once = (train_candidate(with_norm, data, PROTOCOL, last=1, checks=checks) for checks in (5, 0))
    assert often.scores == pytest.approx(once.scores, rel=1e-6)
    assert often.scores["cross-entropy"] == once.scores["cross-entropy"]
    plain = train_candidate(with_norm, replace(data, statistics=None), PROTOCOL, last=1, checks=0)
    assert plain.scores["tse"] == once.scores["tse"]
    assert plain.scores["cross-entropy"] != once.scores["cross-entropy"]


def test_networks_without_batch_norm_are_left_alone():
    train, test = images().split(0.5, Draw(0))

    def linear():
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    first, second = (
        train_candidate(linear, ProxyData(train, test, real), PROTOCOL).scores for real in (None, real_images(train, 9))
    )
    assert first == second


def test_few_images_of_a_class_are_all_taken():
    train = images(n=31)
    assert [real_images(train, 9).count(c) for c in train.classes] == [3, 3, 3]
    assert len(real_images(train, 1000)) == 31


def test_images_are_told_apart_by_their_statistics():
    train, test = images().split(0.5, Draw(0))
    plain, real = ProxyData(train, test), ProxyData(train, test, real_images(train, 9))
    assert plain.fingerprints().items() < real.fingerprints().items()


def test_a_compact_set_holds_its_images_only():
    rest, _ = images().split(0.5, Draw(0))
    alone = rest.compact()
    assert len(alone.images) == len(alone) == len(rest)
    for label in rest.classes:
        assert torch.equal(alone.gather(alone.indices_of(label)), rest.gather(rest.indices_of(label)))


@pytest.mark.parametrize("images_each", [0, 7])
def test_a_setting_says_how_many(images_each):

    train, test = images().split(0.5, Draw(0))
    setting = Setting(Maker(train), test, PROTOCOL, ipc=2, recalibrate=3 * images_each)
    found = setting.trained(train).data.statistics
    assert (found is None) == (images_each == 0)
    assert found is None or len(found) == 21


def test_a_setting_refuses_a_number_below_0():
    train, test = images().split(0.5, Draw(0))
    with pytest.raises(ConfigError, match=r"recalibrate must be .* at least 0.*-5"):
        Setting(Maker(train), test, recalibrate=-5)
