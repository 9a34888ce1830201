"""Zero-cost scores: against slow twins written differently, and against properties that their papers claim."""

import math

import pytest
import torch
from torch import nn

from condensekit.errors import ConfigError
from condensekit.nas.names import ZERO_COST
from condensekit.nas.rankers import zero_cost
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw, isolated

IMAGES = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def convnet(seed=0, **options):
    return ConvNet(**{"width": 8, "depth": 2, **options}).new((3, 8, 8), 4, Draw(seed))


@pytest.mark.parametrize("kind", ZERO_COST)
@pytest.mark.parametrize("norm", ["none", "batch", "instance"])
def test_scores_are_finite_and_repeatable(kind, norm):
    before = torch.get_rng_state()
    first = zero_cost.score(kind, convnet(norm=norm), IMAGES, 5)
    assert first is not None
    assert math.isfinite(first)
    assert first == zero_cost.score(kind, convnet(norm=norm), IMAGES, 5)
    assert torch.equal(before, torch.get_rng_state())


def test_synflow_of_a_linear_chain_is_its_product_counted_once_a_layer():
    layers = nn.Linear(12, 5, bias=False), nn.Linear(5, 2, bias=False)
    chain = nn.Sequential(nn.Flatten(), layers[0], nn.ReLU(), layers[1])
    first, second = (layer.weight.detach().abs().double() for layer in layers)
    flow = (second @ first @ torch.ones(12, dtype=torch.float64)).sum()
    assert zero_cost.synflow(chain, torch.zeros(2, 3, 2, 2)) == pytest.approx(math.log(2 * float(flow)), rel=1e-9)


def test_synflow_does_not_touch_the_network_and_survives_great_depth():
    module = convnet(norm="batch")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    zero_cost.synflow(module, IMAGES)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    parts = [nn.Conv2d(3, 3, 3, padding=1) for _ in range(60)]
    deep = nn.Sequential(*parts)
    for part in parts:
        nn.init.constant_(part.weight, 3.0)
    assert math.isfinite(zero_cost.synflow(deep, IMAGES))


def test_nwot_is_the_logdet_of_agreeing_signs():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 3))
    codes = (module[0](IMAGES) > 0).flatten(1)
    kernel = torch.tensor([[float((a == b).sum()) for b in codes] for a in codes], dtype=torch.float64)
    assert zero_cost.nwot(module, IMAGES) == pytest.approx(float(torch.logdet(kernel)), rel=1e-9)


def test_nwot_needs_activation_modules():
    with pytest.raises(ConfigError, match="activation modules"):
        zero_cost.score("nwot", nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), IMAGES)


def test_jacov_is_the_eigenvalue_score_of_the_jacobians_correlations():
    module = convnet(norm="none").double()
    rows = []
    for image in IMAGES.double():
        x = image[None].clone().requires_grad_(True)
        module(x).sum().backward()
        rows.append(x.grad.flatten())
    values = torch.linalg.eigvalsh(torch.corrcoef(torch.stack(rows))) + zero_cost.EIGENVALUE_FLOOR
    expected = -float((values.log() + 1 / values).sum())
    assert zero_cost.jacov(module, IMAGES.double()) == pytest.approx(expected, rel=1e-4)


def test_jacov_of_a_linear_network_is_the_worst():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    assert zero_cost.jacov(linear, IMAGES) < zero_cost.jacov(convnet(norm="none"), IMAGES)


def test_zen_ignores_weights_and_images_but_not_depth():
    scores = {seed: zero_cost.zen(convnet(seed, norm="batch"), IMAGES, 3) for seed in (0, 1)}
    assert scores[0] == scores[1] == zero_cost.zen(convnet(norm="batch"), 5 * IMAGES, 3)
    assert zero_cost.zen(convnet(norm="batch", width=32), IMAGES, 3) > scores[0]


def test_zen_undoes_the_scaling_by_batch_norms_running_variance():
    module = convnet(norm="batch", width=32).train()
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    expected = torch.zeros(())
    with isolated(3), torch.no_grad():
        for _ in range(zero_cost.ZEN_PAIRS):
            for part in module.modules():
                if isinstance(part, nn.Conv2d | nn.Linear):
                    assert part.bias is not None
                    part.weight.normal_()
                    part.bias.zero_()
            for part in norms:
                part.reset_running_stats()
            first, second = torch.randn(2, *IMAGES[: zero_cost.ZEN_IMAGES].shape)
            maps = module.features(first), module.features(first + zero_cost.BLENDED_SHARE * second)
            expected += (maps[1] - maps[0]).abs().flatten(1).sum(1).mean().log()
            for part in norms:
                assert part.running_var is not None
                expected += part.running_var.mean().sqrt().log()
    assert zero_cost.zen(module, IMAGES, 3) == pytest.approx(float(expected) / zero_cost.ZEN_PAIRS, rel=1e-3)


def test_zen_counts_a_batch_norm_of_flat_features_as_one_of_maps_of_one_pixel():
    maps = nn.Sequential(
        nn.Conv2d(3, 6, 8), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 1), nn.BatchNorm2d(5), nn.Flatten()
    )
    flat = nn.Sequential(
        nn.Flatten(), nn.Linear(192, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 5), nn.BatchNorm1d(5)
    )
    first, second = (zero_cost.zen(nn.Sequential(body, nn.Linear(5, 4)), IMAGES, 3) for body in (maps, flat))
    assert second == pytest.approx(first, rel=1e-5)
    later = nn.Sequential(flat, nn.Linear(5, 4), nn.BatchNorm1d(4))
    assert zero_cost.zen(later, IMAGES, 3) == pytest.approx(first, rel=1e-5)  # a norm after the last map


def test_zen_refuses_a_last_map_that_is_used_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(192, 192)

        def forward(self, x):
            return self.last(self.last(x.flatten(1)))

    with pytest.raises(ConfigError, match="uses its last pooling or linear layer exactly once"):
        zero_cost.zen(Twice(), IMAGES)


def test_what_is_not_finite_is_none():
    linear = nn.Linear(192, 4)
    module = nn.Sequential(nn.Flatten(), linear)
    nn.init.zeros_(linear.weight)
    assert zero_cost.score("synflow", module, IMAGES) is None
    assert zero_cost.score("jacov", module, IMAGES) is None


def test_unknown_kind_is_named():
    with pytest.raises(ConfigError, match=r"unknown zero-cost score 'synflo'.*Did you mean 'synflow'"):
        zero_cost.score("synflo", convnet(), IMAGES)
