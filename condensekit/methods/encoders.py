"""Encoders: the networks that embed images, and their weights in each step."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from condensekit.compute import Compute, Spent
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, refuse, whole
from condensekit.networks.base import FeatureNetwork, Network
from condensekit.networks.convnet import ConvNet
from condensekit.progress import SILENT, Progress
from condensekit.rng import Draw
from condensekit.sets.condensed import CondensedSet

Prepared = Mapping[str, Tensor]  # tensors that an encoder makes before the first step; saved beside the checkpoints


class Encoder(ABC):
    """The weights of the embedding network in each step. The driver builds one module and fills it again.

    Attributes:
        network: The architecture.
        keep: Steps for which one network is kept.
        trained: Whether the networks are trained on the real images of all classes. Then they can classify, and a
            class cannot be condensed without the others.
        can_label: Whether the networks can give soft labels, see :meth:`label`.
    """

    network: Network
    keep: int = 1
    trained: ClassVar[bool] = False
    can_label: ClassVar[bool] = False

    def replace(self, **changes: Any) -> Encoder:
        """The same encoder with other values of its fields."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def within(self, seconds: float, data: ClassImages, compute: Compute) -> int | None:
        """The gradient steps of each training for which ``seconds`` suffice; None: they suffice for all steps."""
        return None

    def prepare(
        self,
        data: ClassImages,
        draw: Draw,
        compute: Compute,
        progress: Progress = SILENT,
        steps: int | None = None,
    ) -> Prepared:
        """Make the tensors that :meth:`load` needs, once before the first step; by default no tensors.

        Args:
            data: The real images of all classes.
            draw: The random numbers of the run.
            compute: Runs networks.
            progress: Receives the gradient steps.
            steps: Gradient steps of each training, fewer than usual; None: as usual.
        """
        return {}

    def work(self, prepared: Prepared) -> Spent:
        """The work of the trainings, whenever they were made."""
        return Spent()

    def embedder(self, data: ClassImages, draw: Draw, compute: Compute) -> FeatureNetwork:
        """An untrained network, whose features choose the real images that are kept beside condensed images."""
        module = self.network.new(data.spec.shape, 1, draw, "embedding", compute.device)
        return module.requires_grad_(False).eval()

    def observe(self, agent: Any, exp: Any) -> None:  # noqa: B027 - most have no use for it
        """Observe a learner before and after it learns an experience; by default do nothing."""

    def forget(self) -> None:  # noqa: B027 - likewise
        """Release the observed learner; by default do nothing."""

    def fingerprint(self) -> str:
        """A text that identifies the observed learner; empty without a learner."""
        return ""

    @abstractmethod
    def load(self, module: FeatureNetwork, draw: Draw, prepared: Prepared) -> None:
        """Put the weights of step ``draw.step`` (the first is 1) into ``module``, in place."""

    def load_trained(self, module: FeatureNetwork, draw: Draw, prepared: Prepared) -> None:
        """Put the weights of a classifier for step ``draw.step`` into ``module``; output k is the k-th class.

        Raises:
            ConfigError: The networks of this encoder are untrained.
        """
        raise ConfigError(f"{type(self).__name__} draws untrained networks: use encoder=Trained()")

    def label(self, condensed: CondensedSet, prepared: Prepared, compute: Compute) -> CondensedSet:
        """The same set with soft labels by the networks of this encoder.

        Args:
            condensed: Images of the classes that the networks know.
            prepared: The result of :meth:`prepare`.
            compute: Runs the networks.

        Raises:
            ConfigError: The networks of this encoder cannot label images.
        """
        raise ConfigError(f"soft labels come from trained networks, not from {type(self).__name__}: use Trained()")


@dataclass(frozen=True)
class Fresh(Encoder):
    """Untrained networks: a new random network every ``keep`` steps.

    >>> import condensekit as ck
    >>> ck.recipes.dm(encoder=ck.Fresh(ck.ConvNet(width=32), keep=5)).encoder.keep
    5

    Args:
        network: The architecture.
        keep: Steps for which one network is kept: 1 as in DM, 5 as in M3D.
    """

    network: Network = field(default_factory=ConvNet)
    keep: int = 1

    def __post_init__(self) -> None:
        refuse(whole("keep", self.keep, 1))

    def load(self, module: FeatureNetwork, draw: Draw, prepared: Prepared) -> None:
        """See :meth:`Encoder.load`; ``keep`` steps in a row get the same weights, which depend only on the step."""
        self.network.fill_(module, draw.at((draw.step - 1) // self.keep, draw.attempt), "encoder")
