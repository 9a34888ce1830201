from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from condensekit.errors import ConfigError
from condensekit.networks.adaptor import TorchvisionNetwork
from condensekit.networks.base import ACTIVATIONS, NORMS, POOLINGS, FeatureNetwork, Network, separable
from condensekit.networks.convnet import ConvNet
from condensekit.networks.resnet import ResNet18
from condensekit.rng import Draw, isolated

RECIPES = [ConvNet(width=8), ResNet18(width=4), ResNet18("instance", width=4), TorchvisionNetwork()]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("shape", "classes", "parameters", "dim"),
    [
        ((3, 32, 32), 10, 320_010, 2048),
        ((3, 32, 32), 100, 504_420, 2048),
        ((1, 28, 28), 10, 317_706, 2048),  # padded to 32x32 by the first convolution
        ((3, 64, 64), 200, 857_160, 2048),
        ((3, 28, 28), 10, 128 * (3 * 9 + 3) + 2 * 128 * (128 * 9 + 3) + 10 * (128 * 9 + 1), 128 * 9),
    ],
)
def test_convnet_is_the_authors(shape: tuple[int, int, int], classes: int, parameters: int, dim: int) -> None:
    module = ConvNet().build(shape, classes)
    assert count(module) == parameters
    assert module.feature_dim == dim
    images = torch.empty(2, *shape, device="meta")
    assert module.features(images).shape == (2, dim)
    assert module(images).shape == (2, classes)


def test_convnet_equals_a_plain_stack_with_torchs_own_initialisation() -> None:
    """Not only the distribution: the very numbers that torch's constructors draw in this order."""
    draw = Draw(3, 14)
    module = ConvNet().new((3, 32, 32), 10, draw, "net")
    with isolated(0):
        torch.manual_seed(draw.key("net") >> 1)
        blocks = [
            (nn.Conv2d(before, 128, 3, padding=1), nn.GroupNorm(128, 128), nn.ReLU(), nn.AvgPool2d(2))
            for before in (3, 128, 128)
        ]
        plain = nn.Sequential(*itertools.chain(*blocks), nn.Flatten(), nn.Linear(2048, 10))
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for mine, theirs in zip(module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-7)
    torch.testing.assert_close(module(images), plain(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "depth"), [(2, 1), (8, 1), (16, 2), (28, 3), (32, 3), (64, 4), (96, 5), (128, 5)])
def test_depth_fits_the_image(size: int, depth: int) -> None:
    module = ConvNet(width=4).build((3, size, size), 2)
    assert sum(isinstance(part, nn.Conv2d) for part in module.modules()) == depth


@pytest.mark.parametrize("options", itertools.product(ACTIVATIONS, NORMS, POOLINGS))
def test_every_combination_of_options(options: tuple[str, str, str]) -> None:
    activation, norm, pooling = options
    recipe = ConvNet(width=8, depth=2, activation=activation, norm=norm, pooling=pooling)
    module = recipe.new((1, 8, 12), 3, Draw(0))
    logits = module(torch.randn(4, 1, 8, 12, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (4, 3)
    assert logits.isfinite().all()
    assert module.feature_dim == (8 * 8 * 12 if pooling == "none" else 8 * 2 * 3)
    assert separable(module) == (norm != "batch")


def test_names_tell_what_is_not_default() -> None:
    assert ConvNet().name == "ConvNet"
    assert ConvNet(64, 4, "swish", "batch", "max").name == "ConvNet-d4-w64-batch-swish-max"
    assert ConvNet(norm="none", pooling="none").name == "ConvNet-nonorm-nopool"
    assert ResNet18().name == "ResNet18"
    assert ResNet18("instance", 16).name == "ResNet18-w16-instance"
    assert TorchvisionNetwork(small_stem=True).name == "mobilenet_v3_small-small"


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_resnet18_has_the_published_size(norm: str) -> None:
    module = ResNet18(norm).build((3, 32, 32), 10)
    assert count(module) == 11_173_962
    assert module.feature_dim == 512
    assert isinstance(module.body, nn.Sequential)
    maps = module.body[:-1](torch.empty(2, 3, 32, 32, device="meta"))
    assert maps.shape == (2, 512, 4, 4)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 64), (3, 9, 11)])
