"""Number of images: how many images of each class a number of bytes holds, as a rule of thumb."""

from __future__ import annotations

from collections.abc import Callable

import torch

from condensekit.data.images import ClassImages
from condensekit.rng import Draw
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import Formation
from condensekit.sets.packing import pack

CLASSES = 5  # classes whose images are coded to know how large they are
ROUNDS = 8  # of the search for the number
FIRST = 8  # images of each class that are coded first
CLOSE = 32  # the number is found to its 32nd part


def number_misfits(ipc: int | None, room: int | None, search: bool) -> tuple[str | None, ...]:
    """The problems of a number of images, a number of bytes and a search together; None: no problem."""
    return (
        "give ipc=, the images of each class, or room=, the bytes of each class"
        if ipc is None and room is None
        else None,
        "search=True finds the number of images in room= bytes: give room, and no ipc"
        if search and (room is None or ipc is not None)
        else None,
    )


def usual_number(data: ClassImages, formation: Formation, room: int, draw: Draw) -> int:
    """The number of stored images of each class that take ``room`` bytes in the mean of the classes.

    Pictures have their usual quality; random images of some classes are coded. At least 1, at most what the largest
    class has.

    Args:
        data: The images to choose from.
        formation: How they are stored.
        room: Bytes for the images of each class, with their labels.
        draw: Random numbers.
    """
    step = -(-len(data.classes) // CLASSES)
    labels = data.classes[::step]
    orders = {k: data.indices_of(k)[draw.permutation(f"number/{k}", data.count(k))] for k in labels}
    each = formation.factor**2

    def measured(number: int) -> float:
        sizes = []
        for label, order in orders.items():
            count = max(1, min(number, len(order) // each))
            rows = order[torch.arange(count * each) % len(order)]
            packed = pack(data.gather(rows), formation.factor)
            made = CondensedSet.from_images(packed, torch.full((count,), label), data.spec, formation=formation)
            sizes.append(made.nbytes)
        return sum(sizes) / len(sizes)

    return largest(measured, room, max(1, max(map(data.count, data.classes)) // each))


def largest(measured: Callable[[int], float], room: float, most: int) -> int:
    """The largest number from 1 to ``most`` of which an increasing function is at most ``room``; a large one nearly.

    The function is called few times: between two known places it is taken to be a line.
    """
    known, number = {1: measured(1)}, min(FIRST, most)
    for _ in range(ROUNDS):
        fits = [n for n, size in known.items() if size <= room]
        below, above = max(fits, default=1), min({*known} - {*fits}, default=most + 1)
        if above - below <= max(1, below // CLOSE):
            break
        if len(known) > 1:
            a, b = sorted(sorted(known, key=lambda n: abs(known[n] - room))[:2])
            slope = max((known[b] - known[a]) / (b - a), 1e-9)
            number = int(a + (room - known[a]) / slope)
        number = min(max(number, below + 1), above - 1)
        known[number] = measured(number)
    return max((n for n, size in known.items() if size <= room), default=1)
