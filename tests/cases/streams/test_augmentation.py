"""Random transforms of a stream are drawn anew for each epoch, for its own images and for replayed ones."""

import random

import numpy as np
import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.training.plugins import ReplayPlugin, SupervisedPlugin
from avalanche.training.supervised import Naive
from PIL import Image
from torch import nn
from torch.utils.data import Dataset
from torchvision import transforms

from condensekit.replay import ERACE, CondensedBuffer, CondensedReplay, DERpp, Images
from condensekit.rng import isolated
from tests.cases.streams.digits import Net, digits, training

COUNT, STORED = 16, 20
FIXED = [transforms.ToTensor(), transforms.Normalize((0.3,), (0.4,))]
COINS = {
    "random": lambda: random.random() < 0.5,
    "numpy": lambda: np.random.rand() < 0.5,  # noqa: NPY002
}


class Mirrored(Dataset):
    """Two classes in each of two experiences; every reading mirrors an image or does not."""

    def __init__(self, coin):
        self.coin, self.targets = coin, [i // (COUNT // 2) for i in range(2 * COUNT)]
        self.images = torch.rand(2 * COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        return self.images[i].flip(-1) if self.coin() else self.images[i], self.targets[i]


class Pictures(Dataset):
    """Digits as PIL images, as torchvision's data sets give them."""

    def __init__(self):
        images, labels = digits()
        self.images, self.targets = (images[:300, 0] * 255).round().byte().numpy(), labels[:300].tolist()

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        return Image.fromarray(self.images[i]), self.targets[i]


class Seen(SupervisedPlugin):
    """Notes the images of some classes that are trained on."""

    def __init__(self, classes):
        super().__init__()
        self.classes, self.images = classes, []

    def before_forward(self, strategy, **kwargs):
        pairs = zip(strategy.mb_x, strategy.mb_y, strict=True)
        self.images += [image.clone() for image, label in pairs if int(label) in self.classes]

    def different(self):
        """How many different images it has seen."""
        return len(torch.unique(torch.stack(self.images).flatten(1), dim=0))


@pytest.mark.parametrize("coin", COINS)
@pytest.mark.parametrize("kind", [CondensedReplay, ERACE, DERpp])
def test_an_image_is_drawn_anew_in_each_epoch(kind, coin):
    seen = Seen({0, 1})
    memory = CondensedBuffer(Images(8), "random")
    with isolated(0):
        data = Mirrored(COINS[coin])
        benchmark = nc_benchmark(data, data, 2, task_labels=False, fixed_class_order=[0, 1, 2, 3])
        strategy = kind(storage_policy=memory, plugins=[seen], **training(Net(4), train_epochs=6))
        strategy.train(benchmark.train_stream[0])
    assert seen.different() > 1.5 * COUNT


def test_replayed_images_are_augmented_as_those_of_stock_buffers_are():
    crop = transforms.Compose([transforms.RandomCrop(8, padding=2), *FIXED])
    memory = CondensedBuffer(Images(STORED), "random")
    with isolated(0):
        data = Pictures()
        test = transforms.Compose(FIXED)
        first, second = nc_benchmark(
            data, data, 2, task_labels=False, seed=0, train_transform=crop, eval_transform=test
        ).train_stream
        plugins = [ReplayPlugin(STORED, storage_policy=memory)]
        strategy = Naive(criterion=nn.CrossEntropyLoss(), plugins=plugins, **training(Net()))
        strategy.train(first)
        seen = Seen(set(first.classes_in_this_experience))
        strategy.plugins.append(seen)
        strategy.train(second)
    assert seen.different() >= 2 * STORED
