"""Adaptor: networks of torchvision, and other classifiers as networks."""

from __future__ import annotations

import copy
import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from condensekit.errors import ConfigError
from condensekit.networks.base import FeatureNetwork, Network, check_known, check_sizes
from condensekit.networks.cost import Shape, count
from condensekit.rng import Draw, isolated

CLASSES = "num_classes"  # the parameter of torchvision's functions for the number of outputs
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class _Constructed(Network):
    """A network whose constructor draws its initial weights."""

    @abstractmethod
    def _construct(self, shape: Shape, classes: int) -> FeatureNetwork:
        """A new module."""

    def fill_(self, module: FeatureNetwork, draw: Draw, role: str) -> None:
        """Construct the model anew under its own key and copy every tensor, in place."""
        with isolated(draw.key(role)):
            fresh = self._construct(module.shape, module.classifier.out_features)
        with torch.no_grad():
            for old, new in zip(_tensors(module), _tensors(fresh), strict=True):
                old.copy_(new)


@dataclass(frozen=True)
class TorchvisionNetwork(_Constructed):
    """Any classifier of ``torchvision.models``, untrained, with the constructor's own initialisation.

    The embedding is the input of its last linear layer. Dropout and stochastic depth are switched off:
    they would draw from the global generator. A replaced first convolution (other than 3 channels, or
    ``small_stem``) has torch's default initialisation.

    Args:
        model: A name from ``torchvision.models``.
        small_stem: For small images: the first convolution becomes 3x3 with stride 1, and a max-pooling
            right after it is left out.

    Raises:
        ConfigError: An unknown model; in ``build``, a model without a linear layer at its end, or that does not fit
            the images.
    """

    model: str = "mobilenet_v3_small"
    small_stem: bool = False

    def __post_init__(self) -> None:
        from torchvision import models

        check_known("torchvision model", self.model, models.list_models(module=models))

    @property
    def name(self) -> str:
        """The model's own name, ``-small`` appended with a small stem."""
        return self.model + ("-small" if self.small_stem else "")

    def build(self, shape: Shape, classes: int) -> FeatureNetwork:
        """See :meth:`Network.build`."""
        check_sizes(shape, classes)
        try:
            with isolated(0):  # not on meta at once: some constructors read values
                module = self._construct(shape, classes).to("meta").eval()
            module(torch.empty(1, *shape, device="meta"))
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            size = "x".join(map(str, shape))
            raise ConfigError(f"torchvision's {self.model} does not fit {size} images: {_line(error)}") from error
        return module.train()

    def _construct(self, shape: Shape, classes: int) -> FeatureNetwork:
        from torchvision import models

        model: nn.Module = models.get_model(self.model, weights=None, num_classes=classes, **self._options(shape))
        _switch_off_dropout(model)
        self._fit_stem(model, shape[0])
        linear = {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear)}
        if not linear:
            raise ConfigError(f"torchvision's {self.model} ends in no linear layer: choose another model")
        name, classifier = linear.popitem()
        model.set_submodule(name, nn.Identity())
        return FeatureNetwork(model, classifier, shape)

    def _options(self, shape: Shape) -> dict[str, Any]:
        """The arguments that some constructors need."""
        if self.model in ("googlenet", "inception_v3"):
            return {"aux_logits": False, "init_weights": True}
        if self.model.startswith("vit_"):
            return {"image_size": shape[1]}
        return {"input_size": shape[1:]} if self.model.startswith("maxvit") else {}

    def _fit_stem(self, model: nn.Module, channels: int) -> None:
        """Replace the first convolution if the images or ``small_stem`` need another."""
        if channels == 3 and not self.small_stem:
            return
        name, conv = next((n, part) for n, part in model.named_modules() if isinstance(part, nn.Conv2d))
        form: dict[str, Any] = {"kernel_size": 3, "stride": 1, "padding": 1}
        if not self.small_stem:
            form = {"kernel_size": conv.kernel_size, "stride": conv.stride, "padding": conv.padding}
        elif isinstance(getattr(model, "maxpool", None), nn.MaxPool2d):
            model.maxpool = nn.Identity()
        model.set_submodule(name, nn.Conv2d(channels, conv.out_channels, **form, bias=conv.bias is not None))


