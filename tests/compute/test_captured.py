"""CUDA graphs of networks, on a stand-in: the bits of the eager network, whatever changes between two replays."""

import dataclasses
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import condensekit as ck
from condensekit import catalog
from condensekit.compute import Compute, Machine, captured, made_on
from condensekit.compute import compute as compute_module
from condensekit.compute.captured import Captured
from condensekit.driver import condense
from condensekit.errors import ConfigError
from condensekit.networks.adaptor import ModuleNetwork
from condensekit.networks.base import FeatureNetwork
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw
from condensekit.testing import shapes
from condensekit.training.train import DC, train_network
from tests.compute.graphs import Capture, Graph, alive, cuda_graphs

SHAPE = (3, 16, 16)
CALLS = 4  # the last three are replays


def network(seed=0, grad=False, **options):
    return ConvNet(width=8, **options).new(SHAPE, 4, Draw(seed)).requires_grad_(grad)


def images(n=12, seed=0):
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def cross_entropy(logits, targets):
    return F.cross_entropy(logits, targets, reduction="none")


@pytest.fixture
def graphs():
    """A machine whose compiled networks are captured, on the CPU."""
    with pytest.MonkeyPatch.context() as patch, cuda_graphs():
        patch.setattr(compute_module, "Native", lambda module, chunk, *_: Captured(module, chunk))
        yield


@pytest.fixture
def compiled(graphs):
    with Compute(Machine("cpu", chunk=8, workers=0, compiled=True)) as running:
        yield running


@pytest.fixture
def eager():
    with Compute(Machine("cpu", chunk=8, workers=0, compiled=False)) as running:
        yield running


@pytest.mark.parametrize(
    "options", [{}, {"norm": "group"}, {"norm": "none"}, {"pooling": "max", "activation": "swish"}]
)
def test_features_follow_images_and_weights(options, compiled, eager):
    net, kept = network(**options), []
    for call in range(CALLS):
        ConvNet(width=8, **options).fill_(net, Draw(call), "fresh")
        x = images(seed=call)
        kept.append((compiled.features(net, x), eager.features(net, x)))
    for got, expected in kept:
        assert torch.equal(got, expected)
    (graph,) = alive()  # 12 images are a chunk of 8, and 4 that stay eager
    assert graph.replays == 3 + 1


def test_gradients_of_images_follow_images_and_weights(compiled, eager):
    net, kept = network(), []
    for call in range(CALLS):
        ConvNet(width=8).fill_(net, Draw(call), "fresh")
        features, pull = compiled.pullback(net, images(seed=call))
        expected, expected_pull = eager.pullback(net, images(seed=call))
        gradient = torch.randn(features.shape, generator=torch.Generator().manual_seed(call))
        kept += [(features, expected), (pull(gradient), expected_pull(gradient))]
    for got, expected in kept:
        torch.testing.assert_close(got, expected)
    assert [graph.replays for graph in alive()] == [3 + 1, 3 + 1]


def test_ways_back_may_be_taken_in_any_order(compiled, eager):
    net, found = network(), []
    for running in (compiled, eager):
        for _ in range(CALLS):
            ways = [running.pullback(net, images(16, seed)) for seed in (1, 2)]
            running.features(net, images(16, 3))
            found.append([pull(features) for features, pull in reversed(ways)])
    torch.testing.assert_close(found[:CALLS], found[CALLS:])
    assert len(alive()) == 2


def test_gradients_of_weights_add_up(compiled, eager):
    found, nets = [], [network(grad=True), network(grad=True)]
    for running, net in zip((compiled, eager), nets, strict=True):
        net.body[0].requires_grad_(False)
        for call in range(CALLS):
            value = running.backprop(net, images(seed=call), torch.arange(12) % 4, cross_entropy)
        found.append([value, *(p.grad for p in net.parameters() if p.requires_grad)])
    assert all(map(torch.equal, *found))
    assert alive()[0].replays == 3 + 1


def test_a_frozen_layer_has_a_graph_of_its_own(compiled, eager):
    found = []
    for running in (compiled, eager):
        net = network(grad=True)
        for call in range(2 * CALLS):
            net.body[0].requires_grad_(call < CALLS)
            running.backprop(net, images(8), torch.arange(8) % 4, cross_entropy)
        found.append([p.grad for p in net.parameters()])
    assert all(map(torch.equal, *found))
    assert len(Graph.made) == 2


@pytest.mark.parametrize("soft", [False, True])
def test_a_training_has_the_bits_of_the_eager_one(soft, compiled, eager):
    targets = torch.full((20, 4), 0.25) if soft else torch.arange(20) % 4
    protocol = dataclasses.replace(DC, steps=8)
    made = [
        train_network(images(20), targets, ConvNet(width=8), protocol, Draw(0), running, 4)
        for running in (compiled, eager)
    ]
    assert Graph.made
    assert all(map(torch.equal, *(net.parameters() for net in made)))


