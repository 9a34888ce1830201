"""Tiny streams of every kind that Avalanche 0.6 makes."""

import numpy as np
import torch
from avalanche.benchmarks import class_incremental_benchmark, nc_benchmark
from avalanche.benchmarks.utils import DataAttribute
from avalanche.benchmarks.utils.classification_dataset import (
    ClassificationDataset,
    TaskAwareSupervisedClassificationDataset,
)
from avalanche.benchmarks.utils.data_attribute import TaskLabels
from avalanche.benchmarks.utils.transform_groups import TransformGroups
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from avalanche.training.supervised import Naive
from PIL import Image
from torchvision.transforms import Compose, Normalize, ToTensor

from condensekit.compute import Machine
from condensekit.data.images import ImageSpec
from condensekit.methods import DistributionMatching
from condensekit.methods.base import Condenser
from condensekit.methods.encoders import Fresh
from condensekit.methods.recipe import Recipe
from condensekit.networks.convnet import ConvNet
from condensekit.replay import CondensedBuffer
from condensekit.replay.memory.fillers import Selecting
from condensekit.rng import isolated
from condensekit.selection.base import Selection
from condensekit.sets.formation import Formation

MEAN, STD = 0.4, 0.25
SPEC = ImageSpec((1, 8, 8), (MEAN,), (STD,))
DM = DistributionMatching(batch_real=8)
CPU = Machine("cpu")
NET = ConvNet(width=8, depth=2)
PIL = Compose([ToTensor(), Normalize((MEAN,), (STD,))])


class Pictures(torch.utils.data.Dataset):
    """Squares whose place tells the class, as PIL images or normalised tensors, under int or tensor targets."""

    def __init__(self, classes=6, each=12, *, pil=False, tensor_targets=False, dtype=torch.float32, seed=0, size=8):
        numbers = np.random.RandomState(seed)
        labels = np.repeat(np.arange(classes), each)
        pixels = numbers.randint(0, 60, (len(labels), size, size)).astype(np.uint8)
        for image, label in zip(pixels, labels, strict=True):
            image[label : label + 2, label % 3 : label % 3 + 3] += 180
        order = numbers.permutation(len(labels))
        self.pixels, self.pil, self.dtype, self.transform = pixels[order], pil, dtype, None
        self.targets = torch.tensor(labels[order]) if tensor_targets else labels[order].tolist()

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, i):
        if self.pil:
            return Image.fromarray(self.pixels[i]), self.targets[i]
        pixels = torch.from_numpy(self.pixels[i])[None]
        if self.dtype == torch.uint8:
            return pixels, self.targets[i]
        return ((pixels.float() / 255 - MEAN) / STD).to(self.dtype), self.targets[i]


def stream(kind="nc", *, experiences=3, train_transform=None, eval_transform=None, data=None, order=None, **options):
    """A benchmark of (x, y, t) samples (``nc``; ``tasked``, which keeps tensor targets) or of (x, y) ones (``ci``)."""
    train = data or Pictures(**options)
    test = Pictures(**{**options, "seed": 1})
    if train.pil and train_transform is None and eval_transform is None:
        train_transform = eval_transform = PIL
    if kind == "nc":
        order = order or list(range(len(set(int(t) for t in train.targets))))
        return nc_benchmark(
            train,
            test,
            n_experiences=experiences,
            task_labels=False,
            fixed_class_order=order,
            train_transform=train_transform,
            eval_transform=eval_transform,
        )
    groups = TransformGroups({"train": (train_transform, None), "eval": (eval_transform, None)})
    with isolated(0):
        return class_incremental_benchmark(
            {"train": _wrapped(train, kind, groups), "test": _wrapped(test, kind, groups.__copy__())},
            num_experiences=experiences,
            class_order=order or list(range(len(set(int(t) for t in train.targets)))),
        )


def _wrapped(data, kind, groups):
    attributes = [DataAttribute(data.targets, "targets")]
    if kind == "ci":
        return ClassificationDataset([data], data_attributes=attributes, transform_groups=groups)
    attributes.append(TaskLabels([0] * len(data)))
    return TaskAwareSupervisedClassificationDataset([data], data_attributes=attributes, transform_groups=groups)


def quick(method=DM, **fields):
    """A recipe for tests: a small network, no augmentation."""
    return Recipe(method, **{"encoder": Fresh(NET), "augmentation": None, **fields})


def buffer(budget, made_by=DM, *, factor=1, own=None, **options):
    """A condensed memory for tests; ``own`` are other fields of its recipe."""
    if isinstance(made_by, Condenser):
        made_by = quick(made_by, **{"formation": Formation(factor), **(own or {})})
    elif isinstance(made_by, Selection):
        made_by = Selecting(made_by, Formation(factor))
    return CondensedBuffer(budget, made_by, **{"steps": 2, "machine": CPU, **options})


def network(classes=6, seed=0):
    with isolated(seed):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes))


def naive(*plugins, model=None, epochs=1, metrics=(), **options):
    model = model or network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    return Naive(
        model=model,
        optimizer=optimizer,
        train_mb_size=8,
        train_epochs=epochs,
        eval_mb_size=32,
        plugins=list(plugins),
        evaluator=EvaluationPlugin(*(metrics or (accuracy_metrics(stream=True),)), loggers=[]),
        **options,
    )


def replaying(memory, **options):
    return naive(ReplayPlugin(memory.max_size, storage_policy=memory), **options)


def accuracy(strategy, benchmark):
    found = strategy.eval(benchmark.test_stream)
    return next(value for name, value in found.items() if name.startswith("Top1_Acc_Stream"))
