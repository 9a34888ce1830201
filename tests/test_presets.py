"""What a method's name brings with it, and what the catalog makes of names, numbers and objects."""

import dataclasses

import pytest
from condensekit.presets import CHOICES, COSTS
from condensekit.recipe import Recipe

from condensekit import catalog
from condensekit.driver import condense
from condensekit.errors import ConfigError
from condensekit.methods import DistributionMatching, GradientMatching
from condensekit.methods.discrepancy import MMD, Gaussian, Laplace, Moments, linear, mean
from condensekit.methods.encoders import Fresh
from condensekit.methods.gradient import mse
from condensekit.methods.sampling import Clustered, Importance, Uniform
from condensekit.methods.trained_encoders import Trained
from condensekit.networks.convnet import ConvNet
from condensekit.selection.base import Noise
from condensekit.selection.classic import KMeans, Random
from condensekit.sets.condensed import Formation
from condensekit.testing import shapes
from condensekit.training.augment import Augmentation


def built(*args, data="cifar10", **words):
    return Recipe(*args, **words).build(data)


def test_dm_is_run_as_its_paper_does():
    method, arguments = built("dm")
    assert method == DistributionMatching()
    assert arguments == {
        "init": Random(),
        "sampling": Uniform(),
        "encoder": Fresh(),
        "augmentation": Augmentation(),
        "formation": Formation(),
        "nested": False,
        "soft_labels": False,
        "precision": "fp32",
    }


def test_a_recipe_gives_the_library_all_that_a_name_brings():
    method, arguments = Recipe.parse("m3d batch_real=4 network=ConvNet-w8").build("digits")
    made = condense(shapes(), method, ipc=1, iterations=1, workers=1, **arguments).set
    config = made.provenance["config"]
    assert (made.formation.factor, config["encoder"]["keep"]) == (2, 5)
    assert list(config["augmentation"]["ops"]) == ["color", "crop", "cutout"]


@pytest.mark.parametrize("name", ["m3d", "echo"])
def test_m3d_and_echo_are_one(name):
    method, arguments = built(name)
    expected = DistributionMatching(MMD(Gaussian()), 1.0, 0.5, 128, per_image=True, space="pixel", name=name)
    assert method == expected
    assert arguments["encoder"] == Fresh(keep=5)
    assert arguments["formation"] == Formation(factor=2)
    assert arguments["augmentation"].ops == ("color", "crop", "cutout")


def test_dc_starts_from_noise_without_augmentation_and_dsa_from_images_with_it():
    dc, dc_arguments = built("dc")
    dsa, dsa_arguments = built("dsa")
    assert (dc, dsa) == (GradientMatching(name="dc"), GradientMatching(name="dsa"))
    assert (dc_arguments["init"], dc_arguments["augmentation"]) == (Noise(), None)
    assert (dsa_arguments["init"], dsa_arguments["augmentation"]) == (Random(), Augmentation())


@pytest.mark.parametrize("name", catalog.PRESETS)
def test_every_preset_is_whole(name):
    preset = catalog.PRESETS[name]
    assert preset.method.name == name
    assert preset.paper
    assert preset.cost in COSTS
    assert set(preset.unfit) <= set(CHOICES)
    assert set(preset.fitting) == set(CHOICES) - set(preset.unfit)
    assert catalog.preset(name) == preset
    method, arguments = built(name)
    assert Recipe(name).name(method) == name
    assert catalog.encoder(catalog.encoder_name(arguments["encoder"]))
    assert ("discrepancy" in preset.fitting) == hasattr(method, "discrepancy")


def test_words_override_the_preset():
    method, arguments = built(
        "m3d",
        settings=("momentum=0.9", "sampling.epsilon=0.2", "encoder.count=2"),
        lr=3.0,
        batch_real=32,
        discrepancy="moments-3",
        init="kmeans",
        sampling="importance",
        encoder="trained",
        network="ConvNet-w16",
        keep=2,
        augment="crop,flip",
        factor=1,
        nested=True,
        storage="uint8",
        precision="bf16",
    )
    expected = DistributionMatching(Moments(3), 3.0, 0.9, 32, per_image=True, space="pixel", name="m3d")
    assert method == expected
    assert arguments == {
        "init": KMeans(),
        "sampling": Importance(epsilon=0.2),
        "encoder": Trained(ConvNet(width=16), count=2, keep=2),
        "augmentation": Augmentation(ops=("crop", "flip")),
        "formation": Formation(1, "uint8"),
        "nested": True,
        "soft_labels": False,
        "precision": "bf16",
    }