def test_resnet18_at_other_sizes(shape: tuple[int, int, int]) -> None:
    module = ResNet18("instance", width=4).new(shape, 5, Draw(0))
    assert module(torch.zeros(2, *shape)).shape == (2, 5)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.name)
class TestEveryRecipe:
    shape = (3, 32, 32)

    def test_built_without_memory(self, recipe: Network) -> None:
        module = recipe.build(self.shape, 7)
        assert all(t.is_meta for t in itertools.chain(module.parameters(), module.buffers()))

    def test_forward_classifies_features(self, recipe: Network) -> None:
        module = recipe.new(self.shape, 7, Draw(0)).eval()
        images = torch.randn(3, *self.shape, generator=torch.Generator().manual_seed(0))
        features = module.features(images)
        assert features.shape == (3, module.feature_dim)
        torch.testing.assert_close(module.classifier(features), module(images))

    def test_refilled_in_place(self, recipe: Network) -> None:
        module = recipe.new(self.shape, 7, Draw(0))
        module(torch.ones(2, *self.shape))  # moves the statistics of a batch norm
        places = [t.data_ptr() for t in itertools.chain(module.parameters(), module.buffers())]
        recipe.fill_(module, Draw(0, 1), "network")
        assert places == [t.data_ptr() for t in itertools.chain(module.parameters(), module.buffers())]
        fresh = recipe.new(self.shape, 7, Draw(0, 1))
        for name, tensor in fresh.state_dict().items():
            assert torch.equal(module.state_dict()[name], tensor), name

    def test_weights_belong_to_seed_step_and_role(self, recipe: Network) -> None:
        def weights(draw: Draw, role: str = "network") -> torch.Tensor:
            return next(recipe.new(self.shape, 7, draw, role).parameters()).detach()

        state = torch.get_rng_state()
        assert torch.equal(weights(Draw(1, 2)), weights(Draw(1, 2)))
        for other in (weights(Draw(2, 2)), weights(Draw(1, 3)), weights(Draw(1, 2), "other")):
            assert not torch.equal(weights(Draw(1, 2)), other)
        assert torch.equal(torch.get_rng_state(), state)

    def test_functional_call(self, recipe: Network) -> None:
        module, other = recipe.new(self.shape, 7, Draw(0)).eval(), recipe.new(self.shape, 7, Draw(1)).eval()
        images = torch.randn(2, *self.shape, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(torch.func.functional_call(module, other.state_dict(), (images,)), other(images))


def test_one_compiled_function_serves_every_network() -> None:
    compiled = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> torch.fx.GraphModule:
        compiled.append(graph)
        return graph

    recipe = ConvNet(width=8)
    run = torch.compile(lambda module, images: module.features(images), backend=backend, fullgraph=True)
    module = recipe.new((3, 16, 16), 4, Draw(0)).requires_grad_(False)
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for step in range(3):
        recipe.fill_(module, Draw(0, step), "encoder")
        torch.testing.assert_close(run(module, images), module.features(images))
    other = recipe.new((3, 16, 16), 4, Draw(9)).requires_grad_(False)
    torch.testing.assert_close(run(other, images), other.features(images))
    assert len(compiled) == 1


def test_separable_means_that_a_batch_may_be_cut() -> None:
    module = ConvNet(width=8).new((3, 16, 16), 4, Draw(0))
    images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.cat([module(images[:4]), module(images[4:])]), module(images))
    assert not separable(TorchvisionNetwork().build((3, 32, 32), 2))


