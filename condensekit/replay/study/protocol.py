"""Protocol of a class-incremental run: orders, experiences, seeds, scores, and what is kept on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from condensekit.compute import Compute
from condensekit.data.images import ClassImages
from condensekit.driver import Saving
from condensekit.errors import DataError, refuse, require, whole
from condensekit.networks.base import FeatureNetwork, Network
from condensekit.networks.convnet import ConvNet
from condensekit.progress import SILENT, Progress
from condensekit.replay.memory.base import CHECKPOINT_STEPS, Job
from condensekit.replay.study.memories import SAME, Making, MemoryKind
from condensekit.rng import Draw
from condensekit.runs.describe import describe
from condensekit.runs.kept import kept, plain
from condensekit.sets.condensed import CondensedSet
from condensekit.training.train import SHORT, TEST_PIXELS, TrainProtocol, class_indices

Record = dict[str, Any]

log = logging.getLogger(__name__)


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
        learner_encoder: Condense with the learner's own weights where the method compares features alone and the
            learner has no batch norm; False: as the recipe says.
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
        refuse(
            whole("epochs", self.epochs, 1),
            whole("batch", self.batch, 1),
            whole("batch_mem", self.batch_mem, 1),
            whole("fine_tune", self.fine_tune, 0),
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

    DM's (Zhao and Bilen, WACV 2023): 5 or 10 ``experiences`` on CIFAR-100, 20 images per class, 5 orders, 3 networks,
    the training protocol ``DC``.

    Args:
        experiences: How many there are, of equally many classes each.
        ipc: Stored images of each class; the memory grows with the classes.
        orders: Class orders; order number o is the permutation that DM's code makes of seed o (:meth:`stream`).
        first_order: Number of the first order. Options are tuned on orders that are not reported.
        seeds: Different seeds of condensation and selection over the orders; None: another one for each order.
            With fewer seeds, classes condensed with a seed are reused by other orders where the method allows it.
        networks: Networks trained on each memory.
        network: Their architecture, or the learner's; one output for each class from the start, none masked.
        protocol: How networks are trained from scratch; its augmentation holds for all regimes. Every memory gets
            the gradient steps and the batch of ``ipc`` images of each class, however many it decodes to.
        online: How a learner is trained in the other regimes.
        seed: Everything random but the orders follows from it.

    Raises:
        ConfigError: Counts below 1 (``first_order`` below 0), an order beyond NumPy's largest seed, all of them listed.
    """

    experiences: int = 5
    ipc: int = 10
    orders: int = 5
    first_order: int = 0
    seeds: int | None = None
    networks: int = 1
    network: Network = field(default_factory=ConvNet)
    protocol: TrainProtocol = SHORT
    online: Online = field(default_factory=Online)
    seed: int = 0

    def __post_init__(self) -> None:
        refuse(
            whole("experiences", self.experiences, 1),
            whole("ipc", self.ipc, 1),
            whole("orders", self.orders, 1),
            whole("networks", self.networks, 1),
            None if self.seeds is None else whole("seeds", self.seeds, 1),
            whole("first_order", self.first_order, 0),
            None
            if self.first_order + self.orders <= 2**32
            else f"class orders are permutations of NumPy's seeds, below {2**32}, got first_order={self.first_order} "
            f"and orders={self.orders}: lower them",
        )

    def order_numbers(self) -> range:
        """The numbers of the class orders."""
        return range(self.first_order, self.first_order + self.orders)

    def stream(self, order: int, classes: int) -> list[list[int]]:
        """The classes 0..classes-1 in the given order, a list for each experience.

        Raises:
            ConfigError: A number of experiences that does not divide that of the classes.
        """
        require(
            classes % self.experiences == 0,
            f"experiences={self.experiences} does not divide {classes} classes: use 1, {classes} or another divisor",
        )
        found = np.random.RandomState(order).permutation(classes).tolist()  # the permutation of DM's code
        size = classes // self.experiences
        return [found[i : i + size] for i in range(0, classes, size)]

    def set_seed(self, order: int) -> int:
        """The seed of condensation and selection in an order."""
        return Draw(self.seed).key(f"replay/set/{order if self.seeds is None else order % self.seeds}")

    def network_seed(self, order: int, network: int) -> int:
        """The seed of one network of an order; the same for all memories."""
        return Draw(self.seed).key(f"replay/{order}/{network}")

    def work(self, counts: Iterable[int]) -> TrainProtocol:
        """The training when classes of so many images have been seen: equal steps and batches for every memory."""
        return self.protocol.as_on(sum(min(self.ipc, count) for count in counts))


