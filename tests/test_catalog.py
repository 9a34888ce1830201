import dataclasses
import sys
import textwrap

import pytest
from condensekit.recipe import Recipe

from condensekit import catalog
from condensekit.errors import ConfigError
from condensekit.methods import DistributionMatching
from condensekit.networks.adaptor import TorchvisionNetwork
from condensekit.networks.convnet import ConvNet
from condensekit.networks.resnet import ResNet18
from condensekit.selection.base import Noise
from condensekit.selection.classic import KMeans
from condensekit.training.augment import Augmentation
from condensekit.training.evaluation import IDC, SHORT

OWN = """
    from dataclasses import dataclass
    from condensekit.methods import DistributionMatching
    from condensekit.selection.classic import Random

    @dataclass(frozen=True)
    class Mine(DistributionMatching):
        strength: float = 0.5
        nesterov: bool = False
        name: str = "mine"

    @dataclass(frozen=True, kw_only=True)
    class Needing(DistributionMatching):
        strength: float
        name: str = "needing"

    ready = Mine(strength=0.25)

    def made(strength: float = 1.0):
        return Mine(strength=strength)

    class First(Random):
        pass

    chosen = Random()
    nothing = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_things.py").write_text(textwrap.dedent(OWN))
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_things"
    sys.modules.pop("own_things", None)


def test_method_by_name_with_options_as_text():
    assert catalog.method("dm") == DistributionMatching()
    made = catalog.method("dm", lr="10", batch_real="64", momentum=0.9)
    assert made == DistributionMatching(lr=10.0, batch_real=64, momentum=0.9)


@pytest.mark.parametrize(
    ("name", "options", "strength"),
    [
        ("Mine", {}, 0.5),
        ("Mine", {"strength": "2"}, 2),
        ("made", {}, 1),
        ("made", {"strength": "3"}, 3),
        ("ready", {}, 0.25),
        ("ready", {"strength": "4"}, 4),
    ],
)
def test_own_method(own, name, options, strength):
    assert catalog.method(f"{own}:{name}", **options).strength == strength


def test_own_method_with_a_flag(own):
    assert catalog.method(f"{own}:Mine", nesterov="true").nesterov is True
    with pytest.raises(ConfigError, match="nesterov must be bool, got 'maybe'"):
        catalog.method(f"{own}:Mine", nesterov="maybe")


def test_own_method_with_an_option_that_has_no_default(own):
    made, arguments = Recipe(f"{own}:Needing", ("strength=0.3",)).build("digits")
    assert made.strength == 0.3
    assert arguments["augmentation"] is not None
    assert Recipe(f"{own}:Needing").name(made) == "needing strength=0.3"
    with pytest.raises(ConfigError) as caught:
        Recipe(f"{own}:Needing", ("strenght=0.3",)).build("digits")
    said = "option of method 'own_things:Needing' 'strength' has no default: give it a value (--set strength=VALUE)"
    assert caught.value.problems[1:] == (said,)
    assert "Did you mean 'strength'" in caught.value.problems[0]
    with pytest.raises(ConfigError, match="'strength' has no default"):
        catalog.preset(f"{own}:Needing")


def test_own_selection(own):
    assert type(catalog.selection(f"{own}:First")).__name__ == "First"
    assert catalog.selection(f"{own}:chosen").name == "random"


def test_entry_point(own, monkeypatch):
    from importlib.metadata import EntryPoint

    def points(group):
        return [EntryPoint("theirs", f"{own}:Mine", group)] if group == "condensekit.methods" else []

    monkeypatch.setattr(catalog, "entry_points", points)
    assert catalog.method("theirs").name == "mine"
    with pytest.raises(ConfigError, match=r"Did you mean 'theirs'\? Known: .*m3d, theirs"):
        catalog.method("their")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: catalog.method("dmm"), "unknown method 'dmm'. Did you mean 'dm'"),
        (lambda: catalog.method("dm", lrr=1), "unknown option of method 'dm' 'lrr'. Did you mean 'lr'"),
        (lambda: catalog.method("dm", name="x"), "unknown option of method 'dm' 'name'"),
        (lambda: catalog.method("dm", batch_real="2.5"), "batch_real must be int, got '2.5'"),
        (lambda: catalog.method("dm", lr="nan"), "lr must be positive and finite, got nan"),
        (lambda: catalog.method("no_such_module:Thing"), "cannot import method 'no_such_module:Thing'"),
        (lambda: catalog.method("math:Thing"), "cannot import method 'math:Thing'"),
        (lambda: catalog.method("math:pi"), "gives a float: expected a subclass of Condenser"),
        (lambda: catalog.selection("kmean"), "Did you mean 'kmeans'"),
        (lambda: catalog.selection("math:pi"), "gives a float"),
        (lambda: catalog.initialiser("nois"), "unknown initialiser 'nois'. Did you mean 'noise'"),
        (lambda: catalog.network("ConvNot"), "unknown network 'ConvNot'. Did you mean 'ConvNet'"),
        (lambda: catalog.network("ConvNet-banana"), "unknown option of network 'ConvNet' 'banana'"),
        (lambda: catalog.network("ResNet18-d4"), "unknown option of network 'ResNet18' 'd4'"),
        (lambda: catalog.network("ConvNet-w0"), "width must be an integer of at least 1, got 0"),
        (lambda: catalog.network("ConvNet-w²"), "unknown option of network 'ConvNet' 'w²'"),
        (lambda: catalog.discrepancy("moments-²"), "unknown discrepancy 'moments-²'"),
        (lambda: catalog.network("ConvNet-"), "unknown option of network 'ConvNet' ''"),
        (lambda: catalog.protocol("shorter"), "unknown protocol 'shorter'. Did you mean 'short'"),
        (lambda: catalog.augmentation("flop", "digits"), "flop"),
    ],
)
def test_unknown_names_offer_the_nearest(call, says):
    with pytest.raises(ConfigError) as caught:
        call()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_problems_of_a_method_are_listed():
    with pytest.raises(ConfigError) as caught:
        catalog.method("dm", lr="nan", momentum=2.0, batch_real="few", extra=1)
    assert len(caught.value.problems) == 4


def test_selections_and_initialisers():
    assert catalog.selection("kmeans") == KMeans()
    assert catalog.initialiser("kmeans") == KMeans()
    assert catalog.initialiser("noise") == Noise()
    assert {name: catalog.selection(name).name for name in catalog.SELECTIONS} == {n: n for n in catalog.SELECTIONS}


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


def test_protocol_suits_the_data():
    assert catalog.protocol("short") == SHORT
    assert catalog.protocol("idc", "cifar10") == IDC
    assert "flip" not in catalog.protocol("short", "digits").augmentation.ops


def test_augmentation():
    assert catalog.augmentation("none", "cifar10") is None
    assert catalog.augmentation("auto", "cifar10") == Augmentation()
    assert "flip" not in catalog.augmentation("auto", "mnist").ops
    assert catalog.augmentation("crop,flip", "mnist").ops == ("crop", "flip")


def test_changed_gives_the_non_default_options():
    assert catalog.changed(DistributionMatching()) == {}
    assert catalog.changed(DistributionMatching(lr=10.0, name="other")) == {"lr": 10.0}


def test_options_of_lists_what_can_be_written():
    options = catalog.options_of(DistributionMatching)
    assert options.items() >= {"discrepancy": "mean", "lr": 1.0, "momentum": 0.5, "batch_real": 256}.items()
    assert set(options) == {f.name for f in dataclasses.fields(DistributionMatching)} - {"name"}
    assert catalog.options_of(catalog.method("m3d"))["discrepancy"] == "gaussian"
    assert catalog.options_of(catalog.method("dc"))["outer"] is None


def test_row_name_is_the_method_and_what_is_not_the_default():
    assert catalog.row_name(DistributionMatching()) == "dm"
    assert (
        catalog.row_name(DistributionMatching(lr=10.0, batch_real=8), init="noise")
        == "dm lr=10 batch_real=8 init=noise"
    )
