"""Encoders: where the networks that embed images come from."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from condensekit.compute import Compute
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, refuse, whole
from condensekit.networks.base import FeatureNetwork, Network
from condensekit.networks.convnet import ConvNet
from condensekit.progress import SILENT, Progress
from condensekit.rng import Draw
from condensekit.sets.condensed import CondensedSet

Prepared = Mapping[str, Tensor]  # what an encoder made before the first step; stored beside the checkpoints


class Encoder(ABC):
    """A recipe for the embedding network of each step. The driver builds one module and refills it.

    Attributes:
        network: The architecture.
        keep: Steps for which one network is used.
        trained: Whether the networks have seen the real images of all classes: then they classify, and no class can
            be condensed apart from the others.
        can_label: Whether they can label images softly, see :meth:`label`.
    """

    network: Network
    keep: int = 1
    trained: ClassVar[bool] = False
    can_label: ClassVar[bool] = False

    def replace(self, **changes: Any) -> Encoder:
        """The same encoder with other values of its fields."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def prepare(self, data: ClassImages, draw: Draw, compute: Compute, progress: Progress = SILENT) -> Prepared:
        """What :meth:`load` needs, worked out once before the first step; nothing by default."""
        return {}

    def embedder(self, data: ClassImages, draw: Draw, compute: Compute) -> FeatureNetwork:
        """The network by whose features real images are chosen to stand beside condensed ones; an untrained one."""
        module = self.network.new(data.spec.shape, 1, draw, "embedding", compute.device)
        return module.requires_grad_(False).eval()

    def observe(self, agent: Any, exp: Any) -> None:  # noqa: B027 - most have no use for it
        """Look at a learner before and after it learns an experience; nothing by default."""

    def forget(self) -> None:  # noqa: B027 - likewise
        """Let go of what was observed; nothing by default."""

    def fingerprint(self) -> str:
        """What tells the observed learner from another; empty where none is observed."""
        return ""

    @abstractmethod
    def load(self, module: FeatureNetwork, draw: Draw, prepared: Prepared) -> None:
        """Put the weights of step ``draw.step`` (the first is 1) into ``module``, in place."""

    def load_trained(self, module: FeatureNetwork, draw: Draw, prepared: Prepared) -> None:
        """Put weights that classify, for step ``draw.step``, into ``module``; output k is the k-th class.

        Raises:
            ConfigError: An encoder of untrained networks.
        """
        raise ConfigError(f"{type(self).__name__} draws untrained networks: use encoder=Trained()")

    def label(self, condensed: CondensedSet, prepared: Prepared, compute: Compute) -> CondensedSet:
        """The same set with soft labels by its networks.

        Args:
            condensed: Images of the classes that the networks know.
            prepared: What :meth:`prepare` returned.
            compute: Runs the networks.

        Raises:
            ConfigError: Networks that cannot label.
        """
        raise ConfigError(f"soft labels come from trained networks, not from {type(self).__name__}: use Trained()")


@dataclass(frozen=True)
class Fresh(Encoder):
    """An untrained network, drawn anew every ``keep`` steps.

    Args:
        network: The architecture.
        keep: Steps for which one network is used: 1 as in DM, 5 as in M3D.
    """

    network: Network = field(default_factory=ConvNet)
    keep: int = 1

    def __post_init__(self) -> None:
        refuse(whole("keep", self.keep, 1))

    def load(self, module: FeatureNetwork, draw: Draw, prepared: Prepared) -> None:
        """Fill in the weights that all steps of one run of ``keep`` share: a function of the step alone."""
        self.network.fill_(module, draw.at((draw.step - 1) // self.keep, draw.attempt), "encoder")
