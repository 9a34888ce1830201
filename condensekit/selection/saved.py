"""Saved start: the first images of a condensation from a set that exists, to refine or extend it."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import InitVar, dataclass, field

import torch
from torch import Tensor

from condensekit.compute import Compute
from condensekit.data.images import ClassImages
from condensekit.errors import DataError, instance, refuse
from condensekit.rng import Draw
from condensekit.selection.base import Start, check_sizes, stored_each
from condensekit.selection.classic import Random
from condensekit.selection.embeddings import Embedding
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.packing import pack

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Saved(Start):
    """First images from a set: a run goes on from it, with other options, more images or more classes.

    Classes are matched by their names, or by their labels where one side has no names. Of each class, the first images
    are taken; images and classes that the set lacks start as ``rest`` says. Stored images are taken as they are; if the
    run has another factor than the set, they are unpacked and packed again. Another normalisation is converted by way
    of pixels. Soft labels of the set are not carried over, and neither is the momentum of the run that made it.

    >>> import condensekit as ck
    >>> train, test = ck.load("digits")
    >>> made = ck.select(train, "kmeans", ipc=1)
    >>> ck.condense(train, ck.recipes.dm(init=made), ipc=2, steps=1).set.provenance["config"]["init"]["of"]
    'kmeans'

    Args:
        made: The set.
        rest: The start of what the set lacks.

    Attributes:
        of: Name of the set.
        sha256: Checksum of its images and labels, by which a run knows its start again.
    """

    made: InitVar[CondensedSet]
    rest: Start = Random()  # noqa: RUF009 - frozen
    of: str = field(init=False)
    sha256: str = field(init=False)

    def __post_init__(self, made: CondensedSet) -> None:
        refuse(
            instance("made", made, CondensedSet, "a set, such as the attribute set of a result"),
            instance("rest", self.rest, Start, "Random(), KMeans() or Noise()"),
        )
        kept = made.stored_as("float32")
        total = hashlib.sha256(kept.labels.numpy().tobytes())
        total.update(kept.images.contiguous().numpy().tobytes())
        total.update(str((kept.formation.factor, kept.spec.mean, kept.spec.std)).encode())
        for name, value in (("of", made.name), ("sha256", total.hexdigest()), ("_set", kept)):
            object.__setattr__(self, name, value)

    @property
    def name(self) -> str:
        """Its name in tables."""
        return "saved"

    @property
    def _made(self) -> CondensedSet:
        made: CondensedSet = vars(self)["_set"]
        return made

    def with_embedding(self, embedding: Embedding) -> Start:
        """See :meth:`Start.with_embedding`, for the rest."""
        return Saved(self._made, self.rest.with_embedding(embedding))

    def check(self, data: ClassImages, ipc: int, factor: int) -> None:
        """See :meth:`Start.check`.

        Raises:
            ConfigError: The rest cannot be a start.
            DataError: Images of another shape or kind, or no class of the data in the set.
        """
        check_sizes(data, ipc, factor)
        ours, theirs = self._made.spec, data.spec
        if ours.shape != theirs.shape:
            shapes = " x ".join(map(str, ours.shape)), " x ".join(map(str, theirs.shape))
            raise DataError(
                f"init gives a set of {shapes[0]} images, and the data are {shapes[1]}: give a set of such images, or "
                "read the data with image_size=N"
            )
        if not ours.alike(theirs) and not (ours.pixels and theirs.pixels):
            raise DataError(
                "init gives a set of other normalisation than the data, and one of both are no pixels, so that nothing "
                "converts them: give a set of these data"
            )
        if not self._rows(data):
            told = ", ".join(ours.name_of(label) for label in self._made.classes[:10])
            raise DataError(f"init gives a set without any class of the data: it has {told}")
        if self._lacks(data, ipc, factor):
            self.rest.check(data, ipc, factor)

    def within(self, seconds: float, data: ClassImages, each: int, draw: Draw, compute: Compute) -> ClassImages:
        """See :meth:`Start.within`, for the rest."""
        return self.rest.within(seconds, data, each, draw, compute)

    def first(self, data: ClassImages, ipc: int, factor: int, draw: Draw, compute: Compute) -> Tensor:
        """See :meth:`Start.first`; what is changed or comes from the rest is logged as a warning."""
        rows, lacking = self._rows(data), self._lacks(data, ipc, factor)
        notes = []
        if factor != self._made.formation.factor:
            notes.append(f"its images of factor={self._made.formation.factor} are packed again with factor={factor}")
        if lacking:
            images = self.rest.first(data, ipc, factor, draw, compute)
            notes.append(f"{lacking} start as {self.rest.name}")
        else:
            images = torch.empty(len(data.classes), ipc, *data.spec.shape)
        for row, label in enumerate(data.classes):
            if label in rows:
                found = self._images(rows[label], data, factor)[:ipc]
                if not lacking:
                    found = found[torch.arange(ipc) % len(found)]  # those beyond a small class are not used
                images[row, : len(found)] = found
        if notes:
            log.warning("init from a set (%s): %s", self.of, "; ".join(notes))
        return images

    def _rows(self, data: ClassImages) -> dict[int, int]:
        """The label in the set of each class of the data that it has."""
        ours, theirs = self._made.spec.class_names, data.spec.class_names
        by_name = {ours.get(label, str(label)): label for label in self._made.classes}
        found = {}
        for label in data.classes:
            name = theirs.get(label, str(label))
            numbered = name == str(label) or ours.get(label, str(label)) == str(label)
            if (row := by_name.get(name, label if numbered else None)) in self._made.classes:
                found[label] = row
        return found

    def _count(self, label: int, factor: int) -> int:
        """How many images of a class, packed with ``factor``, the set gives."""
        stored = int((self._made.labels == label).sum())
        return stored if factor == self._made.formation.factor else stored * self._made.formation.factor**2 // factor**2

    def _lacks(self, data: ClassImages, ipc: int, factor: int) -> str:
        """What the set lacks, in words; empty if it lacks nothing."""
        rows, wanted = self._rows(data), stored_each(data, ipc, factor)
        classes = [label for label in data.classes if label not in rows]
        few = sum(self._count(row, factor) < wanted[label] for label, row in rows.items())
        told = [f"{len(classes)} of {len(data.classes)} classes"] if classes else []
        told += [f"images beyond those of the set in {few} classes"] if few else []
        return " and ".join(told)

    def _images(self, label: int, data: ClassImages, factor: int) -> Tensor:
        """The images of a class, (n, C, H, W), packed with ``factor`` and normalised as the data are."""
        chosen = self._made.select([label])
        images = chosen.images
        if factor != chosen.formation.factor:
            images = chosen.decode()[0]
            images = pack(images[: len(images) // factor**2 * factor**2], factor)
        if self._made.spec.alike(data.spec):
            return images
        mean, std = self._made.spec.constants()
        return data.spec.normalise(images * std + mean)
