"""Machine and compute: device, precision, chunks, worker threads, compilation, and the count of image passes.

Nothing else in the package decides these. On a CPU the work is cut into cache-sized chunks that run on
one-thread workers (several times faster than one large batch with a thread pool inside each operation);
on a GPU one large batch is right. Instance-wise networks give the same result either way. Networks with
batch norm do not, so their batches are never cut.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor

from condensekit.errors import ConfigError, instance, refuse, whole
from condensekit.networks.base import FeatureNetwork, separable
from condensekit.networks.convnet import ConvNet
from condensekit.networks.cost import PASSES, Shape

log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")
Graph = tuple[Tensor, Tensor]  # a leaf and the output computed from it

PRECISIONS = ("fp32", "mixed", "bf16")
CHUNK_PIXELS = 16 * 32 * 32  # what fits a core's cache, in pixels of the input
SUBNORMAL = 1e-39  # in float32
KEPT_PIXELS = {"cpu": 128 * 32 * 32, "cuda": 16384 * 32 * 32}  # graphs kept between forward and backward


@dataclass(frozen=True)
class Machine:
    """Where networks run, and how exactly.

    On one device ``precision``, ``compiled`` and ``chunk`` change the last bits of a result; ``workers`` does not.

    Args:
        device: ``auto`` (CUDA, else Apple's MPS, else the CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        precision: ``fp32``; ``mixed`` (real images in bfloat16, synthetic ones in float32); ``bf16`` (both).
        compiled: Run networks through ``torch.compile``; then without workers, because the compiler keeps
            state for each thread. On a quiet CPU faster than the workers, on a busy one slower; takes up to a
            minute first.
        chunk: Images in one network call; 0 for the whole batch. None fits the cache on a CPU and takes whole
            batches elsewhere.
        workers: One-thread workers on a CPU; 0 computes in the calling thread. None takes torch's number of threads.

    Raises:
        ConfigError: A device that is not here, an unknown precision, a chunk of one image, no C++ compiler; all of
            them listed.
    """

    device: str = "auto"
    precision: str = "fp32"
    compiled: bool = False
    chunk: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        refuse(
            None if str(self.device) == "auto" else device_misfit(str(self.device)),
            None
            if self.precision in PRECISIONS
            else f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}",
            None if self.chunk is None else whole("chunk", self.chunk, 0),
            "chunk must be 0 (whole batch) or at least 2, got 1" if self.chunk == 1 else None,
            None if self.workers is None else whole("workers", self.workers, 0),
            instance("compiled", self.compiled, bool, "True or False"),
            "compiled=True needs a C++ compiler (g++ or clang++) on the PATH"
            if self.compiled is True and not can_compile()
            else None,
        )

    def resolved(self, size: tuple[int, int] = (32, 32)) -> Machine:
        """The same machine with nothing left open, for images of this (height, width)."""
        where = _best_device() if str(self.device) == "auto" else str(self.device)
        on_cpu = where == "cpu"
        chunk = self.chunk
        if chunk is None:
            chunk = max(2, min(256, CHUNK_PIXELS // (size[0] * size[1]))) if on_cpu else 0
        workers = torch.get_num_threads() if self.workers is None else int(self.workers)
        return Machine(where, self.precision, self.compiled, int(chunk), workers if on_cpu and not self.compiled else 0)

    @property
    def identity(self) -> dict[str, Any]:
        """What changes the bits of a result on the same device, as JSON values."""
        return {"precision": self.precision, "compiled": self.compiled, "chunk": self.chunk}

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; ``Machine(**record)`` reads it back."""
        return asdict(self)


@dataclass(frozen=True)
class Spent:
    """Work done by networks, which is the same on any machine.

    Args:
        images: Images put through a network; forward and backward together count once.
        flops: Operations; a backward pass counts as two forward passes.
    """

    images: int = 0
    flops: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.images + other.images, self.flops + other.flops)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.images - other.images, self.flops - other.flops)

    def passes(self, images: int, shape: Shape) -> dict[str, float]:
        """The work in passes over a training set.

        Args:
            images: Training images.
            shape: (C, H, W) of each.

        Returns:
            ``passes``: images put through a network for each training image. ``w128_passes``: operations in units
            of one forward pass of every training image through a ConvNet of depth 3 and width 128.
        """
        return {
            "passes": round(self.images / images, 4),
            "w128_passes": round(self.flops / (images * _reference_flops(shape)), 4),
        }


@lru_cache
def _reference_flops(shape: Shape) -> int:
    """Operations of one image's forward pass in the ConvNet of the papers, or the deepest that fits the image."""
    for depth in (3, 2, 1):
        with suppress(ConfigError):
            return ConvNet(depth=depth).build(shape, 10).flops
    return ConvNet(depth=1).build((shape[0], 8, 8), 10).flops


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def device_misfit(name: str) -> str | None:
    """Why nothing can be computed on the device called ``name`` (``auto`` is none); None where it can."""
    if not re.fullmatch(r"cpu|mps|cuda(:(0|[1-9][0-9]*))?", name):
        return f"unknown device {name!r}: use auto, cpu, cuda, cuda:N or mps"
    kind, _, index = name.partition(":")
    missing = {
        "cpu": None,
        "cuda": None if torch.cuda.is_available() else "no CUDA GPU",
        "mps": None if torch.backends.mps.is_available() else "no MPS",
    }[kind]
    if index and not missing and int(index) >= torch.cuda.device_count():
        missing = f"only {torch.cuda.device_count()} CUDA GPU, counted from cuda:0"
    return f"device {name!r} asked for, but torch sees {missing} here: use device='cpu' or 'auto'" if missing else None


