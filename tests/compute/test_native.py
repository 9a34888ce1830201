"""Compiled functions of networks: close to the eager ones, built once, and never a reason to fail."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from condensekit.compute import Compute, Machine, build, compute, graph, library
from condensekit.compute.machine import can_compile
from condensekit.driver import Saving, condense
from condensekit.methods import DistributionMatching, GradientMatching
from condensekit.methods.encoders import Fresh
from condensekit.methods.recipe import Recipe
from condensekit.networks.adaptor import ModuleNetwork
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw
from condensekit.testing import shapes

needs_compiler = pytest.mark.skipif(not can_compile(), reason="no C++ compiler on the PATH")
together = pytest.mark.xdist_group("compiled")


def network(seed=0, grad=False, shape=(3, 16, 16), **options):
    return ConvNet(**{"width": 8, "depth": 1, **options}).new(shape, 4, Draw(seed)).requires_grad_(grad)


def images(n=21, seed=0, shape=(3, 16, 16)):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def cross_entropy(logits, targets):
    return F.cross_entropy(logits, targets, reduction="none")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A compute with compiled networks, whose libraries the tests of this module share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONDENSEKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        with Compute(Machine("cpu", chunk=8, workers=2, compiled=True)) as running:
            yield running


@pytest.fixture
def eager():
    with Compute(Machine("cpu", chunk=8, workers=2, compiled=False)) as running:
        yield running


@needs_compiler
@together
def test_features_are_those_of_the_eager_network(compiled, eager):
    """For all weights, with one library; 21 images are no multiple of a chunk."""
    net, x = network(), images()
    torch.testing.assert_close(compiled.features(net, x), eager.features(net, x), rtol=1e-5, atol=1e-5)
    before = set(library._loaded)
    ConvNet(width=8, depth=1).fill_(net, Draw(1), "refilled")
    other = network(seed=2)
    for module in (net, other):
        torch.testing.assert_close(compiled.features(module, x), eager.features(module, x), rtol=1e-5, atol=1e-5)
    assert set(library._loaded) == before


@needs_compiler
@together
@pytest.mark.parametrize("kept", [0, 10**9])
def test_gradients_of_images_are_those_of_the_eager_network(kept, compiled, eager, monkeypatch):
    monkeypatch.setattr(compute, "KEPT_VALUES", kept)
    net, x = network(), images()
    features, pull = compiled.pullback(net, x)
    expected, expected_pull = eager.pullback(net, x)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)
    gradient = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(pull(gradient), expected_pull(gradient), rtol=1e-4, atol=1e-5)


@needs_compiler
@together
@pytest.mark.parametrize("n", [8, 21])
def test_gradients_of_weights_are_those_of_the_eager_network(n, compiled, eager):
    """An image that fills up a chunk adds nothing."""
    targets = torch.arange(n) % 4
    found = []
    for running in (compiled, eager):
        net = network(grad=True)
        value = running.backprop(net, images(n), targets, cross_entropy)
        found.append([value, *(p.grad for p in net.parameters())])
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


@needs_compiler
@together
def test_workers_change_no_bit_of_a_compiled_network(compiled):
    net, x = network(), images(n=64)
    with Compute(Machine("cpu", chunk=8, workers=1, compiled=True)) as one:
        assert torch.equal(one.features(net, x), compiled.features(net, x))


@pytest.mark.parametrize("options", [{}, {"norm": "group"}, {"norm": "layer"}, {"norm": "none"}, {"pooling": "max"}])
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 11, 9)])
def test_the_graphs_compute_what_the_network_does(options, shape):
    """Before they are compiled; with a pooling of odd maps, and the gradient to few channels by a matrix product."""
    net, x = network(shape=shape, depth=2, **options), images(4, shape=shape)
    inputs = [graph.laid_out(x).requires_grad_(), *graph.weights_of(net)]
    parts = build.parts("pullback", graph.embedding(net, x, low=False), inputs)
    features, *saved = parts["forward"][0](*inputs)
    torch.testing.assert_close(features, net.features(x), rtol=1e-5, atol=1e-5)
    leaf, gradient = x.clone().requires_grad_(), torch.randn(features.shape)
    (expected,) = torch.autograd.grad(net.features(leaf), leaf, gradient)
    torch.testing.assert_close(parts["backward"][0](*saved, gradient)[0], expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_is_not_compiled(monkeypatch):
    monkeypatch.setattr(library, "libraries", lambda *_: pytest.fail("asked for a library"))
    net, x = network(norm="batch"), images()
    with Compute(Machine("cpu", chunk=8, workers=2, compiled=True)) as running, torch.no_grad():
        torch.testing.assert_close(running.features(net, x), net.features(x))


class Noisy(nn.Module):
    """A network that cannot be compiled, because it draws random numbers."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 16 * 16, 4)

    def forward(self, x):
        return self.linear(F.dropout(x.flatten(1), 1e-9, training=True))


def test_a_network_that_draws_random_numbers_stays_eager(caplog):
    net = ModuleNetwork(Noisy).new((3, 16, 16), 4, Draw(0)).requires_grad_(False)
    with Compute(Machine("cpu", chunk=8, workers=2, compiled=True)) as running:
        for _ in range(2):
            assert running.features(net, images()).shape[0] == 21
    assert caplog.text.count("the network is not compiled, because it draws random numbers") == 1