def test_augmentation_suits_the_data():
    assert "flip" not in built("dm", data="svhn")[1]["augmentation"].ops
    assert built("m3d", data="mnist")[1]["augmentation"].ops == ("color", "crop", "cutout")
    assert built("dc", data="mnist")[1]["augmentation"] is None
    assert built("dc", augment="none") == built("dc", augment="auto") == built("dc")
    assert built("dm", data="mnist", augment="none")[1]["augmentation"] is None


def test_parts_take_options_of_their_own():
    _, arguments = built("dm", sampling="kmeans", settings=("sampling.clusters=7", "sampling.refresh=5"))
    assert arguments["sampling"] == Clustered(clusters=7, refresh=5)
    _, arguments = built("dm", init="importance-kmeans", settings=("init.replacement=true", "init.clusters=3"))
    assert (arguments["init"].replacement, arguments["init"].clusters) == (True, 3)
    _, arguments = built("m3d", settings=("encoder.keep=7",))
    assert arguments["encoder"] == Fresh(keep=7)


def test_krr_may_be_labelled_by_trained_networks():
    assert built("krr", encoder="trained", soft_labels=True)[1]["soft_labels"]


def test_keep_makes_a_fresh_encoder_a_kept_one():
    assert built("dm", keep=4)[1]["encoder"] == Fresh(keep=4)
    assert built("dm", encoder="kept")[1]["encoder"] == Fresh(keep=5)
    assert built("m3d", encoder="fresh")[1]["encoder"] == Fresh()
    assert built("m3d", network="ConvNet-w8")[1]["encoder"] == Fresh(ConvNet(width=8), keep=5)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ({"method": "m3d"}, "m3d"),
        ({"method": "m3d", "factor": 2, "encoder": "kept", "keep": 5, "lr": 1.0}, "m3d"),
        ({"method": "m3d", "factor": 1, "lr": 3.0}, "m3d lr=3 factor=1"),
        ({"method": "m3d", "discrepancy": "linear"}, "m3d discrepancy=linear"),
        ({"method": "dm", "discrepancy": "moments-4"}, "dm discrepancy=moments-4"),
        ({"method": "dm", "init": "random", "augment": "auto"}, "dm"),
        ({"method": "dm", "factor": 2, "init": "kmeans", "nested": True}, "dm init=kmeans factor=2 nested=True"),
        (
            {"method": "dm", "sampling": "importance", "settings": ("sampling.weights=none",)},
            "dm sampling=importance sampling.weights=none",
        ),
        ({"method": "dsa", "settings": ("distance=mse", "outer=3")}, "dsa distance=mse outer=3"),
        ({"method": "dc", "init": "noise"}, "dc"),
    ],
)
def test_the_name_of_a_row_says_what_is_not_the_default(words, name):
    recipe = Recipe(**words)
    assert recipe.name(recipe.build("cifar10")[0]) == name


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"method": "dc", "encoder": "kept"}, "dc takes no --encoder: it trains the networks it matches gradients of"),
        ({"method": "dsa", "keep": 5}, "dsa takes no --keep: it trains the networks"),
        ({"method": "dsa", "discrepancy": "linear"}, "dsa takes no --discrepancy: it compares gradients"),
        ({"method": "dc", "augment": "crop"}, "dc takes no --augment: under an augmentation it is dsa"),
        ({"method": "dsa", "soft_labels": True}, "dsa takes no --soft-labels: its networks are trained"),
        ({"method": "krr", "discrepancy": "mean"}, "krr takes no --discrepancy: it compares predicted labels"),
        ({"encoder": "fresh", "keep": 5}, "leave out --keep 5, or use --encoder kept"),
        ({"settings": ("momentum",)}, "--set takes NAME=VALUE, got 'momentum'"),
        ({"settings": ("network.width=8",)}, "--set network.width: only init, sampling, encoder have options"),
        ({"settings": ("sampling.epsilon=1",)}, "unknown option of sampling 'uniform' 'epsilon'"),
        ({"settings": ("encoder.kep=2",), "encoder": "kept"}, "Did you mean 'keep'"),
        ({"settings": ("init.clusters=3",), "init": "noise"}, "noise has no option 'clusters'"),
        ({"discrepancy": "gausian"}, "unknown discrepancy 'gausian'. Did you mean 'gaussian'"),
        ({"discrepancy": "moments-9"}, "order must be an integer in 1 to 8, got 9"),
        ({"method": "dsa", "settings": ("distance=manhattan",)}, "unknown distance 'manhattan'"),
        ({"method": "dsa", "settings": ("outer=many",)}, "outer must be int, got 'many'"),
        ({"sampling": "importanc"}, "unknown sampling 'importanc'. Did you mean 'importance'"),
        ({"encoder": "keptt"}, "unknown encoder 'keptt'. Did you mean 'kept'"),
        ({"init": "jpeg-random"}, "unknown initialiser 'jpeg-random'"),
        ({"init": "math:pi"}, "gives a float"),
        ({"encoder": "math:pi"}, "expected a subclass of Encoder"),
        ({"factor": 0}, "factor must be an integer of at least 1, got 0"),
        ({"storage": "int4"}, "storage dtype must be one of"),
        ({"settings": ("lr=1",), "lr": 3.0}, "lr is given 2 times: keep one of them"),
        ({"settings": ("lr=1", "lr=3")}, "lr is given 2 times: keep one of them"),
        ({"settings": ("encoder.keep=2",), "encoder": "kept", "keep": 3}, "encoder.keep is given 2 times"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(words, says):
    with pytest.raises(ConfigError) as caught:
        Recipe(**words).build("cifar10")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_problems_are_listed():
    with pytest.raises(ConfigError) as caught:
        Recipe("dc", ("lr=nan",), discrepancy="mean", encoder="kept", network="x", sampling="y", init="z").build(
            "digits"
        )
    assert len(caught.value.problems) == 6


def test_discrepancies_by_name_and_back():
    assert catalog.discrepancy("mean") is mean
    assert catalog.discrepancy("linear") == MMD(linear)
    assert catalog.discrepancy("laplace") == MMD(Laplace())
    assert catalog.discrepancy("moments-1") == Moments(1)
    for name in (*catalog.DISCREPANCIES, "moments-5"):
        method = catalog.method("dm", discrepancy=name)
        assert catalog.method("dm", discrepancy=catalog.options_of(method)["discrepancy"]) == method
    assert catalog.method("dsa", distance="mse").distance is mse
    assert catalog.options_of(DistributionMatching(MMD(value=False)))["discrepancy"] == "MMD"


def test_options_that_may_be_none_take_numbers():
    assert catalog.method("dc", outer="3").outer == 3
    assert catalog.changed(dataclasses.replace(catalog.method("dc"), inner=0)) == {"inner": 0}


def test_changed_knows_the_presets_own_values():
    assert catalog.changed(catalog.method("m3d")) == {}
    assert catalog.changed(catalog.method("m3d", batch_real=256)) == {"batch_real": 256}
    assert catalog.row_name(catalog.method("m3d", lr=10.0), factor=1) == "m3d lr=10 factor=1"


def test_baselines_may_be_packed():
    assert catalog.baseline("kmeans") == (KMeans(), Formation())
    assert catalog.baseline("packed-random") == (Random(), Formation(factor=2))
    assert catalog.baseline_name(*catalog.baseline("packed-kmeans")) == "packed-kmeans"
    assert catalog.baseline_name(Random(), Formation(3, "uint8")) == "packed-random factor=3 storage=uint8"
    with pytest.raises(ConfigError, match=r"unknown selection 'packed-kmean'. Did you mean 'packed-kmeans'"):
        catalog.baseline("packed-kmean")


def test_a_recipe_may_be_written_as_text():
    text = "dm lr=3 batch_real=64 factor=2 init=kmeans nested=True soft_labels=True momentum=0.9 sampling.refresh=5"
    assert Recipe.parse(text) == Recipe(
        "dm", ("momentum=0.9", "sampling.refresh=5"), 3.0, 64, init="kmeans", factor=2, nested=True, soft_labels=True
    )
    with pytest.raises(ConfigError, match=r"a recipe is METHOD NAME=VALUE ..., got 'fast'"):
        Recipe.parse("dm fast")
    with pytest.raises(ConfigError, match="factor is given 2 times: keep one of them"):
        Recipe.parse("dm factor=1 factor=2")
    with pytest.raises(ConfigError, match=r"recipe 'dm factor=two': factor must be int, got 'two'"):
        Recipe.parse("dm factor=two")


@pytest.mark.parametrize(("word", "value"), [("true", True), ("Yes", True), ("1", True), ("no", False), ("0", False)])
def test_flags_are_read_alike_everywhere(word, value):
    assert Recipe.parse(f"dm nested={word} soft_labels={word}") == Recipe("dm", nested=value, soft_labels=value)
    assert catalog.method("dm", per_image=word).per_image is value


def test_a_flag_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="nested must be bool, got 'on': write true or false"):
        Recipe.parse("dm nested=on")
