"""Accuracy of former tasks on streams of several kinds: no replay, Avalanche's own buffers, and ours at equal images.

    python benchmarks/continual/streams.py --data-root PATH
    python benchmarks/continual/streams.py --data-root PATH --tune --only digits-tasks --lr 0.01 0.05
    python benchmarks/tables.py streams

The script writes one JSON file for each kind of stream under ``benchmarks/results/``, and skips kinds with a file.
Everything but the memory is Avalanche's: ``Naive`` with ``ReplayPlugin``; all memories of a kind have the same weights,
steps, batch sizes and orders of classes. Seeds 0, 1, ... are reported. No option is chosen by test images: with
``--tune``, a tenth of the training images is held out and judges, on seeds from 100, and no file is written.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from avalanche.benchmarks import benchmark_from_datasets, nc_benchmark, task_incremental_benchmark
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.models import as_multitask
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from avalanche.training.storage_policy import ClassBalancedBuffer, ExperienceBalancedBuffer
from avalanche.training.supervised import Naive
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import transforms
from torchvision.transforms.functional import rotate

from benchmarks.record import RESULTS, Record, data_parser, start, write
from condensekit.data import datasets
from condensekit.data.images import ClassImages
from condensekit.replay import CondensedBuffer, Images
from condensekit.replay.adapters.sources import forward
from condensekit.rng import Draw, isolated

HELD_OUT = 0.1
TUNED_FROM = 100  # first seed of a search
TASKS = 5
TURNS = (0, 30, 60, 90, 120)  # degrees of the domains
DM = "dm batch_real=64 encoder_network=ConvNet-w32"


@dataclass(frozen=True)
class Kind:
    """A kind of stream, and the training on it.

    Args:
        name: Name in tables.
        data: Name of the data set.
        make: Function of the training images, the test images and a seed that returns the benchmark.
        heads: Whether each task has a head of its own, for two classes.
        memory: Number of stored images.
        per_class: Largest number of training images of a class, and of test images; None: all.
        lr: Learning rate.
        batch: New images in a step; as many are replayed.
        epochs: Epochs of each experience.
        seeds: Number of seeds.
        steps: Matching steps of a condensation.
    """

    name: str
    data: str
    make: Callable[[ClassImages, ClassImages, int], Any]
    heads: bool
    memory: int
    per_class: int | None = None
    lr: float = 0.01
    batch: int = 10
    epochs: int = 5
    seeds: int = 10
    steps: int = 30


class Items(Dataset[tuple[Any, int]]):
    """Images and labels: tensors as they are; 8-bit pixels (1, H, W) as pictures."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.targets = images, labels.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        image = self.images[i]
        return Image.fromarray(image[0].numpy()) if image.dtype == torch.uint8 else image, self.targets[i]


