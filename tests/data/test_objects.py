from contextlib import nullcontext
from enum import Enum
from random import random
from types import SimpleNamespace
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)
from torchvision.datasets import EMNIST, ImageFolder

from condensekit.data import datasets
from condensekit.data.images import ImageSpec
from condensekit.data.objects import as_images
from condensekit.data.origins import FLIPS
from condensekit.errors import ConfigError, DataError
from condensekit.progress import Progress, Stage
from tests.targeted import Targeted


class Listed(Dataset):
    """Whatever items it is given."""

    features: dict[str, object]

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Torchvisionish(Dataset):
    """Like torchvision's CIFAR10: bytes in ``data``, PIL images as items, unless a transform changes them."""

    classes = ("apple", "bear", "cat")

    def __init__(self, transform=None):
        self.data = np.random.default_rng(0).integers(0, 256, (12, 8, 6, 3), dtype=np.uint8)
        self.targets = [0, 1, 2] * 4
        self.transform = transform

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        image = Image.fromarray(self.data[index])
        return image if self.transform is None else self.transform(image), self.targets[index]


def to_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def test_bytes_and_names_are_those_of_the_items():
    dataset = Torchvisionish()
    data = datasets.from_dataset(dataset)
    assert torch.equal(data.images, torch.from_numpy(dataset.data).permute(0, 3, 1, 2))
    assert data.spec.class_names == {0: "apple", 1: "bear", 2: "cat"}
    assert data.spec.mean == pytest.approx((dataset.data / 255).mean((0, 1, 2)).tolist())


@pytest.mark.parametrize("transform", [to_tensor, np.asarray, lambda image: image])
def test_items_give_the_same_bytes(transform):
    dataset = Torchvisionish(transform)
    data = datasets.from_dataset(dataset)
    assert data.fingerprint() == datasets.from_dataset(Torchvisionish()).fingerprint()


def test_a_transform_hidden_in_the_items_is_obeyed():
    class Inverted(Torchvisionish):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return 255 - np.asarray(image), label

    inverted = torch.from_numpy(255 - Torchvisionish().data[3]).permute(2, 0, 1)
    assert torch.equal(datasets.from_dataset(Inverted()).images[3], inverted)


def test_normalised_floats_are_kept_even_where_the_first_are_black():
    images = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    images[:2] = 0
    data = datasets.from_dataset(TensorDataset(images, torch.tensor([0, 1, 0, 1, 0, 1])))
    assert data.images.dtype == torch.float32
    assert torch.equal(data.images, images)
    assert (data.spec.mean, data.spec.std) == ((0.0,), (1.0,))


@pytest.mark.parametrize("kind", [int, np.int64, torch.tensor, lambda label: np.array([label])])
def test_label_gaps_and_kinds_of_integers(kind):
    image = np.zeros((4, 4), np.uint8)
    data = datasets.from_dataset(Listed([(image, kind(label), "more") for label in (42, -7, 0, 42)]))
    assert data.classes == (-7, 0, 42)
    assert data.labels.tolist() == [42, -7, 0, 42]


def test_strings_and_a_given_spec():
    items = Listed([(np.zeros((4, 4), np.uint8), name) for name in ("dog", "cat")])
    assert datasets.from_dataset(items).spec.class_names == {0: "cat", 1: "dog"}
    spec = ImageSpec((1, 4, 4), (0.5,), (0.25,), {3: "dog", 8: "cat"})
    data = datasets.from_dataset(items, spec=spec)
    assert data.spec is spec
    assert data.labels.tolist() == [3, 8]


def test_mixed_sizes_need_the_option():
    items = Listed([(Image.new("RGB", (8, 8)), 0), (Image.new("RGB", (9, 8)), 1)])
    with pytest.raises(DataError, match=r"item 0 is \(3, 8, 8\); item 1 is \(3, 8, 9\): resize in the"):
        datasets.from_dataset(items)
    assert datasets.from_dataset(items, image_size=4).spec.shape == (3, 4, 4)
    with pytest.raises(ConfigError, match="got 0"):
        datasets.from_dataset(items, image_size=0)


IMAGE = np.zeros((4, 4), np.uint8)


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([], "the data set is empty"),
        ([IMAGE], "item 0 must be"),
        ([(IMAGE, 0), (None, 0)], "item 1: an image must be a PIL image, an array or a tensor, got NoneType"),
        ([(IMAGE, 0), (np.array([["a"]]), 0)], "item 1: "),
        ([(IMAGE, 0), (IMAGE.astype(float), 0)], "item 1 is torch.float32, item 0 is torch.uint8"),
        ([(IMAGE, 0), (IMAGE, 0.5)], "the label of item 1 must be an integer or a string, got 0.5"),
        (
            [(IMAGE, torch.tensor([1, 1])), (IMAGE, torch.tensor([0, 1]))],
            "the labels are multi-label: image 0 has 2 of 2",
        ),
        ([(IMAGE / 255, 0), (IMAGE * np.nan, 0)], "image 1 has a pixel that is not finite"),
    ],
)
def test_unusable_items_are_named(items, reason):
    with pytest.raises(DataError, match=reason):
        datasets.from_dataset(Listed(items))


