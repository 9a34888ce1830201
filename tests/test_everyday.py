"""The public doors: load, condense, select and evaluate, on what people have, by name and by object."""

import io
import re
import sys
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset
from torchvision import models
from torchvision.transforms import ToTensor

import condensekit as ck
from condensekit.catalog import PUBLISHED, recipes
from condensekit.compute import Compute
from condensekit.data.images import ClassImages
from condensekit.errors import CondensekitError, ConfigError, DataError
from condensekit.methods import DistributionMatching, GradientMatching
from condensekit.methods.recipe import Recipe
from condensekit.networks.convnet import ConvNet
from condensekit.progress import Progress, Stage
from condensekit.rng import Draw
from condensekit.selection.base import selected_set
from condensekit.selection.classic import KMeans, Random
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import Formation
from condensekit.testing import shapes
from condensekit.training import evaluation
from condensekit.training.augment import OPS, Augmentation
from condensekit.training.evaluation import Candidate
from condensekit.training.train import TrainProtocol

TINY = TrainProtocol("tiny", epochs=4, full_epochs=1, batch=16, lr=0.05, augmentation=None)
QUICK: dict[str, Any] = {
    "network": "ConvNet-w8",
    "networks": 1,
    "protocol": TINY,
    "machine": ck.Machine("cpu", workers=1),
}
SMALL = "dm batch_real=4 encoder_network=ConvNet-w8"


@pytest.fixture(scope="module")
def digits():
    return ck.load("digits")


@pytest.fixture(scope="module")
def made(digits):
    """Two runs that differ in the seed."""
    return [ck.condense(digits[0], SMALL, ipc=1, steps=2, seed=seed) for seed in (0, 1)]


# the same recipe by name, by object, by method and on the command line


SHORT_TRAINING = {"ncfm": {"encoder.steps": 2}}  # of recipes whose networks are trained


def text_of(name):
    return recipes.name_of(recipes.recipe(name, **SHORT_TRAINING.get(name, {})))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_name_and_its_function_give_the_same_images(digits, name):
    by_name = ck.condense(digits[0], text_of(name), ipc=1, steps=2, seed=3)
    recipe = getattr(ck.recipes, name)(**SHORT_TRAINING.get(name, {}))
    by_object = ck.condense(digits[0], recipe, ipc=1, steps=2, seed=3)
    assert torch.equal(by_name.set.images, by_object.set.images)
    assert by_name.set.provenance["config"] == by_object.set.provenance["config"]
    assert by_name.set.name == text_of(name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_command_line_gives_the_same_images(digits, name, cli, tmp_path):
    run = tmp_path / "run"
    options = ("--ipc", 1, "--steps", 2, "--seed", 3, "--out", run)
    code, _, err = cli("condense", "--data", "digits", "--method", text_of(name), *options)
    assert code == 0, err
    ours = ck.condense(digits[0], text_of(name), ipc=1, steps=2, seed=3).set
    assert torch.equal(CondensedSet.load(run / "set.safetensors").images, ours.images)


def test_the_command_line_takes_the_text_of_a_recipe(digits, cli, tmp_path):
    text, run = "m3d lr=3 init=kmeans factor=1 encoder_network=ConvNet-w8", tmp_path / "run"
    code, _, err = cli("condense", "--data", "digits", "--method", text, "--ipc", 1, "--steps", 2, "--out", run)
    assert code == 0, err
    ours = ck.condense(digits[0], text, ipc=1, steps=2).set
    assert torch.equal(CondensedSet.load(run / "set.safetensors").images, ours.images)


def test_a_bare_method_is_surrounded_as_in_dm(digits):
    by_name = ck.condense(digits[0], "dm", ipc=1, steps=2).set
    for method in (DistributionMatching(), Recipe(DistributionMatching()), ck.Recipe.parse("dm")):
        assert torch.equal(by_name.images, ck.condense(digits[0], method, ipc=1, steps=2).set.images)
    dsa = ck.condense(digits[0], GradientMatching(batch_real=8, outer=1), ipc=1, steps=1)
    assert dsa.set.name == "dsa outer=1 batch_real=8" or dsa.set.name == "dsa batch_real=8 outer=1"


def test_text_and_objects_say_the_same(digits):
    text = "dm lr=3 init=kmeans init.candidates=20 factor=2 storage=uint8 augment=crop encoder_network=ConvNet-w8"
    given = recipes.dm(
        lr=3,
        init=KMeans(candidates=20),
        formation=Formation(2, "uint8"),
        augmentation=Augmentation(ops=("crop",)),
        encoder=ConvNet(width=8),
    )
    runs = [ck.condense(digits[0], recipe, ipc=1, steps=1).set for recipe in (text, given)]
    assert torch.equal(runs[0].images, runs[1].images)
    assert runs[0].name == runs[1].name == ck.catalog.name_of(given)


# the data that people have


class Pictures(Dataset):
    """Torchvision-style: PIL images and integers."""

    classes = ("a", "b", "c")

    def __init__(self, images, labels, transform=None):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image = Image.fromarray(self.images[index].transpose(1, 2, 0))
        return image if self.transform is None else self.transform(image), int(self.labels[index])

    @property
    def targets(self):
        return self.labels.tolist()


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [10, 8, 9])
    pattern = rng.integers(0, 150, (3, 3, 8, 8))
    return (pattern[labels] + rng.integers(0, 100, (27, 3, 8, 8))).astype(np.uint8), labels


def in_folder(images, labels, folder):
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / "train" / "abc"[label]).mkdir(parents=True, exist_ok=True)
        (folder / "test" / "abc"[label]).mkdir(parents=True, exist_ok=True)
        for part in ("train", "test"):
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / part / "abc"[label] / f"{index:03}.png")
    return ck.load(folder)[0]


