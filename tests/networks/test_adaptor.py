"""Networks made from functions and classes of one's own."""

import copy
import functools

import pytest
import torch
from torch import nn
from torchvision import models

from condensekit.catalog import as_network, recipes
from condensekit.compute import Machine
from condensekit.driver import condense
from condensekit.errors import ConfigError
from condensekit.methods import DistributionMatching, GradientMatching
from condensekit.methods.encoders import Fresh
from condensekit.methods.recipe import Recipe
from condensekit.networks.adaptor import ModuleNetwork, TorchvisionNetwork, as_feature_network
from condensekit.networks.base import separable
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw, isolated
from condensekit.testing import shapes

SHAPE = (3, 8, 8)


class Net(nn.Module):
    """A classifier as people write one; it is told the number of classes."""

    def __init__(self, width=6, num_classes=10, norm=False):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(width * 16, num_classes)

    def forward(self, images):
        maps = nn.functional.max_pool2d(self.norm(self.first(images)).relu(), 2)
        return self.head(self.drop(maps.flatten(1)))


class Fixed(nn.Module):
    """A classifier of 1,000 classes with layers of its own, which reads values of its images."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(3, 1, 1))
        self.head = nn.Linear(192, 1000)

    def forward(self, images):
        if float(images.detach().abs().max()) > 1e30:
            raise ValueError("too large")
        return self.head((images * self.scale).flatten(1))


class Headless(nn.Module):
    def __init__(self):
        super().__init__()
        self.only = nn.Conv2d(3, 4, 8)

    def forward(self, images):
        return self.only(images).flatten(1)


class Squashed(Net):
    def forward(self, images):
        return super().forward(images).softmax(1)[:, :2]


def images(n=4, shape=SHAPE):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("make", [Net, Fixed, functools.partial(Net, norm=True)], ids=["Net", "Fixed", "partial"])
def test_a_class_is_a_network(make):
    network = as_network(make)
    assert isinstance(network, ModuleNetwork)
    module = network.new(SHAPE, 4, Draw(0))
    assert module(images()).shape == (4, 4)
    assert module.features(images()).shape == (4, module.feature_dim)
    assert module.training
    assert separable(module) == (make in (Net, Fixed))


def test_it_is_called_by_its_name():
    assert as_network(Net).name == "Net"
    assert as_network(lambda: Net()).name == "<lambda>"


def test_its_initialisation_is_the_constructors_and_follows_the_draw():
    network, draw = ModuleNetwork(Net), Draw(5)
    module = network.new(SHAPE, 4, draw)
    with isolated(draw.key("network")):
        theirs = Net(num_classes=4)
    assert torch.equal(module.eval()(images()), theirs.eval()(images()))
    torch.rand(3)
    assert torch.equal(module(images()), network.new(SHAPE, 4, draw).eval()(images()))
    assert not torch.equal(module(images()), network.new(SHAPE, 4, Draw(6)).eval()(images()))
    network.fill_(module, Draw(6), "network")
    assert torch.equal(module(images()), network.new(SHAPE, 4, Draw(6)).eval()(images()))


def test_making_and_running_it_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    module = ModuleNetwork(Net).new(SHAPE, 4, Draw(0))
    assert torch.equal(module(images()), module(images()))  # in training mode: its dropout is off
    assert torch.equal(torch.get_rng_state(), state)


def test_its_operations_are_counted():
    assert ModuleNetwork(Net).new(SHAPE, 4, Draw(0)).flops == 2 * (64 * 6 * 27 + 96 * 4)
    assert ModuleNetwork(Fixed).build(SHAPE, 4).flops == 2 * 192 * 4


def test_a_function_of_torchvision_is_its_network():
    network = as_network(models.resnet18)
    assert network == TorchvisionNetwork("resnet18")
    grey = network.new((1, 16, 16), 4, Draw(0))  # one channel: the first convolution is exchanged
    assert grey(images(2, (1, 16, 16))).shape == (2, 4)
    assert as_network(functools.partial(models.resnet18, zero_init_residual=True)).new(SHAPE, 4, Draw(0)).training


@pytest.mark.parametrize("make", [models.resnet18, Net, lambda: Fixed()])
def test_recipes_take_them_as_encoders(make):
    recipe = recipes.dm(encoder=make, batch_real=4)
    made = condense(shapes(), recipe, ipc=1, steps=2, machine=Machine("cpu", workers=1))
    again = condense(shapes(), recipe, ipc=1, steps=2, machine=Machine("cpu", workers=2))
    assert torch.isfinite(made.set.images).all()
    if make is not models.resnet18:  # batch norm mixes a batch: bits depend on how it is cut
        assert torch.equal(made.set.images, again.set.images)
    assert made.set.provenance["separable"] == (make is not models.resnet18)


def test_gradient_matching_trains_them():
    recipe = Recipe(GradientMatching(batch_real=4, outer=2, inner=1), Fresh(ModuleNetwork(Net)))
    made = condense(shapes(), recipe, ipc=1, steps=3, machine=Machine("cpu", workers=1))
    assert torch.isfinite(made.set.images).all()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Net(), "network got a Net that is built already, .* pass what makes it, such as torchvision.models.resnet18"),
        (models.resnet18(), "network got a ResNet that is built already"),
        (ConvNet, r"network must be an architecture, got the class ConvNet: pass ConvNet\(\)"),
        (DistributionMatching, r"got the class DistributionMatching: pass DistributionMatching\(\)"),
        (
            None,
            r'network must be an architecture, got None \(NoneType\): pass "ConvNet", ConvNet\(\) or torch',
        ),
        (3, r"network must be an architecture, got 3 \(int\): pass"),
        ("resnet19", "unknown network 'resnet19'. Did you mean 'ResNet18'"),
    ],
)
def test_what_is_no_architecture_is_refused(given, says):
    with pytest.raises(ConfigError, match=says) as caught:
        as_network(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "shape", "says"),
    [
        (Headless, SHAPE, "Headless has no linear layer to take features before: use another network"),
        (Squashed, SHAPE, "Squashed does not end in its linear layer 'head'"),
        (Net, (1, 8, 8), "Net does not fit 1x8x8 images: .*channels"),
        (Net, (3, 16, 16), "Net does not fit 3x16x16 images: mat1 and mat2"),
        (lambda: {}, SHAPE, "network <lambda> gives a dict: expected a torch.nn.Module"),
        (lambda width: Net(width), SHAPE, "needs width: pass functools.partial"),
    ],
)
def test_a_function_that_makes_no_classifier_of_the_images_is_refused(make, shape, says):
    with pytest.raises(ConfigError, match=says) as caught:
        ModuleNetwork(make).build(shape, 4)
    assert "\n" not in str(caught.value)


def test_a_module_is_cut_before_its_last_linear_layer():
    module = Net(num_classes=4).eval()
    cut = as_feature_network(module, SHAPE).eval()
    assert torch.equal(cut(images()), module(images()))
    assert cut.classifier.weight is not module.head.weight  # a copy
    assert module.head.weight.shape == (4, 96)


class Ended(Net):
    """Modules as learners have them: a layer beside the head, and something that is done with the outputs."""

    def __init__(self, head=lambda layer: layer, end=lambda outputs: outputs):
        super().__init__(num_classes=4)
        self.head, self.end = head(self.head), end
        self.beside = nn.Linear(7, 3)

    def forward(self, images):
        return self.end(super().forward(images))


def masked(outputs):
    """Two outputs in use, as Avalanche's IncrementalClassifier masks the others."""
    return outputs.masked_fill(torch.tensor([True, False, True, False]), -1000)


