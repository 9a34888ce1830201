"""Compiled functions of one network on a CPU, for chunks of one size."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule

from condensekit.compute import graph
from condensekit.compute.eager import Loss, padded
from condensekit.compute.graph import Unfit, laid_out, weights_of
from condensekit.compute.library import Library, Patience, libraries
from condensekit.networks.base import FeatureNetwork

log = logging.getLogger(__name__)
CACHED = 1 << 19  # values of the largest map of a chunk: 2 MiB


class Saved(NamedTuple):
    """What the way back of one chunk needs."""

    values: list[Tensor]
    images: int


class Native:
    """The functions of one network, compiled at their first call; they may be called from several threads at once.

    A function that cannot be compiled is told in one line of the log, and is None from then on.

    Args:
        module: The network; it must not have batch norm. Its weights are read anew by :meth:`weights`.
        most: Most images of a call.
        copies: Calls that may run at the same time.
        patience: How long a build may take.

    Attributes:
        chunk: Images of a call, as many as leave the largest map of the network in the cache; fewer are filled up.
    """

    def __init__(self, module: FeatureNetwork, most: int, copies: int, patience: Patience) -> None:
        self._network = weakref.ref(module)  # so that the network can go
        self.chunk, self._copies, self._patience = most, copies, patience
        with suppress(Unfit):  # told at the first call
            two = graph.embedding(module, laid_out(torch.zeros(2, *module.shape)), low=False)
            self.chunk = min(most, max(2, 2 * CACHED // graph.largest(two)))
        self._made: dict[object, dict[str, Library] | None] = {}
        self._lock = threading.Lock()

    def embed(self, example: Tensor, low: bool) -> Callable[[Tensor, Sequence[Tensor]], Tensor] | None:
        """The function (chunk (n, C, H, W), weights) -> embeddings (n, D)."""
        given = self._full(example)
        made = self._get(("plain", low), lambda: (graph.embedding(self._module, given, low), [given]))
        if made is None:
            return None
        run = made["run"]
        return lambda chunk, weights: run(self._full(chunk), *weights)[0][: len(chunk)]

    def pullback(
        self, example: Tensor, low: bool
    ) -> tuple[Callable[[Tensor, Sequence[Tensor]], tuple[Tensor, Saved]], Callable[[Saved, Tensor], Tensor]] | None:
        """The functions (chunk, weights) -> (embeddings (n, D), saved), and (saved, gradient) -> that of the chunk."""
        given = self._full(example).requires_grad_()
        made = self._get(("pullback", low), lambda: (graph.embedding(self._module, given, low), [given]))
        if made is None:
            return None
        ahead, back = made["forward"], made["backward"]

        def forward(chunk: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Saved]:
            features, *values = ahead(self._full(chunk), *weights)
            return features[: len(chunk)], Saved(values, len(chunk))

        def backward(saved: Saved, gradient: Tensor) -> Tensor:
            return back(*saved.values, padded(gradient, self.chunk).contiguous())[0][: saved.images]

        return forward, backward

    def lesson(
        self, example: Tensor, targets: Tensor, loss: Loss, low: bool, count: int
    ) -> Callable[[Tensor, Tensor, Sequence[Tensor]], tuple[Tensor, list[Tensor]]] | None:
        """The function (chunk, targets, weights) -> (losses / count, gradients of the trained weights)."""
        size = self.chunk
        given = [self._full(example), padded(targets, size), torch.ones(size)]
        key = ("gradient", low, targets.dtype, targets.shape[1:], loss)
        made = self._get(key, lambda: (graph.lesson(self._module, loss, given, low), given))
        if made is None:
            return None
        run = made["run"]

        def learn(chunk: Tensor, targets: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
            shares = torch.zeros(size)
            shares[: len(chunk)] = 1 / count
            value, *gradients = run(self._full(chunk), padded(targets, size), shares, *weights)
            return value, gradients

        return learn

    @property
    def _module(self) -> FeatureNetwork:
        module = self._network()
        assert module is not None
        return module

    def weights(self) -> list[Tensor]:
        """The present weights in the layout of the functions."""
        return weights_of(self._module)

    def _full(self, images: Tensor) -> Tensor:
        return laid_out(padded(images.detach(), self.chunk))

    def _get(
        self, key: tuple[object, ...], draw: Callable[[], tuple[GraphModule, Sequence[Tensor]]]
    ) -> dict[str, Library] | None:
        """The compiled functions of a graph, which ``draw`` gives with its first inputs."""
        key = (*key, self._module.training)
        with self._lock:
            if key not in self._made:
                self._made[key] = self._build(str(key[0]), draw)
            return self._made[key]

    def _build(self, kind: str, draw: Callable[[], tuple[GraphModule, Sequence[Tensor]]]) -> dict[str, Library] | None:
        try:
            drawn, given = draw()
            trained = [p.requires_grad and kind == "gradient" for p in self._module.parameters()]
            weights = [
                w.requires_grad_() if wanted else w
                for w, wanted in zip(self.weights(), [*trained, *(False for _ in self._module.buffers())], strict=True)
            ]
            return libraries(kind, drawn, [*given, *weights], self._copies, self._patience)
        except Unfit as reason:
            log.warning("the network is not compiled, because %s", reason)
            return None
