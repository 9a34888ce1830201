"""Architectures as recipes, and the one way to give them fresh weights.

A :class:`Network` says *which* architecture, never *which weights*: it builds a module on the ``meta``
device and fills it from counted randomness, again and again in the same tensors, so that one compiled
function serves every network of a run.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from condensekit.errors import ConfigError, refuse, unknown, whole
from condensekit.rng import Draw, isolated

Shape = tuple[int, int, int]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leakyrelu": lambda: nn.LeakyReLU(0.01),
    "sigmoid": nn.Sigmoid,
    "swish": nn.SiLU,
}
NORMS: dict[str, Callable[[Shape], nn.Module]] = {
    "none": lambda shape: nn.Identity(),
    "batch": lambda shape: nn.BatchNorm2d(shape[0]),
    "layer": lambda shape: nn.LayerNorm(list(shape)),
    "instance": lambda shape: nn.GroupNorm(shape[0], shape[0]),
    "group": lambda shape: nn.GroupNorm(4, shape[0]),
}


class _Conv(nn.Conv2d):
    """A convolution that on a CPU, where no gradient is wanted, runs channels-last: a tenth faster.

    Small maps go back to the usual layout at once, because group normalisation is slow on them otherwise.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return super().forward(x)
        y = super().forward(x.contiguous(memory_format=torch.channels_last))
        return y if y.shape[-2] * y.shape[-1] >= 1024 else y.contiguous()


class _AveragePool(nn.Module):
    """2x2 average pooling. On a CPU as a depthwise convolution: the same bits in a third of the time."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return F.avg_pool2d(x, 2)
        return F.conv2d(x, x.new_full((x.shape[1], 1, 2, 2), 0.25), stride=2, groups=x.shape[1])


POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "max": lambda: nn.MaxPool2d(2),
    "avg": _AveragePool,
}


class FeatureNetwork(nn.Module):
    """A body that embeds images, and one linear layer that classifies the embedding.

    Args:
        body: (N, C, H, W) -> (N, ...) with ``classifier.in_features`` values for each image.
        classifier: The last layer.
        shape: (C, H, W) of the images.
    """

    def __init__(self, body: nn.Module, classifier: nn.Linear, shape: Shape) -> None:
        super().__init__()
        self.body = body
        self.classifier = classifier
        self.shape = shape

    @property
    def feature_dim(self) -> int:
        """Length of the embedding."""
        return self.classifier.in_features

    def features(self, images_NCHW: Tensor) -> Tensor:  # noqa: N803
        """(N, C, H, W) normalised float images to their (N, feature_dim) embedding."""
        embedded: Tensor = self.body(images_NCHW)
        return embedded.flatten(1)

    def forward(self, images_NCHW: Tensor) -> Tensor:  # noqa: N803
        """(N, C, H, W) normalised float images to (N, classes) logits."""
        logits: Tensor = self.classifier(self.features(images_NCHW))
        return logits


def separable(module: nn.Module) -> bool:
    """Whether each image's result is independent of its batch, so that a batch may be cut into chunks."""
    return not any(isinstance(part, _BatchNorm) for part in module.modules())


class Network(ABC):
    """An architecture without weights."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What tables call it: the architecture and its non-default options."""

    @abstractmethod
    def build(self, shape: Shape, classes: int) -> FeatureNetwork:
        """The module, on the ``meta`` device, for (C, H, W) images and ``classes`` outputs.

        Raises:
            ConfigError: The architecture does not fit the images.
        """

    def fill_(self, module: FeatureNetwork, draw: Draw, role: str) -> None:
        """Give ``module`` fresh random weights, in place: torch's default initialisation, norms 1 and 0.

        Raises:
            ConfigError: A layer of this recipe that is no convolution, linear layer or norm.
        """
        generator = draw.generator(role, next(module.parameters()).device)
        with torch.no_grad():
            for part in module.modules():
                _reset(part, generator)

    def new(
        self, shape: Shape, classes: int, draw: Draw, role: str = "network", device: torch.device | str = "cpu"
    ) -> FeatureNetwork:
        """A module on ``device`` with fresh weights, in training mode."""
        module: FeatureNetwork = self.build(shape, classes).to_empty(device=device)
        self.fill_(module, draw, role)
        return module


def _reset(part: nn.Module, generator: torch.Generator) -> None:
    """Initialise the tensors that ``part`` itself owns."""
    if isinstance(part, _ConvNd | nn.Linear):
        bound = 1 / math.sqrt(part.weight[0].numel())  # what kaiming_uniform_(a=sqrt(5)) comes to
        for tensor in part.parameters(recurse=False):
            tensor.uniform_(-bound, bound, generator=generator)
    elif isinstance(part, _BatchNorm | nn.GroupNorm | nn.LayerNorm):
        part.reset_parameters()
    elif any(True for _ in part.parameters(recurse=False)):
        raise ConfigError(f"no fresh weights known for a layer {type(part).__name__}: override fill_ in the recipe")