def test_streams_are_refused():
    with pytest.raises(DataError, match="generator lacks them"):
        datasets.from_dataset(item for item in [(FACE, 3)])


def test_every_image_is_reported():
    class Counting(Progress):
        def stage(self, name, total, done=0):
            outer = self
            self.total, self.done = total, done

            class Here(Stage):
                def advance(self, steps=1, values=None):
                    outer.done += steps

            return nullcontext(Here())

    for source in (Torchvisionish(), Torchvisionish(to_tensor)):
        progress = Counting()
        datasets.from_dataset(source, progress=progress)
        assert (progress.total, progress.done) == (12, 12)


@pytest.mark.filterwarnings("ignore:no QP solver found")
def named(name):
    """A data set of a class of that name, as torchvision's."""
    return type(name, (Listed,), {})([(FACE, 3), (FACE, 4)])


FACE = np.zeros((8, 8), np.uint8)


@pytest.mark.parametrize("name", ["MNIST", "QMNIST", "KMNIST", "EMNIST", "SVHN", "USPS", "Omniglot"])
def test_digits_and_letters_of_torchvision_are_not_flippable(name):
    dataset = named(name)
    mine = type("Mine", (type(dataset),), {})(dataset.items)
    wrapped = Subset(Subset(dataset, [0, 1]), [1])
    joined: ConcatDataset = ConcatDataset([named("CIFAR10"), dataset])
    for given in (dataset, mine, wrapped, joined):
        assert not as_images(given).spec.flippable


def test_other_data_sets_are_flippable():
    digits = type(named("MNIST"))
    clothes = type("FashionMNIST", (digits,), {})([(FACE, 0), (FACE, 1)])  # torchvision's is a subclass of MNIST
    for given in (named("CIFAR10"), named("FakeData"), clothes, Subset(clothes, [0]), (FACE[None], [0])):
        assert as_images(given).spec.flippable


def test_it_is_torchvision_that_has_these_names():
    import torchvision

    for name in FLIPS:
        assert hasattr(torchvision.datasets, name)
    assert issubclass(torchvision.datasets.FashionMNIST, torchvision.datasets.MNIST)