def can_compile() -> bool:
    """Whether there is a C++ compiler, which compiled networks need."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None or shutil.which("clang++") is not None


class Compute:
    """Runs networks as a :class:`Machine` says, and counts what they do. Use as a context manager, or :meth:`close` it.

    Every method may be called from inside :meth:`map`; it then stays on that worker.

    Args:
        machine: Where to run.
        size: (height, width) of the images, for the size of chunks.

    Attributes:
        machine: The machine with nothing left open.
    """

    def __init__(self, machine: Machine = Machine(), size: tuple[int, int] = (32, 32)) -> None:
        refuse(instance("machine", machine, Machine, "Machine('cpu')"))
        self.machine = machine = machine.resolved(size)
        self.device = torch.device(machine.device)
        self.chunk = int(machine.chunk or 0)  # halved when a GPU runs out of memory
        self._local = threading.local()
        workers = int(machine.workers or 0)
        self._pool = ThreadPoolExecutor(workers, initializer=self._start_worker) if workers else None
        self._compiled = _compile() if machine.compiled else None
        self._lock = threading.Lock()
        self._spent = Spent()
        if workers:
            _keep_freed_memory()

    @property
    def spent(self) -> Spent:
        """The work of all networks so far."""
        return self._spent

    def count(self, module: FeatureNetwork, images: int, passes: int) -> None:
        """Add to :attr:`spent`: so many images through a network, each at the cost of ``passes`` forward passes."""
        with self._lock:
            self._spent += Spent(images, images * passes * module.flops)

    def __enter__(self) -> Compute:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _start_worker(self) -> None:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)  # see without_subnormals
        self._local.worker = True

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """``[function(item) for item in items]``, in order, on the workers where there are any."""
        if self._pool is None or getattr(self._local, "worker", False):
            return [function(item) for item in items]
        return list(self._pool.map(function, items))

    def features(self, module: FeatureNetwork, images_NCHW: Tensor) -> Tensor:  # noqa: N803
        """Embeddings without a graph.

        Args:
            module: A network with ``features``.
            images_NCHW: (N, C, H, W) float32, normalised.

        Returns:
            (N, D) float32. When a GPU runs out of memory the chunk is halved and the pass repeated.

        Raises:
            ConfigError: Out of memory with a batch-norm network, whose batch cannot be cut.
        """
        low = self.machine.precision in ("mixed", "bf16")
        self.count(module, len(images_NCHW), 1)
        while True:
            try:
                return self._embed_all(module, self._split(module, images_NCHW), low)
            except torch.OutOfMemoryError:
                self._halve(module, len(images_NCHW))

    def logits(self, module: FeatureNetwork, images_NCHW: Tensor) -> Tensor:  # noqa: N803
        """(N, classes) float32 outputs of the network in evaluation mode, without a graph."""

        def one(chunk: Tensor) -> Tensor:
            with torch.no_grad():
                return _run("forward", module, chunk, self.machine.precision == "bf16")

        self.count(module, len(images_NCHW), 1)
        return torch.cat(self.map(one, self._split(module, images_NCHW)))

    def pullback(self, module: FeatureNetwork, images_NCHW: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:  # noqa: N803
        """Embeddings, and the function that takes their gradient back to the images.

        Chunk by chunk: the graphs of a small batch are kept; those of a large one are built again in
        the backward pass, so that memory does not grow with the batch.

        Args:
            module: A network with ``features`` whose parameters need no gradient.
            images_NCHW: (N, C, H, W) float32, normalised.

        Returns:
            features (N, D) float32, detached; and ``pull``: (N, D) -> (N, C, H, W).
        """
        low = self.machine.precision == "bf16"
        self.count(module, len(images_NCHW), PASSES)
        chunks = self._split(module, images_NCHW)
        pixels = len(images_NCHW) * images_NCHW.shape[-2] * images_NCHW.shape[-1]
        keep = pixels <= KEPT_PIXELS.get(self.device.type, KEPT_PIXELS["cpu"])

        embed = self._embedder(module)

        def forward(chunk: Tensor) -> Graph:
            leaf = chunk.detach().requires_grad_()
            return leaf, embed(leaf, low)

        def backward(item: tuple[Graph | Tensor, Tensor]) -> Tensor:
            graph, gradient = item
            leaf, output = forward(graph) if isinstance(graph, Tensor) else graph
            return torch.autograd.grad(output, leaf, gradient)[0]

        sizes = [len(chunk) for chunk in chunks]
        graphs: Sequence[Graph | Tensor]
        if keep or len(chunks) == 1:
            kept = self.map(forward, chunks)
            features, graphs = torch.cat([output.detach() for _, output in kept]), kept
        else:
            features, graphs = self._embed_all(module, chunks, low), chunks

        def pull(gradient: Tensor) -> Tensor:
            parts: list[tuple[Graph | Tensor, Tensor]] = list(zip(graphs, gradient.split(sizes), strict=True))
            return torch.cat(self.map(backward, parts))

        return features, pull

    def backprop(
        self,
        module: FeatureNetwork,
        images_NCHW: Tensor,  # noqa: N803
        targets: Tensor,
        loss: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """Mean loss over a batch; its gradients are added to the parameters' ``grad``.

        Args:
            module: A network whose parameters need gradients; those it does not use get gradients of 0.
            images_NCHW: (N, C, H, W) float32, normalised.
            targets: (N, ...) whatever ``loss`` takes.
            loss: (logits (n, K), targets (n, ...)) -> (n,) losses.

        Returns:
            The mean loss, detached.
        """
        parameters = [p for p in module.parameters() if p.requires_grad]
        cut = self.chunk and separable(module)  # not by workers: sums over chunks depend on where they are cut
        chunks = images_NCHW.split(self.chunk if cut else len(images_NCHW))
        parts = list(zip(chunks, targets.split([len(c) for c in chunks]), strict=True))

        def one(part: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
            logits = _run("forward", module, part[0], self.machine.precision == "bf16")
            value = loss(logits, part[1]).sum() / len(images_NCHW)
            return value.detach(), torch.autograd.grad(value, parameters, materialize_grads=True)

        self.count(module, len(images_NCHW), PASSES)
        total = torch.zeros((), device=self.device)
        for value, gradients in self.map(one, parts):
            total = total + value
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return total

    def _split(self, module: FeatureNetwork, images: Tensor) -> Sequence[Tensor]:
        """Chunks small enough to keep every worker busy; the whole batch for a network that mixes its images."""
        if self.chunk == 0 or not separable(module):
            return [images]
        share = max(2, -(-len(images) // max(1, self.machine.workers or 0)))
        return list(images.split(min(self.chunk, share)))

    def _embed_all(self, module: FeatureNetwork, chunks: Sequence[Tensor], low: bool) -> Tensor:
        embed = self._embedder(module)

        def one(chunk: Tensor) -> Tensor:
            with torch.no_grad():
                return embed(chunk, low)

        return torch.cat(self.map(one, chunks))

    def _embedder(self, module: FeatureNetwork) -> Callable[[Tensor, bool], Tensor]:
        """(chunk, in bfloat16?) -> embeddings; a compiled network always sees full chunks."""
        fixed = self.chunk if self._compiled and separable(module) else 0
        run = self._compiled or _run

        def embed(chunk: Tensor, low: bool) -> Tensor:
            size = fixed or (max(2, len(chunk)) if separable(module) else len(chunk))
            return run("features", module, _pad(chunk, size), low)[: len(chunk)]

        return embed

    def _halve(self, module: FeatureNetwork, batch: int) -> None:
        """Cut the chunk after running out of memory, or say why that cannot be done."""
        if not separable(module):
            raise ConfigError(
                f"out of memory on {self.device} with a batch-norm network, whose batch of {batch} images cannot "
                "be cut into chunks: lower the real batch, or use norm='instance'"
            )
        size = min(self.chunk, batch) if self.chunk else batch
        if size <= 2:
            raise ConfigError(f"out of memory on {self.device} even with 2 images at a time: use a smaller network")
        self.chunk = max(2, size // 2)
        log.warning("out of memory: continuing with chunks of %d images", self.chunk)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _run(entry: str, module: FeatureNetwork, images: Tensor, low: bool) -> Tensor:
    """One call of the network, in bfloat16 where ``low``; float32 comes out."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=low):
        output: Tensor = module(images) if entry == "forward" else module.features(images)
    return output.float()


def _compile() -> Callable[[str, FeatureNetwork, Tensor, bool], Tensor]:
    """:func:`_run`, compiled once for all weights of a network."""
    return torch.compile(_run, dynamic=False)


@contextmanager
def without_subnormals() -> Iterator[None]:
    """Count numbers too small for full precision (below 1.2e-38 in float32) as 0, in this thread and those it starts.

    The gradients of a network that does not learn come down to them, and a CPU then takes up to 25 times as long.
    """
    before = not torch.full((), SUBNORMAL, dtype=torch.float32, device="cpu").mul(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _keep_freed_memory() -> None:
    """Let the C library keep what a chunk frees, for the next one.

    glibc returns freed blocks above a threshold to the kernel, and fetching them again costs a page fault
    every 4 KiB: a third of the time of a chunk. The threshold follows the largest block freed so far, up
    to 32 MiB; so one such block is made and freed.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def _pad(images: Tensor, size: int) -> Tensor:
    """The batch, its last image repeated until there are ``size``."""
    if len(images) == size:
        return images
    return torch.cat([images, images[-1:].expand(size - len(images), -1, -1, -1)])
