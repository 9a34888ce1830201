"""Batch norm tested with the statistics of real images."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from condensekit.nas import ProxyData, train_candidate
from condensekit.nas.proxies import Setting
from condensekit.nas.proxy_sets import Maker
from condensekit.nas.recalibrate import real_images, statistics_of
from condensekit.nas.training import ProxyProtocol
from condensekit.rng import Draw
from tests.nas.test_training import images

PROTOCOL = ProxyProtocol(epochs=4, lr=0.05, batch=16, augmentation=None)


def with_norm():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.5), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
    )


def test_the_statistics_are_those_of_the_images():
    real = images(n=80).compact()
    module = with_norm()
    module(real.gather(real.order))
    module.eval()
    norm = module[1]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with statistics_of(module, real, torch.device("cpu")):
        assert not any(part.training for part in module.modules())
        maps = module[0](real.gather(real.order)).transpose(0, 1).flatten(1)
        torch.testing.assert_close(norm.running_mean, maps.mean(1), rtol=0, atol=1e-5)
        torch.testing.assert_close(norm.running_var, maps.var(1), rtol=0.02, atol=0)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert norm.momentum == 0.1


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