class TestAvalanche:
    """Real Avalanche data sets, as its benchmarks hand them out."""

    @staticmethod
    def sources():
        from avalanche.benchmarks.utils import as_classification_dataset

        images = torch.randint(0, 256, (24, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        labels = torch.arange(24) % 4
        plain = Targeted(images / 255, labels)
        return images, labels, as_classification_dataset(plain)

    def test_class_incremental_benchmark(self):
        from avalanche.benchmarks.scenarios import class_incremental_benchmark

        images, labels, dataset = self.sources()
        benchmark = class_incremental_benchmark(
            {"train": dataset, "test": dataset}, num_experiences=2, class_order=[2, 0, 3, 1]
        )
        for experience, classes in zip(benchmark.train_stream, [(0, 2), (1, 3)], strict=True):
            assert len(experience.dataset[0]) == 2
            data = datasets.from_dataset(experience.dataset)
            assert data.classes == classes
            assert data.images.dtype == torch.uint8
            for label in classes:
                assert torch.equal(data.images[data.indices_of(label)], images[labels == label])

    def test_nc_benchmark(self):
        from avalanche.benchmarks import nc_benchmark

        images, labels, dataset = self.sources()
        benchmark = nc_benchmark(dataset, dataset, n_experiences=2, task_labels=True, shuffle=False, seed=0)
        seen: tuple[int, ...] = ()
        for task, experience in enumerate(benchmark.train_stream):
            item = experience.dataset[0]
            assert len(item) == 3
            assert item[2] == task
            data = datasets.from_dataset(experience.dataset)
            seen += data.classes
            assert torch.equal(data.images[data.indices_of(data.classes[0])], images[labels == data.classes[0]])
        assert sorted(seen) == [0, 1, 2, 3]

    def test_subset_of_a_data_set(self):
        _, labels, dataset = self.sources()
        data = datasets.from_dataset(Subset(dataset, [5, 3]))
        assert data.labels.tolist() == labels[[5, 3]].tolist()

    def test_an_experience_is_its_images_and_knows_whether_they_flip(self):
        from avalanche.benchmarks import nc_benchmark

        images, labels, _ = self.sources()
        for name, flips in (("MNIST", False), ("CIFAR10", True)):
            source = type(name, (Listed,), {})([(image / 255, int(k)) for image, k in zip(images, labels, strict=True)])
            source.targets = labels.tolist()
            words = {"task_labels": False, "seed": 0, "train_transform": upside_down, "eval_transform": to_float}
            benchmark = nc_benchmark(source, source, n_experiences=2, **words)
            data = as_images(benchmark.train_stream[0])
            assert data.spec.flippable is flips
            assert data.images.dtype == torch.uint8
            for label in data.classes:  # read with the transforms of evaluation, in order
                assert torch.equal(data.images[data.indices_of(label)], images[labels == label])


def upside_down(image):
    return image.flip(-2)


def to_float(image):
    return image.float()


class Colours(Enum):
    RED = 3


class Renumbered(Torchvisionish):
    """A target_transform as torchvision applies it."""

    class_to_idx = {"apple": 0, "bear": 1, "cat": 2}  # noqa: RUF012

    def __init__(self, target_transform=None):
        super().__init__()
        self.target_transform = target_transform

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image, label if self.target_transform is None else self.target_transform(label)


NAMES = {0: "apple", 1: "bear", 2: "cat"}


@pytest.mark.parametrize(
    ("dataset", "names"),
    [
        (Renumbered(), NAMES),
        (Renumbered(lambda label: label), NAMES),
        (Renumbered(lambda label: 2 - label), {0: "0", 1: "bear", 2: "2"}),  # bear is still 1
        (Renumbered(lambda label: label + 1), {1: "1", 2: "2", 3: "3"}),
        (Renumbered(lambda label: label % 2), {0: "0", 1: "bear"}),
        (Subset(Renumbered(), [1, 2, 4]), {1: "bear", 2: "cat"}),
        (Subset(Subset(Renumbered(), range(1, 12)), [0, 1]), {1: "bear", 2: "cat"}),
        (ConcatDataset([Renumbered(), Torchvisionish()]), NAMES),
        (torch.utils.data.random_split(Renumbered(), [6, 6])[0], NAMES),
    ],
)
def test_names_hold_through_wrappers_and_only_where_labels_do(dataset, names):
    data = datasets.from_dataset(dataset)
    assert dict(data.spec.class_names) == {k: names[k] for k in data.classes}
    assert data.labels.tolist() == [dataset[i][1] for i in range(len(dataset))]


def test_two_data_sets_with_other_numbers_give_no_wrong_name():
    other = Renumbered()
    other.class_to_idx = {"cherry": 0, "bear": 1, "cat": 2}
    assert datasets.from_dataset(ConcatDataset([Renumbered(), other])).spec.class_names == {0: "0", 1: "bear", 2: "cat"}


def test_emnist_letters_begin_with_1():
    data = EMNIST.__new__(EMNIST)
    data.transform = data.target_transform = None
    data.split, data.classes = "letters", EMNIST.classes_split_dict["letters"]
    data.targets = torch.arange(1, 27)
    data.data = torch.zeros(26, 28, 28, dtype=torch.uint8)
    names = datasets.from_dataset(data).spec.class_names
    assert (names[1], names[26], len(names)) == ("a", "z", 26)


ROW = np.array([0, 1, 1])


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (np.int64(3), 3),
        (torch.tensor(3), 3),
        (np.array([3]), 3),
        (b"cat", 0),
        (np.bytes_("cat"), 0),
        (np.str_("cat"), 0),
        (Colours.RED, 3),
        (True, "give int"),
        (np.bool_(True), "give int"),
        (3.5, "must be an integer or a string, got 3.5"),
        (None, "must be an integer or a string, got None"),
        (ROW, "multi-label: image 0 has 2 of 3 classes"),
        (ROW * 0, "image 0 has no class"),
        (ROW * 4.5, "one class for each image"),
        ({"boxes": [], "labels": []}, "a dictionary with 'boxes', 'labels'; detection"),
        ([{"bbox": []}], "detection"),
    ],
)
def test_labels_are_read_or_refused_in_one_line(label, expected):
    items = Listed([(IMAGE, label), (IMAGE, label)])
    if isinstance(expected, int):
        assert datasets.from_dataset(items).labels.tolist() == [expected] * 2
        return
    with pytest.raises(DataError, match=expected) as refusal:
        datasets.from_dataset(items)
    assert "\n" not in str(refusal.value)


