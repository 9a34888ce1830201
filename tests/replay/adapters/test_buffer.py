import warnings
import zlib
from dataclasses import replace

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets, ni_benchmark, split_online_stream
from avalanche.benchmarks.utils import DataAttribute
from avalanche.benchmarks.utils.classification_dataset import ClassificationDataset
from avalanche.benchmarks.utils.transform_groups import TransformGroups
from avalanche.training.plugins import ReplayPlugin

from condensekit.catalog import recipes
from condensekit.errors import ConfigError, DataError
from condensekit.methods.recipe import Recipe
from condensekit.methods.trained_encoders import Trained
from condensekit.progress import SILENT, Bars
from condensekit.replay import Bytes, Coded, CondensedBuffer, Hybrid, Images
from condensekit.replay.adapters.metrics import coded_bytes
from condensekit.replay.memory.base import Job
from condensekit.replay.memory.fillers import Condensing, Selecting
from condensekit.selection.classic import Herding, KMeans, Random
from condensekit.selection.jpeg_random import JpegRandom
from condensekit.sets.formation import Formation
from tests.replay.worlds import (
    CPU,
    DM,
    MEAN,
    NET,
    PIL,
    SPEC,
    STD,
    Pictures,
    accuracy,
    buffer,
    naive,
    network,
    quick,
    replaying,
    stream,
)
from tests.targeted import Targeted


def filled(memory, benchmark, count=None):
    for experience in list(benchmark.train_stream)[:count]:
        memory.post_adapt(None, experience)
    return memory


def per_class(memory):
    labels, counts = torch.unique(memory.memory.labels, return_counts=True)
    return dict(zip(labels.tolist(), counts.tolist(), strict=True))


def test_the_line_of_the_issue_in_a_stock_naive():
    memory = CondensedBuffer(Images(20), recipes.dm(), classes=10)
    ReplayPlugin(20, storage_policy=memory)
    memory = CondensedBuffer(Images(20), "dm", classes=10, steps=2, machine=CPU)
    strategy = naive(ReplayPlugin(20, storage_policy=memory), model=network(10))
    for experience in stream(classes=10, experiences=5).train_stream:
        strategy.train(experience)
    assert per_class(memory) == dict.fromkeys(range(10), 2)
    assert len(memory.condense_s) == 5


@pytest.mark.parametrize("kind", ["nc", "ci", "tasked"])
@pytest.mark.parametrize("tensor_targets", [False, True])
@pytest.mark.parametrize("pil", [False, True])
@pytest.mark.parametrize("storage", ["uint8", "float16", "float32"])
def test_every_kind_of_stream_is_replayed(kind, tensor_targets, pil, storage):
    benchmark = stream(kind, tensor_targets=tensor_targets, pil=pil)
    memory = buffer(Images(12), classes=6, storage=storage)
    strategy = replaying(memory)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert per_class(memory) == dict.fromkeys(range(6), 2)
    theirs, ours = benchmark.train_stream[0].dataset.eval()[0], memory.buffer.eval()[0]
    assert [type(a) for a in theirs] == [type(b) for b in ours]
    assert (ours[0].dtype, ours[0].shape) == (theirs[0].dtype, theirs[0].shape)
    assert memory.memory.formation.dtype == storage
    accuracy(strategy, benchmark)


