"""The networks of transfer tests: sizes as the authors', any image size, names, fresh weights."""

import pytest
import torch
from torch import nn

from condensekit import catalog
from condensekit.errors import ConfigError
from condensekit.networks.base import separable
from condensekit.networks.classics import MLP, VGG11, AlexNet, LeNet
from condensekit.rng import Draw

RECIPES = [MLP(), LeNet(), AlexNet(), VGG11(), VGG11("batch")]
VGG_CONVOLUTIONS = [(3, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512), (512, 512), (512, 512)]


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("network", "shape", "parameters", "dim"),
    [
        (MLP(), (1, 28, 28), 784 * 128 + 128 + 128 * 128 + 128 + 1290, 128),
        (MLP(), (3, 32, 32), 3072 * 128 + 128 + 128 * 128 + 128 + 1290, 128),
        (LeNet(), (1, 28, 28), 61_706, 84),
        (LeNet(), (3, 32, 32), 62_006, 84),
        (AlexNet(), (3, 32, 32), 9_728 + 614_592 + 442_624 + 442_560 + 331_968 + 30_730, 3072),
        (AlexNet(), (1, 28, 28), 3_328 + 614_592 + 442_624 + 442_560 + 331_968 + 30_730, 3072),
        (VGG11(), (3, 32, 32), sum(a * b * 9 + 3 * b for a, b in VGG_CONVOLUTIONS) + 5_130, 512),
        (VGG11("batch"), (1, 28, 28), sum(a * b * 9 + 3 * b for a, b in VGG_CONVOLUTIONS) - 2 * 64 * 9 + 5_130, 512),
        (VGG11(), (3, 64, 64), sum(a * b * 9 + 3 * b for a, b in VGG_CONVOLUTIONS) + 20_490, 2048),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_sizes_are_the_authors(network, shape, parameters, dim):
    module = network.build(shape, 10)
    assert (count(module), module.feature_dim) == (parameters, dim)
    images = torch.empty(2, *shape, device="meta")
    assert module.features(images).shape == (2, dim)
    assert module(images).shape == (2, 10)


@pytest.mark.parametrize("network", RECIPES, ids=lambda n: n.name)
def test_fresh_weights_follow_the_draw_and_train(network):
    shape = (1, 32, 32)
    module = network.new(shape, 3, Draw(1))
    images = torch.randn(4, *shape)
    first = module(images).detach()
    assert torch.isfinite(first).all()
    assert first.std(0).min() > 0
    network.fill_(module, Draw(2), "network")
    assert not torch.equal(first, module(images))
    network.fill_(module, Draw(1), "network")
    torch.testing.assert_close(first, module(images).detach())
    nn.functional.cross_entropy(module(images), torch.tensor([0, 1, 2, 0])).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())
    assert separable(module) == (network != VGG11("batch"))


@pytest.mark.parametrize("network", RECIPES, ids=lambda n: n.name)
def test_a_name_gives_its_network_back(network):
    assert catalog.network(network.name) == network


@pytest.mark.parametrize("network", [LeNet(), AlexNet(), VGG11()], ids=lambda n: n.name)
def test_images_that_are_too_small_are_refused(network):
    with pytest.raises(ConfigError, match=rf"{network.name} leaves nothing of a 7x7 image: use larger images"):
        network.build((3, 7, 7), 10)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: VGG11("layer"), "unknown norm 'layer'"),
        (lambda: catalog.network("VGG11-w8"), "unknown option of network 'VGG11' 'w8'"),
        (lambda: catalog.network("AlexNet-batch"), "unknown option of network 'AlexNet' 'batch'"),
        (lambda: MLP().build((1, 8, 8), 0), "at least 1 class"),
    ],
)
def test_bad_options(make, says):
    with pytest.raises(ConfigError, match=says):
        make()
