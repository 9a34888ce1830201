"""What a run would stumble over later is refused before it begins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, count

from condensekit.data.images import ClassImages
from condensekit.errors import DataError, refuse
from condensekit.networks.base import Network, separable
from condensekit.replay.memory.jpeg import Coded
from condensekit.replay.study.memories import FROM_SCRATCH, UNBOUNDED, MemoryKind
from condensekit.replay.study.protocol import Settings
from condensekit.rng import Draw
from condensekit.selection.jpeg_random import JpegRandom


def check_run(places: Iterable[tuple[str, MemoryKind]], settings: Settings, train: ClassImages, room: int) -> None:
    """Raise what the run would raise after hours.

    Args:
        places: Each regime with each memory that is used in it.
        settings: The protocol.
        train: The real images, numbered.
        room: Bytes of each class that memories of equal bytes may fill.

    Raises:
        ConfigError: Networks or packings that do not fit the images; a memory of equal bytes that holds no image; a
            learner with batch norm that would meet a batch of one image.
        DataError: A class with too few images.
    """
    places = list(places)
    kinds = list({kind.name: kind for _, kind in places}.values())
    shape, classes = train.spec.shape, len(train.classes)
    module = settings.network.build(shape, classes)
    for network in filter(None, map(_embedding, kinds)):
        network.build(shape, classes)
    refuse(*(_unpackable(kind, train) for kind in kinds), *(_beyond(kind, settings, train, room) for kind in kinds))
    for kind in kinds:
        _check_enough(kind, settings, train, room)
    if not separable(module):
        learners = [kind for regime, kind in places if regime != FROM_SCRATCH]
        refuse(_alone(learners, settings, train))


def _embedding(kind: MemoryKind) -> Network | None:
    """What a memory embeds its images with, where it is no learner."""
    chooses = getattr(kind.filler, "selection", getattr(kind.filler, "method", None))
    owners = (kind.how.encoder, kind.filler, getattr(chooses, "embedding", None))
    found = (getattr(owner, "network", None) for owner in owners)
    return next((network for network in found if isinstance(network, Network)), None)


def _unpackable(kind: MemoryKind, train: ClassImages) -> str | None:
    misfit = kind.how.formation.misfit(train.spec.shape)
    return f"memory {kind.name!r}: {misfit}" if misfit else None


def _beyond(kind: MemoryKind, settings: Settings, train: ClassImages, room: int) -> str | None:
    """What is wrong with a memory whose first image of some class takes more bytes than the class may fill."""
    if not kind.equal_bytes:
        return None
    if isinstance(kind.filler, Coded):
        misfit = kind.filler.misfit(train, kind.images(settings.per_class, train, room))
        return f"memory {kind.name!r}: {misfit}" if misfit else None
    each = kind.bytes_each(train)
    most, label = each, train.classes[0]
    selection = getattr(kind.filler, "selection", None)
    if isinstance(selection, JpegRandom):
        seeds = {settings.set_seed(order) for order in settings.order_numbers()}
        most, label = max(selection.least(train, Draw(seed)) for seed in sorted(seeds))
    if most <= room // each * each:
        return None
    would_do = next(n for n in count(1) if room * n // settings.per_class // each * each >= most)
    return (
        f"memory {kind.name!r} has {room:,} bytes for each class, and an image of class "
        f"{train.spec.name_of(label)} takes {most:,}: use --per-class {would_do}, or leave it out"
    )


def _check_enough(kind: MemoryKind, settings: Settings, train: ClassImages, room: int) -> None:
    """Raise DataError where the smallest class has fewer images than are stored, or packed, of it."""
    if kind.filler is None and kind.name in UNBOUNDED:
        return
    wanted = kind.images(settings.per_class, train, room) * (kind.filler.times if isinstance(kind.filler, Coded) else 1)
    packed = kind.how.formation.factor**2
    label = min(train.classes, key=train.count)
    if train.count(label) < wanted * packed:
        each = f", each packed of {packed}" if packed > 1 else ""
        most = settings.per_class * train.count(label) // (wanted * packed)
        fewer = f"use --per-class {most} or less, or " if most else ""
        raise DataError(
            f"memory {kind.name!r} keeps {wanted} images of each class{each}, and class {train.spec.name_of(label)} "
            f"has {train.count(label)}: {fewer}leave it out"
        )


def _alone(kinds: Sequence[MemoryKind], settings: Settings, train: ClassImages) -> str | None:
    """What is wrong where a learner with batch norm meets a batch of one image, which has no variance."""
    names, batch = {kind.name for kind in kinds}, settings.online.batch
    sizes: list[tuple[str, int]] = []
    for order in settings.order_numbers() if kinds else ():
        steps = settings.experiences(order, len(train.classes))
        new = [sum(map(train.count, step)) for step in steps]
        sizes += [(f"an experience of order {order}", size) for size in new]
        if names & {"cumulative", "joint"}:
            sizes += [(f"all images so far in order {order}", size) for size in accumulate(new)]
        if "icarl" in names:
            former = (settings.per_class * sum(map(len, steps[:i])) for i in range(len(steps)))
            sizes += [
                (f"an experience of order {order} with icarl's memory", sum(two))
                for two in zip(new, former, strict=True)
            ]
    found = next(((what, size) for what, size in sizes if size % batch == 1 % batch), None)
    if found is None:
        return None
    other = next(b for b in count(batch + 1) if all(size % b != 1 or size == 1 for _, size in sizes))
    return (
        f"{settings.network.name} has batch norm, and {found[0]} has {found[1]} images: in batches of {batch} one "
        f"image is left alone; use another --er-batch, such as {other}"
    )