@dataclass(frozen=True)
class ModuleNetwork(_Constructed):
    """Any function or class that makes a classifier, untrained, with the constructor's own initialisation.

    The embedding is the input of its last linear layer, which is replaced where it has another number of outputs.
    Dropout is switched off, as in :class:`TorchvisionNetwork`.

    Args:
        make: Called without arguments, or with ``num_classes`` where it has a parameter of that name.

    Raises:
        ConfigError: In ``build``: a module that does not end in a linear layer or does not fit the images.
    """

    make: Callable[..., nn.Module]

    @property
    def name(self) -> str:
        """The name of the function or class."""
        return str(getattr(self.make, "__name__", type(self.make).__name__))  # anything that can be called

    def build(self, shape: Shape, classes: int) -> FeatureNetwork:
        """See :meth:`Network.build`."""
        check_sizes(shape, classes)
        try:
            with isolated(0):
                made = self._construct(shape, classes)
            made.flops = count(made, shape).flops  # with real values, which some modules read
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            size = "x".join(map(str, shape))
            raise ConfigError(f"network {self.name} does not fit {size} images: {_line(error)}") from error
        return made.to("meta")

    def _construct(self, shape: Shape, classes: int) -> FeatureNetwork:
        takes = inspect.signature(self.make).parameters
        needed = [name for name, p in takes.items() if p.default is p.empty and p.kind in NAMED and name != CLASSES]
        if needed:
            raise ConfigError(
                f"network {self.name} needs {needed[0]}: pass functools.partial({self.name}, {needed[0]}=...)"
            )
        module = self.make(**{CLASSES: classes} if CLASSES in takes else {})
        if not isinstance(module, nn.Module):
            raise ConfigError(f"network {self.name} gives a {type(module).__name__}: expected a torch.nn.Module")
        _switch_off_dropout(module)
        found = as_feature_network(module, shape)
        if found.classifier.out_features != classes:
            found.classifier = nn.Linear(found.classifier.in_features, classes)
        return found


def as_feature_network(module: nn.Module, shape: Shape) -> FeatureNetwork:
    """A copy of any classifier of (C, H, W) images, cut before its last linear layer.

    Raises:
        ConfigError: A module that does not fit the images, or whose outputs are not those of its last linear layer.
    """
    if isinstance(module, FeatureNetwork):
        return copy.deepcopy(module)
    body = copy.deepcopy(module)
    linear = {name: part for name, part in body.named_modules() if isinstance(part, nn.Linear)}
    if not linear:
        raise ConfigError(f"{type(module).__name__} has no linear layer to take features before: use another network")
    name, classifier = linear.popitem()
    images = torch.zeros(2, *shape, device=classifier.weight.device)
    try:
        with torch.no_grad():
            body.eval()(images)
    except (RuntimeError, TypeError, IndexError) as error:
        size = "x".join(map(str, shape))
        raise ConfigError(f"{type(module).__name__} does not fit {size} images: {_line(error)}") from error
    body.set_submodule(name, nn.Identity())
    found = FeatureNetwork(body, classifier, shape)
    try:
        with torch.no_grad():
            fits = found.eval().features(images).shape == (2, classifier.in_features)
    except (RuntimeError, TypeError, IndexError):
        fits = False
    if not fits:
        raise ConfigError(f"{type(module).__name__} does not end in its linear layer {name!r}: use another network")
    return found.train()


def _switch_off_dropout(module: nn.Module) -> None:
    """Dropout and stochastic depth would draw from the global generator."""
    from torchvision.ops import StochasticDepth

    for part in module.modules():
        if isinstance(part, _DropoutNd | StochasticDepth):
            part.p = 0.0


def _line(error: Exception) -> str:
    """The first line of an error of torch."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _tensors(module: nn.Module) -> Iterable[Tensor]:
    """Every parameter and buffer, in the order of construction."""
    yield from module.parameters()
    yield from module.buffers()
