"""Lessons: what networks are trained on for an evaluation: a set, its targets and a protocol that fits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from condensekit.data.images import ClassImages
from condensekit.errors import DataError
from condensekit.networks.base import Network
from condensekit.networks.cost import PASSES
from condensekit.sets.condensed import CondensedSet
from condensekit.training.train import TrainProtocol, class_indices


@dataclass(frozen=True, eq=False)
class Lesson:
    """The training on one set.

    Args:
        item: The set.
        targets: Its targets, see :func:`condensekit.training.train.train_network`.
        protocol: How networks are trained.
    """

    item: CondensedSet | ClassImages
    targets: Tensor
    protocol: TrainProtocol

    @property
    def steps(self) -> int:
        """Gradient steps of a training."""
        return self.protocol.steps_on(len(self.targets))

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of images and targets."""
        images = self.item.training_images
        known = images.fingerprint().encode() if isinstance(images, ClassImages) else _bytes(images)
        return hashlib.sha256(known + _bytes(self.targets)).hexdigest()


def lesson_on(
    item: CondensedSet | ClassImages,
    test: ClassImages,
    protocol: TrainProtocol,
    name: str,
    ipc: int | None,
    equal: bool,
) -> Lesson:
    """The lesson of a set.

    Args:
        item: The set.
        test: The test images.
        protocol: How networks are trained, before it is fitted to the images.
        name: Name of the set in errors.
        ipc: Images per class; None: those of the set.
        equal: Whether a set that decodes to more images than ``ipc`` of each class gets no more steps.

    Raises:
        DataError: The set does not fit the test images.
    """
    targets = targets_for(name, item, test)
    protocol = protocol.on(item.spec).on(test.spec)
    if item.ipc is None:
        return Lesson(item, targets, protocol.for_full())
    most, factor = ipc or item.ipc, item.formation.factor
    nominal = sum(min(most, count * factor**2) for count in item.counts)
    if equal and protocol.steps is None and len(targets) != nominal:
        protocol = protocol.as_on(nominal)
    return Lesson(item, targets, protocol)


def outputs(item: CondensedSet | ClassImages, test: ClassImages) -> tuple[int, ...]:
    """The classes that the outputs of a network stand for: those of the test images and of the set, ascending."""
    return tuple(sorted({*test.classes, *_taught(item)}))


def _taught(item: CondensedSet | ClassImages) -> tuple[int, ...]:
    """The classes of a set, ascending; with soft labels, those that a label gives some probability."""
    if item.soft_labels is None:
        return item.classes
    mass = item.soft_labels.sum(0) > 0
    return tuple(c for c, some in zip(item.spec.classes, mass.tolist(), strict=True) if some)


def targets_for(name: str, item: CondensedSet | ClassImages, test: ClassImages) -> Tensor:
    """Targets for :func:`~condensekit.training.train.train_network`, with the :func:`outputs` of set and test images.

    Args:
        name: Name of the set in errors.
        item: The set to train on.
        test: Real images.

    Raises:
        DataError: The images do not fit those of ``test``, or none of their classes is tested.
    """
    ours, theirs = item.spec, test.spec
    if not ours.alike(theirs):
        raise DataError(
            f"{name!r} and the test images differ in shape or normalisation: {ours.shape}, mean {ours.mean}, "
            f"std {ours.std} against {theirs.shape}, mean {theirs.mean}, std {theirs.std}"
        )
    used, classes = _taught(item), outputs(item, test)
    if not set(used) & set(test.classes):
        raise DataError(f"{name!r} has classes {list(used)} and the test images {list(test.classes)}: none is in both")
    if item.soft_labels is None:
        return class_indices(item.targets(), classes)
    targets = torch.zeros(len(item.soft_labels), len(classes))
    kept = [ours.classes.index(label) for label in used]
    targets[:, class_indices(torch.tensor(used), classes)] = item.soft_labels[:, kept]
    return targets


def _bytes(values: Tensor) -> bytes:
    return values.cpu().contiguous().numpy().tobytes()


def flops(network: Network, lesson: Lesson, test: ClassImages) -> int:
    """Operations of one training."""
    images = lesson.steps * min(lesson.protocol.batch, len(lesson.targets))
    return images * PASSES * network.build(test.spec.shape, len(outputs(lesson.item, test))).flops
