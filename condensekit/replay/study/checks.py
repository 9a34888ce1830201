"""Checks of a run before it begins: memories, images and networks that do not fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, count

from condensekit.data.images import ClassImages
from condensekit.errors import DataError, refuse
from condensekit.networks.base import FeatureNetwork, separable
from condensekit.replay.study.memories import DER, ER, FROM_SCRATCH, UNBOUNDED, Making, MemoryKind
from condensekit.replay.study.protocol import Settings

OPTION = "encoder_network"


def check_run(places: Iterable[tuple[str, MemoryKind]], settings: Settings, train: ClassImages, room: int) -> None:
    """Raise the errors that the run would raise after hours.

    Args:
        places: Each pair of a regime and a memory that is used in it.
        settings: The protocol.
        train: The real images; labels 0..K-1.
        room: Bytes of each class in memories of equal bytes.

    Raises:
        ConfigError: Networks or packings that do not fit the images; a memory of equal bytes without room for an image;
            a learner with batch norm and a batch of one image.
        DataError: A class with too few images.
    """
    places = list(places)
    kinds = list({kind.name: kind for _, kind in places}.values())
    shape, classes = train.spec.shape, len(train.classes)
    module = settings.network.build(shape, classes)
    for network in (network for kind in kinds if kind.filler for network in kind.filler.networks):
        network.build(shape, classes)
    refuse(
        *(_misfit(kind, settings, train, room) for kind in kinds), *(_beyond(k, settings, train, room) for k in kinds)
    )
    for kind in kinds:
        _check_enough(kind, settings, train, room)
    if not separable(module):
        learners = [kind for regime, kind in places if regime != FROM_SCRATCH]
        refuse(_alone(learners, settings, train))


def embeds_with_learner(kind: MemoryKind, regime: str, settings: Settings, learner: FeatureNetwork) -> bool:
    """Whether the learner is the encoder of a memory in a regime: never one with batch norm."""
    return regime in (ER, DER) and settings.online.learner_encoder and kind.embeds_with_learner and separable(learner)


def idle_encoder(
    places: Iterable[tuple[str, MemoryKind]], settings: Settings, making: Making, train: ClassImages
) -> str | None:
    """A note if an encoder network was asked for where the learner is the encoder; None: it was not."""
    learner = settings.network.build(train.spec.shape, len(train.classes))
    found = [
        f"{kind.name} in {regime}"
        for regime, kind in places
        if embeds_with_learner(kind, regime, settings, learner)
        and (OPTION in making.options or f"{OPTION}=" in kind.name)
    ]
    way_out = "learner_encoder=False uses the recipe's encoder"
    return (
        f"the learner embeds images for {', '.join(found)}, and {OPTION} does nothing there: {way_out}"
        if found
        else None
    )


def _misfit(kind: MemoryKind, settings: Settings, train: ClassImages, room: int) -> str | None:
    misfit = kind.filler and kind.filler.misfit(train, kind.images(settings.ipc, train, room))
    return f"memory {kind.name!r}: {misfit}" if misfit else None


def _beyond(kind: MemoryKind, settings: Settings, train: ClassImages, room: int) -> str | None:
    """The problem of a memory in which the first image of a class is larger than the bytes of the class, or None."""
    if kind.filler is None or not kind.equal_bytes:
        return None
    most, label = kind.filler.least(train, sorted({settings.set_seed(order) for order in settings.order_numbers()}))
    if most <= room:
        return None
    would_do = next(n for n in count(1) if room * n // settings.ipc >= most)
    return (
        f"memory {kind.name!r} has {room:,} bytes for each class, and an image of class "
        f"{train.spec.name_of(label)} takes {most:,} bytes: use ipc={would_do}, or leave the memory out"
    )


def _check_enough(kind: MemoryKind, settings: Settings, train: ClassImages, room: int) -> None:
    """Raise DataError if the largest class has fewer images than the memory stores or packs of each class."""
    if kind.name in UNBOUNDED:
        return
    stored, packed = kind.images(settings.ipc, train, room), kind.packed
    needed = kind.filler.needed(stored) if kind.filler else stored
    label = max(train.classes, key=train.count)
    if train.count(label) < needed:
        each = f", each packed from {packed}" if packed > 1 else ""
        most = settings.ipc * train.count(label) // needed
        fewer = f"use ipc={most} or less, or " if most else ""
        raise DataError(
            f"memory {kind.name!r} keeps {needed // packed} images of each class{each}, and class "
            f"{train.spec.name_of(label)}, the largest, has {train.count(label)}: {fewer}leave the memory out"
        )


def _alone(kinds: Sequence[MemoryKind], settings: Settings, train: ClassImages) -> str | None:
    """The problem of a learner with batch norm and a batch of one image, which has no variance, or None."""
    names, batch = {kind.name for kind in kinds}, settings.online.batch
    sizes: list[tuple[str, int]] = []
    for order in settings.order_numbers() if kinds else ():
        stream = settings.stream(order, len(train.classes))
        new = [sum(map(train.count, classes)) for classes in stream]
        sizes += [(f"an experience of order {order}", size) for size in new]
        if names & {"cumulative", "joint"}:
            sizes += [(f"all images so far in order {order}", size) for size in accumulate(new)]
        if "icarl" in names:
            former = (settings.ipc * sum(map(len, stream[:i])) for i in range(len(stream)))
            sizes += [
                (f"an experience of order {order} with icarl's memory", sum(two))
                for two in zip(new, former, strict=True)
            ]
    found = next(((what, size) for what, size in sizes if size % batch == 1 % batch), None)
    if found is None:
        return None
    other = next(b for b in count(batch + 1) if all(size % b != 1 or size == 1 for _, size in sizes))
    return (
        f"{settings.network.name} has batch norm, and {found[0]} has {found[1]} images: with batches of {batch} the "
        f"last batch has one image; use another batch for the learner, such as {other}"
    )
