"""A swap of the storage policy changes one thing: replayed images go through the stream's training transforms once.

Avalanche issue 1277 asks for other transforms of replayed images; stock buffers replay under the stream's own.
"""

import logging
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.benchmarks.classic.ccifar10 import _default_cifar10_eval_transform, _default_cifar10_train_transform
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.benchmarks.utils.transform_groups import TransformGroups
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.transforms import (
    CenterCrop,
    Compose,
    Grayscale,
    Lambda,
    Normalize,
    Pad,
    RandomCrop,
    RandomErasing,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToPILImage,
    ToTensor,
    v2,
)

from condensekit.errors import DataError
from condensekit.replay import ERACE, CondensedBuffer, CondensedReplay, DERpp, Images

SIZE = 16
GREY, COLOUR = Normalize((0.3,), (0.4,)), Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
CROP = RandomCrop(SIZE, padding=2)
LATE = [v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.5,) * 3, (0.2,) * 3)]


class Photos(Dataset):
    """Blocks of random colours, as pictures of a mode, arrays, bytes or floats."""

    def __init__(self, kind="RGB", transform=None, target_transform=None):
        blocks = np.random.RandomState(0).randint(0, 256, (64, 4, 4, 3)).astype(np.uint8)
        self.pixels = np.repeat(np.repeat(blocks, SIZE // 4, 1), SIZE // 4, 2)
        self.kind, self.transform, self.target_transform = kind, transform, target_transform
        self.targets = [i % 4 for i in range(len(self.pixels))]
        self.reads = 0

    def __len__(self):
        return len(self.pixels)

    def source(self, i):
        image = self.pixels[i]
        if self.kind == "array":
            return image
        if self.kind in ("bytes", "float", "normalised"):
            image = torch.from_numpy(image).permute(2, 0, 1)
            image = image if self.kind == "bytes" else image.float() / 255
            return (image - 0.5) / 0.25 if self.kind == "normalised" else image
        return Image.fromarray(image).convert(self.kind)

    def __getitem__(self, i):
        self.reads += 1
        image, target = self.source(i), self.targets[i]
        image = self.transform(image) if self.transform else image
        return image, self.target_transform(target) if self.target_transform else target


def experience(data, train=None, test=None):
    """The first of two experiences."""
    return nc_benchmark(
        data, data, 2, task_labels=False, seed=0, train_transform=train, eval_transform=test
    ).train_stream[0]


def filled(given, **options):
    """A memory of chosen images of an experience."""
    memory = CondensedBuffer(Images(16), "random", **options)
    memory.post_adapt(SimpleNamespace(model=None, plugins=[], device="cpu"), given)
    return memory


def different(memory):
    """How many different images eight readings of each of two replayed images give, at least."""
    data = memory.buffer.train()
    return min(len({data[i][0].numpy().tobytes() for _ in range(8)}) for i in (0, 3))


def scale(images):
    return float(images.std())


def to_floats(picture):
    return (torch.from_numpy(np.array(picture)).float()[None] / 255 - 0.3) / 0.2


def three(image):
    return image.repeat(3, 1, 1)


def in_colours(picture):
    return picture.convert("RGB")


def whole(image):
    return image


PIPELINES = {
    "cifar": ("RGB", [RandomCrop(SIZE, padding=4), RandomHorizontalFlip(), ToTensor(), COLOUR], [ToTensor(), COLOUR]),
    "mnist": ("L", [CROP, ToTensor(), GREY], [ToTensor(), GREY]),
    "nested": ("RGB", [Compose([CROP]), Compose([ToTensor(), COLOUR])], [Compose([ToTensor(), COLOUR])]),
    "sequential": ("bytes", [nn.Sequential(v2.RandomCrop(SIZE, padding=2)), *LATE], LATE),
    "v2": ("RGB", [v2.ToImage(), v2.RandomCrop(SIZE, padding=2), *LATE], [v2.ToImage(), *LATE]),
    "v2 first": ("RGB", [v2.Compose([v2.RandomCrop(SIZE, padding=2), v2.ToImage(), *LATE])], [v2.ToImage(), *LATE]),
    "bytes": ("bytes", [v2.RandomCrop(SIZE, padding=2), *LATE], LATE),
    "floats": ("float", [CROP, COLOUR], [COLOUR]),
    "normalised": ("normalised", [CROP], []),
    "array": ("array", [ToPILImage(), CROP, ToTensor(), COLOUR], [ToTensor(), COLOUR]),
    "lambda": ("L", [CROP, Lambda(to_floats)], [Lambda(to_floats)]),
    "three channels": ("L", [CROP, ToTensor(), Lambda(three), COLOUR], [ToTensor(), Lambda(three), COLOUR]),
    "to grey": ("RGB", [CROP, Grayscale(), ToTensor(), GREY], [Grayscale(), ToTensor(), GREY]),
    "with alpha": ("RGBA", [CROP, Lambda(in_colours), ToTensor(), COLOUR], [Lambda(in_colours), ToTensor(), COLOUR]),
    "palette": ("P", [Lambda(in_colours), CROP, ToTensor(), COLOUR], [Lambda(in_colours), ToTensor(), COLOUR]),
    "pad": ("L", [Pad(2), RandomCrop(20, padding=2), ToTensor(), GREY], [Pad(2), ToTensor(), GREY]),
    "resize": ("RGB", [Resize(20), RandomCrop(20, padding=2), ToTensor(), COLOUR], [Resize(20), ToTensor(), COLOUR]),
    "imagenet": ("RGB", [RandomResizedCrop(12), ToTensor(), COLOUR], [Resize(14), CenterCrop(12), ToTensor(), COLOUR]),
    "erasing": ("RGB", [ToTensor(), COLOUR, RandomErasing(1.0)], [ToTensor(), COLOUR]),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_replayed_images_are_drawn_anew_in_the_scale_of_training(name):
    kind, train, test = PIPELINES[name]
    given = experience(Photos(kind), Compose(train), Compose(test))
    memory = filled(given)
    assert different(memory) > 4
    trained, replayed = (torch.stack([row[0] for row in data.train()]) for data in (given.dataset, memory.buffer))
    assert replayed.shape[1:] == trained.shape[1:]
    assert 0.85 < scale(replayed) / scale(trained) < 1.15
    assert abs(float(replayed.mean() - trained.mean())) < 0.3 * scale(trained)
    evaluated = torch.stack([row[0] for row in memory.buffer.eval()])
    assert torch.equal(evaluated, memory.core.images()[0])


def test_the_default_transforms_of_split_cifar10():
    class Large(Photos):
        def source(self, i):
            return super().source(i).resize((32, 32))

    memory = filled(experience(Large(), _default_cifar10_train_transform, _default_cifar10_eval_transform))
    assert different(memory) > 4


@pytest.mark.parametrize("kind", ["L", "RGB"])
def test_a_stored_picture_comes_back_exactly(kind):
    given, data = Photos(kind), []

    def noted(picture):
        data.append(picture)
        return picture

    test = Compose([ToTensor(), GREY if kind == "L" else COLOUR])
    train = Compose([Lambda(noted), *test.transforms])
    memory = filled(experience(given, train, test))
    data.clear()
    list(memory.buffer.train())
    assert len(data) == 16
    assert {(picture.mode, picture.size) for picture in data} == {(kind, (SIZE, SIZE))}
    sources = {given.source(i).tobytes() for i in range(len(given))}
    assert {picture.tobytes() for picture in data} <= sources


def test_fixed_transforms_change_nothing():
    test = Compose([ToTensor(), GREY])
    for train in (test, Compose([ToTensor(), Normalize((0.3,), (0.4,))])):
        memory = filled(experience(Photos("L"), train, test))
        assert memory._followed.groups is None


def test_own_transforms_replace_those_of_the_stream():
    kind, train, test = PIPELINES["mnist"]
    given = experience(Photos(kind), Compose(train), Compose(test))
    assert different(filled(given, transforms=TransformGroups({}))) == 1
    assert different(filled(given, transforms=torch.randn_like)) == 8


def test_the_transforms_of_the_last_experience_count():
    memory = filled(experience(Photos("L"), Compose([CROP, ToTensor(), GREY]), Compose([ToTensor(), GREY])))
    fixed = Compose([ToTensor(), GREY])
    other = nc_benchmark(
        Photos("L"), Photos("L"), 2, task_labels=False, seed=0, train_transform=fixed, eval_transform=fixed
    ).train_stream[1]
    memory.post_adapt(SimpleNamespace(model=None, plugins=[], device="cpu"), other)
    assert different(memory) == 1


def square(image):
    return image**2


def standardised(image):
    return (image - image.mean()) / image.std()


@pytest.mark.parametrize("function", [square, standardised])
def test_without_a_way_back_one_warning_and_what_tensors_allow(function):
    data = Photos("L")
    stream = nc_benchmark(
        data,
        data,
        2,
        task_labels=False,
        seed=0,
        train_transform=Compose([CROP, ToTensor(), Lambda(function)]),
        eval_transform=Compose([ToTensor(), Lambda(function)]),
    ).train_stream
    with pytest.warns(UserWarning, match="replayed with RandomCrop only; pass transforms="):
        memory = filled(stream[0])
    memory.post_adapt(SimpleNamespace(model=None, plugins=[], device="cpu"), stream[1])  # without a second warning
    assert different(memory) > 4


def test_without_a_way_back_fixed_transforms_need_no_warning():
    train, test = (Compose([ToTensor(), Lambda(standardised)]) for _ in range(2))
    assert different(filled(experience(Photos("L"), train, test))) == 1


def test_without_a_way_back_no_augmentation_of_pictures():
    def darker(picture):
        return picture.point(lambda level: level * float(torch.rand(())))

    train, test = Compose([darker, ToTensor(), Lambda(square)]), Compose([ToTensor(), Lambda(square)])
    with pytest.warns(UserWarning, match="replayed without augmentation; pass transforms="):
        assert different(filled(experience(Photos("L"), train, test))) == 1


def test_colours_in_another_order_are_not_mistaken_for_grey():
    def turned(image):
        return image.flip(0)

    with pytest.warns(UserWarning, match="normalisation .* is not found"):
        filled(experience(Photos(), Compose([CROP, ToTensor(), turned]), Compose([ToTensor(), turned])))


def test_a_scale_of_training_alone_is_followed():
    given = experience(Photos("float"), COLOUR, Lambda(whole))
    memory = filled(given)
    trained, replayed = (torch.stack([row[0] for row in data.train()]) for data in (given.dataset, memory.buffer))
    assert 0.85 < scale(replayed) / scale(trained) < 1.15


def test_a_scale_of_training_alone_without_a_way_back_is_refused():
    train, test = Compose([ToTensor(), Normalize((0.0,), (0.1,))]), Compose([ToTensor(), Lambda(standardised)])
    with pytest.raises(DataError, match=r"training images .* mean .* and standard deviation .* those of evaluation"):
        filled(experience(Photos("L"), train, test))


@pytest.mark.parametrize("name", ["pickle", "dill"])  # Avalanche's checkpoints use dill
def test_a_saved_memory_is_augmented(name):
    pack = import_module(name)
    kind, train, test = PIPELINES["cifar"]
    memory = filled(experience(Photos(kind), Compose(train), Compose(test)))
    assert different(pack.loads(pack.dumps(memory))) > 4


def test_a_memory_from_a_state_finds_the_transforms_before_training():
    kind, train, test = PIPELINES["cifar"]
    given = experience(Photos(kind), Compose(train), Compose(test))
    memory = CondensedBuffer(Images(16), "random")
    memory.load_state_dict(filled(given).state_dict())
    memory.pre_adapt(SimpleNamespace(model=None), given)
    assert different(memory) > 4


def test_workers_of_a_loader_draw_too():
    kind, train, test = PIPELINES["cifar"]
    data = filled(experience(Photos(kind), Compose(train), Compose(test))).buffer.train()
    one, other = (torch.cat([batch[0] for batch in DataLoader(data, batch_size=4, num_workers=2)]) for _ in range(2))
    assert one.shape == other.shape == (16, 3, SIZE, SIZE)
    assert not torch.equal(one, other)


OWN = {
    "v1": ("L", Compose([CROP, ToTensor(), GREY])),
    "v2": ("RGB", v2.Compose([v2.RandomCrop(SIZE, padding=2), v2.ToImage(), *LATE])),
}


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("part", [False, True])
def test_random_transforms_of_the_data_set_itself_are_followed(name, part):
    kind, transform = OWN[name]
    data = Photos(kind, transform, target_transform=lambda label: label + 1)
    still = [data.source(i) for i in range(len(data))]
    subset: Any = Subset(data, range(8, 56))
    subset.targets = data.targets[8:56]
    fixed = Compose([step for step in transform.transforms if "Random" not in type(step).__name__])
    memory = filled(experience(subset if part else data))
    assert different(memory) > 4
    assert set(memory.core.images()[1].tolist()) < {1, 2, 3, 4}
    wanted = torch.stack([fixed(picture) for picture in still]).flatten(1)
    found = torch.stack([row[0] for row in memory.buffer.eval()]).flatten(1)
    assert float(torch.cdist(found, wanted).min(1).values.max()) < 1.0  # without the crop


def test_transforms_of_one_group_are_those_of_evaluation_too():
    data = Photos("L")
    for groups in (TransformGroups({"train": Compose([CROP, ToTensor(), GREY])}), None):
        data.transform = None if groups else Compose([ToTensor(), GREY])
        groups = groups or TransformGroups({"train": CROP})
        memory = CondensedBuffer(Images(16), "random")
        memory.update_from_dataset(as_classification_dataset(data, transform_groups=groups))
        wanted = torch.stack([Compose([ToTensor(), GREY])(data.source(i)) for i in range(len(data))]).flatten(1)
        found = torch.stack([row[0] for row in memory.buffer.eval()]).flatten(1)
        assert float(torch.cdist(found, wanted).min(1).values.max()) < 1.0
        assert different(memory) > 4


def test_random_images_of_the_data_set_itself_are_told_and_kept(caplog):
    class Noisy(Photos):
        def source(self, i):
            return super().source(i) + torch.randn(3, SIZE, SIZE)

    with caplog.at_level(logging.WARNING, "condensekit"):
        memory = filled(experience(Noisy("float")))
    assert [record.getMessage() for record in caplog.records if "differ from reading" in record.getMessage()]
    assert different(memory) == 1


def test_an_experience_is_read_about_once():
    kind, train, test = PIPELINES["cifar"]
    data = Photos(kind)
    given = experience(data, Compose(train), Compose(test))
    data.reads = 0
    filled(given)
    assert data.reads <= len(given.dataset) + 80


class Batches(SupervisedPlugin):
    """Keeps the images of some classes that are trained on."""

    def __init__(self, classes):
        super().__init__()
        self.classes, self.images = classes, []

    def before_update(self, strategy, **kwargs):
        replayed = getattr(strategy, "mb_buffer_x", strategy.mb_x), getattr(strategy, "mb_buffer_y", strategy.mb_y)
        self.images += [image.clone() for image, label in zip(*replayed, strict=True) if int(label) in self.classes]


@pytest.mark.parametrize("kind", [ERACE, DERpp, CondensedReplay])
@pytest.mark.parametrize("replaced", [False, True])
def test_strategies_replay_augmented_images(kind, replaced):
    data = Photos("L")
    train, test = Compose([CROP, ToTensor(), GREY]), Compose([ToTensor(), GREY])
    first, second = nc_benchmark(
        data, data, 2, task_labels=False, seed=0, train_transform=train, eval_transform=test
    ).train_stream
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, 4))
    seen = Batches(first.classes_in_this_experience)
    strategy = kind(
        storage_policy=CondensedBuffer(Images(8), "random"),
        augmentation=(lambda images: images) if replaced else None,
        plugins=[seen],
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), 0.01),
        train_mb_size=8,
        train_epochs=4,
        evaluator=EvaluationPlugin(loggers=[]),
    )
    strategy.train(first)
    seen.images.clear()
    strategy.train(second)
    found = len(torch.unique(torch.stack(seen.images).flatten(1), dim=0))
    assert found <= 8 if replaced else found > 16