class Net(nn.Module):
    """Two convolutions without norm, whose head ``as_multitask`` can multiply."""

    def __init__(self, side: int, outputs: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(min(side // 2, 7)), nn.Flatten()),
        )
        self.classifier: nn.Module = nn.Linear(32 * min(side // 2, 7) ** 2, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs (N, K) of images (N, 1, H, W)."""
        found: Tensor = self.classifier(self.features(images))
        return found


def tasks(train: ClassImages, test: ClassImages, seed: int) -> Any:
    """Task-incremental stream: two classes in each task, labelled 0 and 1."""
    data = [Items(normalised(part), part.targets()) for part in (train, test)]
    return nc_benchmark(*data, TASKS, task_labels=True, seed=seed, class_ids_from_zero_in_each_exp=True)


def domains(train: ClassImages, test: ClassImages, seed: int) -> Any:
    """Domain-incremental stream with task labels: all classes in each task, the images turned by another angle."""
    turns = np.random.RandomState(seed).permutation(TURNS).tolist()

    def turned(part: ClassImages) -> list[Any]:
        pixels = part.spec.to_pixels(normalised(part))
        views = [part.spec.normalise(rotate(pixels, turn)) for turn in turns]
        return [as_classification_dataset(Items(images, part.targets())) for images in views]

    return task_incremental_benchmark(benchmark_from_datasets(train=turned(train), test=turned(test)))


def pictures(train: ClassImages, test: ClassImages, seed: int) -> Any:
    """Class-incremental stream of pictures, which the training transforms crop at random."""
    fixed = [transforms.ToTensor(), transforms.Normalize(train.spec.mean, train.spec.std)]
    crop = transforms.RandomCrop(train.spec.shape[1], padding=1)
    data = [Items(part.spec.to_bytes(normalised(part)), part.targets()) for part in (train, test)]
    groups = {"train_transform": transforms.Compose([crop, *fixed]), "eval_transform": transforms.Compose(fixed)}
    return nc_benchmark(*data, TASKS, task_labels=False, seed=seed, **groups)


def normalised(data: ClassImages) -> Tensor:
    """All images (N, C, H, W), normalised."""
    return data.at(torch.arange(len(data)))


KINDS = {
    "digits-tasks": Kind("task-incremental, a head for each task", "digits", tasks, True, 50, lr=0.05),
    "mnist-tasks": Kind(
        "task-incremental, a head for each task", "mnist", tasks, True, 200, 400, 0.05, batch=32, epochs=3, seeds=5
    ),
    "mnist-domains": Kind(
        "domain-incremental with task labels, one head", "mnist", domains, False, 200, 200, 0.01, 32, epochs=3
    ),
    "digits-pictures": Kind("class-incremental, pictures under random crops", "digits", pictures, False, 100, seeds=15),
}
MEMORIES: dict[str, Callable[[Kind, int], Any]] = {
    "none": lambda kind, seed: None,
    "ClassBalancedBuffer": lambda kind, seed: ClassBalancedBuffer(kind.memory),
    "ExperienceBalancedBuffer": lambda kind, seed: ExperienceBalancedBuffer(kind.memory),
    "random": lambda kind, seed: CondensedBuffer(Images(kind.memory), "random", seed=seed),
    "dm": lambda kind, seed: CondensedBuffer(Images(kind.memory), DM, steps=kind.steps, seed=seed),
}


def former(kind: Kind, memory: str, train: ClassImages, test: ClassImages, seed: int) -> float:
    """Mean accuracy on the test images of all tasks but the last, after the last."""
    with isolated(seed):
        benchmark = kind.make(train, test, seed)
        net: nn.Module = Net(train.spec.shape[1], 2 if kind.heads else len(train.classes))
        net = as_multitask(net, "classifier") if kind.heads else net
        policy = MEMORIES[memory](kind, seed)
        strategy = Naive(
            model=net,
            optimizer=torch.optim.SGD(net.parameters(), kind.lr, momentum=0.9),
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=kind.batch,
            train_epochs=kind.epochs,
            plugins=[ReplayPlugin(kind.memory, storage_policy=policy)] if policy else [],
            evaluator=EvaluationPlugin(loggers=[]),
        )
        for experience in benchmark.train_stream:
            strategy.train(experience)
        return statistics.fmean(accuracy(net, experience) for experience in list(benchmark.test_stream)[:-1])


@torch.no_grad()
def accuracy(net: nn.Module, experience: Any) -> float:
    """Share of right answers on an experience."""
    data = experience.dataset.eval()
    images = torch.stack([data[i][0] for i in range(len(data))])
    labels = torch.tensor([int(label) for label in data.targets])
    task = torch.full_like(labels, experience.task_label)
    net.eval()
    return float((forward(net, images, task).argmax(1) == labels).float().mean())


def subset(data: ClassImages, count: int | None) -> ClassImages:
    """The first ``count`` images of each class; None: all."""
    if count is None:
        return data
    return data.subset(torch.cat([data.indices_of(label)[:count] for label in data.classes]))


def measure(kind: Kind, args: argparse.Namespace) -> Record:
    """Record of a kind: a row for each memory."""
    train, test = datasets.load(kind.data, root=args.data_root, trust_local_copy=args.trust_local_copy)
    train, test = train.split(HELD_OUT, Draw(0)) if args.tune else (train, test)
    train, test = (subset(part, kind.per_class) for part in (train, test))
    seeds, rows, begin = [args.tune * TUNED_FROM + seed for seed in range(kind.seeds)], [], time.perf_counter()
    for memory in args.memory:
        cpu = time.process_time()
        found = [former(kind, memory, train, test, seed) for seed in seeds]
        rows.append({"memory": memory, "accuracies": found, "cpu_s": time.process_time() - cpu})
        shown = " ".join(f"{100 * value:.1f}" for value in found)
        print(f"{memory}: {100 * statistics.fmean(found):.1f} ({shown}) in {rows[-1]['cpu_s']:.0f} s", flush=True)
    return {
        "streams": {**asdict(kind), "make": kind.make.__name__, "seeds": seeds, "tasks": TASKS, "dm": DM},
        "images": [len(train), len(test)],
        "rows": rows,
        "wall_s": time.perf_counter() - begin,
        "command": "python benchmarks/continual/streams.py",
    }


def main() -> None:
    """Measure the kinds that have no file."""
    parser = data_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), help="kinds of streams")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--tune", action="store_true", help="judge by held-out training images, on other seeds")
    parser.add_argument("--memory", nargs="+", choices=MEMORIES, default=list(MEMORIES), help="with --tune")
    parser.add_argument("--seeds", type=int, help="with --tune")
    parser.add_argument("--batch", type=int, help="with --tune")
    parser.add_argument("--epochs", type=int, help="with --tune")
    parser.add_argument("--lr", type=float, nargs="+", help="with --tune: one or more learning rates")
    args = parser.parse_args()
    tried = {name: getattr(args, name) for name in ("seeds", "batch", "epochs") if getattr(args, name)}
    for name in args.only:
        path = args.results / f"streams-{name}.json"
        for lr in args.lr or [KINDS[name].lr] if args.tune else ():
            print(f"{name}, lr {lr:g}", flush=True)
            measure(replace(KINDS[name], lr=lr, **tried), args)
        if args.tune or path.exists():
            continue
        print(name, flush=True)
        write(path, measure(KINDS[name], args))


if __name__ == "__main__":
    start(main)
