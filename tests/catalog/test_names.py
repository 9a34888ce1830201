"""Names of networks, selections, encoders, samplings and protocols, and the objects they stand for."""

import dataclasses
import sys
import textwrap

import pytest

from condensekit import catalog
from condensekit.catalog import names, texts
from condensekit.errors import ConfigError
from condensekit.methods import DistributionMatching
from condensekit.methods.discrepancy import MMD, Laplace, Moments, linear, mean
from condensekit.methods.encoders import Fresh
from condensekit.methods.sampling import Clustered, Importance, Uniform
from condensekit.methods.trained_encoders import Trained
from condensekit.networks.adaptor import ModuleNetwork, TorchvisionNetwork
from condensekit.networks.convnet import ConvNet
from condensekit.networks.resnet import ResNet18
from condensekit.selection.base import Function, Noise
from condensekit.selection.classic import KMeans, Random
from condensekit.sets.formation import Formation
from condensekit.training.augment import Augmentation
from condensekit.training.train import DC, IDC, SHORT

OWN = """
    from condensekit.methods.sampling import Uniform
    from condensekit.methods.encoders import Fresh
    from condensekit.selection.classic import Random

    class First(Random):
        pass

    class Slow(Uniform):
        pass

    def picked(data, ipc, draw, compute):
        return Random()(data, ipc, draw, compute)

    def encoder(keep: int = 3):
        return Fresh(keep=keep)

    chosen = Random()
    nothing = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_parts.py").write_text(textwrap.dedent(OWN))
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_parts"
    sys.modules.pop("own_parts", None)


def test_the_grammar():
    assert catalog.named("m3d", "recipe") == ("m3d", {})
    assert catalog.named("  m3d   lr=3 init=kmeans ", "recipe") == ("m3d", {"lr": "3", "init": "kmeans"})
    assert catalog.named("m3d lr=3=4", "recipe") == ("m3d", {"lr": "3=4"})
    assert catalog.named("", "recipe") == ("", {})
    assert texts.written("m3d", {"lr": 3.0, "factor": 1, "nested": True}) == "m3d lr=3 factor=1 nested=True"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dm fast", "a recipe is written NAME key=value ..., got 'fast' in 'dm fast'"),
        ("dm factor=1 factor=2", "factor is given 2 times in 'dm factor=1 factor=2': keep one of them"),
        ("dm a b c=1 c=2", "got 'a' in .*; .*got 'b' in .*; c is given 2 times"),
    ],
)
def test_what_is_not_written_so_is_refused(text, says):
    with pytest.raises(ConfigError, match=says):
        catalog.named(text, "recipe")


def test_own_selection(own):
    assert type(catalog.selection(f"{own}:First")).__name__ == "First"
    assert catalog.selection(f"{own}:chosen").name == "random"
    with pytest.raises(ConfigError, match="gives a int"):
        catalog.selection(f"{own}:nothing")


def test_own_sampling_and_encoder(own):
    assert type(catalog.sampling(f"{own}:Slow")).__name__ == "Slow"
    assert catalog.encoder(f"{own}:encoder", keep="7") == Fresh(keep=7)
    with pytest.raises(ConfigError, match="expected a subclass of Sampling"):
        catalog.sampling(f"{own}:chosen")


def test_entry_point_of_a_selection(own, monkeypatch):
    from importlib.metadata import EntryPoint

    def points(group):
        return [EntryPoint("theirs", f"{own}:First", group)] if group == "condensekit.selections" else []

    monkeypatch.setattr(names, "entry_points", points)
    assert type(catalog.selection("theirs")).__name__ == "First"
    with pytest.raises(ConfigError, match=r"Did you mean 'theirs'\? Known: .*random, theirs"):
        catalog.selection("their")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: catalog.selection("kmean"), "Did you mean 'kmeans'"),
        (lambda: catalog.selection("math:pi"), "gives a float"),
        (lambda: catalog.selection("no_such_module:Thing"), "cannot import selection 'no_such_module:Thing'"),
        (lambda: catalog.selection("kmeans candidate=3"), "unknown option of selection 'kmeans' 'candidate'"),
        (lambda: catalog.initialiser("nois"), "unknown init 'nois'. Did you mean 'noise'"),
        (lambda: catalog.initialiser("jpeg-random"), "unknown init 'jpeg-random'"),
        (lambda: catalog.initialiser("noise", clusters=3), "noise has no option 'clusters'"),
        (lambda: catalog.network("ConvNot"), "unknown network 'ConvNot'. Did you mean 'ConvNet'"),
        (lambda: catalog.network("ConvNet-banana"), "unknown option of network 'ConvNet' 'banana'"),
        (lambda: catalog.network("ConvNet banana=1"), "unknown option of network 'ConvNet' 'banana'"),
        (lambda: catalog.network("ConvNet-w8 depth=1"), "as key=value or after dashes, not both"),
        (lambda: catalog.network("ConvNet width=x"), "width must be a whole number, got 'x'"),
        (lambda: catalog.network("ResNet18-d4"), "unknown option of network 'ResNet18' 'd4'"),
        (lambda: catalog.network("ConvNet-w0"), "width must be an integer of at least 1, got 0"),
        (lambda: catalog.network("ConvNet-w²"), "unknown option of network 'ConvNet' 'w²'"),
        (lambda: catalog.network("ConvNot"), "the names of torchvision.models and module:object"),
        (lambda: catalog.network("no_such_module:Net"), "cannot import network 'no_such_module:Net'"),
        (
            lambda: catalog.network("torch.nn:Netz"),
            "cannot import network 'torch.nn:Netz': module 'torch.nn' has no attribute",
        ),
        (lambda: catalog.network("math:pi"), "network 'math:pi' must be an architecture, got 3.14"),
        (lambda: catalog.network("torch.nn:Linear width=3"), "network 'torch.nn:Linear' takes no options: name a func"),
        (lambda: catalog.network("ConvNet-"), "unknown option of network 'ConvNet' ''"),
        (lambda: catalog.discrepancy("gausian"), "unknown discrepancy 'gausian'. Did you mean 'gaussian'"),
        (lambda: catalog.discrepancy("moments-²"), "unknown discrepancy 'moments-²'"),
        (lambda: catalog.discrepancy("moments-9"), "order must be an integer in 1 to 8, got 9"),
        (lambda: catalog.protocol("shorter"), "unknown protocol 'shorter'. Did you mean 'short'"),
        (lambda: catalog.augmentation("flop"), "unknown augmentation 'flop'. Did you mean 'flip'"),
        (lambda: catalog.sampling("importanc"), "unknown sampling 'importanc'. Did you mean 'importance'"),
        (lambda: catalog.sampling("uniform", epsilon=1), "unknown option of sampling 'uniform' 'epsilon'"),
        (lambda: catalog.encoder("keptt"), "unknown encoder 'keptt'. Did you mean 'kept'"),
        (lambda: catalog.encoder("kept", kep=2), "Did you mean 'keep'"),
        (lambda: catalog.encoder("math:pi"), "expected a subclass of Encoder"),
    ],
)
def test_unknown_names_offer_the_nearest(call, says):
    with pytest.raises(ConfigError) as caught:
        call()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_selections_and_initialisers():
    assert catalog.selection("kmeans") == KMeans()
    assert catalog.selection("kmeans candidates=1000") == catalog.selection("kmeans", candidates=1000)
    assert catalog.initialiser("kmeans", candidates="20") == KMeans(candidates=20)
    assert catalog.initialiser("noise") == Noise()
    assert {name: catalog.selection(name).name for name in catalog.SELECTIONS} == {n: n for n in catalog.SELECTIONS}
    assert [catalog.initialiser(name).name for name in catalog.STARTS] == list(catalog.STARTS)


def test_a_selection_in_any_form():
    def mine(data, ipc, draw, compute):
        return Random()(data, ipc, draw, compute)

    assert catalog.as_selection("kmeans") == KMeans()
    assert catalog.as_selection(KMeans()) == KMeans()
    assert catalog.as_selection(mine) == Function(mine)
    assert catalog.as_selection(mine).name == "mine"
    with pytest.raises(ConfigError, match=r"init must be a name, .*, got the class KMeans: pass KMeans\(\)"):
        catalog.as_selection(KMeans, "init")


@pytest.mark.parametrize(
    "network",
    [
        ConvNet(),
        ConvNet(width=64, depth=4, norm="batch", pooling="max", activation="swish"),
        ConvNet(norm="none", pooling="none"),
        ResNet18(norm="instance", width=16),
        TorchvisionNetwork("resnet18"),
        TorchvisionNetwork("mobilenet_v3_small", small_stem=True),
    ],
)
def test_a_networks_name_gives_it_back(network):
    assert catalog.network(network.name) == network
    assert catalog.as_network(network.name) == catalog.as_network(network) == network


def test_a_network_with_options_in_words():
    assert catalog.network("ConvNet depth=4 width=64 norm=batch") == catalog.network("ConvNet-d4-w64-batch")
    assert catalog.network("ResNet18 width=16") == ResNet18(width=16)


def test_samplings_and_encoders():
    assert catalog.sampling("uniform") == Uniform()
    assert catalog.sampling("kmeans", clusters="7", refresh="5") == Clustered(clusters=7, refresh=5)
    assert catalog.sampling("importance", epsilon=0.2) == Importance(epsilon=0.2)
    assert catalog.encoder("trained", count="2") == Trained(count=2)
    for name in catalog.ENCODERS:
        assert catalog.encoder_name(catalog.encoder(name)) == name


def test_protocols():
    assert {name: catalog.protocol(name) for name in catalog.PROTOCOLS} == {"short": SHORT, "dc": DC, "idc": IDC}


def test_augmentation():
    assert catalog.augmentation("none") is None
    assert catalog.augmentation("crop,flip") == Augmentation(ops=("crop", "flip"))


def test_discrepancies_by_name_and_back():
    assert catalog.discrepancy("mean") is mean
    assert catalog.discrepancy("linear") == MMD(linear)
    assert catalog.discrepancy("laplace") == MMD(Laplace())
    assert catalog.discrepancy("moments-1") == Moments(1)
    assert catalog.options_of(DistributionMatching(MMD(value=False)))["discrepancy"] == "MMD"


def test_changed_gives_the_non_default_options():
    assert texts.changed(DistributionMatching(), DistributionMatching) == {}
    assert texts.changed(DistributionMatching(lr=10.0, name="other"), DistributionMatching) == {"lr": 10.0}
    assert texts.changed(DistributionMatching(lr=10.0), DistributionMatching(lr=10.0)) == {}
    assert texts.changed(KMeans(candidates=3), Random()) == {"candidates": 3}


def test_options_of_lists_what_can_be_written():
    options = catalog.options_of(DistributionMatching)
    assert options.items() >= {"discrepancy": "mean", "lr": 1.0, "momentum": 0.5, "batch_real": 256}.items()
    assert set(options) == {f.name for f in dataclasses.fields(DistributionMatching)} - {"name"}
    assert catalog.options_of(catalog.recipe("m3d").method)["discrepancy"] == "gaussian"
    assert catalog.options_of(catalog.recipe("dc").method)["outer"] is None


def test_baselines_may_be_packed():
    assert catalog.baseline("kmeans") == (KMeans(), Formation())
    assert catalog.baseline("packed-random") == (Random(), Formation(factor=2))
    assert catalog.baseline(KMeans(candidates=5)) == (KMeans(candidates=5), Formation())
    assert catalog.baseline_name(*catalog.baseline("packed-kmeans")) == "packed-kmeans"
    assert catalog.baseline_name(Random(), Formation(3, "uint8")) == "packed-random factor=3 storage=uint8"
    with pytest.raises(ConfigError, match=r"unknown selection 'packed-kmean'. Did you mean 'packed-kmeans'"):
        catalog.baseline("packed-kmean")


@pytest.mark.parametrize(("text", "value"), [("true", True), ("Yes", True), ("1", True), ("no", False), ("0", False)])
def test_flags_as_text(text, value):
    assert catalog.convert("nested", text, bool) is value


def test_numbers_as_text():
    assert catalog.convert("lr", "3", float) == 3.0
    assert isinstance(catalog.convert("lr", 3, float), float)
    assert catalog.convert("lr", "nan", float) != catalog.convert("lr", "nan", float)
    with pytest.raises(ConfigError, match="nested must be true or false, got 'on'"):
        catalog.convert("nested", "on", bool)
    with pytest.raises(ConfigError, match=r"batch_real must be a whole number, got '2\.5'"):
        catalog.convert("batch_real", "2.5", int)


def test_a_network_of_your_own_keeps_its_name():
    found = catalog.network("tests.networks.test_adaptor:Net")
    assert isinstance(found, ModuleNetwork)
    assert found.name == "tests.networks.test_adaptor:Net"
    assert catalog.network(found.name) == found
    assert catalog.network("condensekit.networks.convnet:ConvNet width=8") == catalog.network("ConvNet-w8")
    assert catalog.network("torchvision.models:resnet18") == catalog.network("resnet18")
    recipe = catalog.recipe("dm", encoder_network=found.name)
    assert catalog.as_recipe(catalog.name_of(recipe)) == recipe
