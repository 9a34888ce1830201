"""Protocol of a class-incremental run: orders, experiences, seeds, scores, and the files of the run folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import nn

from condensekit.compute import Compute
from condensekit.data.images import ClassImages
from condensekit.driver import Saving
from condensekit.errors import DataError, finite, instance, positive, refuse, require, whole
from condensekit.networks.base import FeatureNetwork, Network
from condensekit.networks.convnet import ConvNet
from condensekit.progress import SILENT, Progress
from condensekit.replay.memory.base import CHECKPOINT_STEPS, Job
from condensekit.replay.study.memories import FROM_SCRATCH, SAME, Making, MemoryKind
from condensekit.rng import Draw
from condensekit.runs.describe import describe
from condensekit.runs.kept import kept, plain
from condensekit.sets.condensed import CondensedSet
from condensekit.training.train import SHORT, TEST_PIXELS, TrainProtocol, class_indices

Record = dict[str, Any]

log = logging.getLogger(__name__)


class Score(TypedDict):
    """What :meth:`Bench.score` finds."""

    right: list[int]
    count: list[int]
    old_to_new: float | None


def cell(regime: str, order: int, network: int, experience: int = 0) -> str:
    """Name of one training: from scratch after each experience, counted from 0, else on the whole stream."""
    after = f"experience-{experience + 1}-network-{network}"
    return f"{regime}/order-{order}/{after}" if regime == FROM_SCRATCH else f"{regime}/order-{order}-network-{network}"


def total(score: Score) -> float:
    """The accuracy over all classes seen so far; 0 without test images."""
    return sum(score["right"]) / max(1, sum(score["count"]))


@dataclass(frozen=True)
class Online:
    """Training of the learner in the incremental regimes.

    >>> from condensekit.replay import Online, Settings
    >>> Settings(experiences=5, ipc=10, online=Online(epochs=1, lr=0.1)).online.lr
    0.1

    Args:
        epochs: Number of passes over the real images of each experience.
        lr: Learning rate of SGD, above 0.
        momentum: Momentum of SGD, in [0, 1).
        weight_decay: Weight decay of SGD, at least 0.
        batch: Number of new images in a gradient step.
        batch_mem: Number of replayed images in a gradient step, in addition to the new images.
        learner_encoder: Whether the learner is the encoder of condensations, if the method compares features only and
            the learner has no batch norm; False: the encoder of the recipe.
        distillation: Weight of the distillation term, at least 0; 0: no distillation.
        fine_tune: Number of gradient steps on the memory only, after each experience; 0: no fine-tuning.

    Raises:
        ConfigError: Values out of range; the error lists all of them.
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
            positive("lr", self.lr),
            None
            if finite(self.momentum) and 0 <= self.momentum < 1
            else f"momentum must lie in [0, 1), got {self.momentum!r}",
            positive("weight_decay", self.weight_decay, zero=True),
            positive("distillation", self.distillation, zero=True),
            instance("learner_encoder", self.learner_encoder, bool, "True or False"),
        )


