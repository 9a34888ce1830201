"""Fillers that mix: synthetic images beside real images, and images with soft labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from condensekit.compute import Compute
from condensekit.data.images import ClassImages
from condensekit.errors import instance, refuse, within
from condensekit.methods.trained_encoders import Trained
from condensekit.replay.memory.base import Around, Job
from condensekit.replay.memory.fillers import Condensing, with_work
from condensekit.rng import Draw
from condensekit.runs.describe import describe
from condensekit.selection.base import stored_each
from condensekit.selection.clustering import herd
from condensekit.selection.embeddings import embed_with
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.packing import pack, unpack


@dataclass(frozen=True)
class Hybrid(Condensing):
    """Filler of synthetic images, and of real images that complement the synthetic images.

    The real images of a class are herded (Welling, ICML 2009) after the synthetic images: each real image brings the
    mean feature of the stored images as close as possible to the mean feature of the class. Synthetic and real images
    alternate in the order of storage, so that a memory that shrinks keeps its share of both. The features come from an
    untrained network of the recipe's encoder, or from the learner if the encoder is a learner.

    >>> from condensekit import recipes
    >>> from condensekit.replay import Hybrid
    >>> Hybrid(recipes.dm(), share=0.25).name
    'hybrid-dm-25'

    Args:
        recipe: Recipe of the synthetic images.
        share: Fraction of synthetic images, in [0, 1]; their number is rounded.

    Raises:
        ConfigError: ``share`` is not in [0, 1].
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse(within("share", self.share, 0, 1))

    @property
    def name(self) -> str:
        """Name such as ``hybrid-dm-50``: method, and percentage of synthetic images."""
        return f"hybrid-{super().name}-{100 * self.share:g}"

    def fill(self, data: ClassImages, ipc: int, job: Job) -> CondensedSet:
        """See :class:`~condensekit.replay.memory.base.Filler`."""
        synthetic, factor = round(self.share * ipc), self.formation.factor
        made = Condensing(self.recipe).fill(data, synthetic, job) if synthetic else None
        counts = stored_each(data, ipc, factor)
        with job.compute(data) as compute:
            images = self._joined(data, _by_class(made, data), counts, Draw(job.seed), compute)
            spent = compute.spent
        stored = CondensedSet.from_images(
            torch.cat(images),
            torch.tensor(data.classes).repeat_interleave(torch.tensor(list(counts.values()))),
            data.spec,
            formation=self.formation,
            provenance={**(made.provenance if made else {}), "hybrid": describe(self)},
        )
        return with_work(stored, "selection", spent)

    def _joined(
        self,
        data: ClassImages,
        synthetic: Mapping[int, Tensor],
        counts: Mapping[int, int],
        draw: Draw,
        compute: Compute,
    ) -> list[Tensor]:
        """Of each class its synthetic images (m, C, H, W), and real ones up to its number in ``counts``, alternating.

        A class that has as many synthetic images as it may store gets no real ones.
        """
        factor, images = self.formation.factor, []
        if all(len(stored) >= counts[label] for label, stored in synthetic.items()):
            return [stored[: counts[label]] for label, stored in synthetic.items()]
        module = self.recipe.encoder.embedder(data, draw, compute)
        embed = embed_with(module, data, compute)
        for label, made in synthetic.items():
            stored = made[: round(self.share * counts[label])]
            indices, real = data.indices_of(label), counts[label] - len(stored)
            features = embed(indices).double()
            middle, start = features.mean(0), features.new_zeros(features.shape[1])
            if len(stored):
                shown = compute.features(module, unpack(stored, factor).to(compute.device)).cpu()
                start = (shown.double() - middle).sum(0)
            wanted = real * factor**2
            chosen = indices[herd(features - middle, min(wanted, len(indices)), start)]
            packed = pack(data.gather(chosen[torch.arange(wanted) % len(chosen)]), factor)
            images.append(torch.cat([stored, packed])[_alternating(counts[label], len(stored))])
        return images


@dataclass(frozen=True)
class SoftLabelled(Around):
    """Filler that gives the images of another filler soft labels, from networks trained on the same real classes.

    Args:
        images: The filler that makes the images.
        teacher: The trained networks.

    Raises:
        ConfigError: ``images`` is not a filler, or ``teacher`` is not a :class:`Trained`.
    """

    teacher: Trained = field(default_factory=Trained)

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse(instance("teacher", self.teacher, Trained, "Trained()"))

    @property
    def name(self) -> str:
        """Name such as ``random-soft``."""
        return f"{self.images.name}-soft"

    @property
    def soft(self) -> bool:
        """See :class:`~condensekit.replay.memory.base.Filler`."""
        return True

    def fill(self, data: ClassImages, ipc: int, job: Job) -> CondensedSet:
        """See :class:`~condensekit.replay.memory.base.Filler`; soft labels have an entry for each class of ``data``."""
        made = self.images.fill(data, ipc, job)
        with job.compute(data) as compute:
            prepared = self.teacher.prepare(data, Draw(job.seed), compute, job.progress)
            labelled = with_work(self.teacher.label(made, prepared, compute), "labels", compute.spent)
        return replace(labelled, provenance={**labelled.provenance, "separable": False})


def _by_class(made: CondensedSet | None, data: ClassImages) -> dict[int, Tensor]:
    """The stored images of each class as (m, C, H, W) normalised float32; m is 0 where there are none."""
    if made is None:
        return {label: data.gather(torch.empty(0, dtype=torch.int64)) for label in data.classes}
    plain = made.stored_as("float32")
    return {label: plain.images[plain.labels == label] for label in data.classes}


def _alternating(ipc: int, synthetic: int) -> Tensor:
    """(ipc,) positions in [synthetic..., real...] of the images in turn: each prefix has the same proportions."""
    places, taken = [], 0
    for i in range(ipc):
        due = (i + 1) * synthetic // ipc > taken
        places.append(taken if due else synthetic + i - taken)
        taken += due
    return torch.tensor(places)
