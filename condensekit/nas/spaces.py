"""Search spaces by name, listed without building modules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nni.nas.nn.pytorch import ModelSpace
from torch import nn

from condensekit.networks import Shape
from condensekit.nas.trials import Architecture

NAMES = ("convnet", "convnet-small", "nasbench201")


def space(name: str, shape: Shape = (3, 32, 32), classes: int = 10, **options: Any) -> ModelSpace:
    """A space by name (:data:`NAMES`), or by import path ``module:Class``."""
    raise NotImplementedError


def convnet_space(
    shape: Shape,
    classes: int,
    *,
    depths: Sequence[int] = (1, 2, 3, 4),
    widths: Sequence[int] = (32, 64, 128, 256),
    activations: Sequence[str] = ("sigmoid", "relu", "leakyrelu"),
    norms: Sequence[str] = ("none", "batch", "layer", "instance", "group"),
    poolings: Sequence[str] = ("none", "max", "avg"),
) -> ModelSpace:
    """The grid of ConvNets; depths whose map would fall below 1x1 are dropped with a warning."""
    raise NotImplementedError


def enumerate_architectures(space: ModelSpace) -> Iterator[Architecture]:
    """Every architecture of the space, in its own order, without building modules."""
    raise NotImplementedError


def sample_architectures(space: ModelSpace, n: int, seed: int) -> list[Architecture]:
    """``n`` distinct architectures drawn uniformly; all of them where there are fewer."""
    raise NotImplementedError


def build(space: ModelSpace, architecture: Architecture, seed: int = 0) -> nn.Module:
    """The frozen module, with fresh weights that follow from ``seed``."""
    raise NotImplementedError


def fingerprint(space: ModelSpace) -> str:
    """A short text that differs between spaces."""
    raise NotImplementedError


def to_nasbench201(architecture: Architecture) -> str:
    """``|nor_conv_3x3~0|+|...|`` as benchmark tables write it."""
    raise NotImplementedError


def from_nasbench201(text: str) -> Architecture:
    """The inverse of :func:`to_nasbench201`."""
    raise NotImplementedError
