"""The recipe: objects only, one copy of every option, checked before anything is spent."""

import dataclasses
import inspect

import pytest
import torch

from condensekit.compute import Machine
from condensekit.data.images import ImageSpec
from condensekit.errors import ConfigError, DataError
from condensekit.methods import DistributionMatching, GradientMatching, KernelRidge
from condensekit.methods.encoders import Fresh
from condensekit.methods.recipe import Recipe, as_recipe
from condensekit.methods.sampling import Importance, Uniform
from condensekit.methods.trained_encoders import Trained
from condensekit.networks.convnet import ConvNet
from condensekit.selection.base import Noise
from condensekit.selection.classic import KMeans, Random
from condensekit.selection.jpeg_random import JpegRandom
from condensekit.sets.formation import Formation
from condensekit.testing import shapes
from condensekit.training.augment import Augmentation

DM = DistributionMatching()
ONE = Machine("cpu", workers=1)


def test_a_method_is_surrounded_as_in_dm():
    assert Recipe(DM) == Recipe(
        DM, Fresh(ConvNet()), Augmentation(), Uniform(), Random(), Formation(), nested=False, soft_labels=False
    )
    assert as_recipe(DM) == Recipe(DM)
    assert as_recipe(Recipe(DM, nested=True)) == Recipe(DM, nested=True)


def test_it_is_frozen_and_equal_by_value():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe(DM).nested = True  # type: ignore[misc]
    assert hash(Recipe(DM)) == hash(Recipe(DistributionMatching()))


PARTS = {"encoder": Fresh, "augmentation": Augmentation, "sampling": Importance, "init": KMeans, "formation": Formation}


@pytest.mark.parametrize("name", PARTS)
def test_a_class_where_an_object_is_expected(name):
    kind = PARTS[name]
    with pytest.raises(ConfigError) as caught:
        Recipe(DM, **{name: kind})
    assert str(caught.value).startswith(f"{name} must be a")
    assert f"got the class {kind.__name__}: pass " in str(caught.value)
    assert f"{kind.__name__}(" in str(caught.value)
    with pytest.raises(ConfigError, match=f"got the class {kind.__name__}"):
        Recipe(DM).replace(**{name: kind})


def test_a_class_in_place_of_the_method():
    with pytest.raises(ConfigError) as caught:
        Recipe(DistributionMatching)
    says = "method must be a Condenser, got the class DistributionMatching: pass an object such as"
    assert str(caught.value) == f"{says} DistributionMatching()"


@pytest.mark.parametrize("given", [DistributionMatching, "dm", None, 3, lambda state, ctx: state])
def test_what_is_no_recipe_is_refused_in_a_line(given):
    """Text is understood at the public doors only: here are objects."""
    with pytest.raises(ConfigError, match="recipe must be a Recipe, got ") as caught:
        as_recipe(given)
    assert "DistributionMatching()" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("method", "dm"),
        ("method", Recipe(DM)),
        ("encoder", ConvNet()),
        ("encoder", "trained"),
        ("encoder", torch.nn.Linear(2, 2)),
        ("augmentation", "flip"),
        ("augmentation", ("flip",)),
        ("augmentation", False),
        ("sampling", "importance"),
        ("sampling", None),
        ("init", "kmeans"),
        ("init", None),
        ("init", DM),
        ("init", torch.zeros(4, 3, 8, 8)),
        ("formation", 2),
        ("formation", "uint8"),
        ("nested", "yes"),
        ("nested", None),
        ("soft_labels", 1),
        ("soft_labels", torch.ones(3)),
    ],
)
def test_wrong_kinds_are_named_with_a_call_that_works(name, wrong):
    with pytest.raises(ConfigError) as caught:
        Recipe(**{"method": DM, name: wrong})
    text = str(caught.value)
    assert text.startswith(f"{name} must be ")
    assert ": pass " in text
    assert "\n" not in text
    assert len(text) < 250


def test_all_problems_are_listed():
    with pytest.raises(ConfigError) as caught:
        Recipe("dm", "fresh", "flip", "uniform", "random", "uint8", "no", "no")
    assert len(caught.value.problems) == 8


def test_replace():
    recipe = Recipe(DM).replace(init=Noise(), nested=True)
    assert recipe == Recipe(DM, init=Noise(), nested=True)
    with pytest.raises(ConfigError, match=r"unknown field of a recipe 'samplin'\. Did you mean 'sampling'"):
        recipe.replace(samplin=Uniform())
    with pytest.raises(ConfigError, match="unknown field of a recipe 'lr'"):
        recipe.replace(lr=3.0)


