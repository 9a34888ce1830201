"""A set as the start of a condensation."""

from dataclasses import replace

import pytest
import torch

import condensekit as ck
from condensekit.compute import Compute, Machine
from condensekit.data.images import ClassImages
from condensekit.driver import Saving, Status
from condensekit.errors import ConfigError, DataError, StoreError
from condensekit.rng import Draw
from condensekit.selection.base import Noise, selected_set
from condensekit.selection.classic import Random
from condensekit.selection.saved import Saved
from condensekit.sets.formation import Formation
from condensekit.sets.packing import pack
from condensekit.testing import LABELS, shapes

FAST = {"steps": 2, "machine": Machine("cpu", workers=1)}
NARROW = {"encoder_network": "ConvNet-w8", "batch_real": 8}


def chosen(data=None, ipc=2, seed=7, factor=1):
    with Compute(Machine("cpu", workers=0)) as compute:
        return selected_set(data or shapes(), Random(), ipc, Draw(seed), compute, Formation(factor))


def first(start, data=None, ipc=2, factor=1):
    data = data or shapes()
    start.check(data, ipc, factor)
    with Compute(Machine("cpu", workers=0)) as compute:
        return start.first(data, ipc, factor, Draw(0), compute)


def test_the_images_are_those_of_the_set(caplog):
    made = chosen()
    assert torch.equal(first(Saved(made)).flatten(0, 1), made.images)
    assert torch.equal(first(Saved(made), ipc=1)[:, 0], made.images[::2])
    assert not caplog.text


def test_what_the_set_lacks_starts_as_the_rest(caplog):
    data, made = shapes(), chosen().select(LABELS[:1])
    images = first(Saved(made, Noise()), data, ipc=3)
    noise = Noise().images(data, 3, Draw(0))
    assert torch.equal(images[0, :2], made.images)
    assert torch.equal(images[0, 2], noise[0, 2])
    assert torch.equal(images[1:], noise[1:])
    assert "3 of 4 classes and images beyond those of the set in 1 classes start as noise" in caplog.text


def test_a_small_class_needs_no_more_images_than_it_has(caplog):
    data = shapes(per_class=4)
    few = data.subset(torch.cat([data.order[4:], data.order[:1]]))
    made = chosen(few, ipc=3)
    assert sorted(made.counts) == [1, 3, 3, 3]
    images = first(Saved(made), few, ipc=3)
    assert torch.isfinite(images).all()
    assert not caplog.text


@pytest.mark.parametrize(("there", "here"), [(1, 2), (2, 1), (2, 2), (2, 4)])
def test_other_packing_is_unpacked_and_packed_again(there, here, caplog):
    data = shapes(per_class=64)
    made = chosen(data, ipc=16, factor=there)
    images = first(Saved(made, Noise()), data, ipc=1, factor=here)
    decoded = made.select(LABELS[:1]).decode()[0]
    wanted = made.images[0] if there == here else pack(decoded[: here**2], here)[0]
    assert torch.equal(images[0, 0], wanted)
    assert ("are packed again with" in caplog.text) == (there != here)


def test_other_normalisation_is_converted_by_way_of_pixels():
    data, made = shapes(), chosen()
    other = data.with_spec(mean=(0.25,) * 3, std=(0.125,) * 3)
    images = first(Saved(made), other).flatten(0, 1)
    torch.testing.assert_close(other.spec.to_pixels(images), made.spec.to_pixels(made.images))
    values = data.spec
    odd = replace(made, spec=replace(values, mean=(0.0,) * 3, std=(1.0,) * 3, pixels=False))
    with pytest.raises(DataError, match="of other normalisation than the data, and one of both are no pixels"):
        first(Saved(odd))


def test_classes_are_matched_by_name():
    data = shapes()
    names = dict(zip(LABELS, ("ant", "bee", "cow", "doe"), strict=True))
    made = chosen(data.with_spec(class_names=names))
    turned = dict(zip(LABELS, ("cow", "ant", "bee", "doe"), strict=True))
    images = first(Saved(made), data.with_spec(class_names=turned))
    assert torch.equal(images[[1, 2, 0, 3]].flatten(0, 1), made.images)
    assert torch.equal(first(Saved(made), data).flatten(0, 1), made.images)  # without names, labels decide


@pytest.mark.parametrize("dtype", ["float16", "uint8", "jpeg"])
def test_stored_values_are_decoded(dtype):
    made = chosen().stored_as(dtype, room=10_000 if dtype == "jpeg" else None)
    assert torch.equal(first(Saved(made)).flatten(0, 1), made.decode()[0])


def test_soft_labels_are_not_carried_over():
    made = chosen()
    soft = made.with_soft_labels(torch.full((len(made), 4), 1 / 4), LABELS)
    assert Saved(soft) == Saved(made)
    recipe = ck.recipes.dm(init=soft, **NARROW)
    assert ck.condense(shapes(), recipe, ipc=1, **FAST).set.soft_labels is None


