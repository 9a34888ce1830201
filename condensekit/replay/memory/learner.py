"""Learner as encoder: embedding networks that cost no training and have seen no later class."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from condensekit.compute import Compute
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, DataError, refuse, whole
from condensekit.methods.encoders import Encoder, Prepared
from condensekit.methods.recipe import Recipe
from condensekit.methods.trained_encoders import CLASSES, END, START, Trained
from condensekit.networks.adaptor import as_feature_network
from condensekit.networks.base import FeatureNetwork, Network
from condensekit.networks.cost import Shape
from condensekit.progress import SILENT, Progress
from condensekit.rng import Draw
from condensekit.selection.embeddings import Embed, Embedding, embed_with


@dataclass(frozen=True)
class LearnerNetwork(Network):
    """Architecture of a learner: its last linear layer is the classifier.

    Args:
        module: The learner.

    Raises:
        ConfigError: In ``build``, a module that does not end in a linear layer.
    """

    module: nn.Module

    @property
    def name(self) -> str:
        """The module's class."""
        return type(self.module).__name__

    def build(self, shape: Shape, classes: int) -> FeatureNetwork:
        """See :meth:`Network.build`."""
        found = as_feature_network(self.module, shape).to("meta")
        found.classifier = nn.Linear(found.feature_dim, classes, device="meta")
        return found.train()

    def fill_(self, module: FeatureNetwork, draw: Draw, role: str) -> None:
        """The learner's own weights and a classifier of zeros: how such a module draws fresh weights is not known."""
        with torch.no_grad():
            theirs = as_feature_network(self.module, module.shape).state_dict()
            for name, value in module.state_dict().items():
                value.copy_(torch.zeros_like(value) if name.startswith("classifier.") else theirs[name])


@dataclass(eq=False)
class LearnerEncoder(Encoder):
    """Random points between the learner's weights before and after the experience that is being condensed.

    The idea of DANCE (Zhang et al., IJCAI 2024; :class:`~condensekit.methods.trained_encoders.Trained`), with the
    network that is trained anyway in place of ones trained for the purpose. It has seen the classes at hand and
    earlier ones, never a later one. Where the learner is watched only once in an experience, both ends are the same.

    It holds a copy of the learner from the beginning of an experience and another one while the memory is filled; a
    ``CondensedBuffer`` then has it forget both, so that none is in a checkpoint between experiences.

    Args:
        interpolate: False takes the weights after the experience alone.
        keep: Steps for which one network is used.

    Raises:
        ConfigError: ``keep`` below 1.
    """

    interpolate: bool = True
    keep: int = 1
    trained: ClassVar[bool] = True

    def __post_init__(self) -> None:
        refuse(whole("keep", self.keep, 1))
        self._experience: Any = None
        self._learners: list[nn.Module] = []  # before and after the experience

    def observe(self, agent: Any, exp: Any) -> None:
        """Note the learner's weights; the first call of an experience gives the start, the last one the end.

        Args:
            agent: An Avalanche strategy; its ``model`` is the learner.
            exp: The experience.
        """
        model = copy.deepcopy(agent.model).cpu()
        experience = getattr(exp, "current_experience", id(exp))
        self._learners = [self._learners[0], model] if experience == self._experience else [model]
        self._experience = experience

    def forget(self) -> None:
        """Let go of the copies."""
        self._experience, self._learners = None, []

    def fingerprint(self) -> str:
        """sha256 of the weights at both ends; empty where no learner is observed."""
        if not self._learners:
            return ""
        found = hashlib.sha256()
        for learner in self._learners:
            for name, value in learner.state_dict().items():
                found.update(name.encode() + value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    @property
    def network(self) -> LearnerNetwork:  # type: ignore[override]
        """The learner's architecture.

        Raises:
            ConfigError: No learner has been observed.
        """
        if not self._learners:
            raise ConfigError(
                "LearnerEncoder has seen no learner: use it in a CondensedBuffer that a strategy trains with, "
                "or another encoder"
            )
        return LearnerNetwork(self._learners[-1])

    def prepare(self, data: ClassImages, draw: Draw, compute: Compute, progress: Progress = SILENT) -> Prepared:
        """Both ends, as ``Trained.prepare`` gives them: the rows of the classifier are those of the data.

        Raises:
            DataError: A label for which the learner has no output.
        """
        rows = torch.tensor(data.classes)
        prepared = {CLASSES: rows}
        for prefix, module in ((START, self._learners[0]), (END, self._learners[-1])):
            for name, value in as_feature_network(module, data.spec.shape).state_dict().items():
                if name.startswith("classifier."):
                    _check_rows(data, len(value))
                    value = value[rows]
                prepared[prefix + name] = value[None].clone()
        return prepared

    def load(self, module: FeatureNetwork, draw: Draw, prepared: Prepared) -> None:
        """Fill in the weights that all steps of one run of ``keep`` share: a function of the step alone."""
        self._between().load(module, draw, prepared)

    def load_trained(self, module: FeatureNetwork, draw: Draw, prepared: Prepared) -> None:
        """Fill in the weights after the experience."""
        self._between().load_trained(module, draw, prepared)

    def embedder(self, data: ClassImages, draw: Draw, compute: Compute) -> FeatureNetwork:
        """The learner after the experience, in evaluation mode, on the device of ``compute``."""
        module = self.network.new(data.spec.shape, len(data.classes), draw, device=compute.device)
        prepared = {name: value.to(compute.device) for name, value in self.prepare(data, draw, compute).items()}
        self.load_trained(module, draw.at(1), prepared)
        return module.requires_grad_(False).eval()

    def _between(self) -> Trained:
        return Trained(count=1, interpolate=self.interpolate, keep=self.keep)


@dataclass(frozen=True)
class LearnerEmbedding(Embedding):
    """The learner's features after the experience, as iCaRL (Rebuffi et al., CVPR 2017) chooses its exemplars by.

    Args:
        encoder: It has seen the learner.
    """

    encoder: LearnerEncoder

    def prepare(self, data: ClassImages, draw: Draw, compute: Compute) -> Embed:
        """See :meth:`condensekit.selection.embeddings.Embedding.prepare`."""
        return embed_with(self.encoder.embedder(data, draw, compute), data, compute)


def by_learner(recipe: Recipe) -> Recipe:
    """The same recipe, with the learner's features in place of untrained networks': in matching and in the start."""
    encoder = LearnerEncoder(keep=recipe.encoder.keep)
    return recipe.replace(encoder=encoder, init=recipe.init.with_embedding(LearnerEmbedding(encoder)))


def _check_rows(data: ClassImages, outputs: int) -> None:
    beyond = [label for label in data.classes if not 0 <= label < outputs]
    if beyond:
        raise DataError(
            f"class {data.spec.name_of(beyond[0])} is beyond the learner's {outputs} outputs: give it a larger head"
        )