@pytest.mark.parametrize(
    ("model", "small_stem", "shape"),
    [
        ("resnet18", True, (3, 16, 16)),
        ("mobilenet_v3_small", True, (1, 28, 28)),
        ("shufflenet_v2_x0_5", False, (1, 32, 32)),
        ("regnet_y_400mf", False, (3, 32, 32)),  # its constructor reads values, which meta tensors have not
        ("googlenet", False, (3, 64, 64)),  # has auxiliary outputs unless told otherwise
    ],
)
def test_torchvision_models(model: str, small_stem: bool, shape: tuple[int, int, int]) -> None:
    module = TorchvisionNetwork(model, small_stem).new(shape, 6, Draw(0))
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    assert module(images).shape == (2, 6)
    assert module.training


def test_torchvision_keeps_the_constructors_initialisation() -> None:
    from torchvision import models

    draw = Draw(5)
    module = TorchvisionNetwork("resnet18").new((3, 32, 32), 6, draw)
    with isolated(draw.key("network")):
        theirs = models.resnet18(weights=None, num_classes=6)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(module(images), theirs(images))


def test_torchvision_training_needs_no_global_generator() -> None:
    module = TorchvisionNetwork().new((3, 32, 32), 6, Draw(0))
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    assert torch.equal(module(images), module(images))
    assert torch.equal(torch.get_rng_state(), state)


@dataclass(frozen=True)
class _WithOwnParameters(Network):
    """A user's recipe that forgot its own initialisation."""

    name = "own"

    def build(self, shape: tuple[int, int, int], classes: int) -> FeatureNetwork:
        with torch.device("meta"):
            return FeatureNetwork(nn.Sequential(nn.PReLU(), nn.Flatten()), nn.Linear(12, classes), shape)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ConvNet(activation="rellu"), "Did you mean 'relu'"),
        (lambda: ConvNet(norm="instnace"), "Did you mean 'instance'"),
        (lambda: ConvNet(pooling="mean"), "unknown pooling 'mean'"),
        (lambda: ConvNet(width=0, depth=0), "width must be an integer of at least 1, got 0; depth must be .* got 0"),
        (lambda: ConvNet(width=8.5, depth=True), "width must be an integer .* got 8.5; depth must be .* got True"),
        (lambda: ConvNet(width="8", norm="group"), "width must be an integer of at least 1, got '8'"),
        (lambda: ResNet18(width=8.0), "width must be an integer of at least 1, got 8.0"),
        (lambda: ConvNet(width=6, norm="group"), "divisible by 4, got 6"),
        (lambda: ConvNet(depth=6).build((3, 32, 32), 10), "use a depth of at most 5, or pooling='none'"),
        (lambda: ConvNet().build((3, 1, 1), 10), "use pooling='none'"),
        (lambda: ConvNet().build((3, 0, 8), 10), r"all positive, got \(3, 0, 8\)"),
        (lambda: ConvNet().build((3, 8, 8), 0), "at least 1 class, got 0"),
        (lambda: ResNet18(norm="layer"), "unknown norm 'layer'"),
        (lambda: ResNet18(norm="instance").build((1, 8, 8), 10), "9x9 or more, got 8x8"),
        (lambda: TorchvisionNetwork("mobilenet_v3_smal"), "Did you mean 'mobilenet_v3_small'"),
        (lambda: TorchvisionNetwork("squeezenet1_1").build((3, 32, 32), 2), "ends in no linear layer"),
        (lambda: TorchvisionNetwork("alexnet").build((3, 32, 32), 2), "alexnet does not fit 3x32x32 images: .*small"),
        (lambda: _WithOwnParameters().new((3, 2, 2), 2, Draw(0)), "layer PReLU: override fill_"),
    ],
)
def test_bad_options(make: Callable[[], object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        make()


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (32, 32)])
def test_average_pooling_equals_torch(size):
    images = torch.randn(3, 5, *size, requires_grad=True)
    pooled = POOLINGS["avg"]()(images)
    expected = torch.nn.functional.avg_pool2d(images, 2)
    torch.testing.assert_close(pooled, expected)
    gradient = torch.randn_like(expected)
    (ours,) = torch.autograd.grad(pooled, images, gradient)
    (theirs,) = torch.autograd.grad(expected, images, gradient)
    torch.testing.assert_close(ours, theirs)
