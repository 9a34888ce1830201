"""What a class-incremental run consists of: orders, steps, seeds, the scores after each step, and what is on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from condensekit.compute import Compute
from condensekit.data.images import ClassImages, ImageSpec
from condensekit.errors import ConfigError, DataError, refuse
from condensekit.networks.base import Network
from condensekit.networks.convnet import ConvNet
from condensekit.progress import SILENT, Progress
from condensekit.rng import Draw
from condensekit.runs.files import read_json, write_json
from condensekit.sets.condensed import CondensedSet
from condensekit.training.evaluation import SHORT
from condensekit.training.train import TEST_PIXELS, TrainProtocol, class_indices

Record = dict[str, Any]


@dataclass(frozen=True)
class Online:
    """How a learner goes on learning in the regimes that keep it from experience to experience.

    Args:
        epochs: Passes over each experience's real images.
        lr: Of plain SGD.
        momentum: In [0, 1).
        weight_decay: At least 0, finite.
        batch: New images in a gradient step.
        batch_mem: Replayed images beside them.
        learner_encoder: Condense by distribution matching with the learner's own weights, unless it has batch norm;
            False: as the memory says.
        distillation: Weight of the distillation term, finite; 0 for none.
        fine_tune: Gradient steps on the memory alone after each experience; 0 for none.

    Raises:
        ConfigError: Values out of range, all of them listed.
    """

    epochs: int = 5
    lr: float = 0.03
    momentum: float = 0.0
    weight_decay: float = 0.0
    batch: int = 32
    batch_mem: int = 32
    learner_encoder: bool = True
    distillation: float = 0.0
    fine_tune: int = 0

    def __post_init__(self) -> None:
        least = {"epochs": 1, "batch": 1, "batch_mem": 1, "fine_tune": 0}
        refuse(
            *(f"{k} must be at least {v}, got {getattr(self, k)}" for k, v in least.items() if getattr(self, k) < v),
            None if 0 < self.lr < float("inf") else f"lr must be positive and finite, got {self.lr}",
            None if 0 <= self.momentum < 1 else f"momentum must lie in [0, 1), got {self.momentum}",
            *(
                f"{name} must be finite and at least 0, got {value}"
                for name, value in {"weight_decay": self.weight_decay, "distillation": self.distillation}.items()
                if not 0 <= value < float("inf")
            ),
        )


@dataclass(frozen=True)
class Settings:
    """A class-incremental protocol; the defaults are those of a CPU.

    DM's (Zhao and Bilen, WACV 2023): ``steps`` 5 or 10 on CIFAR-100, 20 images per class, 5 orders, 3 networks,
    the recipe ``DC``.

    Args:
        steps: Experiences, of equally many classes each.
        per_class: Stored images of each class; the memory grows with the classes.
        orders: Class orders; order number o is the permutation that DM's code makes of seed o (:meth:`experiences`).
        first_order: Number of the first one. Options are tuned on other orders than those reported.
        seeds: Different seeds of condensation and selection over the orders; None: another one for each order.
            With fewer, classes condensed with one seed are reused by other orders where the method allows it.
        networks: Networks trained on each memory.
        network: Their architecture, or the learner's; one output for each class from the start, none masked.
        protocol: How networks are trained from scratch; its augmentation holds for all regimes. Every memory gets
            the gradient steps and the batch of ``per_class`` images of each class, however many it decodes to.
        online: How a learner is trained in the other regimes.
        seed: Everything random but the orders follows from it.

    Raises:
        ConfigError: Counts below 1 (``first_order`` below 0), an order beyond NumPy's largest seed, all of them listed.
    """

    steps: int = 5
    per_class: int = 10
    orders: int = 5
    first_order: int = 0
    seeds: int | None = None
    networks: int = 1
    network: Network = field(default_factory=ConvNet)
    protocol: TrainProtocol = SHORT
    online: Online = field(default_factory=Online)
    seed: int = 0

    def __post_init__(self) -> None:
        counts = {"steps": self.steps, "per_class": self.per_class, "orders": self.orders, "networks": self.networks}
        refuse(
            *(f"{name} must be at least 1, got {value}" for name, value in counts.items() if value < 1),
            None if self.seeds is None or self.seeds >= 1 else f"seeds must be at least 1, got {self.seeds}",
            None if self.first_order >= 0 else f"first_order must be at least 0, got {self.first_order}",
            None
            if self.first_order + self.orders <= 2**32
            else f"class orders are permutations of NumPy's seeds, below {2**32}, got first_order={self.first_order} "
            f"and orders={self.orders}: lower them",
        )

    def order_numbers(self) -> range:
        """The numbers of the class orders."""
        return range(self.first_order, self.first_order + self.orders)

    def experiences(self, order: int, classes: int) -> list[list[int]]:
        """The classes 0..classes-1 in the given order, cut into the steps.

        Raises:
            ConfigError: A number of steps that does not divide that of the classes.
        """
        refuse(
            f"steps={self.steps} does not divide {classes} classes: use 1, {classes} or another divisor"
            if classes % self.steps
            else None
        )
        found = np.random.RandomState(order).permutation(classes).tolist()  # the stream of DM's code
        size = classes // self.steps
        return [found[i : i + size] for i in range(0, classes, size)]

    def set_seed(self, order: int) -> int:
        """The seed of condensation and selection in an order."""
        return Draw(self.seed).key(f"replay/set/{order if self.seeds is None else order % self.seeds}")

    def network_seed(self, order: int, network: int) -> int:
        """The seed of one network of an order; the same for all memories."""
        return Draw(self.seed).key(f"replay/{order}/{network}")

    def work(self, classes: int) -> TrainProtocol:
        """The recipe when ``classes`` classes have been seen: equal steps and batches for every memory."""
        return self.protocol.as_on(self.per_class * classes)


@dataclass(frozen=True, eq=False)
class Bench:
    """What every cell of a run shares.

    Args:
        train: Real images with labels 0..K-1; see :func:`numbered`.
        test: Likewise, whole.
        settings: The protocol.
        out: The run folder.
        compute: Where networks run.
        room: Bytes of each class that memories of equal bytes may fill, at least 1; each stores one image at least.
        progress: Told about each gradient step.
    """

    train: ClassImages
    test: ClassImages
    settings: Settings
    out: Path
    compute: Compute
    room: int
    progress: Progress = SILENT

    def remember(self, name: str, make: Callable[[], Record]) -> Record:
        """What ``make`` returns, or returned in an earlier run of this folder."""
        path = self.out / "cells" / f"{name}.json"
        if path.exists():
            found: Record = read_json(path)
            return found
        made: Record = json.loads(json.dumps(make()))
        write_json(path, made)
        return made

    def score(self, module: nn.Module, experiences: Sequence[Sequence[int]]) -> Record:
        """How a network does on the test images of the classes seen so far, one list of them for each experience.

        Returns:
            ``right`` and ``count``: test images of each experience that are recognised, and all of them;
            ``old_to_new``: the fraction of those of former classes that are taken for one of the newest, or None.
        """
        old, newest = [label for step in experiences[:-1] for label in step], list(experiences[-1])
        seen = self.test.select([*old, *newest])
        wanted, found = seen.labels[seen.order], predictions(module, seen, self.compute)
        parts = [torch.isin(wanted, torch.tensor(list(step))) for step in experiences]
        former = torch.isin(wanted, torch.tensor(old, dtype=torch.int64))
        taken = torch.isin(found[former], torch.tensor(newest))
        return {
            "right": [int((found[part] == wanted[part]).sum()) for part in parts],
            "count": [int(part.sum()) for part in parts],
            "old_to_new": float(taken.float().mean()) if old else None,
        }


class Cache(MutableMapping[str, CondensedSet]):
    """Sets in a folder, each a file.

    Args:
        folder: Where; made when first needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def __getitem__(self, key: str) -> CondensedSet:
        if key not in self:
            raise KeyError(key)
        return CondensedSet.load(self._file(key))

    def __contains__(self, key: object) -> bool:
        return self._file(str(key)).is_file()

    def __setitem__(self, key: str, value: CondensedSet) -> None:
        value.save(self._file(key))

    def __delitem__(self, key: str) -> None:
        self._file(key).unlink()

    def __iter__(self) -> Iterator[str]:
        return (file.stem for file in sorted(self.folder.glob("*.safetensors")))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def numbered(train: ClassImages, test: ClassImages) -> tuple[ClassImages, ClassImages]:
    """The same images with their classes numbered from 0, as the outputs of a network are.

    Raises:
        DataError: Test images of other classes than the training images.
    """
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))
        raise DataError(f"class {train.spec.name_of(odd[0])} is in the training or the test images only")
    names = {i: train.spec.class_names.get(label, str(label)) for i, label in enumerate(train.classes)}

    def renamed(data: ClassImages) -> ClassImages:
        spec = ImageSpec(data.spec.shape, data.spec.mean, data.spec.std, names)
        labels = class_indices(data.labels, train.classes)
        if len(data) < len(data.labels):  # listed images only: others may have other labels
            return ClassImages(data.images, labels, spec).subset(data.order)
        return ClassImages(data.images, labels, spec)

    return renamed(train), renamed(test)


def predictions(module: nn.Module, images: ClassImages, compute: Compute) -> torch.Tensor:
    """(N,) int64 largest output for each of the images, in the order of ``images.order``; in evaluation mode."""
    module.eval()
    block = max(2, TEST_PIXELS // (images.spec.shape[1] * images.spec.shape[2]))
    parts = [
        compute.logits(module, images.gather(indices, compute.device)).argmax(1).cpu()  # type: ignore[arg-type]
        for indices in images.order.split(block)
    ]
    return torch.cat(parts)


def check_regime(name: str, known: Sequence[str]) -> None:
    """Raise ConfigError for an unknown regime."""
    if name not in known:
        raise ConfigError(f"unknown regime {name!r}. Known: {', '.join(known)}")
