"""Memories of two kinds of images, and of images with soft labels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from condensekit.compute import Compute, make_plan
from condensekit.data.images import ClassImages
from condensekit.errors import refuse
from condensekit.methods import Condenser
from condensekit.methods.encoders import Encoder
from condensekit.methods.trained_encoders import Trained, soft_labels
from condensekit.networks.base import FeatureNetwork, Network
from condensekit.networks.convnet import ConvNet
from condensekit.replay.memory.fillers import Condensing, Filler, Filling
from condensekit.replay.memory.learner import LearnerEncoder
from condensekit.rng import Draw
from condensekit.runs.describe import describe
from condensekit.selection.clustering import herd
from condensekit.selection.embeddings import embed_with
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.packing import pack, unpack


@dataclass(frozen=True)
class Hybrid:
    """Some synthetic images, and real ones chosen given them.

    The real images of a class are herded (Welling, ICML 2009), beginning with the synthetic ones: each keeps the
    mean feature of all those stored closest to that of the class. Synthetic and real images alternate in the
    order of storage, so that a memory that shrinks keeps its share of both.

    Args:
        method: Makes the synthetic images.
        share: Of synthetic images, in [0, 1]; their number is rounded.
        network: An untrained network of this kind measures the features, where the learner that condenses does not.

    Raises:
        ConfigError: A share out of range.
    """

    method: Condenser
    share: float = 0.5
    network: Network = field(default_factory=ConvNet)

    def __post_init__(self) -> None:
        refuse(None if 0 <= self.share <= 1 else f"share must lie in [0, 1], got {self.share}")

    @property
    def name(self) -> str:
        """``hybrid-dm-50`` and the like."""
        return f"hybrid-{self.method.name}-{100 * self.share:g}"

    def fill(self, data: ClassImages, ipc: int, how: Filling) -> CondensedSet:
        """See :class:`~condensekit.replay.memory.fillers.Filler`."""
        synthetic = round(self.share * ipc)
        made = Condensing(self.method).fill(data, synthetic, how) if synthetic else None
        provenance = {} if made is None else dict(made.provenance)
        images = self._joined(data, ipc, made, how) if synthetic < ipc or made is None else _grouped(made, data)
        return CondensedSet.from_images(
            images.flatten(0, 1),
            torch.tensor(data.classes).repeat_interleave(ipc),
            data.spec,
            formation=how.formation,
            provenance={**provenance, "hybrid": describe(self)},
        )

    def _joined(self, data: ClassImages, ipc: int, made: CondensedSet | None, how: Filling) -> Tensor:
        """(K, ipc, C, H, W): both kinds of stored images, normalised, in the order of storage."""
        factor, classes = how.formation.factor, len(data.classes)
        first = data.gather(torch.empty(classes, 0, dtype=torch.int64)) if made is None else _grouped(made, data)
        real = ipc - first.shape[1]
        chosen = self._chosen(data, first, real * factor**2, factor, how)
        second = pack(data.gather(chosen).flatten(0, 1), factor).reshape(classes, real, *data.spec.shape)
        return torch.cat([first, second], dim=1)[:, _alternating(ipc, first.shape[1])]

    def _embedding(self, data: ClassImages, draw: Draw, compute: Compute, encoder: Encoder | None) -> FeatureNetwork:
        """The learner's network where the synthetic images were condensed with it, else an untrained one."""
        if isinstance(encoder, LearnerEncoder):
            return encoder.after(data, draw, compute)
        module = self.network.new(data.spec.shape, 1, draw, "embedding", compute.device)
        return module.requires_grad_(False).eval()

    def _chosen(self, data: ClassImages, first: Tensor, count: int, factor: int, how: Filling) -> Tensor:
        """(K, count) source indices of real images, given those stored ``first`` (K, m, C, H, W)."""
        draw, rows = Draw(how.seed), []
        with Compute(make_plan(data.spec.shape[1:], device=how.device)) as compute:
            module = self._embedding(data, draw, compute, how.encoder)
            embed = embed_with(module, data, compute)
            for label, stored in zip(data.classes, first, strict=True):
                indices = data.indices_of(label)
                features = embed(indices).double()
                middle, start = features.mean(0), features.new_zeros(features.shape[1])
                if len(stored):
                    shown = compute.features(module, unpack(stored, factor).to(compute.device)).cpu()
                    start = (shown.double() - middle).sum(0)
                rows.append(indices[herd(features - middle, count, start)])
        return torch.stack(rows)


@dataclass(frozen=True)
class SoftLabelled:
    """Another filler's images with soft labels from networks trained on the real images of the same classes.

    Args:
        images: Makes the images.
        teacher: The networks: those of :class:`~condensekit.methods.trained_encoders.Trained`.
    """

    images: Filler
    teacher: Trained = field(default_factory=Trained)

    @property
    def name(self) -> str:
        """``random-soft`` and the like."""
        return f"{self.images.name}-soft"

    def fill(self, data: ClassImages, ipc: int, how: Filling) -> CondensedSet:
        """See :class:`~condensekit.replay.memory.fillers.Filler`; labels are soft within the classes of ``data``."""
        made = self.images.fill(data, ipc, how)
        with Compute(make_plan(data.spec.shape[1:], device=how.device)) as compute:
            prepared = self.teacher.prepare(data, Draw(how.seed), compute, how.progress)
            labelled = soft_labels(made, self.teacher, prepared, compute)
        return replace(labelled, provenance={**labelled.provenance, "separable": False})


def _grouped(made: CondensedSet, data: ClassImages) -> Tensor:
    """The stored images as (K, m, C, H, W) normalised float32."""
    return made.stored_as("float32").images.reshape(len(data.classes), -1, *data.spec.shape)


def _alternating(ipc: int, synthetic: int) -> Tensor:
    """(ipc,) places, in [synthetic..., real...], of images spread evenly: any prefix has its share of both."""
    places, taken = [], 0
    for i in range(ipc):
        due = (i + 1) * synthetic // ipc > taken
        places.append(taken if due else synthetic + i - taken)
        taken += due
    return torch.tensor(places)
