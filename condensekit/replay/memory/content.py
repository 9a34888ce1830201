"""Content of a replay memory: of each class its stored images, the most important first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from condensekit.compute import Spent
from condensekit.data.images import ImageSpec
from condensekit.errors import DataError
from condensekit.rng import Draw
from condensekit.sets.condensed import CondensedSet

SECONDS = "class_s"  # in the provenance of a class's images: seconds that making them took
WORK = "class_work"  # likewise, what networks did for them: images and flops
Room = Callable[[Tensor], int]  # bytes (n,) of one class's stored images -> how many of them, from the first, may stay


@dataclass(frozen=True, eq=False)
class Content:
    """What is stored. It never changes: an update makes another content, so that a failure loses nothing.

    Args:
        parts: By label, the class's images.
        seen: By label, how many real images they stand for.
        tasks: By label, the task label of the class's first experience.
    """

    parts: Mapping[int, CondensedSet] = field(default_factory=dict)
    seen: Mapping[int, int] = field(default_factory=dict)
    tasks: Mapping[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """Stored images."""
        return sum(len(part) for part in self.parts.values())

    @property
    def classes(self) -> tuple[int, ...]:
        """The labels, ascending."""
        return tuple(sorted(self.parts))

    @property
    def spec(self) -> ImageSpec:
        """Shape and normalisation of the images; there is at least one."""
        return next(iter(self.parts.values())).spec

    @property
    def coded(self) -> bool:
        """Whether the bytes of the images are not those of their tensors."""
        return any(part.coded is not None for part in self.parts.values())

    @property
    def nbytes(self) -> int:
        """Every stored byte; soft labels count over the classes of their own experience."""
        return sum(part.nbytes for part in self.parts.values())

    def spent_since(self, before: Content) -> tuple[float, Spent]:
        """Seconds and work of the images that are here and were not in ``before``, as their provenance says."""
        made = [part for k, part in self.parts.items() if k not in before.parts or not _same(part, before.parts[k])]
        return spent_on(made)

    def trimmed(self, room: Room) -> Content:
        """The same classes, each with as many of its first images as there is room for."""
        return replace(self, parts={label: first(part, room(sizes(part))) for label, part in self.parts.items()})

    def joined(self) -> CondensedSet:
        """All classes in one set, ascending; soft labels get columns for all classes, 0 for later ones."""
        names = {k: name for part in self.parts.values() for k, name in part.spec.class_names.items()}
        parts = [_widened(self.parts[label], names) for label in self.classes]
        kept = {id(part.provenance): dict(part.provenance) for part in parts}
        return replace(
            parts[0],
            images=torch.cat([part.images for part in parts]),
            labels=torch.cat([part.labels for part in parts]),
            ranges=_cat([part.ranges for part in parts]),
            soft_labels=_cat([part.soft_labels for part in parts]),
            coded=_cat([part.coded for part in parts]),
            provenance={"experiences": list(kept.values())},
        )


def spent_on(parts: Iterable[CondensedSet]) -> tuple[float, Spent]:
    """Seconds and work that making the images of single classes took, as their provenance says."""
    told = [part.provenance for part in parts]
    work = (Spent(**record[WORK]) for record in told if WORK in record)
    return sum(float(record.get(SECONDS, 0)) for record in told), sum(work, Spent())


def first(part: CondensedSet, n: int) -> CondensedSet:
    """The first ``n`` stored images; all where there are fewer."""
    return part if n >= len(part) else part.take(torch.arange(n))


def sizes(part: CondensedSet) -> Tensor:
    """(M,) int64 bytes of each stored image; they sum to ``part.nbytes``."""
    count, f2 = len(part), part.formation.factor**2
    pictures = (part.images, part.ranges) if part.coded is None else ()
    each = sum(t[0].numel() * t.element_size() for t in (*pictures, part.labels) if t is not None)
    if part.soft_labels is not None:
        each += f2 * part.soft_labels.shape[1] * part.soft_labels.element_size()
    found = torch.full((count,), each, dtype=torch.int64)
    return found if part.coded is None else found + part.coded


def turnover(old: int, seen: int, fresh: int, available: int, room: int, draw: Draw, label: int) -> tuple[int, int]:
    """How many stored images of a class stay, and how many new images join them, when the class comes again.

    Old and new stand in the memory as their real images do among all that were seen; what is left over by rounding
    is drawn at random, so that a stream of small experiences neither forgets the first nor ignores the last.

    Args:
        old: Stored images of the class.
        seen: Real images they stand for.
        fresh: Real images of this experience.
        available: How many images can be made of these.
        room: How many the class may have.
        draw: Randomness of this update.
        label: The class.

    Returns:
        (kept, made), together at most ``room``.
    """
    total = min(room, old + available)
    exact = total * fresh / (fresh + seen)
    up = float(draw.uniform("turnover", torch.tensor([label]), 1)) < exact - int(exact)
    made = max(min(int(exact) + up, available), total - old)
    return total - made, made


def mixed(old: CondensedSet, new: CondensedSet) -> CondensedSet:
    """The images of both sets of one class, evenly interleaved, so that any prefix holds both in proportion.

    Raises:
        DataError: Sets that are stored differently.
    """
    names = {**old.spec.class_names, **new.spec.class_names}
    together = _widened(old, names).merge(_widened(new, names))  # in this order: their one label is the same
    places = torch.cat([(torch.arange(len(part)) + 0.5) / len(part) for part in (old, new)])
    provenance = {**new.provenance, "updates": old.provenance.get("updates", 1) + 1}
    return replace(together.take(torch.argsort(places, stable=True)), provenance=provenance)


def _same(part: CondensedSet, before: CondensedSet) -> bool:
    """Whether no image of a class is new: an update gives the images another provenance."""
    return part.provenance is before.provenance


def _widened(part: CondensedSet, names: Mapping[int, str]) -> CondensedSet:
    """The same set with class names, and columns of soft labels, for more classes."""
    spec = replace(part.spec, class_names=dict(names))
    if part.soft_labels is None or spec.classes == part.spec.classes:
        return replace(part, spec=spec)
    soft = torch.zeros(len(part.soft_labels), len(spec.classes))
    soft[:, [spec.classes.index(label) for label in part.spec.classes]] = part.soft_labels
    return replace(part, spec=spec, soft_labels=soft)


def _cat(parts: Sequence[Tensor | None]) -> Tensor | None:
    given = [part for part in parts if part is not None]
    if given and len(given) != len(parts):
        raise DataError("the memory holds classes with and without ranges, soft labels or codes: use one filler")
    return torch.cat(given) if given else None