@pytest.mark.parametrize(
    "module",
    [
        Ended(),
        Ended(end=masked),
        Ended(end=lambda outputs: outputs.log_softmax(1)),
        Ended(head=nn.utils.parametrizations.weight_norm),
        Ended(head=nn.utils.spectral_norm),
        Ended().double(),
        Ended().half(),
        nn.DataParallel(Ended()),
        torch.compile(Ended(end=masked)),
    ],
    ids=[
        "beside",
        "masked",
        "log_softmax",
        "weight_norm",
        "spectral_norm",
        "float64",
        "float16",
        "parallel",
        "compiled",
    ],
)
def test_features_are_the_input_of_the_layer_that_gives_the_outputs(module):
    cut = as_feature_network(module, SHAPE).eval()
    plain = getattr(getattr(module, "module", module), "_orig_mod", getattr(module, "module", module)).float().eval()
    taken = []
    plain.head.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    outputs = plain(images())
    assert torch.equal(cut.features(images()), taken[0])
    assert torch.allclose(cut(images())[:, 1], outputs[:, 1], atol=1e-4) or plain.end is not masked
    assert cut.flops == as_feature_network(Ended(), SHAPE).flops
    assert type(cut.classifier) is nn.Linear
    assert copy.deepcopy(cut).features(images()).shape == (len(images()), 96)


@pytest.mark.parametrize(
    "end",
    [lambda o: (o, o), lambda o: o.flip(1), lambda o: 2 * o, lambda o: {"logits": o}, lambda o: o + torch.randn(4)],
    ids=["tuple", "turned", "scaled", "dictionary", "noise"],
)
def test_outputs_that_are_not_those_of_a_linear_layer_are_refused(end):
    with pytest.raises(ConfigError, match="Ended does not end in its linear layer 'head'"):
        as_feature_network(Ended(end=end), SHAPE)


def test_a_lazy_layer_gets_weights_without_a_draw_from_the_global_generator():
    state = torch.get_rng_state()
    first, second = (as_feature_network(nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), SHAPE) for _ in range(2))
    assert torch.equal(first.classifier.weight, second.classifier.weight)
    assert torch.equal(torch.get_rng_state(), state)
