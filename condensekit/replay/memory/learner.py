"""Learner as encoder: embedding networks that need no training of their own and have seen no later class."""

from __future__ import annotations

import copy
import hashlib
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from condensekit.compute import Compute
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, DataError, instance, refuse, whole
from condensekit.methods.encoders import Encoder, Prepared
from condensekit.methods.recipe import Recipe
from condensekit.methods.trained_encoders import CLASSES, Trained
from condensekit.networks.adaptor import as_feature_network
from condensekit.networks.base import FeatureNetwork, Network
from condensekit.networks.cost import Shape
from condensekit.progress import SILENT, Progress
from condensekit.rng import Draw, isolated
from condensekit.selection.embeddings import Embed, Embedding, embed_with
from condensekit.training.networks import END, START


@dataclass(frozen=True)
class LearnerNetwork(Network):
    """Architecture of a learner, whose last linear layer is the classifier.

    Args:
        module: The learner.

    Raises:
        ConfigError: In ``build``, if the module does not end in a linear layer.
    """

    module: nn.Module

    @property
    def name(self) -> str:
        """Name of the module's class."""
        return type(self.module).__name__

    def build(self, shape: Shape, classes: int) -> FeatureNetwork:
        """See :meth:`Network.build`."""
        found = as_feature_network(self.module, shape).to("meta")
        found.classifier = nn.Linear(found.feature_dim, classes, device="meta")
        return found.eval()  # dropout would draw from the global generator

    def fill_(self, module: FeatureNetwork, draw: Draw, role: str) -> None:
        """Copy the learner's weights and set the classifier to 0: how the module draws new weights is unknown."""
        with torch.no_grad():
            theirs = as_feature_network(self.module, module.shape).state_dict()
            for name, value in module.state_dict().items():
                value.copy_(torch.zeros_like(value) if name.startswith("classifier.") else theirs[name])


