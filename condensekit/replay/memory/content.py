"""Content of a replay memory: the stored images of each class of each task, the most important first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from condensekit.compute import Spent
from condensekit.data.images import ImageSpec
from condensekit.errors import DataError
from condensekit.rng import Draw
from condensekit.sets.condensed import CondensedSet

SECONDS = "class_s"  # key in the provenance of the images of a class: seconds that were spent on them
WORK = "class_work"  # key in the same provenance: images and FLOPs of the networks that worked on them
Group = tuple[int, int]  # task label and class label


@dataclass(frozen=True, eq=False)
class Content:
    """Stored images of all groups. An update makes a new content and changes no old one, so no failure loses images.

    Args:
        parts: Stored images of each group that has stored images.
        seen: Number of real images that the stored images of each group represent, in the order in which the groups
            appeared; also of groups without stored images.
    """

    parts: Mapping[Group, CondensedSet] = field(default_factory=dict)
    seen: Mapping[Group, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of stored images."""
        return sum(len(part) for part in self.parts.values())

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups with stored images: by task, then by class, ascending."""
        return tuple(sorted(self.parts))

    @property
    def spec(self) -> ImageSpec:
        """Shape and normalisation of the images; needs at least one stored group."""
        return next(iter(self.parts.values())).spec

    @property
    def nbytes(self) -> int:
        """All stored bytes; a soft label has one entry for each class of its own experience."""
        return sum(part.nbytes for part in self.parts.values())

    def spent_since(self, before: Content) -> tuple[float, Spent]:
        """Seconds and work of the groups whose images are not those of ``before``, according to their provenance."""
        made = [part for k, part in self.parts.items() if k not in before.parts or not _same(part, before.parts[k])]
        return spent_on(made)

    def trimmed(self, counts: Mapping[Group, int]) -> Content:
        """The same groups, each with its first images: as many as ``counts`` says."""
        return replace(self, parts={k: first(part, counts[k]) for k, part in self.parts.items() if counts[k]})

    def joined(self) -> CondensedSet:
        """One set in the order of :attr:`groups`; soft labels have a column for each class, 0 for other experiences."""
        names = {k: name for part in self.parts.values() for k, name in part.spec.class_names.items()}
        parts = [_widened(self.parts[group], names) for group in self.groups]
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
    """Seconds and work that were spent on the images of single classes, according to their provenance."""
    told = [part.provenance for part in parts]
    work = (Spent(**record[WORK]) for record in told if WORK in record)
    return sum(float(record.get(SECONDS, 0)) for record in told), sum(work, Spent())


def first(part: CondensedSet, n: int) -> CondensedSet:
    """The first ``n`` stored images; all images of a smaller set."""
    return part if n >= len(part) else part.take(torch.arange(n))


def turnover(old: int, seen: int, fresh: int, available: int, room: int, draw: Draw, label: int) -> tuple[int, int]:
    """Number of stored images of a class that stay, and of new images that are added, when the class appears again.

    Old and new images share the memory in proportion to the real images that they represent. A fractional share is
    rounded up or down at random, so that small experiences at the end of a stream count as much as the first ones.

    Args:
        old: Number of stored images of the class.
        seen: Number of real images that the stored images represent.
        fresh: Number of real images of the class in this experience.
        available: Number of new images that can be made from these real images.
        room: Largest number of stored images of the class.
        draw: Random numbers of this update.
        label: Label of the class.

    Returns:
        (kept, made): numbers of images, together at most ``room``.
    """
    total = min(room, old + available)
    exact = total * fresh / (fresh + seen)
    up = float(draw.uniform("turnover", torch.tensor([label]), 1)) < exact - int(exact)
    made = max(min(int(exact) + up, available), total - old)
    return total - made, made


def mixed(old: CondensedSet, new: CondensedSet) -> CondensedSet:
    """The images of two sets of one class in turn: each prefix has the same proportions.

    Raises:
        DataError: The sets are stored differently.
    """
    told = {k: name for k, name in new.spec.class_names.items() if name != str(k)}  # others are no news
    names = {**new.spec.class_names, **old.spec.class_names, **told}
    together = _widened(old, names).merge(_widened(new, names))  # keeps this order, because the label is the same
    places = torch.cat([(torch.arange(len(part)) + 0.5) / len(part) for part in (old, new)])
    provenance = {**new.provenance, "updates": old.provenance.get("updates", 1) + 1}
    return replace(together.take(torch.argsort(places, stable=True)), provenance=provenance)


def _same(part: CondensedSet, before: CondensedSet) -> bool:
    """Whether a class has no new image: each update gives its images a new provenance object."""
    return part.provenance is before.provenance


def _widened(part: CondensedSet, names: Mapping[int, str]) -> CondensedSet:
    """The same set with these class names, and with soft labels that have a column for each of the classes."""
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