def test_without_a_compiler_one_line_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("CONDENSEKIT_CACHE", str(tmp_path))
    running = Compute(Machine("cpu", chunk=8, workers=2, compiled=True))
    monkeypatch.setattr(library, "can_compile", lambda: False)
    with running:
        torch.testing.assert_close(running.features(network(), images()), network().features(images()))
    assert caplog.text.count("not compiled, because there is no C++ compiler") == 1


def test_a_cache_that_cannot_be_written_is_told(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONDENSEKIT_CACHE", str(tmp_path / "file"))
    with Compute(Machine("cpu", chunk=8, workers=2, compiled=True)) as running:
        running.features(network(), images())
    assert "cannot be written" in caplog.text


@needs_compiler
@together
def test_a_damaged_library_is_built_again(tmp_path, monkeypatch, caplog):
    """Never loaded: a shared library that was cut off ends the process."""
    monkeypatch.setenv("CONDENSEKIT_CACHE", str(tmp_path))
    built = []

    def builder(folder, *_):
        built.append(folder)
        folder.mkdir(parents=True)
        (folder / "run.so").write_bytes(b"cut off")
        (folder / "manifest.json").write_text('{"outputs": {"run": 1}, "sha256": {"run": "0"}}')

    monkeypatch.setattr(library, "_build", builder)
    net, x = network(), images(8)
    inputs = [graph.laid_out(x), *graph.weights_of(net)]
    for _ in range(2):
        with pytest.raises(graph.Unfit, match="cannot be read"):
            library.libraries("plain", graph.embedding(net, x, low=False), inputs, 1, library.Patience())
    assert len(built) == 2
    assert "is damaged" in caplog.text


def test_another_torch_has_another_library(tmp_path, monkeypatch):
    monkeypatch.setenv("CONDENSEKIT_CACHE", str(tmp_path))
    folders = []

    def builder(folder, *_):
        folders.append(folder)
        raise graph.Unfit("tried")

    monkeypatch.setattr(library, "_build", builder)
    net, x = network(), images(8)
    for version in ("2.11.0", "2.12.0"):
        monkeypatch.setattr(torch, "__version__", version)
        with pytest.raises(graph.Unfit, match="tried"):
            library.libraries(
                "plain", graph.embedding(net, x, low=False), [x, *graph.weights_of(net)], 1, library.Patience()
            )
    assert len(set(folders)) == 2


def test_a_library_that_cannot_be_loaded_is_no_reason_to_fail(tmp_path, monkeypatch, caplog):
    """As in a folder without leave to run programs."""
    (tmp_path / "run.so").write_bytes(b"no library")
    monkeypatch.setattr(library, "_loaded", {})
    monkeypatch.setattr(library, "_build", lambda *_: None)
    monkeypatch.setattr(library, "_manifest", lambda folder: {"run": 1})
    monkeypatch.setattr(library, "cache_folder", lambda part: tmp_path)
    with Compute(Machine("cpu", chunk=8, workers=2, compiled=True)) as running:
        assert running.features(network(), images()).shape[0] == 21
    assert "the library cannot be loaded" in caplog.text


# the decision


class Told(list):
    """The log of decisions."""

    def libraries(self, kind, *_):
        self.append(kind)
        raise graph.Unfit("this is a test")


@pytest.fixture
def asked(monkeypatch):
    """The kinds of libraries that are asked for; none is built."""
    told = Told()
    monkeypatch.setattr("condensekit.compute.native.libraries", told.libraries)
    return told


RECIPE = Recipe(DistributionMatching(batch_real=8), Fresh(ConvNet(width=4)))


@pytest.mark.parametrize(("worth", "kinds"), [(1e30, []), (1, ["plain", "pullback"])])
def test_a_long_run_is_compiled_from_its_third_step(worth, kinds, asked, monkeypatch, tmp_path):
    monkeypatch.setattr(compute, "WORTH", worth)
    monkeypatch.setattr("condensekit.compute.machine.can_compile", lambda: True)
    made = condense(shapes(), RECIPE, ipc=1, steps=4, machine=Machine("cpu"), saving=Saving(tmp_path / "run"))
    assert asked == kinds
    assert made.set.provenance["plan"]["compiled"] is bool(kinds)


def test_a_run_of_two_steps_and_what_is_asked_for_are_not_decided(asked, monkeypatch):
    monkeypatch.setattr(compute, "WORTH", 1)
    monkeypatch.setattr("condensekit.compute.machine.can_compile", lambda: True)
    condense(shapes(), RECIPE, ipc=1, steps=2, machine=Machine("cpu"))
    condense(shapes(), RECIPE, ipc=1, steps=4, machine=Machine("cpu", compiled=False))
    condense(shapes(), Recipe(GradientMatching()), ipc=1, steps=3, machine=Machine("cpu"))
    assert asked == []


def test_a_short_run_has_the_bits_of_one_that_is_not_compiled():
    sets = [
        condense(shapes(), RECIPE, ipc=1, steps=4, machine=Machine("cpu", compiled=one)).set for one in (None, False)
    ]
    assert torch.equal(sets[0].images, sets[1].images)


def test_a_machine_without_a_compiler_decides_nothing(monkeypatch, caplog):
    monkeypatch.setattr("condensekit.compute.machine.can_compile", lambda: False)
    with caplog.at_level(logging.INFO), Compute(Machine("cpu")) as running:
        assert not running.expect(1e30)
    assert len(condense(shapes(), RECIPE, ipc=1, steps=3, machine=Machine("cpu")).history) == 3