def test_on_data_that_are_not_flippable_it_does_not_flip():
    spec = ImageSpec((1, 8, 8), (0.5,), (0.5,))
    upright = dataclasses.replace(spec, flippable=False)
    recipe = Recipe(DM)
    assert recipe.on(spec) is recipe
    assert recipe.on(upright) == recipe.replace(augmentation=Augmentation().without("flip"))
    assert recipe.on(upright).on(upright) == recipe.on(upright)
    bare = recipe.replace(augmentation=None)
    assert bare.on(upright) is bare
    only = recipe.replace(augmentation=Augmentation(ops=("flip",)))
    assert only.on(upright).augmentation is None


def test_separable_where_all_its_parts_are():
    assert Recipe(DM).separable
    assert not Recipe(DM, Trained()).separable
    assert not Recipe(DM, sampling=Importance()).separable
    assert not Recipe(KernelRidge()).separable


def test_a_recipe_that_fits_passes_the_check():
    data = shapes()
    for recipe in (Recipe(DM), Recipe(DM, Trained(), nested=True, soft_labels=True), Recipe(KernelRidge())):
        recipe.check(data, 2, ONE)
    Recipe(DM, init=Noise()).check(data, 15, ONE)  # one class has so many


@pytest.mark.parametrize("init", [Noise(), Random()])
def test_a_class_takes_what_it_has_wherever_it_starts(init):
    with pytest.raises(DataError, match="largest class 42 has 15 images but ipc=16: lower ipc"):
        Recipe(DM, init=init).check(shapes(), 16, ONE)


@pytest.mark.parametrize(
    ("changes", "ipc", "says"),
    [
        ({}, 0, "ipc must be an integer of at least 1, got 0"),
        ({}, "1", "ipc must be an integer of at least 1, got '1'"),
        ({"formation": Formation(factor=3)}, 1, "factor 3 does not divide the image size 8x8"),
        ({"nested": True}, 1, "nested=True needs an ipc of at least 2"),
        ({"soft_labels": True}, 1, r"soft_labels=True needs trained networks: use encoder=Trained\(\)"),
        ({"method": DistributionMatching(calibration=1.0)}, 1, "calibration=1.0 needs trained networks"),
        ({"method": GradientMatching(), "augmentation": None}, 1, "dsa needs an augmentation"),
        ({"encoder": Fresh(ConvNet(depth=9))}, 1, "depth=9 leaves nothing of a 8x8 image"),
        ({"init": KMeans(candidates=1)}, 2, "2 images per class cannot be chosen among 1 candidates"),
        ({"init": JpegRandom()}, 1, "jpeg-random images are stored as JPEG"),
        ({"formation": Formation(dtype="avif-mosaic")}, 1, "'avif-mosaic' has a quality, and a recipe has none"),
    ],
)
def test_what_makes_no_sense_with_the_data_is_refused(changes, ipc, says):
    with pytest.raises(ConfigError, match=says):
        Recipe(**{"method": DM, **changes}).check(shapes(), ipc, ONE)


def test_an_ipc_that_no_class_has_is_refused():
    with pytest.raises(DataError, match=r"class 42 has 15 images but ipc=4 with factor=2, which takes 16: .*factor=1"):
        Recipe(DM, formation=Formation(factor=2)).check(shapes(), 4, ONE)


def test_the_machine_is_checked_with_it():
    with pytest.raises(ConfigError, match="dsa takes no compiled network"):
        Recipe(GradientMatching()).check(shapes(), 1, Machine("cpu", compiled=True))


def test_all_problems_with_the_data_are_listed():
    recipe = Recipe(DM, formation=Formation(factor=3), nested=True, soft_labels=True)
    with pytest.raises(ConfigError) as caught:
        recipe.check(shapes(), 1, ONE)
    assert len(caught.value.problems) == 3


def test_what_condense_takes_beside_it_belongs_to_the_run():
    """A new option of a recipe is a field of it, and no argument of the functions that take one."""
    from condensekit import driver, everyday

    fields = {field.name for field in dataclasses.fields(Recipe)}
    for function in (driver.condense, everyday.condense):
        taken = set(inspect.signature(function).parameters)
        assert not taken & fields
        assert taken >= {"data", "recipe", "ipc", "steps", "minutes", "seed", "machine", "saving", "progress"}