def test_sets_that_differ_are_different_starts():
    made = chosen()
    other = replace(made, images=made.images + 1e-6)
    assert Saved(made) == Saved(replace(made, provenance={"selection": "random"}))
    assert Saved(made) != Saved(other)
    assert Saved(made) != Saved(made, Noise())


def test_wrong_sets():
    data, made = shapes(), chosen()
    with pytest.raises(DataError, match="without any class of the data: it has "):
        first(Saved(made), ClassImages.from_arrays(torch.rand(8, 3, 8, 8), torch.arange(100, 102).repeat(4)))
    with pytest.raises(DataError, match="gives a set of 3 x 8 x 8 images, and the data are 1 x 8 x 8"):
        first(Saved(made), ClassImages.from_arrays(torch.rand(8, 8, 8), torch.arange(2).repeat(4)))
    with pytest.raises(DataError, match="lower ipc"):
        first(Saved(made), data, ipc=1000)
    with pytest.raises(ConfigError, match="made must be a CondensedSet, got 3"):
        Saved(3)
    with pytest.raises(ConfigError, match="rest must be a Start"):
        Saved(made, "random")


# as the init of a recipe


def test_a_set_a_result_and_a_path_are_starts(tmp_path):
    made = ck.condense(shapes(), ck.recipes.dm(**NARROW), ipc=1, saving=tmp_path / "run", **FAST)
    file = tmp_path / "run/set.safetensors"
    usual = Saved(made.set, Random())
    for given in (made.set, made, file, str(file), tmp_path / "run", str(tmp_path / "run")):
        assert ck.recipes.dm(init=given).init == usual
    assert ck.Recipe.parse(f"m3d init={file}").init == usual
    assert ck.recipes.dc(init=made).init == Saved(made.set, Noise())  # the rest starts as usual
    assert ck.catalog.name_of(ck.recipes.dm(init=made)) == "dm init=saved"


def test_a_run_goes_on_from_a_set_and_says_from_which(tmp_path):
    made = chosen()
    recipe = ck.recipes.dm(init=made, lr=1e-6, **NARROW)
    found = ck.condense(shapes(), recipe, ipc=2, **FAST).set
    torch.testing.assert_close(found.images, made.images, atol=1e-2, rtol=0)
    told = found.provenance["config"]["init"]
    assert told == {"type": "Saved", "rest": {"type": "Random"}, "of": "random", "sha256": Saved(made).sha256}


def test_a_stopped_run_resumes_from_the_same_set_only(tmp_path):
    made = chosen()
    recipe = ck.recipes.dm(init=made, **NARROW)
    options = {**FAST, "steps": 4, "ipc": 2}
    saving = Saving(tmp_path / "run", resume=True)
    asked = iter([False, True])
    cut = ck.condense(shapes(), recipe, saving=saving, stop=lambda: next(asked), **options)
    assert cut.status is Status.INTERRUPTED
    other = replace(made, images=made.images + 0.5)
    with pytest.raises(ConfigError, match=r"init\.sha256: "):
        ck.condense(shapes(), ck.recipes.dm(init=other, **NARROW), saving=saving, **options)
    whole = ck.condense(shapes(), recipe, saving=saving, **options)
    assert torch.equal(whole.set.images, ck.condense(shapes(), recipe, **options).set.images)


def test_paths_without_a_set(tmp_path):
    (tmp_path / "set.safetensors").write_bytes(b"no set")
    with pytest.raises(StoreError, match="truncated or no safetensors file"):
        ck.recipes.dm(init=tmp_path / "set.safetensors")
    with pytest.raises(ConfigError, match="no run folder"):
        ck.recipes.dm(init=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"unknown init 'kmens'.* Did you mean 'kmeans'"):
        ck.recipes.dm(init="kmens")
    with pytest.raises(ConfigError, match=r"a start from a set has no option 'candidates'"):
        ck.recipes.dm(init=chosen(), **{"init.candidates": 3})


def test_a_public_file_is_a_start(tmp_path, caplog):
    images = torch.rand(8, 3, 8, 8)
    torch.save({"data": [[images, torch.tensor(LABELS).repeat_interleave(2)]] * 2}, tmp_path / "set.pt")
    start = ck.recipes.dm(init=str(tmp_path / "set.pt")).init
    assert "holds 2 sets: the first is taken" in caplog.text
    torch.save([images, torch.arange(8)], tmp_path / "data.pt")
    with pytest.raises(
        DataError, match=r"does not tell enough to start from it: read it with condensekit\.read_sets, and save"
    ):
        ck.recipes.dm(init=tmp_path / "data.pt")
    data = shapes()
    torch.testing.assert_close(first(start, data).flatten(0, 1), data.spec.normalise(images), atol=1e-4, rtol=0)
