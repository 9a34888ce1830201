"""Where the networks that embed images come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from condensekit.errors import refuse
from condensekit.networks import ConvNet, FeatureNetwork, Network
from condensekit.rng import Draw


class Encoder(ABC):
    """A recipe for the embedding network of each step. The driver builds one module and refills it."""

    network: Network

    @abstractmethod
    def load(self, module: FeatureNetwork, draw: Draw) -> None:
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

    def load(self, module: FeatureNetwork, draw: Draw) -> None:
        """Fill in the weights that all steps of one run of ``keep`` share: a function of the step alone."""
        self.network.fill_(module, draw.at((draw.step - 1) // self.keep, draw.attempt), "encoder")