def test_one_row_with_several_labels_decides_for_all():
    """The first rows of multi-label data may have one label each."""
    with pytest.raises(DataError, match="multi-label: image 2"):
        datasets.from_dataset(Listed([(IMAGE, row) for row in ([0, 1], [1, 0], [1, 1])]))


class Stream(IterableDataset):
    def __iter__(self):
        yield IMAGE, 0


@pytest.mark.parametrize(
    ("given", "way_out"),
    [
        (Stream(), r"pass list\(dataset\)"),
        (DataLoader(Torchvisionish(), sampler=SubsetRandomSampler([1, 2])), "such as loader.dataset or a Subset of it"),
        (DataLoader(Torchvisionish(), collate_fn=list), "such as loader.dataset or a Subset of it"),
        ({"train": Torchvisionish(), "test": Torchvisionish()}, "a dictionary of 'train', 'test': pass one of them"),
        (Listed([{"img": IMAGE, "fine_label": 0}]), r"a dictionary with 'img', 'fine_label': pass a list of"),
    ],
)
def test_other_objects_are_refused_with_the_call_to_use(given, way_out):
    with pytest.raises(DataError, match=way_out):
        as_images(given)


def test_a_list_of_items_and_dictionaries_of_hugging_face_are_read():
    assert as_images([(IMAGE, 3), (IMAGE, 4)]).labels.tolist() == [3, 4]
    dicts = Listed([{"image": Image.fromarray(IMAGE), "label": label} for label in (1, 0)])
    dicts.features = {"label": SimpleNamespace(names=["cat", "dog"])}
    data = as_images(dicts)
    assert data.labels.tolist() == [1, 0]
    assert data.spec.class_names == {0: "cat", 1: "dog"}


def test_random_transforms_are_refused():
    flipped = Torchvisionish(
        lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random() < 0.5 else image
    )
    with pytest.raises(DataError, match=r"item \d+ differs from reading to reading: .* transform=ToTensor"):
        datasets.from_dataset(flipped)


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: ConcatDataset([data, Subset(data, [2, 1])])])
def test_an_item_that_cannot_be_read_is_named_with_its_file(tmp_path, wrap):
    """The loader is that of torchvision; it fails in PIL, without a word of the file."""
    for name in "abc":
        (tmp_path / name).mkdir()
        Image.fromarray(IMAGE).save(tmp_path / name / "0.png")
    damaged = tmp_path / "b/0.png"
    damaged.write_bytes(damaged.read_bytes()[:40])
    with pytest.raises(DataError, match=rf"item 1 \({damaged}\) cannot be read: "):
        datasets.from_dataset(wrap(ImageFolder(tmp_path)))


LABELLINGS = {
    "as they are": lambda label: label,
    "from 1": lambda label: label + 1,
    "gaps": lambda label: 7 * label - 3,
    "tensors": torch.tensor,
    "columns": lambda label: np.array([label]),
}


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(st.data())
def test_any_data_set_is_read_as_its_items(draw):
    """Against the plain reading, item by item: count, labels and pixels; names are wrong nowhere."""
    dataset: Any = Renumbered(LABELLINGS[draw.draw(st.sampled_from(sorted(LABELLINGS)))])
    dataset.transform = draw.draw(st.sampled_from([None, to_tensor, np.asarray, lambda image: image.convert("L")]))
    for _ in range(draw.draw(st.integers(0, 3))):
        if draw.draw(st.booleans()):
            dataset = ConcatDataset([dataset, Subset(dataset, [len(dataset) - 1, 0])])
        else:
            dataset = Subset(dataset, draw.draw(st.lists(st.integers(0, len(dataset) - 1), min_size=1, max_size=9)))
    items = [dataset[i] for i in range(len(dataset))]
    read = datasets.from_dataset(dataset)
    assert read.labels.tolist() == [int(np.ravel(label)[0]) for _, label in items]
    for image, (given_image, _) in zip(read.images, items, strict=True):
        plain = np.asarray(given_image)
        if isinstance(given_image, torch.Tensor):
            plain = (plain.transpose(1, 2, 0) * 255).round()
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.atleast_3d(plain))
    assert all(name in (NAMES.get(label), str(label)) for label, name in read.spec.class_names.items())


def test_a_random_transform_of_later_items_is_noticed():
    """An augmentation of the minority class alone, whose items come late."""
    pixels = np.random.default_rng(0).integers(0, 256, (200, 4, 4, 3), dtype=np.uint8)

    class Late(Dataset):
        def __len__(self):
            return 200

        def __getitem__(self, index):
            image = pixels[index]
            return (image[:, ::-1] if index >= 16 and torch.rand(()) < 0.5 else image), index % 2

    with pytest.raises(DataError, match="differs from reading to reading"):
        datasets.from_dataset(Late())