@dataclass(frozen=True)
class Settings:
    """Class-incremental protocol; the default values suit a CPU.

    DM's protocol (Zhao and Bilen, WACV 2023) has 5 or 10 ``experiences`` on CIFAR-100, 20 images per class, 5 orders,
    3 networks, and the training protocol ``DC``.

    >>> from condensekit.replay import Settings
    >>> [len(experience) for experience in Settings(experiences=5).stream(order=0, classes=10)]
    [2, 2, 2, 2, 2]

    Args:
        experiences: Number of experiences; where it does not divide the number of classes, the first ones have one
            class more.
        ipc: Number of stored images of each class; the memory grows with the classes.
        orders: Number of class orders; order o is the permutation of seed o in DM's code (:meth:`stream`).
        first_order: Number of the first order. Options are tuned on orders that are not reported.
        seeds: Number of different seeds of condensation and selection over the orders; None: each order has its own
            seed. With fewer seeds, orders with the same seed share condensed classes if the method allows it.
        networks: Number of networks trained on each memory.
        network: Architecture of the networks or of the learner. It has an output for each class from the start, and no
            output is masked.
        protocol: Training protocol from scratch; its augmentation is used in all regimes. Every memory gets the
            gradient steps and the batch of a memory of ``ipc`` images of each class.
        online: Training of the learner in the incremental regimes.
        seed: Seed of all random numbers other than the orders.

    Raises:
        ConfigError: Numbers below 1 (``first_order`` below 0), or an order beyond NumPy's largest seed; the error lists
            all problems.
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
        )
        refuse(
            instance("network", self.network, Network, "ConvNet()"),
            instance("protocol", self.protocol, TrainProtocol, "a TrainProtocol"),
            instance("online", self.online, Online, "Online()"),
            whole("seed", self.seed),
            None
            if self.first_order + self.orders <= 2**32
            else f"class orders are permutations of NumPy's seeds, below {2**32}, got first_order={self.first_order} "
            f"and orders={self.orders}: lower them",
        )

    def order_numbers(self) -> range:
        """Numbers of the class orders."""
        return range(self.first_order, self.first_order + self.orders)

    def stream(self, order: int, classes: int) -> list[list[int]]:
        """Labels 0..classes-1 in class order ``order``, a list for each experience; the first may have one class more.

        Raises:
            ConfigError: There are more experiences than classes.
        """
        require(
            classes >= self.experiences,
            f"experiences={self.experiences} is more than the {classes} classes: use {min(2, classes)} to {classes}",
        )
        found = np.random.RandomState(order).permutation(classes).tolist()  # the permutation of DM's code
        return [part.tolist() for part in np.array_split(found, self.experiences)]

    def set_seed(self, order: int) -> int:
        """Seed of condensation and selection in an order."""
        return Draw(self.seed).key(f"replay/set/{order if self.seeds is None else order % self.seeds}")

    def network_seed(self, order: int, network: int) -> int:
        """Seed of one network of an order; the same for all memories."""
        return Draw(self.seed).key(f"replay/{order}/{network}")

    def work(self, counts: Iterable[int]) -> TrainProtocol:
        """Training protocol for classes of ``counts`` images: the same steps and batches for every memory."""
        return self.protocol.as_on(sum(min(self.ipc, count) for count in counts))


@dataclass(frozen=True, eq=False)
class Bench:
    """Data and settings that all cells of a run share.

    Args:
        train: Real training images with labels 0..K-1; see :func:`numbered`.
        test: Real test images with labels 0..K-1.
        settings: The protocol.
        making: Settings of condensed memories.
        out: The run folder.
        compute: Runs networks.
        room: Bytes of each class in memories of equal bytes, at least 1; each memory stores at least one image.
        progress: Progress display, updated after each gradient step.
    """

    train: ClassImages
    test: ClassImages
    settings: Settings
    making: Making
    out: Path
    compute: Compute
    room: int
    progress: Progress = SILENT

    def remember(self, kind: MemoryKind, name: str, make: Callable[[], Record], holds: Any) -> Record:
        """Record of one cell, read from the run folder or made now and written there.

        Args:
            kind: The memory.
            name: Name of the file, ``REGIME/...``.
            make: Function that trains, scores and returns the record.
            holds: The type of the record.

        Raises:
            ConfigError: The run folder has another memory under this name, or the file is that of another cell.
            StoreError: The file is damaged, or cannot be written.
        """
        path = self._file(kind, name)
        recipe, what = {"filler": describe(kind.filler), "cell": name}, f"a cell of memory {kind.name!r}"
        return kept(path, recipe, lambda: plain(make()), what, kind=holds)

    def finished(self, kind: MemoryKind, regime: str, order: int) -> bool:
        """Whether the run folder holds all cells of a memory in an order of a regime."""
        experiences = range(self.settings.experiences if regime == FROM_SCRATCH else 1)
        names = (cell(regime, order, i, j) for i in range(self.settings.networks) for j in experiences)
        return all(self._file(kind, name).is_file() for name in names)

    def lock(self, kind: MemoryKind, regime: str, order: int) -> Path:
        """The file whose lock one process holds while it makes the cells of a memory in an order of a regime."""
        return self.out / "cells" / regime / self.folder(kind) / f"order-{order}.lock"

    def _file(self, kind: MemoryKind, name: str) -> Path:
        regime, _, rest = name.partition("/")
        return self.out / "cells" / regime / self.folder(kind) / f"{rest}.json"

    def folder(self, kind: MemoryKind) -> str:
        """Folder name of a memory: its name and images per class; equal memories share it, see :data:`SAME`."""
        if kind.filler is None:
            return kind.name
        name = SAME.get(kind.name, kind.name).replace("/", "_").replace(" ", "_")
        return f"{name}-{kind.images(self.settings.ipc, self.train, self.room)}"

    def job(self, order: int, out: Path | None = None) -> Job:
        """Job of filling a memory in an order; ``out`` is the folder of the condensation, None: nothing is saved."""
        saving = None if out is None else Saving(out, resume=True, every=CHECKPOINT_STEPS)
        making, seed = self.making, self.settings.set_seed(order)
        return Job(seed, making.steps, making.machine, saving, self.progress)

    @property
    def cache(self) -> Cache:
        """Cache of sets of single classes, which orders with the same seed share."""
        return Cache(self.out / "sets" / "classes")

    def score(self, module: nn.Module, seen: Sequence[Sequence[int]]) -> Score:
        """Score a network on the test images of the classes seen so far.

        Args:
            module: The network.
            seen: Labels of the classes, a list for each experience.

        Returns:
            ``right``: number of correct test images of each experience; ``count``: number of test images of each
            experience; ``old_to_new``: fraction of the test images of former classes that are predicted as a class of
            the last experience, None in the first experience.
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
    """Cache of sets in a folder, one file for each set.

    Args:
        folder: The folder; it is made with the first set.
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
        value.save(self._file(key), overwrite=True)

    def __delitem__(self, key: str) -> None:
        self._file(key).unlink()

    def __iter__(self) -> Iterator[str]:
        return (file.stem for file in sorted(self.folder.glob("*.safetensors")))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def numbered(train: ClassImages, test: ClassImages) -> tuple[ClassImages, ClassImages]:
    """The same images with labels 0..K-1, which are also the outputs of a network.

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
        if len(data) < len(data.labels):  # a subset: images outside the subset may have other labels
            return ClassImages(data.images, labels, spec).subset(data.order)
        return ClassImages(data.images, labels, spec)

    return renamed(train), renamed(test)


def predictions(module: nn.Module, images: ClassImages, compute: Compute) -> torch.Tensor:
    """(N,) int64 predicted labels of the images, in the order of ``images.order``; sets evaluation mode."""
    module.eval()
    block = max(2, TEST_PIXELS // (images.spec.shape[1] * images.spec.shape[2]))
    with torch.no_grad():
        parts = [
            _outputs(module, images.gather(indices, compute.device), compute).argmax(1).cpu()
            for indices in images.order.split(block)
        ]
    return torch.cat(parts)


def _outputs(module: nn.Module, images: torch.Tensor, compute: Compute) -> torch.Tensor:
    """Outputs (N, outputs) of a network; a foreign module is called directly."""
    found: torch.Tensor = compute.logits(module, images) if isinstance(module, FeatureNetwork) else module(images)
    return found
