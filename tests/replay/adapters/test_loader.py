import copy

import pytest
import torch
from avalanche.benchmarks import ni_benchmark
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute
from avalanche.benchmarks.utils.data_loader import ReplayDataLoader, TaskBalancedDataLoader
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import ReplayPlugin
from torch.utils.data import DataLoader
from torchvision.transforms import (
    Compose,
    Grayscale,
    Lambda,
    Normalize,
    RandomApply,
    RandomCrop,
    RandomHorizontalFlip,
    ToTensor,
    v2,
)

from condensekit.errors import ConfigError, DataError
from condensekit.replay import Bytes, CondensedBuffer, Images, TensorLoader
from condensekit.replay.adapters.loader import TensorBatches
from condensekit.replay.adapters.materialise import Unfit, materialise
from condensekit.replay.adapters.reading import READS
from condensekit.replay.adapters.replayed import Replayed
from condensekit.replay.memory.decoded import DecodedImages
from condensekit.rng import isolated
from condensekit.selection.classic import Random
from condensekit.training.augment import Augmentation
from tests.replay.worlds import MEAN, PIL, SPEC, STD, Pictures, accuracy, buffer, naive, network, stream

KINDS = pytest.mark.parametrize("kind", ["nc", "ci", "tasked"])


class Batches(SupervisedPlugin):
    """Keeps every batch of an epoch."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def before_training_epoch(self, strategy, **kwargs):
        self.epochs.append([])

    def after_training_iteration(self, strategy, **kwargs):
        self.epochs[-1].append([field.clone() for field in strategy.mbatch])


def trained(kind, *, fast, replay=True, loader=None, bench=None, epochs=2, **train):
    """A strategy after three experiences, and its batches."""
    seen, memory = Batches(), buffer(Images(15), Random())
    own = loader or TensorLoader()
    plugins = [own] if fast else []
    plugins += [ReplayPlugin(15, batch_size_mem=6, storage_policy=memory)] if replay else []
    with isolated(5):
        strategy = naive(seen, *plugins, model=network(), epochs=epochs)
        for experience in (bench or stream(kind, each=11)).train_stream:
            strategy.train(experience, **train)
    assert loader or own.fallback is None
    return strategy, seen.epochs


@KINDS
@pytest.mark.parametrize("replay", [False, True])
@pytest.mark.parametrize("train", [{}, {"drop_last": True}, {"shuffle": False}], ids=str)
def test_batches_weights_and_random_state_are_those_of_the_stock_loader(kind, replay, train):
    stock, wanted = trained(kind, fast=False, replay=replay, **train)
    ours, found = trained(kind, fast=True, replay=replay, **train)
    assert [len(epoch) for epoch in found] == [len(epoch) for epoch in wanted]
    for epoch, theirs in zip(found, wanted, strict=True):
        for a, b in zip(epoch, theirs, strict=True):
            assert len(a) == len(b)
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    for a, b in zip(stock.model.parameters(), ours.model.parameters(), strict=True):
        assert torch.equal(a, b)


@KINDS
def test_no_sample_is_lost_nor_seen_twice(kind):
    _, epochs = trained(kind, fast=True, replay=False)
    assert len(epochs) == 6
    for i, epoch in enumerate(epochs):
        dataset = stream(kind, each=11).train_stream[i // 2].dataset
        seen = torch.cat([batch[0] for batch in epoch]).flatten(1)
        wanted = torch.stack([sample[0] for sample in dataset]).flatten(1)
        assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, wanted.tolist()))


def test_pil_images_under_fixed_transforms_are_read_once():
    reads = []

    class Counted(Pictures):
        def __getitem__(self, i):
            reads.append(i)
            return super().__getitem__(i)

    loader = TensorLoader()
    strategy = naive(loader, epochs=5)
    benchmark = stream("ci", data=Counted(pil=True))
    reads.clear()
    strategy.train(benchmark.train_stream[0])
    assert loader.fallback is None
    assert len(reads) <= 24 + READS + 24  # to see that the samples of an unknown class stay the same, and once for all


def test_samples_of_a_known_class_are_read_once():
    class Counting:
        labels, tasks, reads = torch.arange(24) % 6, torch.zeros(24, dtype=torch.int64), 0

        def __len__(self):
            return 24

        def __getitem__(self, i):
            Counting.reads += 1
            return torch.rand(1, 8, 8)

    data = Replayed(Counting(), None)
    dataset = AvalancheDataset([data], data_attributes=[DataAttribute(data.targets, "targets")])
    materialise(dataset)
    assert Counting.reads == 24 + 1


RANDOM = Compose([RandomCrop(8, padding=2), RandomHorizontalFlip(), PIL])


@pytest.mark.parametrize("kind", ["nc", "ci"])
def test_random_transforms_keep_the_stock_loader(kind):
    loader, bench = TensorLoader(), stream(kind, pil=True, train_transform=RANDOM, eval_transform=PIL)
    _, found = trained(kind, fast=True, loader=loader, bench=bench)
    _, wanted = trained(kind, fast=False, bench=bench)
    assert loader.fallback == "its transform RandomCrop may be random: give a batched augmentation instead"
    for epoch, theirs in zip(found, wanted, strict=True):
        assert all(torch.equal(a[0], b[0]) for a, b in zip(epoch, theirs, strict=True))


@pytest.mark.parametrize("kind", ["nc", "ci"])
def test_a_batched_augmentation_stands_in_for_them(kind):
    shapes = []

    def plus(images):
        shapes.append(tuple(images.shape))
        return images + 1

    loader, bench = TensorLoader(plus), stream(kind, pil=True, train_transform=RANDOM, eval_transform=PIL)
    _, found = trained(kind, fast=True, loader=loader, bench=bench, epochs=1, shuffle=False)
    assert loader.fallback is None
    first = torch.cat([batch[0] for batch in found[0]])
    assert torch.equal(first, torch.stack([sample[0] for sample in bench.train_stream[0].dataset.eval()]) + 1)
    assert (14, 1, 8, 8) in shapes  # memory and stream together


def test_the_packages_augmentation_is_counted():
    def run(seed):
        loader = TensorLoader(Augmentation(ops=("crop", "rotate")), seed=seed)
        return torch.cat([batch[0] for batch in trained("nc", fast=True, loader=loader)[1][-1]])

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))
    loader = TensorLoader(Augmentation(ops=("crop",)))
    images = torch.rand(5, 1, 8, 8)
    once = loader.augment(images)
    again = copy.deepcopy(loader)
    assert not torch.equal(once, images)
    assert torch.equal(loader.augment(images), again.augment(images))


class Shaky(torch.utils.data.Dataset):
    """Its own random noise, without a transform to see it by."""

    targets, pil = (0, 1, 0, 1, 0, 1), False

    def __len__(self):
        return 6

    def __getitem__(self, i):
        return torch.randn(1, 8, 8), self.targets[i]


def test_data_that_differ_from_reading_to_reading_keep_the_stock_loader():
    loader = TensorLoader()
    strategy = naive(loader)
    strategy.train(stream("ci", data=Shaky(), experiences=1, classes=2).train_stream[0])
    assert loader.fallback == "a sample differs between two readings"


def test_an_augmentation_that_cannot_be_applied_is_never_dropped():
    strategy = naive(TensorLoader(lambda images: images))
    with pytest.raises(ConfigError, match="cannot be applied batch by batch: a sample differs between two readings"):
        strategy.train(stream("ci", data=Shaky(), experiences=1, classes=2).train_stream[0])


@pytest.mark.parametrize(
    ("transform", "reason"),
    [
        (PIL, None),
        (v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize((MEAN,), (STD,))]), None),
        (Compose([ToTensor(), v2.RandomHorizontalFlip()]), "RandomHorizontalFlip"),
        (Compose([Compose([RandomCrop(4)]), ToTensor()]), "RandomCrop"),
        (Compose([ToTensor(), Normalize((MEAN,), (STD,)), Lambda(lambda x: x + 0)]), None),
        (Compose([RandomApply([Grayscale()]), ToTensor()]), "RandomApply"),  # of a fixed transform
        (Compose([ToTensor(), v2.RandomErasing(0.02)]), "RandomErasing"),
    ],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_which_transforms_are_fixed(transform, reason, frozen):
    dataset = stream("ci", pil=True, train_transform=transform, eval_transform=PIL).train_stream[0].dataset
    dataset = dataset.freeze_transforms() if frozen else dataset
    assert len(materialise(dataset.eval())[0]) == 24
    if reason is None:
        torch.testing.assert_close(materialise(dataset.train())[0], materialise(dataset.eval())[0])
    else:
        with pytest.raises(Unfit, match=f"its transform {reason} may be random"):
            materialise(dataset.train())


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_unknown_transforms_are_tried(share):
    rare = Lambda(lambda x: x.flip(-1) if torch.rand(()) < share else x)
    dataset = stream(pil=True, train_transform=Compose([PIL, rare]), eval_transform=PIL).train_stream[0].dataset
    with pytest.raises(Unfit, match="differs between two readings"):
        materialise(dataset)


def test_a_transform_inside_the_source_is_seen():
    data = Pictures(pil=True)
    data.transform = RANDOM
    with pytest.raises(Unfit, match="RandomCrop"):
        materialise(stream("ci", data=data, train_transform=PIL, eval_transform=PIL).train_stream[0].dataset)


def test_data_that_are_too_large_or_do_not_stack(monkeypatch):
    dataset = stream("ci").train_stream[0].dataset
    monkeypatch.setattr("condensekit.replay.adapters.materialise.LIMIT", 1000)
    with pytest.raises(Unfit, match="its 24 samples take more than 1,000 bytes"):
        materialise(dataset)
    monkeypatch.undo()
    dataset.collate_fn = list
    with pytest.raises(Unfit, match="a collate function of its own"):
        materialise(dataset)
    with pytest.raises(Unfit, match="empty"):
        materialise(stream("ci").train_stream[0].dataset.subset([]))


def test_samples_of_several_shapes_keep_the_stock_loader():
    class Growing(Pictures):
        def __getitem__(self, i):
            image, label = super().__getitem__(i)
            return (image, label) if i < 12 else (image[..., :4], label)

    with pytest.raises(Unfit, match="its samples do not stack"):
        materialise(stream("ci", data=Growing(), experiences=1).train_stream[0].dataset)
    small, large = (stream("ci", size=size).train_stream[0].dataset for size in (8, 12))
    with pytest.raises(Unfit, match="the samples of its data sets do not stack"):
        TensorBatches(ReplayDataLoader(small, large, batch_size=5, batch_size_mem=3), "cpu")


def test_loaders_that_it_knows():
    dataset = stream().train_stream[0].dataset
    for stock in (
        DataLoader(dataset, batch_size=5),
        TaskBalancedDataLoader(dataset, batch_size=5),
        ReplayDataLoader(dataset, dataset.subset(range(7)), batch_size=5, batch_size_mem=3),
    ):
        assert len(TensorBatches(stock, "cpu")) == len(stock) == len(list(TensorBatches(stock, "cpu")))
    with pytest.raises(Unfit, match="the loader is a list"):
        TensorBatches([], "cpu")


@pytest.mark.parametrize("transform", [None, RANDOM])
def test_labels_beyond_the_head_are_named_before_the_loss(transform):
    strategy = naive(TensorLoader(), model=network(4))
    benchmark = stream(pil=True, train_transform=transform or PIL, eval_transform=PIL)
    strategy.train(benchmark.train_stream[1])
    with pytest.raises(DataError, match="label 5 is beyond the network's head, which has 4 outputs"):
        strategy.train(benchmark.train_stream[2])


def test_tasks_are_balanced_as_in_the_stock_loader():
    data = Pictures(classes=3)
    bench = ni_benchmark(data, Pictures(classes=3, seed=1), 3, task_labels=True, seed=2)
    found, wanted = (trained("", fast=fast, bench=bench)[1] for fast in (True, False))
    assert all(torch.equal(a[0], b[0]) for e, t in zip(found, wanted, strict=True) for a, b in zip(e, t, strict=True))


def test_evaluation_during_training_and_metrics_go_on():
    bench = stream()
    loader, memory = TensorLoader(), buffer(Images(12), Random())
    strategy = naive(ReplayPlugin(12, storage_policy=memory), loader, epochs=3, eval_every=1, peval_mode="epoch")
    for experience in bench.train_stream:
        strategy.train(experience, eval_streams=[bench.test_stream])
    assert loader.fallback is None
    assert loader._loader is None
    assert accuracy(strategy, bench) > 0.3


@pytest.mark.parametrize("recipe", ["jpeg-random-1", "random"])
def test_batches_with_a_memory_are_those_of_the_stock_loader_also_of_coded_images(recipe):
    def run(fast):
        with isolated(0):
            memory, benchmark = CondensedBuffer(Bytes(per_class=20 * 72), recipe, spec=SPEC), stream(pil=True, each=24)
            seen = Seen()
            strategy = naive(ReplayPlugin(0, storage_policy=memory), *([TensorLoader()] if fast else []), seen)
            for exp in benchmark.train_stream[:2]:
                strategy.train(exp)
        return seen.batches, memory, seen.loader

    (fast, memory, loader), (slow, _, _) = run(True), run(False)
    for (x, y), (images, labels) in zip(fast, slow, strict=True):
        assert torch.equal(y, labels)
        torch.testing.assert_close(x, images)
    assert isinstance(loader, TensorBatches)
    if recipe.startswith("jpeg"):
        held = [part for part in loader.columns[0].parts if isinstance(part, DecodedImages)]
        assert held[0].coded
        assert not memory.core.decoded._kept


class Seen(SupervisedPlugin):
    """The batches of a training."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def before_forward(self, strategy, **kwargs):
        self.loader = strategy.dataloader
        self.batches.append((strategy.mb_x.clone(), strategy.mb_y.clone()))