@pytest.mark.parametrize("selection", [Random(), Herding(), KMeans()])
def test_real_images_are_those_of_the_stream(selection):
    benchmark = stream(pil=True)
    memory = filled(buffer(Images(12), selection, classes=6, storage="float32"), benchmark)
    images, labels, _ = memory.core.images()
    for image, label in zip(images, labels, strict=True):
        dataset = benchmark.train_stream[int(label) // 2].dataset.eval()
        rows = [x for x, y, _ in dataset if y == label]
        assert min((image - row).abs().max() for row in rows) == 0


BUDGETS = [Images(9), Images(per_class=2), Bytes(9 * 80 + 5), Bytes(per_class=2 * 80 + 5)]


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("announced", [None, 6])
@pytest.mark.parametrize(
    ("fill", "options"),
    [
        (DM, {}),
        (DM, {"factor": 2}),
        (Random(), {"storage": "float16"}),
        (Herding(), {"factor": 2, "storage": "uint8"}),
        (JpegRandom(quality=20), {"spec": SPEC, "storage": "float32"}),
    ],
)
def test_no_budget_is_ever_exceeded(budget, announced, fill, options):
    if options.get("storage") == "float16" and isinstance(budget, Bytes):
        budget = Bytes(budget.total and budget.total * 2, per_class=budget.per_class and budget.per_class * 2)
    if isinstance(fill, JpegRandom) and isinstance(budget, Bytes):
        budget = Bytes(budget.total and budget.total * 9, per_class=budget.per_class and budget.per_class * 9)
    memory = buffer(budget, fill, classes=announced, **options)
    for seen, experience in enumerate(stream(pil=True, each=40).train_stream, 1):
        memory.post_adapt(None, experience)
        classes = announced or 2 * seen
        counts = per_class(memory)
        assert set(counts) == set(range(2 * seen))
        assert len(memory.memory) <= memory.max_size
        assert memory.nbytes == memory.memory.nbytes
        room = budget.per_class if budget.total is None else budget.total // classes
        held = [memory.memory.select([label]).nbytes for label in counts]
        most = max(each / count for each, count in zip(held, counts.values(), strict=True))  # of an image
        used = list(counts.values()) if isinstance(budget, Images) else held
        one = 1 if isinstance(budget, Images) else most
        if budget.total is None:
            assert max(used) <= room
        elif classes == 2 * seen and not isinstance(fill, JpegRandom):  # the total is filled
            assert budget.total - 2 * one < sum(used) <= budget.total
        else:
            assert max(used) <= room + one
            assert sum(used) <= budget.total
        if not isinstance(fill, JpegRandom):
            assert min(used) + one > room


def test_a_shrinking_total_keeps_the_first_images_of_nested_sets():
    memory, benchmark = buffer(Images(12)), stream()
    wholes = []
    for experience in benchmark.train_stream:
        memory.post_adapt(None, experience)
        wholes.append(memory.memory)
    assert [whole.ipc for whole in wholes] == [6, 3, 2]
    assert per_class(memory) == dict.fromkeys(range(6), 2)
    for whole in wholes[1:]:
        kept = whole.select([0, 1])
        n = kept.ipc
        start = wholes[0].images.reshape(2, 6, 1, 8, 8)[:, :n].flatten(0, 1)
        assert torch.equal(kept.images, start)
    assert wholes[0].provenance["experiences"][0]["config"]["nested"]


def test_announced_classes_get_their_part_from_the_start():
    memory = filled(buffer(Images(12), classes=6), stream(), 1)
    assert per_class(memory) == {0: 2, 1: 2}
    assert not memory.memory.provenance["experiences"][0]["config"]["nested"]
    assert memory.max_size == 12


def test_a_budget_for_each_class_grows():
    memory, benchmark = buffer(Images(per_class=3)), stream()
    assert memory.max_size == 0
    sizes = [filled(memory, benchmark, n).max_size for n in (1, 2, 3)]
    assert sizes == [6, 12, 18]
    assert buffer(Images(per_class=3), classes=6).max_size == 18


def test_contract_of_an_exemplars_buffer():
    memory = buffer(Images(12), classes=6)
    assert memory.max_size == 12
    assert len(memory.buffer) == 0
    assert memory.memory is None
    assert memory.nbytes == 0
    assert memory.buffer_groups == {}
    with pytest.raises(DataError, match="the memory is empty"):
        memory.core.images()
    filled(memory, stream(), 2)
    assert len(memory.buffer) == 8
    assert memory.buffer is memory.buffer
    assert sorted(memory.buffer.targets) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert list(memory.buffer_groups) == [0, 1, 2, 3]
    assert [len(part) for part in memory.buffer_datasets] == [2] * 4
    assert {y for _, y, _ in memory.buffer_groups[3].buffer} == {3}
    with pytest.raises(ConfigError, match="resize the whole buffer"):
        memory.buffer_groups[3].resize(None, 1)


def test_update_does_the_same_without_avalanches_warning():
    strategy, benchmark = naive(), stream()
    strategy.experience = benchmark.train_stream[0]
    memory = buffer(Images(12), classes=6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        memory.update(strategy)
    assert torch.equal(memory.memory.images, filled(buffer(Images(12), classes=6), benchmark, 1).memory.images)


def test_an_experience_is_taken_once():
    memory, benchmark = buffer(Images(12), classes=6), stream()
    filled(memory, benchmark, 2)
    before = memory.memory.images
    filled(memory, benchmark, 2)
    memory.post_adapt(None, benchmark.train_stream[1].train())
    assert len(memory.condense_s) == 2
    assert torch.equal(memory.memory.images, before)


def test_two_plugins_sharing_a_buffer_condense_once():
    memory = buffer(Images(12), classes=6)
    strategy = naive(ReplayPlugin(12, storage_policy=memory), ReplayPlugin(12, storage_policy=memory))
    for experience in stream().train_stream:
        strategy.train(experience)
    assert len(memory.condense_s) == 3


@pytest.mark.parametrize("filler", [DM, Random()])
@pytest.mark.parametrize("kind", ["total", "per class"])
def test_classes_that_appear_again(filler, kind):
    data = Pictures(classes=3)
    benchmark = ni_benchmark(data, Pictures(classes=3, seed=1), 4, task_labels=False, seed=2)
    memory = buffer(Images(9) if kind == "total" else Images(per_class=3), filler)
    for experience in benchmark.train_stream:
        memory.post_adapt(None, experience)
        assert max(per_class(memory).values()) <= 3
    assert set(per_class(memory).values()) == {3}
    assert len(memory.condense_s) == 4
    if isinstance(filler, Random):
        # 3 of 4 experiences lie behind the last one: most of what is stored comes from them
        last = torch.stack([x for x, *_ in benchmark.train_stream[3].dataset])
        gaps = (memory.core.images()[0][:, None] - last[None]).abs().flatten(2).amax(2).amin(1)
        assert 0 < (gaps > 0.05).sum() <= 9


def test_a_stream_of_small_experiences():
    memory = buffer(Images(12), Random())
    for part in split_online_stream(stream().train_stream, experience_size=5, seed=0):
        memory.post_adapt(None, part)
        assert len(memory.memory) <= 12
    assert per_class(memory) == dict.fromkeys(range(6), 2)
    assert len(memory.condense_s) == 15


def test_a_buffer_shows_what_it_holds():
    memory = CondensedBuffer(Images(20), Random(), classes=10, machine=CPU)
    assert repr(memory) == "CondensedBuffer(Images(20), random: empty)"


def test_an_experience_of_one_class():
    memory = filled(buffer(Images(12), classes=6), stream(experiences=6))
    assert per_class(memory) == dict.fromkeys(range(6), 2)


def test_labels_with_gaps_are_kept():
    data = Pictures(classes=3)
    data.targets = [[0, 7, 42][label] for label in data.targets]
    wrapped = ClassificationDataset([data], data_attributes=[DataAttribute(data.targets, "targets")])
    memory = filled(buffer(Images(6), classes=3), benchmark_from_datasets(train=[wrapped]))
    assert per_class(memory) == {0: 2, 7: 2, 42: 2}
    assert set(memory.buffer.targets) == {0, 7, 42}


def test_small_classes_give_what_they_have():
    memory = filled(buffer(Images(60), classes=6), stream(each=3), 1)
    assert per_class(memory) == {0: 3, 1: 3}
    with pytest.raises(DataError, match=r"packs 2 x 2 = 4 images into one, and class 0, the largest .* has 3: use fac"):
        filled(buffer(Images(60), classes=6, factor=2), stream(each=3), 1)


def test_resize():
    memory, benchmark = buffer(Images(12)), stream()
    filled(memory, benchmark, 2)
    before = memory.memory
    memory.resize(None, 4)
    assert memory.max_size == len(memory.memory) == len(memory.buffer) == 4
    assert torch.equal(memory.memory.images, before.images.reshape(4, 3, 1, 8, 8)[:, 0])
    with pytest.raises(ConfigError, match="a size of 3 is less than one image for each of 4 classes"):
        memory.resize(None, 3)
    assert len(memory.memory) == 4
    with pytest.warns(UserWarning, match=r"6 classes: use at least Images\(6\); class 4 and 1 other store no image"):
        filled(memory, benchmark)
    assert per_class(memory) == {0: 1, 1: 1, 2: 1, 3: 1}
    memory.resize(None, 60)
    memory.update_from_dataset(benchmark.train_stream[2].dataset)
    assert per_class(memory) == {0: 1, 1: 1, 2: 1, 3: 1, 4: 10, 5: 10}
    memory.resize(None, 6)
    assert len(memory.buffer) == 6


def test_resize_holds_beside_a_budget_in_bytes():
    memory = filled(buffer(Bytes(960)), stream(), 2)
    assert len(memory.memory) == 12
    memory.resize(None, 9)
    assert per_class(memory) == {0: 3, 1: 2, 2: 2, 3: 2}


def refused(memory, benchmark, error, text):
    """Nothing is lost when the next experience is refused."""
    before = (memory.memory, memory.max_size, list(memory.condense_s), memory.buffer)
    with pytest.raises(error, match=text):
        memory.post_adapt(None, benchmark.train_stream[1])
    after = (memory.memory, memory.max_size, list(memory.condense_s), memory.buffer)
    assert after[1:3] == before[1:3]
    assert (before[0] is None and after[0] is None) or torch.equal(before[0].images, after[0].images)
    assert len(after[3]) == len(before[3])


def test_more_classes_than_announced():
    benchmark = stream()
    memory = filled(buffer(Images(12), classes=3), benchmark, 1)
    refused(memory, benchmark, ConfigError, r"classes=3 were announced and 4 have appeared \(\[0, 1, 2, 3\]\)")


@pytest.mark.parametrize("budget", [Images(3), Bytes(4 * 80 - 1)])
def test_a_budget_below_one_image_per_class(budget):
    """As in Avalanche's own buffers, the first classes keep their images; it is said."""
    memory = buffer(budget)
    with pytest.warns(UserWarning, match="less than one image .* each of 4 classes.* class 3 stores no image"):
        filled(memory, stream(), 2)
    assert per_class(memory) == {0: 1, 1: 1, 2: 1}


def test_a_budget_below_one_image_per_announced_class():
    with pytest.raises(ConfigError, match=r"Images\(5\) is less than one image for each of 6 classes: .* Images\(6\)"):
        buffer(Images(5), classes=6)
    benchmark, memory = stream(), buffer(Bytes(6 * 80 - 1), classes=6)
    with pytest.raises(ConfigError, match=r"less than one image of 80 bytes for each of 6 classes: .* Bytes\(480\)"):
        memory.post_adapt(None, benchmark.train_stream[0])
    with pytest.raises(ConfigError, match="less than one image"):
        buffer(Images(per_class=1), Random(), storage="float32").core.rules.counts(0, 1, SPEC, True)


@pytest.mark.parametrize("announced", [None, 6])
@pytest.mark.parametrize("fill", [DM, Random(), Herding()], ids=["dm", "random", "herding"])
def test_remainders_go_to_the_first_classes(announced, fill):
    memory = filled(buffer(Images(10), fill, classes=announced), stream(order=[5, 3, 1, 0, 2, 4]))
    assert per_class(memory) == {0: 2, 1: 1 + 1, 2: 1, 3: 2, 4: 1, 5: 2}
    assert len(memory.buffer) == memory.max_size == 10


def test_a_stream_whose_images_change_shape():
    memory = filled(buffer(Images(12)), stream(), 1)
    refused(memory, stream(size=12), DataError, r"shape \(1, 12, 12\).*those in the memory \(1, 8, 8\)")


def test_training_transforms_that_change_shape_or_dtype():
    for transform, text in ((lambda x: x[..., :4], "one batch cannot hold both"), (torch.Tensor.double, "float64")):
        memory = filled(buffer(Images(12)), stream(), 1)
        refused(memory, stream(train_transform=transform), DataError, text)


@pytest.mark.parametrize("dtype", [torch.float64, torch.uint8])
def test_streams_that_avalanche_takes_in_silence(dtype):
    memory = filled(buffer(Images(12)), stream(), 1)
    refused(memory, stream(dtype=dtype), DataError, "silently")


def test_replayed_images_have_transforms_of_their_own():
    plus = TransformGroups({"train": (lambda x: x + 100, None), "eval": (lambda x: x - 100, None)})
    for transforms, still in ((plus, False), (lambda x: x + 100, True)):
        memory = filled(buffer(Images(12), transforms=transforms), stream(), 1)
        plain = memory.core.images()[0][0]
        assert torch.equal(memory.buffer.train()[0][0], plain + 100)
        assert torch.equal(memory.buffer.eval()[0][0], plain if still else plain - 100)


def test_the_streams_own_pil_transforms_do_not_fit_replayed_images():
    memory = buffer(Images(12), transforms=PIL)
    refused(memory, stream(pil=True), ConfigError, "the transforms of replayed images fail .*PIL")


def test_transforms_that_change_the_dtype_are_refused():
    memory = buffer(Images(12), transforms=torch.Tensor.double)
    refused(memory, stream(), DataError, "a replayed image is torch.float64, which would silently")


def test_training_leaves_no_trace_on_the_memory_nor_the_memory_on_training():
    first, second = buffer(Images(12)), buffer(Images(12))
    benchmark = stream()
    for experience in benchmark.train_stream:
        first.post_adapt(None, experience)
        torch.rand(3)
        state = torch.get_rng_state()
        second.post_adapt(None, experience)
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.memory.images, second.memory.images)
    other = filled(buffer(Images(12), seed=1), benchmark)
    assert not torch.equal(first.memory.images, other.memory.images)


def test_a_recipe_is_used_as_it_is_but_for_storage_and_nesting():
    recipe = quick(nested=True, soft_labels=True, encoder=Trained(NET), formation=Formation(2))
    job = Job(3, 2, CPU)
    kept = CondensedBuffer(
        Images(per_class=2), recipe, steps=2, seed=3, machine=CPU, storage=None, progress=SILENT
    ).core.rules
    assert (kept.filler, kept.job) == (Condensing(recipe), job)
    nested = CondensedBuffer(Images(6), recipe.replace(nested=False), storage=None).core.rules  # it shrinks
    assert nested.filler == Condensing(recipe)
    announced = buffer(Images(6), classes=6, seed=3).core.rules
    assert announced.filler == Condensing(quick(formation=Formation(1, "uint8")))
    assert replace(announced.job, progress=SILENT) == job
    assert type(announced.job.progress) is Bars  # in a terminal, as condense() shows them


@pytest.mark.parametrize(
    ("text", "recipe"),
    [
        ("m3d lr=3 init=kmeans", recipes.m3d(lr=3, init="kmeans")),
        ("dm factor=2", recipes.dm(factor=2)),
        (DM, Recipe(DM)),
        (recipes.krr(), recipes.krr()),
    ],
)
def test_a_recipe_by_text_or_method(text, recipe):
    assert CondensedBuffer(Images(6), text, classes=6, storage=None).core.rules.filler == Condensing(recipe)


def test_selections_and_other_fillers_by_text():
    assert CondensedBuffer(Images(6), "herding", storage=None).core.rules.filler == Selecting(Herding())
    packed = CondensedBuffer(Images(6), "packed-kmeans").core.rules.filler
    assert packed == Selecting(KMeans(), Formation(2, "uint8"))
    assert CondensedBuffer(Images(6), "kmeans factor=2").core.rules.filler == packed
    hybrid = CondensedBuffer(Images(6), "hybrid-m3d-25", classes=6, storage=None).core.rules.filler
    assert hybrid == Hybrid(recipes.m3d(), 0.25)
    assert (
        CondensedBuffer(Images(6), "hybrid method=m3d percent=25", classes=6, storage=None).core.rules.filler == hybrid
    )
    assert CondensedBuffer(Bytes(9000), "jpeg-dm-9", classes=6).core.rules.filler == Coded(Condensing(recipes.dm()), 9)


def test_update_from_dataset_counts_each_time():
    dataset = stream().train_stream[0].dataset
    memory = buffer(Images(12), Random())
    memory.update_from_dataset(dataset)
    memory.update_from_dataset(dataset)
    memory.update_from_dataset(dataset.subset([]))
    assert len(memory.condense_s) == 2
    assert per_class(memory) == {0: 6, 1: 6}


def test_update_from_any_data_set_with_targets():
    """Plugins of Avalanche store data sets of their own, such as ``FeatureReplay``."""
    memory = buffer(Images(4), Random())
    memory.update_from_dataset(Targeted(torch.rand(6, 1, 8, 8), torch.arange(6) % 2))
    assert list(memory.buffer.targets) == [0, 0, 1, 1]
    with pytest.raises(DataError, match=r"shape \(5,\), expected \(C, H, W\)"):
        memory.update_from_dataset(Targeted(torch.rand(6, 5), torch.arange(6) % 2))


def test_a_class_of_several_tasks_is_one_group():
    """Avalanche's ``MIRPlugin`` reads the keys as class labels."""
    data, memory = Targeted(torch.rand(12, 1, 8, 8), torch.arange(12) % 2), buffer(Images(8), Random())
    for experience in ni_benchmark(data, data, 2, task_labels=True, seed=0).train_stream:
        memory.update_from_dataset(experience.dataset)
    assert memory.core.groups == ((0, 0), (0, 1), (1, 0), (1, 1))
    assert list(memory.buffer_groups) == [0, 1]
    for label, group in memory.buffer_groups.items():
        assert [int(y) for _, y, _ in group.buffer] == [label] * group.max_size == [label] * 4
        assert sorted(int(task) for *_, task in group.buffer) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"budget": 20}, r"budget must be a Budget, got 20 \(int\): pass Images\(20\)"),
        ({"classes": 0}, "classes must be an integer of at least 1"),
        ({"steps": 0}, "steps must be an integer of at least 1"),
        ({"storage": "int4"}, "storage dtype must be one of"),
        ({"recipe": "dm factor=0"}, "factor must be an integer"),
        ({"recipe": "dmm"}, "unknown memory 'dmm'. Did you mean 'dm'"),
        ({"recipe": 3}, r"recipe must be a text .* or a Filler, got 3"),
        ({"recipe": Random}, r"got the class Random: pass Random\(\)"),
        ({"transforms": 3}, "transforms must be a function, got 3"),
    ],
)
def test_options_that_make_no_sense(options, text):
    options = {"budget": Images(20), "recipe": DM, **options}
    with pytest.raises(ConfigError, match=text):
        CondensedBuffer(**options)


def test_real_pixels_of_8_bits_need_no_ranges():
    """The same stream: as pixels a class's part holds more images than as values with ranges."""
    each = 64 + 8
    plain, pixels = buffer(Bytes(per_class=3 * each), Random()), buffer(Bytes(per_class=3 * each), Random(), spec=SPEC)
    for memory in (plain, pixels):
        for exp in stream().train_stream:
            memory.post_adapt(None, exp)
    assert (len(plain.memory), plain.nbytes) == (12, 12 * (each + 8))
    assert (len(pixels.memory), pixels.nbytes) == (18, 18 * each)
    assert pixels.max_size == 18
    exact = (pixels.core.images()[0] * STD + MEAN) * 255
    assert (exact - exact.round()).abs().max() < 0.51  # stored to half a step of a pixel
    again = buffer(Bytes(per_class=3 * each), Random(), spec=SPEC)
    again.load_state_dict(pixels.state_dict())
    assert (again.nbytes, again.max_size) == (pixels.nbytes, 18)
    assert coded_bytes(pixels.memory) < len(zlib.compress(pixels.memory.images.numpy().tobytes(), 9)) + 18 * 8