@dataclass(eq=False)
class LearnerEncoder(Encoder):
    """Encoder with random weights between the learner's weights before and after the condensed experience.

    The idea of DANCE (Zhang et al., IJCAI 2024; :class:`~condensekit.methods.trained_encoders.Trained`), but with the
    learner instead of networks trained for this purpose. The learner has seen the classes of the experience and
    earlier classes, never a later class. If it is observed only once in an experience, both ends are equal.

    The encoder holds a copy of the learner from the beginning of an experience, and a second copy while the memory is
    filled. A ``CondensedBuffer`` then deletes both, so that a checkpoint between experiences has no copy.

    >>> from condensekit import recipes
    >>> from condensekit.replay import CondensedBuffer, Images, LearnerEncoder
    >>> buffer = CondensedBuffer(Images(20), recipes.dm(encoder=LearnerEncoder()), classes=10)

    Args:
        interpolate: False: use the weights after the experience only.
        keep: Number of steps for which each network is used.

    Raises:
        ConfigError: ``interpolate`` is not a bool, or ``keep`` is below 1.
    """

    interpolate: bool = True
    keep: int = 1
    trained: ClassVar[bool] = True

    def __post_init__(self) -> None:
        refuse(instance("interpolate", self.interpolate, bool, "True or False"), whole("keep", self.keep, 1))
        self.instead: Recipe | None = None  # what to do if the learner cannot embed; see :func:`observed`
        self._experience: Any = None
        self._learners: list[nn.Module] = []  # the learner before and after the experience

    def observe(self, agent: Any, exp: Any) -> None:
        """Copy the learner's weights: the first call in an experience gives the start, the last call the end.

        Args:
            agent: Avalanche strategy whose ``model`` is the learner.
            exp: The experience.
        """
        model = copy.deepcopy(agent.model).cpu()
        experience = getattr(exp, "current_experience", id(exp))
        self._learners = [self._learners[0], model] if experience == self._experience else [model]
        self._experience = experience

    def check(self, shape: Shape) -> None:
        """Raise ConfigError if the observed learner cannot embed images of this shape."""
        model = self._learners[-1]
        for name, weights in model.named_parameters():
            if not is_lazy(weights) and not torch.isfinite(weights).all():
                raise ConfigError(f"the weights {name!r} of {type(model).__name__} are not finite")
        as_feature_network(model, shape)

    def forget(self) -> None:
        """Delete the copies."""
        self._experience, self._learners = None, []

    def fingerprint(self) -> str:
        """SHA-256 of the weights at both ends, in hexadecimal; empty: no learner was observed."""
        if not self._learners:
            return ""
        found = hashlib.sha256()
        for learner in self._learners:
            for name, value in learner.state_dict().items():
                if not is_lazy(value):
                    found.update(name.encode() + value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    @property
    def network(self) -> LearnerNetwork:  # type: ignore[override]
        """The learner's architecture.

        Raises:
            ConfigError: No learner was observed.
        """
        if not self._learners:
            raise ConfigError(
                "LearnerEncoder has seen no learner: use it in a CondensedBuffer that a strategy trains with, "
                "or another encoder"
            )
        return LearnerNetwork(self._learners[-1])

    def prepare(
        self,
        data: ClassImages,
        draw: Draw,
        compute: Compute,
        progress: Progress = SILENT,
        steps: int | None = None,
    ) -> Prepared:
        """The weights at both ends, as ``Trained.prepare`` gives them; the classifier has the rows of these classes.

        Raises:
            DataError: The learner has no output for a label.
        """
        rows = torch.tensor(data.classes)
        ends = (as_feature_network(module, data.spec.shape) for module in (self._learners[0], self._learners[-1]))
        before, after = (module.state_dict() for module in ends)
        _check_rows(data, len(after["classifier.weight"]))
        prepared = {CLASSES: rows}
        for name, end in after.items():
            start = before.get(name, end)
            if name.startswith("classifier."):
                start, end = (start if len(start) > max(data.classes) else end)[rows], end[rows]
            start = start if start.shape == end.shape else end  # a layer that has grown
            prepared |= {START + name: start[None].clone(), END + name: end[None].clone()}
        return prepared

    def load(self, module: FeatureNetwork, draw: Draw, prepared: Prepared) -> None:
        """Load the weights that ``keep`` successive steps share; they depend on the step only."""
        self._between().load(module, draw, prepared)

    def load_trained(self, module: FeatureNetwork, draw: Draw, prepared: Prepared) -> None:
        """Load the weights after the experience."""
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
    """Features of the learner after the experience, by which iCaRL (Rebuffi et al., CVPR 2017) chooses its exemplars.

    Args:
        encoder: The encoder that observed the learner.
    """

    encoder: LearnerEncoder

    def prepare(self, data: ClassImages, draw: Draw, compute: Compute) -> Embed:
        """See :meth:`condensekit.selection.embeddings.Embedding.prepare`."""
        return embed_with(self.encoder.embedder(data, draw, compute), data, compute)


def by_learner(recipe: Recipe) -> Recipe:
    """The same recipe with the learner's features instead of untrained networks', in the steps and in the start."""
    encoder = LearnerEncoder(keep=recipe.encoder.keep)
    encoder.instead = recipe
    return recipe.replace(encoder=encoder, init=recipe.init.with_embedding(LearnerEmbedding(encoder)))


def observed(recipe: Recipe, agent: Any, exp: Any) -> Recipe:
    """Let the encoder of a recipe observe the learner before or after its training.

    Args:
        recipe: The recipe.
        agent: Avalanche strategy whose ``model`` is the learner.
        exp: The experience, or its data set.

    Returns:
        The recipe. If its encoder comes from :func:`by_learner` and the learner cannot embed the images of the
        experience: the recipe with its own encoder and start again, and a warning says why.

    Raises:
        ConfigError: The learner cannot embed, and the encoder does not come from :func:`by_learner`.
    """
    encoder = recipe.encoder
    if not isinstance(encoder, LearnerEncoder):
        encoder.observe(agent, exp)
        return recipe
    try:
        encoder.observe(agent, exp)
        if shape := _shape(exp):
            encoder.check(shape)
    except Exception as error:  # the learner may raise any error in a copy or in a forward pass
        if encoder.instead is None:
            raise
        encoder.forget()
        own = encoder.instead
        warnings.warn(
            f"the learner cannot embed the images for its memory ({error}): {recipe.method.name} condenses them with "
            f"its own encoder {type(own.encoder).__name__}. learner_encoder=False does the same without this warning",
            UserWarning,
            stacklevel=2,
        )
        return recipe.replace(encoder=own.encoder, init=own.init)
    return recipe


def _shape(exp: Any) -> Shape | None:
    """(C, H, W) of the first image of an experience or data set; None: another check names what is wrong with it."""
    try:
        with isolated(0):
            channels, height, width = getattr(exp, "dataset", exp).eval()[0][0].shape
    except Exception:  # of the data set
        return None
    return channels, height, width


def _check_rows(data: ClassImages, outputs: int) -> None:
    beyond = [label for label in data.classes if not 0 <= label < outputs]
    if beyond:
        raise DataError(
            f"class {data.spec.name_of(beyond[0])} is beyond the learner's {outputs} outputs: give it a larger head"
        )
