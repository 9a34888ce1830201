"""Adaptor: networks of torchvision, and other classifiers as networks."""

from __future__ import annotations

import copy
import inspect
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from condensekit.errors import ConfigError
from condensekit.networks.base import FeatureNetwork, Network, check_known, check_sizes
from condensekit.networks.cost import Shape, count, values
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
            made.values = values(made, shape)
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


@dataclass(frozen=True)
class OwnNetwork(ModuleNetwork):
    """A :class:`ModuleNetwork` called ``module:object``, the name by which a command finds it again."""

    path: str = field(kw_only=True)

    @property
    def name(self) -> str:
        """``module:object``."""
        return self.path


def as_feature_network(module: nn.Module, shape: Shape) -> FeatureNetwork:
    """A float32 copy of any classifier of (C, H, W) images, cut before the linear layer that gives its outputs.

    Layers after this linear layer may mask outputs, as Avalanche's ``IncrementalClassifier`` does, or normalise them
    (``log_softmax``); the copy leaves them out. Other linear layers may follow in the order of the modules.

    Raises:
        ConfigError: A module that does not fit the images, or whose outputs are not those of a linear layer.
    """
    module = _unwrapped(module)
    if isinstance(module, FeatureNetwork):
        return copy.deepcopy(module).float()
    named = type(module).__name__
    try:
        body = copy.deepcopy(module).eval()
        images = _probe(body, shape)
        calls, outputs = _linear_calls(body, images)
    except Exception as error:  # of the module
        size = "x".join(map(str, shape))
        raise ConfigError(f"{named} does not fit {size} images: {_line(error)}") from error
    if not calls:
        raise ConfigError(f"{named} has no linear layer to take features before: use another network")
    for name, taken in reversed(calls):
        classifier = body.get_submodule(name)
        assert isinstance(classifier, nn.Linear)
        if name and _gives(classifier, taken, outputs) and (found := _cut(body, name, classifier, taken, images)):
            return found.train()
    raise ConfigError(f"{named} does not end in its linear layer {calls[-1][0]!r}: use another network")


class _Reached(Exception):  # noqa: N818 - no error
    """The input of the linear layer at the end of a body."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features


class _End(nn.Module):
    """A layer that ends the forward pass of the modules around it."""

    def forward(self, features: Tensor) -> Tensor:
        raise _Reached(features)


class _Until(nn.Module):
    """A module up to its :class:`_End`, for modules whose last layers cannot work on features."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        try:
            found: Tensor = self.module(images)
        except _Reached as reached:
            return reached.features
        return found


def _unwrapped(module: nn.Module) -> nn.Module:
    """The module inside the wrappers of ``torch.compile`` and of data parallelism."""
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        else:
            return module


def _probe(body: nn.Module, shape: Shape) -> Tensor:
    """(2, C, H, W) different images on the device of ``body``, whose weights become float32, and lazy ones real."""
    place = next(body.parameters(), torch.empty(0)).device
    images = torch.linspace(-1, 1, 2 * math.prod(shape), device=place).reshape(2, *shape)
    if any(map(is_lazy, body.parameters())):
        with isolated(0), torch.no_grad():
            body(images)
    body.float()
    return images


def _linear_calls(body: nn.Module, images: Tensor) -> tuple[list[tuple[str, Tensor]], Any]:
    """The linear layers that ``body`` calls, by name, with their inputs; and its outputs."""
    calls: list[tuple[str, Tensor]] = []
    linear: dict[nn.Module, str] = {part: name for name, part in body.named_modules() if isinstance(part, nn.Linear)}

    def note(part: nn.Module, taken: tuple[Tensor, ...]) -> None:
        calls.append((linear[part], taken[0].detach().clone()))

    handles = [part.register_forward_pre_hook(note) for part in linear]
    try:
        with torch.no_grad():
            outputs = body(images)
    finally:
        for handle in handles:
            handle.remove()
    return calls, outputs


def _gives(classifier: nn.Linear, taken: Tensor, outputs: Any) -> bool:
    """Whether the outputs are those of the layer for the input ``taken``, but for constant or normalised outputs."""
    if not isinstance(outputs, Tensor):
        return False
    with torch.no_grad():
        given = F.linear(taken, classifier.weight, classifier.bias)
    if given.ndim != 2 or given.shape != outputs.shape:
        return False
    free = torch.isclose(given, outputs, 1e-4, 1e-5).all(0) | (outputs[0] != outputs[1])  # not masked
    given, outputs = given[:, free], outputs[:, free]
    alike = partial(torch.allclose, rtol=1e-4, atol=1e-5)
    return given.numel() > 0 and (
        alike(given, outputs) or (given.shape[1] > 1 and alike(given.log_softmax(1), outputs.log_softmax(1)))
    )


def _cut(body: nn.Module, name: str, classifier: nn.Linear, taken: Tensor, images: Tensor) -> FeatureNetwork | None:
    """The network with the features ``taken`` for ``images``; None: the layer is called at other places, too."""
    bias, place = classifier.bias is not None, classifier.weight.device
    plain = nn.utils.skip_init(nn.Linear, classifier.in_features, classifier.out_features, bias, device=place)
    with torch.no_grad():
        for mine, theirs in zip(plain.parameters(), (classifier.weight, classifier.bias), strict=False):
            mine.copy_(theirs)
    for end, around in ((nn.Identity(), lambda part: part), (_End(), _Until)):
        body.set_submodule(name, end)
        found = FeatureNetwork(around(body), plain, (images.shape[1], images.shape[2], images.shape[3]))
        with suppress(Exception), torch.no_grad():  # of the module
            if torch.equal(found.eval().features(images), taken):
                return found
    body.set_submodule(name, classifier)
    return None


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