def check_sizes(shape: Shape, classes: int) -> None:
    """Raise ConfigError for image shapes and numbers of classes that no network has."""
    refuse(
        None if len(shape) == 3 and min(shape) >= 1 else f"image shape must be (C, H, W), all positive, got {shape}",
        None if classes >= 1 else f"a network needs at least 1 class, got {classes}",
    )


def check_known(kind: str, value: str, known: Iterable[str]) -> None:
    """Raise ConfigError for an option value that is not among the known ones."""
    known = tuple(known)
    if value not in known:
        raise unknown(kind, value, known)


@dataclass(frozen=True)
class ConvNet(Network):
    """The field's ConvNet: ``depth`` blocks of 3x3 convolution, norm, activation and 2x2 pooling.

    Gidaris and Komodakis (CVPR 2018), as Zhao, Mopuri and Bilen use it (Dataset Condensation, ICLR 2021).
    At 32x32 and 10 classes: 320,010 parameters, an embedding of 2,048. As in their code, 28x28 images of
    one channel are padded to 32x32 by the first convolution.

    Args:
        width: Channels of every block, at least 1.
        depth: Blocks; None fits it to the image, so that the last map is 3 to 5 pixels wide:
            1 at 8x8, 3 at 28x28 and 32x32, 4 at 64x64, 5 at 128x128. (Without pooling: the same number.)
        activation: ``relu``, ``leakyrelu`` (slope 0.01), ``sigmoid`` or ``swish``.
        norm: ``instance`` (one group per channel, affine), ``batch``, ``layer`` (over C, H and W),
            ``group`` (4 groups) or ``none``.
        pooling: ``avg``, ``max`` or ``none``.

    Raises:
        ConfigError: An unknown option or a size out of range; in ``build``, a depth with no map left.
    """

    width: int = 128
    depth: int | None = None
    activation: str = "relu"
    norm: str = "instance"
    pooling: str = "avg"

    def __post_init__(self) -> None:
        check_known("activation", self.activation, ACTIVATIONS)
        check_known("norm", self.norm, NORMS)
        check_known("pooling", self.pooling, POOLINGS)
        refuse(whole("width", self.width, 1), None if self.depth is None else whole("depth", self.depth, 1))
        ungrouped = self.norm == "group" and self.width % 4
        refuse(f"norm='group' needs a width divisible by 4, got {self.width}" if ungrouped else None)

    @property
    def name(self) -> str:
        """``ConvNet``, or say ``ConvNet-d4-w64-batch-max``."""
        options = (
            (self.depth, None, f"d{self.depth}"),
            (self.width, 128, f"w{self.width}"),
            (self.norm, "instance", "nonorm" if self.norm == "none" else self.norm),
            (self.activation, "relu", self.activation),
            (self.pooling, "avg", "nopool" if self.pooling == "none" else self.pooling),
        )
        return "-".join(["ConvNet", *(text for value, default, text in options if value != default)])

    def build(self, shape: Shape, classes: int) -> FeatureNetwork:
        """See :meth:`Network.build`."""
        check_sizes(shape, classes)
        channels, height, width = shape
        padding = 3 if shape == (1, 28, 28) else 1
        height, width = height + 2 * padding - 2, width + 2 * padding - 2
        depth = self._depth(height, width)
        layers: list[nn.Module] = []
        with torch.device("meta"):
            for block in range(depth):
                layers += [
                    _Conv(channels, self.width, 3, padding=1 if block else padding),
                    NORMS[self.norm]((self.width, height, width)),
                    ACTIVATIONS[self.activation](),
                    POOLINGS[self.pooling](),
                ]
                channels = self.width
                if self.pooling != "none":
                    height, width = height // 2, width // 2
            classifier = nn.Linear(channels * height * width, classes)
        return FeatureNetwork(nn.Sequential(*layers), classifier, shape)

    def _depth(self, height: int, width: int) -> int:
        """The number of blocks for maps of this size before the first pooling."""
        size = min(height, width)
        depth = max(1, round(math.log2(size / 4))) if self.depth is None else self.depth
        if self.pooling != "none" and size >> depth == 0:
            largest = size.bit_length() - 1
            way_out = f"use a depth of at most {largest}, or pooling='none'" if largest else "use pooling='none'"
            raise ConfigError(f"depth={depth} leaves nothing of a {height}x{width} image: {way_out}")
        return depth