@pytest.mark.parametrize("name", [name for name in catalog.PUBLISHED if name not in ("dc", "dsa")])
def test_a_run_is_that_of_the_eager_network(name, graphs):
    """Up to rounding: on a CPU, convolutions without a gradient have another layout."""
    recipe = ck.Recipe.parse(name)
    recipe = recipe.replace(encoder=recipe.encoder.replace(network=ConvNet(width=8)))
    found = [
        condense(shapes(), recipe, ipc=2, steps=5, machine=Machine("cpu", chunk=4096, workers=0, compiled=one))
        for one in (False, True)
    ]
    assert Graph.made
    torch.testing.assert_close(found[0].set.images, found[1].set.images, rtol=1e-4, atol=1e-4)
    assert [row["loss"] for row in found[0].history] == pytest.approx([row["loss"] for row in found[1].history], 1e-4)


def test_nothing_is_captured_before_a_size_comes_again(compiled):
    net = network()
    for n in (8, 7, 6):
        compiled.features(net, images(n))
        assert alive() == []
    compiled.features(net, images(8))
    assert len(alive()) == 1


def test_sizes_are_captured_up_to_a_limit(graphs, monkeypatch):
    monkeypatch.setattr(captured, "MOST", 3)
    net = network()
    with Compute(Machine("cpu", chunk=4096, workers=0, compiled=True)) as running:
        for n in (2, 3, 4, 5, 6):
            for _ in range(CALLS):
                running.features(net, images(n))
        assert running.graphs == len(alive()) == 3


class Reading(nn.Module):
    """A network whose way depends on its values."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 16 * 16, 4)

    def forward(self, x):
        return self.linear(x.flatten(1) * (2 if x.mean() > 9 else 1))


class Noisy(Reading):
    def forward(self, x):
        return self.linear(F.dropout(x.flatten(1), 1e-9, training=True))


class Counting(nn.Module):
    """A layer with a number that a graph does not see."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.calls


class Broken(Capture):
    """A device that cannot capture."""

    def __enter__(self):
        raise RuntimeError("CUDA error: operation not supported")


class Full(Capture):
    def __enter__(self):
        raise torch.OutOfMemoryError("too much")


@pytest.mark.parametrize(
    ("make", "capture", "says"),
    [
        (Reading, Capture, "it has no fixed graph"),
        (Noisy, Capture, "it draws random numbers"),
        (Counting, Capture, "its CUDA graph gives other values than the network"),
        (None, Broken, r"it cannot be captured (RuntimeError)"),
        (None, Full, "the GPU has too little memory for a graph"),
    ],
)
def test_what_cannot_be_captured_stays_eager(make, capture, says, compiled, caplog):
    if make is Counting:
        net = FeatureNetwork(nn.Sequential(Counting(), nn.Flatten()), nn.Linear(3 * 16 * 16, 4), SHAPE)
    else:
        net = (ModuleNetwork(make) if make else ConvNet(width=8)).new(SHAPE, 4, Draw(0))
    net, x = net.requires_grad_(False), images(8)
    with cuda_graphs(capture):
        for _ in range(CALLS):
            if make is not Counting:
                assert torch.equal(compiled.features(net, x), net.features(x))
            features, pull = compiled.pullback(net, x)
            pull(features)
    assert caplog.text.count(f"the network is not compiled, because {says}") == 1
    assert not any(graph.replays > 1 for graph in alive())


def test_weights_in_other_memory_are_seen(compiled, eager, caplog):
    net, x = network(), images(8)
    for call in range(2 * CALLS):
        if call == CALLS:
            net.body[0].weight = nn.Parameter(torch.randn_like(net.body[0].weight), requires_grad=False)
        assert torch.equal(compiled.features(net, x), eager.features(net, x))
    assert caplog.text.count("its weights moved to other memory") == 1


def test_a_network_can_go_and_its_graphs_with_it(compiled):
    """At once: collected during another capture, they could end it."""
    net = network()
    for _ in range(CALLS):
        compiled.features(net, images(8))
    assert alive()
    gone = weakref.ref(net)
    del net
    assert [gone(), alive()] == [None, []]


# decisions


def test_a_gpu_captures_by_itself(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("condensekit.compute.machine.can_compile", lambda: False)
    with Compute(Machine("cuda")) as running:
        before, told = running.machine.compiled, running.expect(1e9)
        assert (before, told, running.machine.compiled) == (None, False, True)  # there is nothing to wait for
    with Compute(Machine("cuda")) as running:
        running.expect(0)
        assert running.machine.compiled is False
    asked = Machine("cuda", compiled=True).resolved()
    assert made_on(asked.to_json()) == asked


def test_apple_has_nothing_to_compile_with(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert Machine("mps").resolved().compiled is False
    with pytest.raises(ConfigError, match="not on mps: leave it out"):
        Machine("mps", compiled=True)