@dataclass(frozen=True, eq=False)
class Bench:
    """What every cell of a run shares.

    Args:
        train: Real images with labels 0..K-1; see :func:`numbered`.
        test: Likewise, whole.
        settings: The protocol.
        making: How condensed memories are made.
        out: The run folder.
        compute: Where networks run.
        room: Bytes of each class that memories of equal bytes may fill, at least 1; each stores one image at least.
        progress: Told about each gradient step.
    """

    train: ClassImages
    test: ClassImages
    settings: Settings
    making: Making
    out: Path
    compute: Compute
    room: int
    progress: Progress = SILENT

    def remember(self, kind: MemoryKind, name: str, make: Callable[[], Record]) -> Record:
        """What ``make`` returns, or returned in an earlier run of this folder.

        Args:
            kind: The memory.
            name: Of the file; it begins with the regime.
            make: Trains and scores.

        Raises:
            ConfigError: The earlier run had another memory under this name.
        """
        regime, _, rest = name.partition("/")
        path = self.out / "cells" / regime / self.folder(kind) / f"{rest}.json"
        return kept(path, {"filler": describe(kind.filler)}, lambda: plain(make()), f"a cell of memory {kind.name!r}")

    def folder(self, kind: MemoryKind) -> str:
        """Name and images per class, fit for a path; of equal memories the same, see :data:`SAME`."""
        if kind.filler is None:
            return kind.name
        name = SAME.get(kind.name, kind.name).replace("/", "_").replace(" ", "_")
        return f"{name}-{kind.images(self.settings.ipc, self.train, self.room)}"

    def job(self, order: int, out: Path | None = None) -> Job:
        """What the run adds to the recipe of a memory in an order; ``out`` is the folder of the condensation."""
        saving = None if out is None else Saving(out, resume=True, every=CHECKPOINT_STEPS)
        making, seed = self.making, self.settings.set_seed(order)
        return Job(seed, making.steps, making.machine, saving, self.progress)

    @property
    def cache(self) -> Cache:
        """Where the sets of single classes are, for orders that share a seed."""
        return Cache(self.out / "sets" / "classes")

    def score(self, module: nn.Module, seen: Sequence[Sequence[int]]) -> Record:
        """How a network does on the test images of the classes seen so far, a list of labels for each experience.

        Returns:
            ``right`` and ``count``: test images of each experience that are recognised, and all of them;
            ``old_to_new``: the fraction of those of former classes that are taken for one of the newest, or None.
        """
        old, newest = [label for classes in seen[:-1] for label in classes], list(seen[-1])
        images = self.test.select([label for label in (*old, *newest) if label in self.test.classes])
        wanted, found = images.labels[images.order], predictions(module, images, self.compute)
        parts = [torch.isin(wanted, torch.tensor(list(classes))) for classes in seen]
        former = torch.isin(wanted, torch.tensor(old, dtype=torch.int64))
        taken = torch.isin(found[former], torch.tensor(newest))
        return {
            "right": [int((found[part] == wanted[part]).sum()) for part in parts],
            "count": [int(part.sum()) for part in parts],
            "old_to_new": float(taken.float().mean()) if bool(former.any()) else None,
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

    A warning names the classes without test images: they are learnt, and accuracies are those of the others.

    Raises:
        DataError: Test images of a class without training images.
    """
    odd = sorted(set(test.classes) - set(train.classes))
    if odd:
        raise DataError(f"class {test.spec.name_of(odd[0])} is in the test images only")
    untested = [train.spec.name_of(label) for label in train.classes if label not in test.classes]
    if untested:
        log.warning("no test images of class %s: accuracy is that of the others", ", ".join(untested[:10]))
    names = {i: train.spec.class_names.get(label, str(label)) for i, label in enumerate(train.classes)}

    def renamed(data: ClassImages) -> ClassImages:
        spec = replace(data.spec, class_names=names)
        labels = class_indices(data.labels, train.classes)
        if len(data) < len(data.labels):  # listed images only: others may have other labels
            return ClassImages(data.images, labels, spec).subset(data.order)
        return ClassImages(data.images, labels, spec)

    return renamed(train), renamed(test)


def predictions(module: nn.Module, images: ClassImages, compute: Compute) -> torch.Tensor:
    """(N,) int64 largest output for each of the images, in the order of ``images.order``; in evaluation mode."""
    module.eval()
    block = max(2, TEST_PIXELS // (images.spec.shape[1] * images.spec.shape[2]))
    with torch.no_grad():
        parts = [
            _outputs(module, images.gather(indices, compute.device), compute).argmax(1).cpu()
            for indices in images.order.split(block)
        ]
    return torch.cat(parts)


def _outputs(module: nn.Module, images: torch.Tensor, compute: Compute) -> torch.Tensor:
    """(N, outputs) of a network; one of another package runs in one piece."""
    found: torch.Tensor = compute.logits(module, images) if isinstance(module, FeatureNetwork) else module(images)
    return found