class _Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., CVPR 2016, the basic block)."""

    def __init__(self, before: int, width: int, stride: int, norm: Callable[[Shape], nn.Module]) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(before, width, 3, stride, padding=1, bias=False),
            norm((width, 0, 0)),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            norm((width, 0, 0)),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or before != width:
            self.shortcut.extend([nn.Conv2d(before, width, 1, stride, bias=False), norm((width, 0, 0))])

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.main(x) + self.shortcut(x))


@dataclass(frozen=True)
class ResNet18(Network):
    """ResNet-18 for small images: 3x3 stem, no max-pooling (11,173,962 parameters for 3 channels, 10 classes).

    Where the authors of Dataset Condensation pool 4x4 windows at the end, this takes the mean of the whole
    map: the same at 32x32, and right at any other size.

    Args:
        norm: ``batch``, or ``instance``, which leaves the network separable.
        width: Channels of the first stage; the others have 2, 4 and 8 times as many.

    Raises:
        ConfigError: An unknown norm, a width below 1; in ``build``, instance norm on images below 9x9,
            whose last maps are one pixel: normalising that leaves nothing.
    """

    norm: str = "batch"
    width: int = 64

    def __post_init__(self) -> None:
        check_known("norm", self.norm, ("batch", "instance"))
        refuse(whole("width", self.width, 1))

    @property
    def name(self) -> str:
        """``ResNet18``, or say ``ResNet18-w16-instance``."""
        shown = [] if self.width == 64 else [f"w{self.width}"]
        return "-".join(["ResNet18", *shown, *([] if self.norm == "batch" else [self.norm])])

    def build(self, shape: Shape, classes: int) -> FeatureNetwork:
        """See :meth:`Network.build`."""
        check_sizes(shape, classes)
        if self.norm == "instance" and max(shape[1:]) < 9:
            raise ConfigError(f"ResNet18 with norm='instance' needs images of 9x9 or more, got {shape[1]}x{shape[2]}")
        norm, width = NORMS[self.norm], self.width
        with torch.device("meta"):
            body = nn.Sequential(
                nn.Conv2d(shape[0], width, 3, padding=1, bias=False), norm((width, 0, 0)), nn.ReLU(inplace=True)
            )
            for stage, before in enumerate((width, width, 2 * width, 4 * width)):
                after = width << stage
                body.extend([_Residual(before, after, 2 if stage else 1, norm), _Residual(after, after, 1, norm)])
            body.append(nn.AdaptiveAvgPool2d(1))
            classifier = nn.Linear(8 * width, classes)
        return FeatureNetwork(body, classifier, shape)


@dataclass(frozen=True)
class TorchvisionNetwork(Network):
    """Any classifier of ``torchvision.models``, untrained, with the constructor's own initialisation.

    The embedding is the input of its last linear layer. Dropout and stochastic depth are switched off:
    they would draw from the global generator. A replaced first convolution (other than 3 channels, or
    ``small_stem``) has torch's default initialisation.

    Args:
        model: A name from ``torchvision.models``.
        small_stem: For small images: the first convolution becomes 3x3 with stride 1, and a max-pooling
            right after it, where there is one, is left out.

    Raises:
        ConfigError: An unknown model; in ``build``, one that ends in no linear layer or does not fit the images.
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
            raise ConfigError(f"torchvision's {self.model} does not fit {size} images: {error}") from error
        return module.train()

    def fill_(self, module: FeatureNetwork, draw: Draw, role: str) -> None:
        """Construct the model anew under its own key and copy every tensor, in place."""
        with isolated(draw.key(role)):
            fresh = self._construct(module.shape, module.classifier.out_features)
        with torch.no_grad():
            for old, new in zip(_tensors(module), _tensors(fresh), strict=True):
                old.copy_(new)

    def _construct(self, shape: Shape, classes: int) -> FeatureNetwork:
        from torchvision import models
        from torchvision.ops import StochasticDepth

        model: nn.Module = models.get_model(self.model, weights=None, num_classes=classes, **self._options(shape))
        for part in model.modules():
            if isinstance(part, _DropoutNd | StochasticDepth):
                part.p = 0.0
        self._fit_stem(model, shape[0])
        linear = {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear)}
        if not linear:
            raise ConfigError(f"torchvision's {self.model} ends in no linear layer: choose another model")
        name, classifier = linear.popitem()
        model.set_submodule(name, nn.Identity())
        return FeatureNetwork(model, classifier, shape)

    def _options(self, shape: Shape) -> dict[str, Any]:
        """What some constructors must be told."""
        if self.model in ("googlenet", "inception_v3"):
            return {"aux_logits": False, "init_weights": True}
        if self.model.startswith("vit_"):
            return {"image_size": shape[1]}
        return {"input_size": shape[1:]} if self.model.startswith("maxvit") else {}

    def _fit_stem(self, model: nn.Module, channels: int) -> None:
        """Exchange the first convolution where the images or ``small_stem`` ask for another."""
        if channels == 3 and not self.small_stem:
            return
        name, conv = next((n, part) for n, part in model.named_modules() if isinstance(part, nn.Conv2d))
        form: dict[str, Any] = {"kernel_size": 3, "stride": 1, "padding": 1}
        if not self.small_stem:
            form = {"kernel_size": conv.kernel_size, "stride": conv.stride, "padding": conv.padding}
        elif isinstance(getattr(model, "maxpool", None), nn.MaxPool2d):
            model.maxpool = nn.Identity()
        model.set_submodule(name, nn.Conv2d(channels, conv.out_channels, **form, bias=conv.bias is not None))


def _tensors(module: nn.Module) -> Iterable[Tensor]:
    """Every parameter and buffer, in the order of construction."""
    yield from module.parameters()
    yield from module.buffers()
