"""Memories by name, hybrid and coded memories, soft labels."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from avalanche.benchmarks.utils import as_classification_dataset

from condensekit.compute import Compute
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError
from condensekit.methods.encoders import Fresh
from condensekit.methods.sampling import Clustered
from condensekit.methods.trained_encoders import Trained
from condensekit.networks.convnet import ConvNet
from condensekit.replay import Bytes, Coded, CondensedBuffer, Hybrid, Images, LearnerEncoder
from condensekit.replay.memory.base import Job
from condensekit.replay.memory.fillers import Condensing, Selecting
from condensekit.replay.memory.hybrid import SoftLabelled, _alternating
from condensekit.replay.study.baselines import BASELINES
from condensekit.replay.study.memories import (
    AVALANCHE,
    EQUAL_BYTES,
    FROM_SCRATCH,
    REGIMES,
    Making,
    MemoryKind,
    memory,
    refuse_unused,
)
from condensekit.rng import Draw
from condensekit.selection.classic import Herding, Random
from condensekit.selection.embeddings import RandomEmbedding
from condensekit.sets.formation import Formation
from condensekit.training.augment import Augmentation
from tests.replay.worlds import CPU, DM, NET, naive, quick, stream
from tests.targeted import Targeted

JOB = Job(steps=3, machine=CPU)
BYTES = Formation(dtype="uint8")


def filler(*arguments):
    """What fills a memory by name."""
    return memory(*arguments).filler


def images(each=24, classes=(2, 5), size=8):
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 255, (each * len(classes), 3, size, size), dtype=torch.uint8, generator=draw)
    return ClassImages.from_arrays(
        pixels, torch.tensor(classes).repeat_interleave(each), mean=[0.5] * 3, std=[0.25] * 3
    )


@pytest.mark.parametrize(
    ("name", "learnt", "factor", "storage"),
    [
        ("dm", True, 1, "float16"),
        ("m3d", True, 2, "float16"),
        ("packed-dm", True, 2, "float16"),
        ("unpacked-m3d", True, 1, "float16"),
        ("krr", True, 1, "float16"),
        ("hybrid", True, 1, "float16"),
        ("hybrid-m3d-25", True, 2, "float16"),
        ("random", False, 1, "uint8"),
        ("herding", False, 1, "uint8"),
        ("packed-kmeans", False, 2, "uint8"),
        ("downscaled", False, 2, "uint8"),
        ("downscaled-4", False, 4, "uint8"),
        ("jpeg-random", False, 1, "float32"),
        ("jpeg-m3d-4", True, 2, "float32"),
        (EQUAL_BYTES, False, 1, "uint8"),
        ("random-soft", False, 1, "uint8"),
    ],
)
def test_names(name, learnt, factor, storage):
    found: Any = memory(name, Making(options={"batch_real": 8}, storage="float16"))
    assert (found.name, found.learnt) == (name, learnt)
    assert found.filler.formation == Formation(factor, storage)
    assert found.packed == factor**2
    if learnt:
        assert found.filler.recipe.method.batch_real == 8


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("hybrid-m3d-25", "hybrid method=m3d percent=25"),
        ("hybrid", "hybrid method=dm percent=50"),
        ("jpeg-dm-9", "jpeg method=dm times=9"),
        ("jpeg-kmeans-9", "jpeg times=9 method=kmeans"),
        ("packed-kmeans", "kmeans factor=2"),
        ("packed-dm", "dm factor=2"),
        ("unpacked-m3d", "m3d factor=1"),
        ("downscaled-4", "random factor=4"),
        ("random-soft", "soft method=random"),
        (EQUAL_BYTES, "random equal_bytes=true"),
    ],
)
def test_short_names_are_written_in_full_as_well(short, long):
    assert replace(memory(long), name=short) == memory(short)


def test_options_of_a_name_go_before_those_of_the_run():
    making = Making(options={"lr": 3, "batch_real": 8}, storage="float16")
    found = filler("hybrid method=m3d percent=25 lr=2 storage=float32", making)
    assert (found.recipe.method.lr, found.recipe.method.batch_real, found.share) == (2, 8, 0.25)
    assert found.formation == Formation(2, "float32")
    assert filler("kmeans candidates=9", making).selection.candidates == 9
    with pytest.raises(ConfigError, match="a hybrid condenses, and kmeans chooses real images"):
        memory("hybrid-kmeans-50")


def test_coded_names_carry_method_and_number():
    found: Any = memory("jpeg-dm-8", Making(storage="float16"))
    assert (found.filler.name, found.filler.times, found.equal_bytes) == ("jpeg-dm-8", 8, True)
    found = memory("jpeg-kmeans-3", Making(options={"encoder_network": "ConvNet-w4-d1"}))
    assert (found.filler.name, found.learnt, found.control, found.equal_bytes) == ("jpeg-kmeans-3", False, True, True)
    assert found.filler.images.selection.embedding.network.width == 4
    for name in ("jpeg-packed-kmeans-3", "jpeg-nothing-3", "jpeg-packed-dm-3"):
        with pytest.raises(ConfigError, match=f"unknown memory '{name}'"):
            memory(name)
    with pytest.raises(ConfigError, match="the images of jpeg-random are coded already"):
        memory("jpeg-jpeg-random-3")
    for name in ("jpeg-dm", "jpeg-8", "jpeg-dm-0", "jpeg-dm-x"):
        with pytest.raises(ConfigError, match=f"'{name}': expected jpeg-random, or jpeg-METHOD-TIMES"):
            memory(name)


def test_coded_images_take_the_bytes_of_fewer():
    data = images(each=30, size=16)
    made = Coded(Condensing(quick(formation=BYTES)), 3).fill(data, 2, JOB)
    assert made.labels.tolist() == [2] * 6 + [5] * 6
    assert made.formation == Formation(1, "jpeg")
    plain = Condensing(quick()).fill(data, 6, JOB)
    assert torch.equal(made.images, plain.stored_as("jpeg", room=2 * (3 * 16 * 16 + 8)).images)
    for label in made.classes:
        assert made.select([label]).nbytes <= 2 * (3 * 16 * 16 + 8)


def test_real_images_are_chosen_then_coded():
    data = images(each=30, size=16)
    made = Coded(Selecting(Random(), BYTES), 3).fill(data, 2, JOB)
    plain = Selecting(Random()).fill(data, 6, JOB)
    assert torch.equal(made.images, plain.stored_as("jpeg", room=2 * (3 * 16 * 16 + 8)).images)
    assert made.labels.tolist() == [2] * 6 + [5] * 6


def test_coded_images_stay_within_a_budget_in_bytes_and_go_through_a_state():
    data, room = images(each=30, size=16), Bytes(per_class=2 * (3 * 16 * 16 + 8))
    seen = Targeted(data.gather(data.order), data.labels[data.order])
    coded = Coded(Condensing(quick(augmentation=Augmentation())), 3)
    memory, other = (CondensedBuffer(room, coded, spec=data.spec, steps=2, machine=CPU) for _ in range(2))
    memory.update_from_dataset(as_classification_dataset(seen))
    made = memory.memory
    assert made is not None
    assert made.labels.tolist() == [2] * 6 + [5] * 6
    assert all(made.select([label]).nbytes <= 2 * (3 * 16 * 16 + 8) for label in (2, 5))
    other.load_state_dict(memory.state_dict())
    assert other.nbytes == memory.nbytes == made.nbytes
    assert other.memory is not None
    assert torch.equal(other.memory.images, made.images)


def test_coded_images_that_cannot_fit_are_refused_first():
    with pytest.raises(ConfigError, match="20 JPEG images of class 2 are larger than 1 uncoded"):
        Coded(Condensing(quick()), 20).fill(images(size=16), 1, JOB)
    plain = ClassImages.from_arrays(torch.rand(4, 3, 16, 16), torch.tensor([0, 0, 1, 1]))
    with pytest.raises(ConfigError, match=r"jpeg-dm-2 needs 8-bit images of 1 or 3 channels, got torch\.float32"):
        Coded(Condensing(quick()), 2).fill(plain, 1, JOB)
    with pytest.raises(ConfigError, match="times must be"):
        Coded(Condensing(quick()), 0)
    with pytest.raises(ConfigError, match="images must be a Filler, got DistributionMatching"):
        Coded(DM)
    with pytest.raises(ConfigError, match="use a budget in bytes"):
        CondensedBuffer(Images(20), Coded(Condensing(quick())))


def test_hybrid_names_carry_method_and_share():
    assert filler("hybrid").name == "hybrid-dm-50"
    assert filler("hybrid-25").name == "hybrid-dm-25"
    assert filler("hybrid-m3d").name == "hybrid-m3d-50"
    assert filler("hybrid-m3d-100").share == 1
    for wrong in ("hybrid-m3d-x", "hybrid-m3d-50-2", "hybrid-101"):
        with pytest.raises(ConfigError):
            memory(wrong)


def test_avalanches_own_have_no_filler_and_their_regimes():
    for name, stock in AVALANCHE.items():
        found = memory(name)
        assert (found.filler, found.regimes, found.note) == (None, stock.regimes, stock.note)
        assert found.control != bool(found.note)  # equal terms, or what differs
    assert list(BASELINES) == list(AVALANCHE)


def test_settings_reach_the_methods_and_their_parts():
    parts = {"init": "kmeans", "init.candidates": "1000", "sampling": "kmeans", "sampling.refresh": 100}
    for name in ("dm", "hybrid", "packed-dm"):
        found: Any = memory(name, Making(options={"batch_real": 8, "lr": "3", **parts}))
        recipe = found.filler.recipe
        assert (recipe.method.lr, recipe.method.batch_real) == (3, 8)
        assert (recipe.init.name, recipe.init.candidates) == ("kmeans", 1000)
        assert (recipe.sampling, found.own_encoder) == (Clustered(refresh=100), False)
    trained = Making(options={"encoder_network": "ConvNet-w8", "encoder": "trained", "encoder.count": 1})
    assert filler("dm", trained).recipe.encoder == Trained(ConvNet(width=8), count=1)
    assert (memory("dm", trained).own_encoder, memory("dm", trained).embeds_with_learner) == (True, False)
    assert memory("dm encoder=kept").own_encoder
    assert filler("dm", Making(options={"encoder": Fresh(NET)})).recipe.encoder == Fresh(NET)
    assert memory("dm", Making(options={"keep": 7})).embeds_with_learner
    assert filler("dm", Making(options={"keep": "7"})).recipe.encoder.keep == 7
    unfit = Making(options={"encoder": "trained", "augment": "none"})
    assert memory("dc", unfit) == memory("dc")  # it has none of these


@pytest.mark.parametrize("option", ["lrr", "network", "factor", "nested", "method.lr", "storage"])
def test_options_that_no_memory_has_are_refused(option):
    making = Making(options={option: "3"})
    kinds = [memory(name, making) for name in ("random", "dm", "m3d")]
    with pytest.raises(ConfigError, match=rf"option {option}=3: none of dm, m3d has this .* Known: augment, .*lr"):
        refuse_unused(making, kinds)
    with pytest.raises(ConfigError, match=f"option {option}=3: nothing is condensed"):
        refuse_unused(making, kinds[:1])


def test_an_option_that_one_memory_has_is_fine():
    making = Making(options={"encoder": "trained", "distance": "cosine"})
    refuse_unused(making, [memory(name, making) for name in ("dm", "dc")])
    shared = Making(options={"encoder_network": "ConvNet-w8", "augment": "color"})
    refuse_unused(shared, [memory("random", shared)])


def test_a_kind_of_ones_own_needs_a_filler():
    with pytest.raises(ConfigError, match=r"memory 'mine' has no filler and is not one of Avalanche's own \(class-bal"):
        MemoryKind("mine")


@pytest.mark.parametrize(
    "wrong", ["randm", "packed-dmm", "unpacked-random", "downscaled-x", "downscaled-²", "downscaled-0", "nothing"]
)
def test_unknown_names(wrong):
    with pytest.raises(ConfigError, match=r"nown|expected downscaled-N"):
        memory(wrong)


def test_equal_bytes_count_what_is_stored():
    spec = images(size=32)
    condensed = memory("dm", Making(storage="float32"))
    each = condensed.bytes_each(spec)
    assert each == 4 * 3 * 32 * 32 + 8
    assert memory(EQUAL_BYTES).images(10, spec, 10 * each) == 10 * each // (3 * 32 * 32 + 8) == 39
    assert memory("random").images(10, spec, 10 * each) == 10
    assert memory("jpeg-random").images(10, spec, 10 * each) == 40  # uncoded images, rounded up
    tiny = memory("dm").bytes_each(spec)  # as bytes, equal images are equal bytes
    assert memory(EQUAL_BYTES).images(10, spec, 10 * tiny) == 10
    assert memory("jpeg-random").room(spec, 10 * tiny) == 10 * tiny
    assert memory("jpeg-random").room(spec, 10 * (3 * 32 * 32 + 8)) is None


def test_coded_images_fill_the_bytes_of_their_rivals():
    """Condensed images have ranges: their bytes are no multiple of those of plain images."""
    small = images(each=60, size=4)
    smooth = small.images.repeat_interleave(8, 2).repeat_interleave(8, 3)
    data = ClassImages.from_arrays(smooth, small.labels, mean=[0.5] * 3, std=[0.25] * 3)
    kind, room = memory("jpeg-random"), 5000  # between one and two plain images
    assert kind.filler
    made = kind.filler.fill(data, kind.images(1, data, room), Job(0, room=kind.room(data, room)))
    for label in made.classes:
        held = int(made.sizes()[made.labels == label].sum())
        assert 0.95 * room < held <= room, label


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("share", [0, 0.4, 1])
def test_hybrid_holds_its_share_of_both(share, factor):
    data, ipc = images(), 5
    made = Hybrid(quick(formation=Formation(factor)), share).fill(data, ipc, JOB)
    assert made.labels.tolist() == [2] * 5 + [5] * 5
    assert made.formation == Formation(factor)
    if factor == 1:
        real = data.gather(data.order)
        found = [(image == real).flatten(1).all(1).any().item() for image in made.images]
        assert found == ([True, True, False, True, False] * 2 if share == 0.4 else [share == 0] * 10)


def test_hybrid_of_no_synthetic_images_is_herding():
    data = images()
    made = Hybrid(quick(), 0).fill(data, 4, Job(3, machine=CPU))
    with Compute(CPU, (8, 8)) as compute:
        chosen = Herding(RandomEmbedding(NET))(data, 4, Draw(3), compute)
    assert torch.equal(made.images, data.gather(chosen.indices))


def test_real_images_of_a_hybrid_make_up_for_the_synthetic_ones():
    data = images(each=60)
    made = Hybrid(quick(), 0.5).fill(data, 6, Job(1, 1, CPU))
    with Compute(CPU, (8, 8)) as compute:
        module = NET.new(data.spec.shape, 1, Draw(1), "embedding").eval()
        gaps = []
        for label in data.classes:
            mean = compute.features(module, data.gather(data.indices_of(label))).mean(0)
            mine = compute.features(module, made.select([label]).decode()[0]).mean(0)
            synthetic = compute.features(module, made.select([label]).decode()[0][1::2]).mean(0)
            gaps.append(((mine - mean).norm() / (synthetic - mean).norm()).item())
    assert max(gaps) < 0.8


@pytest.mark.parametrize(("ipc", "synthetic"), [(1, 0), (1, 1), (5, 2), (10, 3), (7, 7), (6, 0)])
def test_every_prefix_has_its_share(ipc, synthetic):
    places = _alternating(ipc, synthetic).tolist()
    assert sorted(places) == list(range(ipc))
    for size in range(1, ipc + 1):
        taken = sum(place < synthetic for place in places[:size])
        assert abs(taken - size * synthetic / ipc) < 1
        assert [p for p in places if p < synthetic] == sorted(p for p in places if p < synthetic)


def test_one_network_embeds_what_is_condensed_and_what_is_chosen():
    narrow = Making(options={"encoder_network": "ConvNet-w8"})
    assert filler("herding", narrow).selection == Herding(embedding=RandomEmbedding(ConvNet(width=8)))
    assert filler("packed-kmeans", narrow).selection.embedding == RandomEmbedding(ConvNet(width=8))
    assert filler("hybrid", narrow).recipe.encoder.network == ConvNet(width=8)
    assert memory("random", narrow) == memory("random")
    assert filler("herding", Making()).selection == Herding()


def test_learned_soft_labels_are_for_training_from_scratch():
    assert memory("krr labels=soft").regimes == (FROM_SCRATCH,)
    assert memory("dm encoder=trained soft_labels=true").regimes == (FROM_SCRATCH,)
    assert memory("krr", Making(options={"labels": "learned"})).regimes == REGIMES


def test_soft_labels_are_within_the_classes_and_counted():
    data = images()
    teacher = Trained(NET, count=2, steps=3)
    real = Selecting(Random(), BYTES)
    plain, made = real.fill(data, 3, JOB), SoftLabelled(real, teacher).fill(data, 3, JOB)
    assert torch.equal(made.images, plain.images)
    assert made.soft_labels is not None
    assert made.soft_labels.shape == (6, 2)
    torch.testing.assert_close(made.soft_labels.sum(1), torch.ones(6))
    assert made.nbytes == plain.nbytes + 6 * 2 * 4
    assert made.provenance["separable"] is False


def test_a_hybrid_goes_into_a_buffer_and_takes_the_learners_encoder():
    from condensekit.replay.adapters.strategies import embed_with_learner

    memory = CondensedBuffer(Images(per_class=4), "hybrid-dm-50", steps=2, machine=CPU)
    embed_with_learner(memory, naive().model)
    recipe = memory.core.rules.filler.recipe
    assert recipe is not None
    assert isinstance(recipe.encoder, LearnerEncoder)
    memory = CondensedBuffer(Images(per_class=4), Hybrid(quick(), 0.5), steps=2, machine=CPU)
    strategy = naive()
    exp = stream().train_stream[0]
    strategy.train(exp)
    memory.post_adapt(strategy, exp)
    assert memory.memory is not None
    assert memory.memory.labels.tolist() == [0] * 4 + [1] * 4
