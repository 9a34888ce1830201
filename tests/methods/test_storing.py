import dataclasses

import pytest
import torch

from condensekit import recipes
from condensekit.compute import Compute, Machine
from condensekit.driver import Saving, Status, condense
from condensekit.errors import ConfigError
from condensekit.methods import DistributionMatching
from condensekit.methods.encoders import Fresh
from condensekit.methods.gradient import GradientMatching
from condensekit.methods.kernel import KernelRidge
from condensekit.methods.recipe import Recipe
from condensekit.methods.storing import Storing
from condensekit.networks.convnet import ConvNet
from condensekit.selection.classic import Random
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import Formation
from condensekit.sets.through import Through
from condensekit.testing import context, shapes
from tests.reference.dm_twin import dm_loss_and_gradient

ONE = Machine("cpu", workers=0)
DM = Recipe(DistributionMatching(batch_real=8, lr=0.5), Fresh(ConvNet(width=8)), augmentation=None)
PICTURES = Storing("webp-mosaic", quality=20, every=2)


def made(recipe, steps=4, ipc=3, **options):
    return condense(shapes(), recipe, ipc=ipc, steps=steps, machine=ONE, **options)


@pytest.mark.parametrize("storing", [PICTURES, Storing("2bit", every=1), Storing("uint8", every=1)])
def test_a_step_moves_the_images_by_the_gradient_at_the_stored_images(storing):
    data = shapes()
    found = made(DM.replace(through=storing), steps=1).set
    plain = made(DM.replace(init=Random()), steps=1)
    with Compute(ONE) as compute:
        images = Random().first(data, 3, 1, context(data, compute).draw.at(0), compute)
    assert found.formation.dtype == storing.storage
    assert plain.set.formation.dtype == "float32"
    through = Through(storing.storage, data.spec, storing.quality)
    with Compute(ONE) as compute:
        ctx = dataclasses.replace(context(data, compute, step=1), gap=through(images) - images)
        method = DistributionMatching(batch_real=8, lr=0.5)
        after, _ = method.step(method.init(images, ctx), ctx)
        _, slope = dm_loss_and_gradient(ctx, through(images), 8)
    ours = (images - after["images"]) / 0.5
    assert (ours - slope).norm() <= 1e-4 * slope.norm()


def test_the_set_is_what_the_storage_makes_of_the_learnt_images():
    found = made(DM.replace(through=PICTURES)).set
    assert (found.formation.dtype, found.provenance["storage"]["quality"]) == ("webp-mosaic", [20] * 4)
    assert found.decode()[0].shape == (12, 3, 8, 8)


def test_a_room_is_kept_and_decides_the_quality():
    small, large = (made(DM.replace(through=Storing("webp-mosaic", room=room))).set for room in (190, 900))
    for label in small.classes:
        assert small.select([label]).nbytes <= 190
        assert large.select([label]).nbytes <= 900
    assert max(small.provenance["storage"]["quality"]) < max(large.provenance["storage"]["quality"])


def test_it_changes_what_is_learnt():
    stored = made(DM.replace(through=Storing("2bit", every=1)), steps=20).set
    after = made(DM, steps=20).set.stored_as("2bit")
    assert not torch.equal(stored.decode()[0], after.decode()[0])


def test_a_resume_has_the_same_bits(tmp_path):
    recipe = DM.replace(through=dataclasses.replace(PICTURES, every=3), average=0.5)
    whole = made(recipe, steps=7).set
    asked = iter([False, False, False, True])
    saving = Saving(tmp_path / "run", resume=True)
    cut = made(recipe, steps=7, saving=saving, stop=lambda: next(asked))
    assert cut.status is Status.INTERRUPTED
    resumed = made(recipe, steps=7, saving=saving).set
    assert torch.equal(whole.images, resumed.images)


@pytest.mark.parametrize(
    "parts",
    [
        {"formation": Formation(factor=2)},
        {"nested": True},
        {"classes_per_step": 3},
        {"method": GradientMatching(batch_real=4, outer=1, name="dc")},
        {"method": KernelRidge(batch_real=6)},
    ],
    ids=lambda parts: next(iter(parts)),
)
def test_every_kind_of_recipe_takes_it(parts, tmp_path):
    recipe = DM.replace(through=PICTURES, **parts)
    found = made(recipe, steps=3, saving=Saving(tmp_path / "run"))
    assert found.status is Status.FINISHED
    assert CondensedSet.load(tmp_path / "run" / "set.safetensors").formation.dtype == "webp-mosaic"


def test_images_that_no_longer_fit_are_kept_as_they_are(monkeypatch):
    def refused(self, found):
        raise ConfigError("the 3 images of class 0 take more than 190 bytes")

    monkeypatch.setattr(Storing, "stored", refused)
    found = made(DM.replace(through=PICTURES))
    assert found.set.formation.dtype == "float32"
    assert "stored as float32, because the 3 images of class 0 take more" in found.message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("dm through=avif", "through must be one of"),
        ("dm through.room=900", "name a storage"),
        ("dm through=webp-mosaic through.every=0", "every"),
        ("dm through=webp-mosaic through.room=900 through.quality=3", "leave out quality, or room"),
    ],
)
def test_bad_texts(text, told):
    with pytest.raises(ConfigError, match=told):
        recipes.parse(text)


def test_bad_recipes(tmp_path):
    both = DM.replace(through=PICTURES, formation=Formation(dtype="float16"))
    with pytest.raises(ConfigError, match="leave out storage='float16'"):
        made(both)
    with pytest.raises(ConfigError, match="more than 9 bytes"):
        made(DM.replace(through=Storing("webp-mosaic", room=9)), saving=Saving(tmp_path / "run"))


def test_texts_and_names_agree():
    text = "m3d through=webp-mosaic through.room=900 through.every=5"
    made = recipes.parse(text)
    assert made.through == Storing("webp-mosaic", room=900, every=5)
    assert recipes.name_of(made) == text
    assert recipes.m3d(through=PICTURES).through == PICTURES
    assert recipes.parse("m3d through=none").through is None