def in_npz(images, labels, folder):
    np.savez(folder / "x.npz", images=images, labels=labels, test_images=images[:3], test_labels=labels[:3])
    return ck.load(str(folder / "x.npz"))[0]


def in_an_experience(images, labels):
    from avalanche.benchmarks import nc_benchmark

    pictures = Pictures(images, labels)
    words = {"n_experiences": 1, "task_labels": False, "fixed_class_order": [0, 1, 2]}
    stream = nc_benchmark(pictures, pictures, train_transform=ToTensor(), eval_transform=ToTensor(), **words)
    return stream.train_stream[0]


FORMS = {
    "arrays": lambda images, labels, _: (images, labels),
    "tensors": lambda images, labels, _: (torch.from_numpy(images), torch.from_numpy(labels)),
    "strings": lambda images, labels, _: (images, np.array(["a", "b", "c"])[labels]),
    "class images": lambda images, labels, _: ClassImages.from_arrays(images, labels),
    "data set": lambda images, labels, _: Pictures(images, labels),
    "tensor data set": lambda images, labels, _: TensorDataset(torch.from_numpy(images), torch.from_numpy(labels)),
    "to tensor": lambda images, labels, _: Pictures(images, labels, ToTensor()),
    "subset": lambda images, labels, _: Subset(
        Pictures(np.concatenate([images[:1], images]), np.concatenate([labels[:1], labels])), range(1, 28)
    ),
    "concatenated": lambda images, labels, _: ConcatDataset(
        [Pictures(images[:5], labels[:5]), Pictures(images[5:], labels[5:])]
    ),
    "loader": lambda images, labels, _: DataLoader(Pictures(images, labels), batch_size=4),
    "folder": in_folder,
    "npz": in_npz,
    "experience": lambda images, labels, _: in_an_experience(images, labels),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_data_gives_the_same_images(arrays, form, tmp_path):
    images, labels = arrays
    data = FORMS[form](images, labels, tmp_path)
    ours = ck.condense(data, SMALL, ipc=1, steps=2).set
    expected = ck.condense(ClassImages.from_arrays(*arrays), SMALL, ipc=1, steps=2).set
    assert torch.equal(ours.images, expected.images)
    assert ours.classes == (0, 1, 2)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_data_can_be_chosen_from_and_tested_on(arrays, form, tmp_path):
    images, labels = arrays
    data = FORMS[form](images, labels, tmp_path)
    chosen = ck.select(data, "kmeans", ipc=2)
    plain = ClassImages.from_arrays(*arrays)
    assert torch.equal(chosen.images, ck.select(plain, "kmeans", ipc=2).images)
    rows = [ck.evaluate(chosen, test, train=test, **QUICK).rows for test in (data, plain)]
    assert [row.accuracies for row in rows[0]] == [row.accuracies for row in rows[1]]


def test_what_load_gives_of_an_object(arrays):
    train, test = ck.load(arrays)
    assert (len(train), len(test)) == (21, 6)
    assert train.classes == test.classes == (0, 1, 2)
    assert train.spec == test.spec
    assert not set(train.order.tolist()) & set(test.order.tolist())
    for one, other in zip((train, test), ck.load(Pictures(*arrays)), strict=True):
        assert one.order.tolist() == other.order.tolist()


def test_a_pair_of_training_and_test_images_is_loaded_as_it_is(arrays):
    images, labels = arrays
    train, test = Pictures(images, labels), Pictures(images[:12], labels[:12])
    for given in ((train, test), (DataLoader(train), test), ((images, labels), (images[:12], labels[:12]))):
        found = ck.load(given, flippable=False)
        assert (len(found[0]), len(found[1])) == (27, 12)
        assert found[0].spec == found[1].spec
        assert not found[0].spec.flippable
        assert torch.equal(found[1].images, found[0].images[:12])
    held = ck.load(train)
    again = ck.load(held)
    assert [len(part) for part in again] == [len(part) for part in held]
    assert again[1].spec == held[0].spec
    with pytest.raises(DataError, match="test has class '2', which train lacks"):
        ck.load(((images[labels < 2], labels[labels < 2]), (images, labels)))
    with pytest.raises(DataError, match=r"test has images of shape \(3, 4, 4\), .* \(3, 8, 8\), pixels: give"):
        ck.load(((images, labels), (images[:, :, :4, :4], labels)))


def test_classes_of_test_images_are_found_by_name(arrays):
    images, labels = arrays
    named = [[("a", "b", "c")[label] for label in labels], [("b", "c")[label] for label in labels[labels < 2]]]
    train, test = ck.load(((images, named[0]), (images[labels < 2], named[1])))
    assert train.spec.class_names == test.spec.class_names == {0: "a", 1: "b", 2: "c"}
    assert test.classes == (1, 2)


def test_pictures_of_an_object_that_differ_in_size_have_a_way_out(arrays):
    images, _ = arrays
    mixed = [(images[0], 0), (images[1][:, :4], 0), (images[2], 1)]
    with pytest.raises(DataError, match=r"item 1 is \(3, 4, 8\): resize in the data set's transform, such as Resize"):
        ck.load(mixed)


def test_a_part_is_held_out(digits):
    rest, held = digits[0].split(0.2, seed=0)
    assert len(rest) + len(held) == len(digits[0])
    assert rest.classes == held.classes == digits[0].classes
    assert torch.equal(held.order, digits[0].split(0.2, Draw(0))[1].order)
    assert not torch.equal(held.order, digits[0].split(0.2, seed=1)[1].order)


# flips


@pytest.fixture
def flips(monkeypatch):
    """How often images were mirrored."""
    counted, flip = [], OPS["flip"]

    def counting(*arguments):
        counted.append(1)
        return flip(*arguments)

    monkeypatch.setitem(OPS, "flip", counting)
    return counted


FLIPPING = Augmentation(ops=("flip", "crop"))
MIRROR = recipes.recipe("dm", batch_real=4, encoder="ConvNet-w8", augmentation=FLIPPING)
TRAINED = {**QUICK, "protocol": TrainProtocol("flipping", epochs=10, full_epochs=10, augmentation=FLIPPING)}


def use(train, test):
    """A condensation, an evaluation of what it gave, and of real images."""
    made = ck.condense(train, MIRROR, ipc=1, steps=8)
    ck.evaluate(made, test, train=train, **TRAINED)
    return made


def test_digits_are_never_mirrored(digits, flips):
    made = use(*digits)
    assert not digits[0].spec.flippable
    assert not made.set.spec.flippable
    assert flips == []


def test_digits_of_ones_own_are_mirrored_until_one_says_so(digits, flips, tmp_path):
    pixels, labels = (digits[0].images[digits[0].order].numpy(), digits[0].labels[digits[0].order].numpy())
    own = ClassImages.from_arrays(pixels, labels)
    use(own, own)
    assert flips
    flips.clear()
    use(own.with_spec(flippable=False), own.with_spec(flippable=False))
    np.savez(tmp_path / "own.npz", images=pixels, labels=labels)
    use(*ck.load(tmp_path / "own.npz", flippable=False))
    use(*ck.load((pixels, labels), flippable=False))
    assert flips == []


def test_a_set_that_is_not_flippable_is_not_mirrored_whatever_the_test_images_say(digits, flips):
    """Nor are the real images that it is compared with: both get the same training."""
    train, test = digits
    made = ck.condense(train, MIRROR, ipc=1, steps=1)
    plain = (test.images[test.order], test.labels[test.order])
    ck.evaluate(made, plain, train=(train.images[train.order], train.labels[train.order]), **TRAINED)
    assert flips == []


def test_the_set_keeps_it_on_disk(digits, tmp_path):
    made = ck.condense(digits[0], SMALL, ipc=1, steps=1, saving=tmp_path / "run")
    assert CondensedSet.load(tmp_path / "run" / "set.safetensors").spec == made.set.spec
    assert not made.set.spec.flippable


# condense


def test_it_is_silent_and_shows_bars_in_a_terminal_only(digits, capsys):
    ck.condense(digits[0], SMALL, ipc=1, steps=2)
    assert capsys.readouterr() == ("", "")


def test_a_bar_in_a_terminal(digits, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    ck.condense(digits[0], SMALL, ipc=1, steps=2)
    assert "condense (dm)" in terminal.getvalue()


def test_progress_is_told(digits):
    seen = []

    class Told(Progress):
        @contextmanager
        def stage(self, name, total, done=0):
            seen.append((name, total))
            yield Stage()

    ck.condense(digits[0], SMALL, ipc=1, steps=2, progress=Told())
    assert ("condense (dm)", 2) in seen


def test_results_say_what_they_are(digits, made):
    assert repr(made[0].set) == (
        "CondensedSet(10 images of (1, 8, 8), 10 classes, 1 per class, 2,640 bytes: "
        "dm batch_real=4 encoder_network=ConvNet-w8)"
    )
    for shown in (*digits, made[0].set, Recipe.parse("dm"), ck.Machine()):
        assert "\n" not in repr(shown)
    assert repr(made[0]).startswith("CondenseResult(finished, CondensedSet(10 images")
    assert made[0].set._repr_html_().startswith("<")


def test_a_run_is_saved_and_resumed(digits, tmp_path):
    whole = ck.condense(digits[0], SMALL, ipc=1, steps=4)
    asked = iter([False, True])
    cut = ck.condense(digits[0], SMALL, ipc=1, steps=4, saving=tmp_path / "run", stop=lambda: next(asked))
    assert cut.status.value == "interrupted"
    saving = ck.Saving(tmp_path / "run", resume=True)
    assert torch.equal(ck.condense(digits[0], SMALL, ipc=1, steps=4, saving=saving).set.images, whole.set.images)
    with pytest.raises(ConfigError, match=r"method\.lr: 1\.0 there, 3\.0 here"):
        ck.condense(digits[0], SMALL + " lr=3", ipc=1, steps=4, saving=saving)


def test_what_changes_bits_is_part_of_a_run(digits, tmp_path):
    run, resumed = tmp_path / "run", ck.Saving(tmp_path / "run", resume=True)
    ck.condense(digits[0], SMALL, ipc=1, steps=1, saving=run, machine=ck.Machine("cpu", workers=1))
    ck.condense(digits[0], SMALL, ipc=1, steps=1, saving=resumed, machine=ck.Machine("cpu", workers=2))
    for machine, said in ((ck.Machine(precision="mixed"), "machine.precision"), (ck.Machine(chunk=4), "machine.chunk")):
        with pytest.raises(ConfigError, match=said):
            ck.condense(digits[0], SMALL, ipc=1, steps=1, saving=resumed, machine=machine)


def test_a_wall_time_instead_of_steps(digits):
    assert len(ck.condense(digits[0], SMALL, ipc=1, minutes=0.005).history) >= 1


def test_an_encoder_of_torchvision(digits):
    made = ck.condense(digits[0], recipes.dm(encoder=models.mobilenet_v3_small, batch_real=4), ipc=1, steps=1)
    assert made.set.name == "dm batch_real=4 encoder_network=mobilenet_v3_small"


# select


def test_select_needs_images_a_name_and_a_number(digits):
    chosen = ck.select(digits[0], "kmeans", ipc=2)
    with Compute(size=(8, 8)) as compute:
        expected = selected_set(digits[0], KMeans(), 2, Draw(0), compute)
    assert torch.equal(chosen.images, expected.images)
    assert chosen.provenance == expected.provenance
    assert torch.equal(ck.select(digits[0], KMeans(), ipc=2).images, chosen.images)


def test_select_is_random_by_default_and_follows_the_seed(digits):
    first, same, other = (ck.select(digits[0], ipc=1, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.images, same.images)
    assert not torch.equal(first.images, other.images)
    assert first.provenance["selection"] == "random"


def test_packed_selections(digits):
    packed = ck.select(digits[0], "packed-random", ipc=1)
    assert packed.formation == Formation(factor=2)
    assert len(packed.decode()[0]) == 40
    assert ck.select(digits[0], "packed-random", ipc=1, formation=Formation(dtype="uint8")).formation.factor == 1


def test_a_function_chooses(digits):
    from condensekit.selection.base import Chosen

    def first(data, ipc, draw, compute):
        return Chosen(torch.cat([data.indices_of(label)[:ipc] for label in data.classes]))

    chosen = ck.select(digits[0], first, ipc=1)
    assert chosen.provenance["selection"] == "first"
    assert torch.equal(chosen.decode()[0][0], digits[0].gather(digits[0].indices_of(0)[:1])[0])


# evaluate


def rows_of(found):
    return {(row.set, row.network): row.accuracies for row in found.rows}


def test_evaluate_is_the_evaluation_of_candidates(digits, made):
    found = ck.evaluate(made, digits[1], train=digits[0], **{**QUICK, "networks": 2})
    sets = tuple(ck.select(digits[0], "random", ipc=1, seed=seed) for seed in (0, 1))
    with Compute(QUICK["machine"], (8, 8)) as compute:
        expected = evaluation.evaluate(
            [Candidate(made[0].set.name, tuple(each.set for each in made), 1), Candidate("random", sets, 1)],
            digits[1],
            network=(ConvNet(width=8),),
            networks=2,
            protocol=TINY,
            compute=compute,
        )
    assert rows_of(found) == rows_of(expected)
    assert [(row.set, row.difference, row.reference) for row in found.rows] == [
        (row.set, row.difference, row.reference) for row in expected.rows
    ]


def test_a_set_a_result_a_path_and_lists_of_them(digits, made, tmp_path):
    train, test = digits
    for seed in (0, 1):
        ck.condense(train, SMALL, ipc=1, steps=2, seed=seed, saving=tmp_path / "runs" / f"seed-{seed}")
    one, file = tmp_path / "runs" / "seed-0", tmp_path / "runs" / "seed-0" / "set.safetensors"
    alone = rows_of(ck.evaluate(made[0], test, against=None, **QUICK))
    for sets in (made[0].set, one, str(one), file, [made[0]]):
        assert rows_of(ck.evaluate(sets, test, against=None, **QUICK)) == alone
    both = rows_of(ck.evaluate(made, test, against=None, **QUICK))
    (row,) = both.values()
    assert len(row) == 2  # sets that differ in the seed alone are one row
    assert rows_of(ck.evaluate(tmp_path / "runs", test, against=None, **QUICK)) == both


def test_names_of_ones_own(digits, made):
    found = ck.evaluate({"mine": made[0], "theirs": made}, digits[1], against=None, **QUICK)
    assert [(row.set, row.sets) for row in found.rows] == [("mine", 1), ("theirs", 2)]


def test_selections_to_compare_with(digits, made):
    train, test = digits
    assert [row.set for row in ck.evaluate(made[0], test, train=train, **QUICK).rows] == [made[0].set.name, "random"]
    found = ck.evaluate(made[0], test, train=train, against=["kmeans", "packed-random", "full"], **QUICK)
    assert [row.set for row in found.rows] == [made[0].set.name, "kmeans", "packed-random", "full"]
    assert [row.reference for row in found.rows] == ["kmeans", None, "kmeans", None]
    found = ck.evaluate(made[0], test, train=train, against=KMeans(candidates=20), **QUICK)
    assert [row.set for row in found.rows] == [made[0].set.name, "kmeans"]
    found = ck.evaluate([made[0], ck.select(train, ipc=1)], test, train=train, **QUICK)
    assert [row.set for row in found.rows] == [made[0].set.name, "random"]  # it is there already


def test_networks_by_name_by_object_and_by_function(digits, made):
    networks = ["ConvNet-w8", ConvNet(width=4), models.mobilenet_v3_small]
    found = ck.evaluate(made[0], digits[1], against=None, **{**QUICK, "network": networks})
    assert [row.network for row in found.rows] == ["ConvNet-w8", "ConvNet-w4", "mobilenet_v3_small"]


def test_test_images_take_the_normalisation_of_the_set(digits, made):
    train, test = digits
    plain = (test.images[test.order], test.labels[test.order])
    assert ClassImages.from_arrays(*plain).spec.mean != train.spec.mean
    expected = rows_of(ck.evaluate(made[0], test, train=train, **QUICK))
    raw = (train.images, train.labels)
    assert rows_of(ck.evaluate(made[0], plain, train=train, **QUICK)) == expected
    assert rows_of(ck.evaluate(made[0], plain, train=ClassImages.from_arrays(*raw).subset(train.order), **QUICK)) == (
        expected
    )


def test_the_training_images_are_read_again_where_nobody_gives_them(digits, made):
    given = rows_of(ck.evaluate(made, digits[1], train=digits[0], **QUICK))
    assert rows_of(ck.evaluate(made, digits[1], **QUICK)) == given
    chosen = ck.select(digits[0], "kmeans", ipc=1)
    assert [row.set for row in ck.evaluate(chosen, digits[1], **QUICK).rows] == ["kmeans", "random"]


def test_a_run_folder_remembers_where_its_images_are(arrays, tmp_path):
    images, labels = arrays
    train = in_npz(images, labels, tmp_path)
    ck.condense(train, SMALL, ipc=1, steps=1, saving=tmp_path / "run")
    expected = rows_of(ck.evaluate(tmp_path / "run", train, train=train, **QUICK))
    assert rows_of(ck.evaluate(tmp_path / "run", train, **QUICK)) == expected
    in_npz(255 - arrays[0], arrays[1], tmp_path)
    with pytest.raises(ConfigError, match=r"not made from the present images of '.*x\.npz' .*: pass train="):
        ck.evaluate(tmp_path / "run", train, **QUICK)


def test_a_part_of_the_images_is_not_taken_for_all(digits):
    rest, held = digits[0].split(0.2, seed=0)
    made = ck.condense(rest, SMALL, ipc=1, steps=1)
    with pytest.raises(ConfigError, match=r"not made from the present images of 'digits' \(perhaps from a part\)"):
        ck.evaluate(made, held, **QUICK)
    assert ck.evaluate(made, held, train=rest, **QUICK).rows[1].set == "random"


def test_images_that_nobody_can_read_again_are_asked_for(arrays):
    made = ck.condense(arrays, SMALL, ipc=1, steps=1)
    with pytest.raises(ConfigError, match=r"does not record where they are: pass train=, or against=None"):
        ck.evaluate(made, arrays, **QUICK)
    assert len(ck.evaluate(made, arrays, against=None, **QUICK).rows) == 1


def test_a_result_is_a_table(digits, made):
    found = ck.evaluate(made[0], digits[1], train=digits[0], **QUICK)
    assert str(found).startswith("Accuracy in % on the 359 test images of digits")
    assert re.search(r"^\| set +\| accuracy % \| difference to random", str(found), re.MULTILINE)
    assert found._repr_html_().startswith('<div class="ck">')
    assert len(repr(found)) < 160
    assert found.rows[0].work["images"] > 0


def test_bytes_and_floats_of_the_same_images_condense_alike():
    """A learner's first try: 10 digits as floats in [0, 1] gave saturated blobs where bytes gave digits."""
    (train, _), scale = ck.load("digits"), 255 / 16
    levels = (train.images.float() / scale).round()  # 0 to 16, as scikit-learn has them
    sources = {
        "bytes": (levels * scale).round().byte(),
        "floats": levels / 16,
        "doubles": levels.double().numpy() / 16,
        "whole floats": (levels * scale).round(),
        "integers": (levels * scale).round().numpy().astype(int),
    }
    made = {name: ck.condense((images, train.labels), SMALL, ipc=1, steps=2).set for name, images in sources.items()}
    for name, one in made.items():
        close = 0.02 if name in ("floats", "doubles") else 0  # sixteenths are no whole bytes
        assert float((one.images - made["bytes"].images).abs().mean()) <= close
    assert made["floats"].spec.mean == pytest.approx(made["bytes"].spec.mean, abs=0.001)


def test_a_test_set_of_floats_is_normalised_as_the_training_images(digits, made):
    test = digits[1]
    fine = (test.images / 255).clamp(0.001, 0.999)
    found = [ck.evaluate(made[0], one, against=None, **QUICK) for one in (test, (fine, test.labels))]
    assert found[0].rows[0].accuracy_mean == pytest.approx(found[1].rows[0].accuracy_mean, abs=0.01)
    with pytest.raises(DataError):  # normalised elsewhere, no one knows how
        ck.evaluate(made[0], (fine - 0.5, test.labels), against=None, **QUICK)


def test_load_prints_nothing(capfd):
    train, _ = ck.load((IMAGES + np.arange(8, dtype=np.uint8)[:, None, None, None], LABELS))
    assert "\n" not in repr(train)
    assert capfd.readouterr() == ("", "")


# bad input: one line with the argument, the value and a call that works

IMAGES, LABELS = np.zeros((8, 3, 8, 8), np.uint8), np.arange(8) % 2
TRAIN = shapes()


def condense(data=TRAIN, recipe="dm", **words):
    return ck.condense(data, recipe, **{"ipc": 1, "steps": 1, **words})


BAD_DATA = [
    ("digits", r"data must be images, got 'digits': pass a part of what load\('digits'\) returns"),
    (None, r"data must be images with labels, got None \(NoneType\): pass a data set object"),
    (3, "data must be images with labels, got 3 .*what condensekit.load returns"),
    ((TRAIN, TRAIN), "data must be one set of images, got two: pass the training or the test images alone"),
    ([TRAIN], r"got \[ClassImages.* \(list\): pass"),
    ((IMAGES, LABELS, LABELS), r"got .* \(tuple\): pass .*\(images, labels\) arrays"),
    (IMAGES, r"got .* \(ndarray\): pass .*\(images, labels\) arrays"),
    (torch.zeros(3, 3, 8, 8), r"got .* \(Tensor\): pass .*\(images, labels\) arrays"),
    ({"images": IMAGES}, r"got .* \(dict\): pass .*\(images, labels\) arrays"),
    (Pictures, "got the class Pictures: pass a data set object"),
    (models.resnet18, "data must be images with labels, got"),
    ((np.zeros((8, 8, 8, 8)), LABELS), r"cannot tell the channels .* layout='NHWC' if they are on axis 3"),
    ((IMAGES, LABELS[:4]), r"expected 8 labels, one for each image, got shape \(4,\)"),
    ((LABELS, IMAGES), r"labels must be \(N,\) integers or strings, got shape \(8, 3, 8, 8\)"),
    ((IMAGES, None), r"labels must be \(N,\) integers or strings"),
    ((None, LABELS), "images must be an array of uint8 or float32, got NoneType"),
    ((IMAGES + 16.0, LABELS), r"whole numbers in 16..16: pass them as astype\('uint8'\), or divided by their highest"),
    ((IMAGES[:, 0, 0], LABELS), r"images of shape \(8, 8\) are flat rows: pass images.reshape\(-1, C, H, W\)"),
    ((IMAGES[:0], LABELS[:0]), "the set is empty"),
    (Pictures(IMAGES[:0], LABELS[:0]), "the data set is empty"),
]


@pytest.mark.parametrize(("data", "says"), BAD_DATA, ids=[says[:30] for _, says in BAD_DATA])
def test_what_are_no_images(data, says):
    refused(lambda: condense(data), says)
    refused(lambda: ck.select(data, ipc=1), says)


def refused(call, says):
    """The call is refused in one line that says so."""
    with pytest.raises(CondensekitError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


RESNET = models.resnet18()
CONDENSE = {
    "class of a method": (
        lambda: condense(recipe=DistributionMatching),
        r"recipe must be a name, a Recipe or a method, got the class DistributionMatching: pass Dist.*\(\)$",
    ),
    "function": (lambda: condense(recipe=recipes.dm), r"recipe must be .*: pass dm\(\)"),
    "None": (lambda: condense(recipe=None), r'got None \(NoneType\): pass "m3d", recipes.m3d\(lr=3\)'),
    "network": (lambda: condense(recipe=ConvNet()), r"got ConvNet\(.*\): pass \"m3d\""),
    "unknown name": (lambda: condense(recipe="dmm"), "unknown method 'dmm'. Did you mean 'dm'"),
    "no name": (lambda: condense(recipe=""), "unknown method ''. Known: dance, dc, dm"),
    "half an option": (
        lambda: condense(recipe="dm lr"),
        r"a recipe is written NAME key=value ..., got 'lr' in 'dm lr'",
    ),
    "no number": (lambda: condense(recipe="dm lr=x"), "lr must be a number, got 'x'"),
    "no steps": (
        lambda: condense(steps=None),
        "give steps or minutes, exactly one of them, such as steps=1000 or minutes=5",
    ),
    "both": (
        lambda: condense(minutes=1),
        "give steps or minutes, exactly one of them, such as steps=1000 or minutes=5",
    ),
    "steps": (lambda: condense(steps="1"), "steps must be an integer of at least 1, got '1'"),
    "minutes": (lambda: condense(steps=None, minutes="1"), "minutes must be positive and finite, got '1'"),
    "ipc": (lambda: condense(ipc="1"), "ipc must be an integer of at least 1, got '1'"),
    "large ipc": (lambda: condense(ipc=50), "class 42 has 15 images but ipc=50: lower ipc"),
    "seed": (lambda: condense(seed=None), "seed must be an integer, got None"),
    "machine": (
        lambda: condense(machine="cpu"),
        r"machine must be a Machine, got 'cpu' \(str\): pass Machine\('cpu'\)",
    ),
    "class Machine": (lambda: condense(machine=ck.Machine), r"got the class Machine: pass Machine\('cpu'\)"),
    "saving": (
        lambda: condense(saving=3),
        r"saving must be a Saving, got 3 \(int\): pass a folder or Saving\(folder\)",
    ),
    "progress": (lambda: condense(progress=True), "progress must be a Progress, got True"),
    "stop": (lambda: condense(stop=True), "stop must be a function, got True"),
    "all at once": (lambda: condense(steps=0, ipc=0, seed="x"), r"steps must .*; seed must .*; ipc must"),
    "one class": (lambda: condense(TRAIN.select([7]), "dsa"), "gradient matching needs at least 2 classes"),
    "factor": (lambda: condense(recipe="dm factor=3"), "factor 3 does not divide the image size 8x8"),
}


@pytest.mark.parametrize("name", CONDENSE)
def test_condense_refuses(name):
    refused(*CONDENSE[name])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        *((name, rf"recipes\.dm\({name}=\.\.\.\)") for name in ("init", "encoder", "augmentation", "sampling")),
        *(
            (name, rf"recipes\.dm\({name}=\.\.\.\)")
            for name in ("formation", "nested", "soft_labels", "lr", "batch_real")
        ),
        *((name, rf"recipes\.dm\({name}=\.\.\.\)") for name in ("encoder_network", "augment", "factor", "storage")),
        *((name, rf"pass machine=Machine\({name}=\.\.\.\)") for name in ("device", "precision", "compiled", "workers")),
        ("iterations", r"takes no iterations=: pass steps=$"),
        ("per_class", r"takes no per_class=: pass ipc=$"),
        ("sed", "unknown argument of condense\\(\\) 'sed'. Did you mean 'seed'"),
    ],
)
def test_a_misplaced_argument_says_where_it_belongs(name, says):
    refused(lambda: condense(**{name: 1}), says)


def test_other_calls_say_it_too(digits, made):
    refused(
        lambda: ck.load("digits", imagesize=8), r"unknown argument of load\(\) 'imagesize'. Did you mean 'image_size'"
    )
    refused(lambda: ck.select(digits[0], ipc=1, device="cpu"), r"select\(\) takes no device=: pass machine=Machine")
    for name, says in (
        ("epochs", r"evaluate\(\) takes no epochs=: pass protocol=dataclasses.replace"),
        ("device", r"evaluate\(\) takes no device=: pass machine=Machine"),
        ("agains", "Did you mean 'against'"),
        ("lr", r"pass protocol="),
    ):
        refused(lambda name=name: ck.evaluate(made, digits[1], **{name: 1}), says)


RECIPES = {
    "built module": (
        lambda: recipes.dm(encoder=RESNET),
        "encoder got a ResNet that is built already, .* pass what makes it",
    ),
    "built module in a Recipe": (
        lambda: Recipe(DistributionMatching(), encoder=RESNET),
        r"encoder must be an Encoder, got ResNet\(.*: pass Fresh\(ConvNet\(\)\), or .* to recipes.dm\(encoder=...\)",
    ),
    "class of a start": (lambda: recipes.dm(init=KMeans), r"init must be .*, got the class KMeans: pass KMeans\(\)"),
    "class Noise": (lambda: recipes.dm(init=ck.Noise), r"got the class Noise: pass Noise\(\)"),
    "no start": (
        lambda: recipes.dm(init=ConvNet()),
        r'init must be a name, an object or a function, got .*pass "kmeans"',
    ),
    "name of a start": (lambda: recipes.dm(init="kmean"), "unknown init 'kmean'. Did you mean 'kmeans'"),
    "class of a sampling": (
        lambda: recipes.dm(sampling=ck.Importance),
        "sampling must be a Sampling, got the class Importance",
    ),
    "class of an encoder": (lambda: recipes.dm(encoder=ck.Fresh), r"got the class Fresh: pass Fresh\(\)"),
    "class of a network": (lambda: recipes.dm(encoder=ConvNet), r"got the class ConvNet: pass ConvNet\(\)"),
    "no encoder": (lambda: recipes.dm(encoder=3), 'encoder must be an architecture, got 3 .*: pass "ConvNet"'),
    "name of an encoder": (lambda: recipes.dm(encoder="frsh"), "unknown encoder 'frsh'. Did you mean 'fresh'"),
    "no encoder_network": (lambda: recipes.dm(encoder_network=3), "encoder_network must be an architecture, got 3"),
    "class Augmentation": (
        lambda: recipes.dm(augmentation=Augmentation),
        "got the class Augmentation: pass Augmentation",
    ),
    "class Formation": (
        lambda: recipes.dm(formation=Formation, factor=2),
        r"got the class Formation: pass Formation\(",
    ),
    "class of a discrepancy": (
        lambda: recipes.dm(discrepancy=ck.MMD),
        r"discrepancy must be a function, got the class MMD: pass MMD\(\)",
    ),
    "no discrepancy": (lambda: recipes.dm(discrepancy=3), "discrepancy must be a function, got 3"),
    "no distance": (lambda: recipes.dsa(distance=3), "distance must be a function, got 3"),
    "momentum": (lambda: recipes.dm(momentum=None), r"momentum must lie in \[0, 1\), got None"),
    "ridge": (lambda: recipes.krr(ridge=None), "ridge must be finite and at least 0, got None"),
    "flag": (lambda: recipes.dm(per_image=3), "per_image must be a bool, got 3"),
    "unknown option": (lambda: recipes.dm(steps=5), "unknown option of method 'dm' 'steps'. Known: batch_real"),
    "option of an object": (
        lambda: recipes.recipe("dm", **{"sampling": ck.Importance(), "sampling.eps": 1}),
        "unknown option of sampling 'eps'. Did you mean 'epsilon'",
    ),
    "name": (lambda: recipes.recipe(DistributionMatching()), r'name must be a str, got .*: pass "dm" or "m3d lr=3"'),
    "text": (lambda: Recipe.parse(None), "name must be a str, got None"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_refuse(name):
    refused(*RECIPES[name])


def test_options_of_objects_are_obeyed():
    given = {"sampling": ck.Importance(), "sampling.epsilon": 0.5, "init": KMeans(), "init.candidates": "20"}
    made = recipes.recipe("dm", **given, **{"encoder": ck.Trained(), "encoder.count": 2})
    assert made.sampling == ck.Importance(epsilon=0.5)
    assert made.init == KMeans(candidates=20)
    assert made.encoder == ck.Trained(count=2)


SELECT = {
    "class": (lambda: ck.select(TRAIN, KMeans, ipc=1), r"selection must be .*, got the class KMeans: pass KMeans\(\)"),
    "None": (lambda: ck.select(TRAIN, None, ipc=1), r'got None \(NoneType\): pass "kmeans" or KMeans\(\)'),
    "name": (lambda: ck.select(TRAIN, "kmean", ipc=1), "unknown selection 'kmean'. Did you mean 'kmeans'"),
    "packed": (lambda: ck.select(TRAIN, "packed-kmean", ipc=1), "Did you mean 'packed-kmeans'"),
    "noise": (
        lambda: ck.select(TRAIN, ck.Noise(), ipc=1),
        "selection must be a name, an object or a function, got Noise",
    ),
    "ipc": (lambda: ck.select(TRAIN, ipc="1"), "ipc must be an integer of at least 1, got '1'"),
    "seed": (lambda: ck.select(TRAIN, ipc=1, seed="x"), "seed must be an integer, got 'x'"),
    "large ipc": (lambda: ck.select(TRAIN, ipc=50), "class 42 has 15 images but ipc=50: lower ipc"),
    "formation": (lambda: ck.select(TRAIN, ipc=1, formation=2), r"formation must be a Formation, got 2 \(int\): pass"),
    "machine": (lambda: ck.select(TRAIN, ipc=1, machine="cpu"), "machine must be a Machine, got 'cpu'"),
    "function": (lambda: ck.select(TRAIN, lambda *_: 3, ipc=1), "<lambda> returned a int, expected a Chosen"),
}


@pytest.mark.parametrize("name", SELECT)
def test_select_refuses(name):
    refused(*SELECT[name])


EVALUATE = {
    "strings": (lambda made: ck.evaluate(["a", "b"], TRAIN), "no run folder a: give one made by condense"),
    "string": (lambda made: ck.evaluate("nope", TRAIN), "no run folder nope"),
    "nothing": (lambda made: ck.evaluate([], TRAIN), "no sets: pass at least one"),
    "None": (
        lambda made: ck.evaluate(None, TRAIN),
        r"sets must be a CondensedSet, .*, got None .*: pass what condense\(\)",
    ),
    "swapped": (lambda made: ck.evaluate(TRAIN, made), r"sets must be .*, got ClassImages\("),
    "twice": (lambda made: ck.evaluate([made, made], TRAIN), "are the same run .*: give one of them"),
    "test": (lambda made: ck.evaluate(made, "digits"), r"test must be images, got 'digits': pass a part of what load"),
    "no test": (lambda made: ck.evaluate(made, None), "test must be images with labels, got None"),
    "train": (lambda made: ck.evaluate(made, TRAIN, train="x"), "train must be images, got 'x'"),
    "against": (
        lambda made: ck.evaluate(made, TRAIN, train=TRAIN, against="rndom"),
        "unknown selection 'rndom'. Did you mean 'random'",
    ),
    "against a class": (
        lambda made: ck.evaluate(made, TRAIN, against=KMeans),
        r"against must be .*the class KMeans: pass KMeans\(\)",
    ),
    "against a number": (
        lambda made: ck.evaluate(made, TRAIN, against=3),
        "against must be a name, an object or a function, got 3",
    ),
    "network": (
        lambda made: ck.evaluate(made, TRAIN, network="ConvNt"),
        "unknown network 'ConvNt'. Did you mean 'ConvNet'",
    ),
    "class of a network": (
        lambda made: ck.evaluate(made, TRAIN, network=ConvNet),
        r"network must be .*: pass ConvNet\(\)",
    ),
    "built network": (
        lambda made: ck.evaluate(made, TRAIN, network=RESNET),
        "network got a ResNet that is built already",
    ),
    "no network": (lambda made: ck.evaluate(made, TRAIN, network=[], against=None), "give at least one network"),
    "networks": (
        lambda made: ck.evaluate(made, TRAIN, networks="x", against=None),
        "networks must be an integer of at least 1",
    ),
    "protocol": (
        lambda made: ck.evaluate(made, TRAIN, protocol="shrt"),
        "unknown protocol 'shrt'. Did you mean 'short'",
    ),
    "no protocol": (
        lambda made: ck.evaluate(made, TRAIN, protocol=3),
        'protocol must be a TrainProtocol, got 3 .*: pass "short"',
    ),
    "seed": (lambda made: ck.evaluate(made, TRAIN, seed="x", against=None), "seed must be an integer, got 'x'"),
    "machine": (
        lambda made: ck.evaluate(made, TRAIN, machine="cpu", against=None),
        "machine must be a Machine, got 'cpu'",
    ),
    "all at once": (
        lambda made: ck.evaluate(made, TRAIN, network=3, against="x", protocol="y"),
        "network must be .*; unknown selection 'x'.*; unknown protocol 'y'",
    ),
    "other images": (lambda made: ck.evaluate(made, shapes(size=16), against=None), "differ in shape or normalisation"),
    "other classes": (
        lambda made: ck.evaluate(made.set.select([0, 7]), TRAIN.select([-3, 42]), against=None),
        "and the test images .* none is in both",
    ),
    "fewer classes": (
        lambda made: ck.evaluate(made, TRAIN, train=TRAIN.select([0, 7])),
        "train has no images of class -3, which the set has: pass the images that it was made from",
    ),
}


@pytest.fixture(scope="module")
def small():
    return ck.condense(TRAIN, SMALL, ipc=1, steps=1)


@pytest.mark.parametrize("name", EVALUATE)
def test_evaluate_refuses(name, small):
    call, says = EVALUATE[name]
    refused(lambda: call(small), says)


LOAD = {
    "None": (lambda: ck.load(None), "source must be images with labels, got None"),
    "name": (lambda: ck.load("digit"), "unknown data set 'digit'. Did you mean 'digits'"),
    "path": (lambda: ck.load("/no/such"), "/no/such does not exist: name a folder of class folders"),
    "size": (lambda: ck.load("digits", image_size="8"), "image_size must be an integer of at least 1, got '8'"),
    "size of an object": (
        lambda: ck.load((IMAGES, LABELS), image_size=8),
        "image_size= is for names and files, .*: resize in the data set's transform",
    ),
    "two data sets": (
        lambda: ck.select((Pictures(IMAGES, LABELS), Pictures(IMAGES, LABELS)), "kmeans", ipc=1),
        "got two: pass the training or the test",
    ),
    "one image a class": (lambda: ck.load((IMAGES, np.arange(8))), "class '0' has 1 image, so none can be held out"),
    "class": (lambda: ck.load(Pictures), "source must be .*, got the class Pictures"),
    "flippable": (lambda: ck.load("digits", flippable="no"), "flippable must be a bool, got 'no'"),
    "part": (lambda: TRAIN.split("x"), "the held-out fraction must lie between 0 and 1, got 'x'"),
    "seed of a part": (lambda: TRAIN.split(0.2, seed="x"), "seed must be an integer, got 'x'"),
}


@pytest.mark.parametrize("name", LOAD)
def test_load_and_split_refuse(name):
    refused(*LOAD[name])


def test_errors_are_of_three_kinds():
    assert issubclass(ck.CondensekitError, Exception)
    with pytest.raises(DataError):
        condense(None)
    with pytest.raises(ConfigError):
        condense(recipe=None)
    assert isinstance(Random(), ck.Random)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda train: train.with_spec(flipable=True), "Did you mean 'flippable'"),
        (lambda train: ck.condense(train, "dm", ipc=1, steps=1, record=3), "record must be a Mapping, got 3"),
    ],
)
def test_misspelt_fields_and_wrong_records_are_one_line(call, says):
    with pytest.raises(ConfigError, match=says):
        call(ck.load("digits")[0])


def test_classes_are_told_by_their_names():
    """Strings are numbered in sorted order: a test set without the first class numbers the others otherwise."""
    images = torch.tensor([0, 120, 255] * 8, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    labels = ["cat", "dog", "emu"] * 8
    made = ck.select((images, labels), "random", ipc=2)
    rest = [index for index, label in enumerate(labels) if label != "cat"]
    tested = ck.evaluate(
        made, (images[rest], [labels[i] for i in rest]), against=None, networks=1, network="ConvNet-w8-d1"
    )
    assert "'cat'" in " ".join(tested.notes)
    assert tested.rows[0].accuracy_mean > 0.6
    with pytest.raises(DataError, match="test has class 'fox', which the set lacks; it has: cat, dog, emu"):
        ck.evaluate(made, (images, ["cat", "dog", "fox"] * 8), against=None)
    with pytest.raises(DataError, match="train has class 'fox'"):
        ck.evaluate(made, (images, labels), train=(images, ["cat", "dog", "fox"] * 8))
