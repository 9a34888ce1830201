"""Captured functions of one network on a GPU: CUDA graphs, each started by one launch instead of one per kernel."""

from __future__ import annotations

import copy
import logging
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from condensekit.compute import graph
from condensekit.compute.eager import Loss, embedded, learnt, pulled, trained
from condensekit.compute.graph import Unfit
from condensekit.networks.base import FeatureNetwork

log = logging.getLogger(__name__)
MOST = 32  # sizes of calls that are captured
WARM_UP = 3  # calls before a capture, in which libraries choose kernels and take their memory
CLOSE = 0.01  # largest difference between a graph and the network, as a share of the result's norm
Function = Callable[..., Tensor]


class Captured:
    """The functions of one network, captured when a size of calls comes again; from one thread at a time.

    The interface is that of :class:`condensekit.compute.native.Native`. A graph holds addresses of memory: inputs are
    copied there, results are copied away, and the weights are read where they lie, so that they may change in place.
    Nothing of a call is needed later; so all graphs of the network share their memory, and the way back computes the
    way ahead again.

    What cannot be captured is told in one line of the log, and all functions are None from then on.

    Args:
        module: The network; it must not have batch norm.
        chunk: Most images of a call; 0: no limit.

    Attributes:
        graphs: The graphs, by function and size.
    """

    def __init__(self, module: FeatureNetwork, chunk: int) -> None:
        self._network = weakref.ref(module)  # so that the network can go, and its graphs with it at once
        self.chunk = chunk
        self._places = self._addresses()
        self._seen: set[Hashable] = set()
        self.graphs: dict[Hashable, _Graph] = {}
        self._failed = False

    def embed(self, example: Tensor, low: bool) -> Callable[[Tensor, Sequence[Tensor]], Tensor] | None:
        """The function (chunk (n, C, H, W), weights) -> embeddings (n, D)."""
        network = self._network

        @torch.no_grad()
        def function(images: Tensor) -> Tensor:
            return embedded(_present(network), images, low)

        found = self._get(("embed", low, example.shape), function, lambda: [example])
        return None if found is None else lambda chunk, weights: found(chunk)

    def pullback(
        self, example: Tensor, low: bool
    ) -> tuple[Callable[[Tensor, Sequence[Tensor]], tuple[Tensor, Tensor]], Callable[[Tensor, Tensor], Tensor]] | None:
        """The functions (chunk, weights) -> (embeddings (n, D), saved), and (saved, gradient) -> that of the chunk."""
        network = self._network

        def function(images: Tensor, gradient: Tensor) -> Tensor:
            return pulled(_present(network), images, gradient, low)

        def examples() -> list[Tensor]:
            return [example, example.new_ones(len(example), self._module.feature_dim)]

        ahead, back = self.embed(example, low), self._get(("pull", low, example.shape), function, examples)
        if ahead is None or back is None:
            return None
        return lambda chunk, weights: (ahead(chunk, weights), chunk), back

    def lesson(
        self, example: Tensor, targets: Tensor, loss: Loss, low: bool, count: int
    ) -> Callable[[Tensor, Tensor, Sequence[Tensor]], tuple[Tensor, list[Tensor]]] | None:
        """The function (chunk, targets, weights) -> (losses / count, gradients of the trained weights)."""
        network, shapes = self._network, [p.shape for p in trained(self._module)]

        def function(images: Tensor, wanted: Tensor) -> Tensor:
            value, gradients = learnt(_present(network), images, wanted, loss, low, count)
            return torch.cat([value.reshape(1), *(g.flatten() for g in gradients)])  # one tensor to copy away

        frozen = tuple(not p.requires_grad for p in self._module.parameters())
        key = ("lesson", low, example.shape, targets.shape, targets.dtype, loss, count, frozen)
        found = self._get(key, function, lambda: [example, targets], loss)
        if found is None:
            return None

        def learn(chunk: Tensor, targets: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
            value, *gradients = found(chunk, targets).split([1, *(shape.numel() for shape in shapes)])
            return value[0], [g.view(shape) for g, shape in zip(gradients, shapes, strict=True)]

        return learn

    def weights(self) -> list[Tensor]:
        """No weights: graphs read them where they lie."""
        return []

    @property
    def _module(self) -> FeatureNetwork:
        return _present(self._network)

    def _addresses(self) -> list[int]:
        return [value.data_ptr() for value in (*self._module.parameters(), *self._module.buffers())]

    def _get(
        self,
        key: tuple[Any, ...],
        function: Function,
        examples: Callable[[], Sequence[Tensor]],
        loss: Loss | None = None,
    ) -> Function | None:
        """The function for inputs as large as the examples, from its graph; None: it is called as it is.

        Args:
            key: What the graph depends on: the name of the function, whether it computes in bfloat16, sizes and others.
            function: Tensors -> a tensor.
            examples: Gives inputs for the capture.
            loss: That of a gradient step.
        """
        if not self._failed and self._addresses() != self._places:
            self._fail("its weights moved to other memory")
        if self._failed:
            return None
        key = (*key, *(part.training for part in self._module.modules()))
        if key not in self._seen:
            if len(self._seen) < MOST:
                self._seen.add(key)
            return None
        if key not in self.graphs:
            try:
                given, other = examples(), next(iter(self.graphs.values()), None)
                self._check(given, key[1], loss)
                self.graphs[key] = _Graph(function, given, other)
            except Unfit as reason:
                self._fail(str(reason))
            except torch.OutOfMemoryError:
                self._fail("the GPU has too little memory for a graph")
            except Exception as error:  # whatever a network does that cannot be captured
                self._fail(f"it cannot be captured ({type(error).__name__})")
        return self.graphs.get(key)

    def _fail(self, reason: str) -> None:
        log.warning("the network is not compiled, because %s", reason)
        self._failed = True
        self.graphs.clear()

    def _check(self, examples: Sequence[Tensor], low: bool, loss: Loss | None) -> None:
        """Raise Unfit for a network without a fixed graph, whose failed capture could leave the GPU in disorder."""
        host = _on_host(self._module)
        images, *rest = (torch.zeros(2, *value.shape[1:], dtype=value.dtype) for value in examples)
        if loss:
            graph.lesson(host, loss, [images, *rest, torch.ones(2)], low)
        else:
            graph.embedding(host, images, low)


class _Graph:
    """One function as a CUDA graph; inputs of other sizes go through the function itself.

    Args:
        function: Tensors -> a tensor, from operations on the GPU alone.
        examples: Its first inputs.
        other: A graph of the same network, whose memory it shares.

    Raises:
        Unfit: The graph does not give what the function gives.
    """

    def __init__(self, function: Function, examples: Sequence[Tensor], other: _Graph | None) -> None:
        self._function = function
        self._inputs = [value.detach().clone() for value in examples]
        device = self._inputs[0].device
        current = torch.cuda.current_stream(device)
        self._stream: torch.cuda.Stream = other._stream if other else torch.cuda.Stream(device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):  # torch's own context leaves its stream in place if a capture fails
                for _ in range(WARM_UP):
                    function(*self._inputs)
                self._graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self._graph, pool=other._graph.pool() if other else None, stream=self._stream):
                    self._output = function(*self._inputs)
        finally:
            current.wait_stream(self._stream)
        self._compare([(value.flip(0) * 0.5).to(value.dtype) for value in self._inputs])

    def __call__(self, *values: Tensor) -> Tensor:
        if any(value.shape != own.shape for value, own in zip(values, self._inputs, strict=True)):
            return self._function(*values)
        for value, own in zip(values, self._inputs, strict=True):
            own.copy_(value.detach())
        self._graph.replay()
        return self._output.clone()

    def _compare(self, values: Sequence[Tensor]) -> None:
        expected, got = self._function(*values), self(*values)
        apart = (got - expected).norm()
        if not bool((apart <= CLOSE * expected.norm()) | apart.isnan()):  # a network may overflow
            raise Unfit("its CUDA graph gives other values than the network")


def _present(network: weakref.ref[FeatureNetwork]) -> FeatureNetwork:
    module = network()
    assert module is not None
    return module


def _on_host(module: FeatureNetwork) -> FeatureNetwork:
    """A copy of the network on the CPU, full of zeros."""
    there: dict[int, Any] = {
        id(p): nn.Parameter(torch.zeros(p.shape, dtype=p.dtype), requires_grad=p.requires_grad)
        for p in module.parameters()
    }
    there |= {id(b): torch.zeros(b.shape, dtype=b.dtype) for b in module.buffers()}
    return copy.deepcopy(module, there)
