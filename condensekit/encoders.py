"""Where the networks that embed images come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from condensekit.compute import Compute
from condensekit.errors import refuse
from condensekit.images import ClassImages
from condensekit.networks import ConvNet, FeatureNetwork, Network
from condensekit.progress import SILENT, Progress
from condensekit.rng import Draw

Prepared = Mapping[str, Tensor]  # what an encoder made before the first step; stored beside the checkpoints


class Encoder(ABC):
    """A recipe for the embedding network of each step. The driver builds one module and refills it."""

    network: Network

    def prepare(self, data: ClassImages, draw: Draw, compute: Compute, progress: Progress = SILENT) -> Prepared:
        """What :meth:`load` needs, worked out once before the first step; nothing by default."""
        return {}

    @abstractmethod
    def load(self, module: FeatureNetwork, draw: Draw, prepared: Prepared) -> None:
        """Put the weights of step ``draw.step`` (the first is 1) into ``module``, in place."""


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
        refuse(None if self.keep >= 1 else f"keep must be at least 1 step, got {self.keep}")

    def load(self, module: FeatureNetwork, draw: Draw, prepared: Prepared) -> None:
        """Fill in the weights that all steps of one run of ``keep`` share: a function of the step alone."""
        self.network.fill_(module, draw.at((draw.step - 1) // self.keep, draw.attempt), "encoder")
