"""Compute: networks run in chunks on worker threads, with a count of their work.

On a CPU, a batch is cut into chunks that fit the cache and run on one-thread workers: several times faster than one
large batch with many threads in each operation. On a GPU, one large batch is fastest. A network without batch norm
gives the same result either way. A network with batch norm does not, so its batches are never cut.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from condensekit.compute.captured import Captured
from condensekit.compute.eager import Loss, called, embedded, learnt, trained
from condensekit.compute.library import Patience
from condensekit.compute.machine import Machine
from condensekit.compute.modes import keep_freed_memory, usual_modes
from condensekit.compute.native import Native
from condensekit.compute.work import Spent
from condensekit.errors import ConfigError, instance, refuse
from condensekit.networks.base import FeatureNetwork, separable
from condensekit.networks.cost import PASSES

log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")
Graph = tuple[Tensor, Tensor]  # a leaf, and the output computed from it

WORTH = 3e13  # operations from which on compiling pays on a CPU: five minutes on two cores
ROOM = 0.5  # the largest share of the free memory of a GPU that images may take which are kept there
TOLD = "the network is compiled: a minute or two, once for each network"
KEPT_VALUES = 72_000_000  # outputs of all layers for a batch whose graphs are kept: 128 images, ConvNet of width 128
PART_PIXELS = 16384 * 32 * 32  # of the images that go through a network on a GPU at once


class Compute:
    """Runs networks on a :class:`Machine`, and counts their work. Use it as a context manager, or :meth:`close` it.

    As a context manager, it also sets torch's usual modes, see :func:`usual_modes`.

    Every method may be called from inside :meth:`map`; it then stays on that worker.

    Args:
        machine: Device, precision and parallelism.
        size: (height, width) of the images; it decides the size of chunks.

    Attributes:
        machine: The machine with the values for ``auto`` and None filled in.
        patience: How long compiling may take.
    """

    def __init__(self, machine: Machine = Machine(), size: tuple[int, int] = (32, 32)) -> None:  # noqa: B008 - frozen
        refuse(instance("machine", machine, Machine, "Machine('cpu')"))
        self.machine = machine = machine.resolved(size)
        self.device = torch.device(machine.device)
        self.patience = Patience()
        self.chunk = int(machine.chunk or 0)  # halved when a GPU runs out of memory
        self._short = False  # whether a GPU has run out of memory
        self._local = threading.local()
        workers = int(machine.workers or 0)
        self._pool = ThreadPoolExecutor(workers, initializer=self._start_worker) if workers else None
        self._compiled: WeakKeyDictionary[FeatureNetwork, Native | Captured] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._spent = Spent()
        self._modes: list[ExitStack] = []
        if workers:
            keep_freed_memory()

    @property
    def spent(self) -> Spent:
        """The work of all networks so far."""
        return self._spent

    @property
    def spent_here(self) -> Spent:
        """The work so far that was asked for in this thread."""
        return getattr(self._local, "spent", Spent())

    @property
    def graphs(self) -> int:
        """The number of CUDA graphs that it holds."""
        return sum(len(one.graphs) for one in self._compiled.values() if isinstance(one, Captured))

    def expect(self, flops: float) -> bool:
        """Decide whether networks are compiled from now on, if the machine leaves it open.

        Args:
            flops: Operations that are left; see :class:`Spent`. So the decision is the same in each repetition.

        Returns:
            Whether a compiler will work from now on; :data:`TOLD` says so to people.
        """
        if self.machine.compiled is not None:
            return False
        on_cpu = self.device.type == "cpu"  # to capture takes a GPU a second, and waits for a second call of a size
        self.machine = replace(self.machine, compiled=flops >= (WORTH if on_cpu else 1))
        return bool(self.machine.compiled) and on_cpu

    def holds(self, values: Tensor) -> bool:
        """Whether a GPU has memory for values that lie elsewhere, and as much again for its work."""
        if self.device.type != "cuda" or values.device.type == "cuda":
            return False
        return values.numel() * values.element_size() <= ROOM * torch.cuda.mem_get_info(self.device)[0]

    def count(self, module: FeatureNetwork, images: int, passes: int) -> None:
        """Add ``images`` through a network to :attr:`spent`; each costs as much as ``passes`` forward passes."""
        work = Spent(images, images * passes * module.flops)
        self._local.spent = self.spent_here + work
        with self._lock:
            self._spent += work

    def __enter__(self) -> Compute:
        self._modes.append(stack := ExitStack())
        stack.enter_context(usual_modes())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._modes.pop().close()
        self.close()
        if isinstance(error, torch.OutOfMemoryError):
            raise ConfigError(
                f"out of memory on {self.device}: lower the real batch or ipc, use a smaller network, or device='cpu'"
            ) from error

    def close(self) -> None:
        """Stop the workers, and the compiler that one of them may wait for."""
        self.patience.end()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _start_worker(self) -> None:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)  # see without_subnormals
        self._local.worker = True

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """``[function(item) for item in items]``, in order, on the workers if there are workers."""
        if self._pool is None or getattr(self._local, "worker", False):
            return [function(item) for item in items]
        return list(self._pool.map(function, items))

    def features(self, module: FeatureNetwork, images_NCHW: Tensor) -> Tensor:  # noqa: N803
        """Embed images without a graph.

        Args:
            module: A network with ``features``.
            images_NCHW: (N, C, H, W) float32, normalised.

        Returns:
            (N, D) float32. If a GPU runs out of memory, the chunk is halved and the pass is repeated.

        Raises:
            ConfigError: Out of memory with a network whose batch cannot be cut, because it has batch norm.
        """
        low = self.machine.precision in ("mixed", "bf16")
        self.count(module, len(images_NCHW), 1)
        return self._fitting(
            module, len(images_NCHW), lambda: self._embed_all(module, self._split(module, images_NCHW), low)
        )

    def logits(self, module: FeatureNetwork, images_NCHW: Tensor) -> Tensor:  # noqa: N803
        """(N, classes) float32 outputs of the network in evaluation mode, without a graph."""

        def one(chunk: Tensor) -> Tensor:
            with torch.no_grad():
                return called("forward", module, chunk, self.machine.precision == "bf16")

        self.count(module, len(images_NCHW), 1)
        return self._fitting(
            module, len(images_NCHW), lambda: torch.cat(self.map(one, self._split(module, images_NCHW)))
        )

    def pullback(self, module: FeatureNetwork, images_NCHW: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:  # noqa: N803
        """Embed images, and return the function that takes a gradient of the embeddings back to the images.

        Both work chunk by chunk. The graphs of a small batch are kept. The graphs of a large batch are built
        again in the backward pass, so that memory does not grow with the batch.

        Args:
            module: A network with ``features`` whose parameters need no gradient.
            images_NCHW: (N, C, H, W) float32, normalised.

        Returns:
            features (N, D) float32, detached; and ``pull``: (N, D) -> (N, C, H, W).
        """
        self.count(module, len(images_NCHW), PASSES)
        features, back = self._fitting(module, len(images_NCHW), lambda: self._there(module, images_NCHW))
        ways = [back]

        def pull(gradient: Tensor) -> Tensor:
            def again() -> Tensor:
                return (ways.pop() if ways else self._there(module, images_NCHW)[1])(gradient)

            return self._fitting(module, len(images_NCHW), again)

        return features, pull

    def backprop(
        self,
        module: FeatureNetwork,
        images_NCHW: Tensor,  # noqa: N803
        targets: Tensor,
        loss: Loss,
    ) -> Tensor:
        """Compute the mean loss over a batch, and add its gradients to the parameters' ``grad``.

        Args:
            module: A network whose parameters need gradients; unused parameters get gradients of 0.
            images_NCHW: (N, C, H, W) float32, normalised.
            targets: (N, ...) second argument of ``loss``.
            loss: (logits (n, K), targets (n, ...)) -> (n,) losses.

        Returns:
            The mean loss, detached.
        """
        total, low = len(images_NCHW), self.machine.precision == "bf16"

        def parts() -> list[tuple[Tensor, Sequence[Tensor]]]:
            cut = self.chunk and separable(module)  # workers must not matter: a sum over chunks depends on the cuts
            compiled = self._functions(module)
            chunks = images_NCHW.split((compiled.chunk if compiled else self.chunk) if cut else total)
            pairs = list(zip(chunks, targets.split([len(c) for c in chunks]), strict=True))
            learn = compiled.lesson(*pairs[0], loss, low, total) if compiled else None
            weights = compiled.weights() if compiled else []

            def one(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
                return learn(*pair, weights) if learn else learnt(module, *pair, loss, low, total)

            return self.map(one, pairs)

        self.count(module, total, PASSES)
        mean = torch.zeros((), device=self.device)
        for value, gradients in self._fitting(module, total, parts):
            mean = mean + value
            for parameter, gradient in zip(trained(module), gradients, strict=True):
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return mean

    def _functions(self, module: FeatureNetwork) -> Native | Captured | None:
        """The compiled functions of a network; None where it is not compiled."""
        on_gpu = self.device.type == "cuda"
        if not self.machine.compiled or not separable(module) or not (self.chunk or on_gpu):
            return None
        with self._lock:
            if module not in self._compiled:
                copies = max(1, self.machine.workers or 0)
                self._compiled[module] = (
                    Captured(module, self.chunk) if on_gpu else Native(module, self.chunk, copies, self.patience)
                )
            return self._compiled[module]

    def _split(self, module: FeatureNetwork, images: Tensor) -> Sequence[Tensor]:
        """Chunks that keep every worker busy, or fit a GPU; the whole batch for a network with batch norm."""
        if not separable(module) or (self.chunk == 0 and self.device.type != "cuda"):
            return [images]
        if self.chunk == 0:
            return list(images.split(max(2, PART_PIXELS // (images.shape[-2] * images.shape[-1]))))
        if compiled := self._functions(module):
            return list(images.split(compiled.chunk))
        share = max(2, -(-len(images) // max(1, self.machine.workers or 0)))
        return list(images.split(min(self.chunk, share)))

    def _embed_all(self, module: FeatureNetwork, chunks: Sequence[Tensor], low: bool) -> Tensor:
        compiled = self._functions(module)
        embed = compiled.embed(chunks[0], low) if compiled else None
        weights = compiled.weights() if compiled else []

        def one(chunk: Tensor) -> Tensor:
            if embed:
                return embed(chunk, weights)
            with torch.no_grad():
                return embedded(module, chunk, low)

        return torch.cat(self.map(one, chunks))

    def _there(self, module: FeatureNetwork, images: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The embeddings of a batch, and the way back from their gradient."""
        low = self.machine.precision == "bf16"
        chunks = self._split(module, images)
        keep = not self._short and len(images) * module.values <= KEPT_VALUES
        forward, backward = self._both_ways(module, chunks[0], low)
        sizes = [len(chunk) for chunk in chunks]

        def again(item: tuple[Tensor, Tensor]) -> Tensor:
            return backward(forward(item[0])[1], item[1])

        if keep or len(chunks) == 1:
            kept = self.map(forward, chunks)
            features, graphs = torch.cat([output for output, _ in kept]), [graph for _, graph in kept]
            return features, lambda gradient: torch.cat(
                self.map(lambda item: backward(*item), list(zip(graphs, gradient.split(sizes), strict=True)))
            )
        features = self._embed_all(module, chunks, low)
        return features, lambda gradient: torch.cat(
            self.map(again, list(zip(chunks, gradient.split(sizes), strict=True)))
        )

    def _both_ways(
        self, module: FeatureNetwork, example: Tensor, low: bool
    ) -> tuple[Callable[[Tensor], tuple[Tensor, Any]], Callable[[Any, Tensor], Tensor]]:
        """The functions chunk -> (embeddings, graph), and (graph, gradient of the embeddings) -> that of the chunk."""
        compiled = self._functions(module)
        if compiled and (both := compiled.pullback(example, low)):
            ahead, back = both
            weights = compiled.weights()
            return lambda chunk: ahead(chunk, weights), back

        def forward(chunk: Tensor) -> tuple[Tensor, Graph]:
            leaf = chunk.detach().requires_grad_()
            output = embedded(module, leaf, low)
            return output.detach(), (leaf, output)

        def backward(graph: Graph, gradient: Tensor) -> Tensor:
            leaf, output = graph
            return torch.autograd.grad(output, leaf, gradient)[0]

        return forward, backward

    def _fitting(self, module: FeatureNetwork, batch: int, run: Callable[[], R]) -> R:
        """The result of ``run``, which is called again with smaller chunks each time a GPU runs out of memory."""
        while True:
            with suppress(torch.OutOfMemoryError):  # whose tensors are gone after this clause
                return run()
            self._halve(module, batch)

    def _halve(self, module: FeatureNetwork, batch: int) -> None:
        """Halve the chunk after running out of memory, or raise the reason why that is impossible."""
        if not separable(module):
            raise ConfigError(
                f"out of memory on {self.device} with a network with batch norm, whose batch of {batch} images cannot "
                "be cut into chunks: lower the real batch, or use norm='instance'"
            )
        size = min(self.chunk, batch) if self.chunk else batch
        if size <= 2:
            raise ConfigError(f"out of memory on {self.device} even with 2 images at a time: use a smaller network")
        self.chunk, self._short = max(2, size // 2), True
        log.warning("out of memory: continuing with chunks of %d images", self.chunk)
        if self.device.type == "cuda":
            self.machine = replace(self.machine, compiled=False)  # graphs keep their memory
            self._compiled.clear()
            torch.cuda.empty_cache()
