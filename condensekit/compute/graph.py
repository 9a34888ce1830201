"""Graphs of a network's functions, written so that a compiler makes few passes over their values.

Weights are inputs of each graph, so that it holds for all networks of one architecture. All images and all weights of
convolutions are channels-last, the layout in which a CPU convolves.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, functionalize
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from condensekit.networks.base import FeatureNetwork, _AveragePool

aten = torch.ops.aten
_tracing = threading.Lock()  # a trace changes classes of torch for a moment, and must be the only one that does


class Unfit(Exception):  # noqa: N818 - a reason, which the caller tells
    """Why a function cannot be compiled here."""


def laid_out(value: Tensor) -> Tensor:
    """The tensor in the layout of the graphs: channels-last if it has four dimensions."""
    return value.contiguous(memory_format=torch.channels_last if value.ndim == 4 else torch.contiguous_format)


def weights_of(module: FeatureNetwork) -> list[Tensor]:
    """Parameters and buffers, in the order and layout in which the graphs take them."""
    return [laid_out(value.detach()) for value in (*module.parameters(), *module.buffers())]


def embedding(module: FeatureNetwork, images: Tensor, low: bool) -> GraphModule:
    """The graph (images, *weights) -> embeddings in float32; computed in bfloat16 if ``low``."""
    network = _Called(module, "features", low)

    def function(images: Tensor, *weights: Tensor) -> Tensor:
        return network.call(images, weights)

    return traced(function, [images, *weights_of(module)])


def largest(drawn: GraphModule) -> int:
    """The number of values of the largest result in a graph."""
    results = [node.meta.get("val") for node in drawn.graph.nodes if node.op == "call_function"]
    return max(result.numel() for result in results if isinstance(result, Tensor))


def lesson(
    module: FeatureNetwork, loss: Callable[[Tensor, Tensor], Tensor], examples: Sequence[Tensor], low: bool
) -> GraphModule:
    """The graph (images, targets, shares, *weights) -> the losses of all images, weighted by their shares and summed.

    Args:
        module: The network.
        loss: (logits (n, K), targets (n, ...)) -> (n,) losses.
        examples: Images (n, C, H, W), targets, and shares (n,).
        low: Whether the network computes in bfloat16.
    """
    network = _Called(module, "forward", low)

    def function(images: Tensor, targets: Tensor, shares: Tensor, *weights: Tensor) -> Tensor:
        return (loss(network.call(images, weights), targets) * shares).sum()

    return traced(function, [*examples, *weights_of(module)])


class _Called(nn.Module):
    """One function of a copy of a network, called with weights that are given."""

    def __init__(self, module: FeatureNetwork, entry: str, low: bool) -> None:
        super().__init__()
        self.network, self.entry, self.low = copy.deepcopy(module), entry, low
        self.names = [name for name, _ in (*self.named_parameters(), *self.named_buffers())]
        for part in list(self.modules()):
            for name, child in part.named_children():
                if isinstance(child, _AveragePool):  # its trick is for eager calls
                    setattr(part, name, nn.AvgPool2d(2))

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.low):
            output: Tensor = self.network(images) if self.entry == "forward" else self.network.features(images)
        return output.float()

    def call(self, images: Tensor, weights: Sequence[Tensor]) -> Tensor:
        output: Tensor = functional_call(self, dict(zip(self.names, weights, strict=True)), (images,))
        return output


def traced(function: Callable[..., Tensor], examples: Sequence[Tensor]) -> GraphModule:
    """The graph of a function of tensors.

    Raises:
        Unfit: It draws random numbers, reads values of tensors, or holds tensors that are no inputs.
    """
    try:
        with _tracing, torch.enable_grad():
            graph = make_fx(functionalize(function), decomposition_table=_TABLE, tracing_mode="fake")(*examples)
    except Exception as error:  # whatever a network does that has no graph
        raise Unfit(f"it has no fixed graph ({type(error).__name__})") from error
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            raise Unfit("it holds tensors that are neither parameters nor buffers")
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise Unfit(f"it draws random numbers ({node.target})")
    return graph


def _average_pool(
    x: Tensor,
    kernel: list[int],
    stride: list[int] | None = None,
    padding: list[int] | None = None,
    ceil: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Any:
    """Average pooling of 2 by 2 as the mean of a view, whose gradient needs no search for its window."""
    plain = list(kernel) == [2, 2] and list(stride or kernel) == [2, 2] and not any(padding or [0]) and not ceil
    if not plain or divisor:
        return NotImplemented
    height, width = x.shape[2] // 2, x.shape[3] // 2
    blocks = x[:, :, : 2 * height, : 2 * width].unflatten(3, (width, 2)).unflatten(2, (height, 2))
    pooled: Tensor = blocks.sum((3, 5)) * 0.25
    return pooled


_TABLE = {aten.avg_pool2d.default: _average_pool}
