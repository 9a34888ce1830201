import pytest
import torch

from condensekit.errors import ConfigError
from condensekit.methods.encoders import Fresh
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw


def weights(encoder, step, attempt=0):
    module = encoder.network.new((3, 8, 8), 2, Draw(0))
    encoder.load(module, Draw(5, step, attempt), {})
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_a_new_network_each_step_and_attempt():
    encoder = Fresh(ConvNet(width=4))
    assert torch.equal(weights(encoder, 1), weights(encoder, 1))
    assert not torch.equal(weights(encoder, 1), weights(encoder, 2))
    assert not torch.equal(weights(encoder, 1), weights(encoder, 1, attempt=1))


def test_a_network_kept_for_k_steps():
    encoder = Fresh(ConvNet(width=4), keep=5)
    first = weights(encoder, 1)
    assert all(torch.equal(first, weights(encoder, step)) for step in range(2, 6))
    assert not torch.equal(first, weights(encoder, 6))


@pytest.mark.parametrize("keep", [0, 1.5, True])
def test_keep_must_be_a_positive_integer(keep):
    with pytest.raises(ConfigError, match=f"keep must be an integer of at least 1, got {keep}"):
        Fresh(keep=keep)
