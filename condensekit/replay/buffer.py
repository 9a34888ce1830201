"""A replay memory of condensed images that goes wherever Avalanche takes a storage policy."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import torch
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor

from condensekit.augment import Augmentation
from condensekit.condense import Noise
from condensekit.condensed import CondensedSet
from condensekit.encoders import Encoder
from condensekit.images import ImageSpec
from condensekit.methods import Condenser
from condensekit.progress import SILENT, Progress
from condensekit.replay.budget import Bytes, Images
from condensekit.replay.filler import Filler
from condensekit.sampling import Sampling, Uniform
from condensekit.selection import Selection


class CondensedBuffer(ExemplarsBuffer):
    """Condenses (or selects) each experience once, and replays the result.

    Args:
        budget: How much may be stored.
        method: A condenser, a selection, or a :class:`~condensekit.replay.filler.Filler`.
        classes: How many classes will come; then each gets its part from the start and a total never shrinks it.
        storage: ``uint8``, ``float16`` or ``float32``.
        factor: Packing; see :class:`condensekit.Formation`.
        seed: Everything random follows from it.
        spec: The stream's normalisation, where its images come from 8-bit pixels; see ``class_images``.
        transforms: Of replayed images: an Avalanche ``TransformGroups``, or a callable for training alone.
        out: Folder for condensations that can be resumed.
        cache: Sets of single classes to take and to give, for separable methods.
    """

    def __init__(
        self,
        budget: Images | Bytes,
        method: Condenser | Selection | Filler,
        *,
        classes: int | None = None,
        storage: str = "uint8",
        factor: int = 1,
        seed: int = 0,
        iterations: int = 1000,
        init: Selection | Noise | None = None,
        sampling: Sampling = Uniform(),  # noqa: B008 - frozen
        encoder: Encoder | None = None,
        augmentation: Augmentation | None = Augmentation(),  # noqa: B008 - frozen
        spec: ImageSpec | None = None,
        transforms: Any = None,
        device: str = "auto",
        out: str | Path | None = None,
        progress: Progress = SILENT,
        cache: MutableMapping[str, CondensedSet] | None = None,
    ) -> None:
        super().__init__(0)
        self.condense_s: list[float] = []

    @property
    def memory(self) -> CondensedSet | None:
        """What is stored, all classes, in storage dtype; None before the first experience."""
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        """Every stored byte."""
        raise NotImplementedError

    def decoded(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """(N, C, H, W) normalised float32 images and (N,) int64 labels on ``device``; kept until the memory changes."""
        raise NotImplementedError

    def pre_adapt(self, agent: Any, exp: Any) -> None:
        """Show the learner before training to an encoder that wants to see it."""

    def post_adapt(self, agent: Any, exp: Any) -> None:
        """Take the experience into the memory; does nothing for one that was taken already."""
        raise NotImplementedError

    def update_from_dataset(self, dataset: Any, strategy: Any = None) -> None:
        """Take the images of any Avalanche classification data set into the memory."""
        raise NotImplementedError

    def resize(self, strategy: Any, new_size: int) -> None:
        """Store at most ``new_size`` images from now on."""
        raise NotImplementedError

    @property
    def buffer_groups(self) -> dict[int, ExemplarsBuffer]:
        """One read-only view for each class."""
        raise NotImplementedError

    @property
    def buffer_datasets(self) -> list[Any]:
        """The replayed data set of each class."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values that :meth:`load_state_dict` reads back."""
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the memory by a stored one."""
        raise NotImplementedError

    @staticmethod
    def of(strategy: Any) -> CondensedBuffer:
        """The buffer that a strategy's plugins use; after ``maybe_load_checkpoint`` that is another than before."""
        raise NotImplementedError
