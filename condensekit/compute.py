"""Machine and compute: device, precision, chunks, worker threads, compilation, and the count of image passes.

Only this module decides these. On a CPU, a batch is cut into chunks that fit the cache and run on
one-thread workers: several times faster than one large batch with many threads in each operation. On a
GPU, one large batch is fastest. A network without batch norm gives the same result either way. A network
with batch norm does not, so its batches are never cut.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor

from condensekit.errors import ConfigError, choice, finite, instance, meant, refuse, whole
from condensekit.networks.base import FeatureNetwork, separable
from condensekit.networks.convnet import ConvNet
from condensekit.networks.cost import PASSES, Shape

log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")
Graph = tuple[Tensor, Tensor]  # a leaf, and the output computed from it

PRECISIONS = ("fp32", "mixed", "bf16")
CHUNK_PIXELS = 16 * 32 * 32  # input pixels of a chunk that fits the cache of a core
SUBNORMAL = 1e-39  # a number that is subnormal in float32
KEPT_PIXELS = {"cpu": 128 * 32 * 32, "cuda": 16384 * 32 * 32}  # input pixels of a batch whose graphs are kept


@dataclass(frozen=True)
class Machine:
    """Device, precision and parallelism of all networks.

    On one device, ``precision``, ``compiled`` and ``chunk`` change the last bits of a result; ``workers`` does not.

    >>> import condensekit as ck
    >>> train, test = ck.load("digits")
    >>> made = ck.condense(train, "dm batch_real=16", ipc=1, steps=1, machine=ck.Machine("cpu", workers=1))

    Args:
        device: ``auto`` (CUDA, else Apple's MPS, else the CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        precision: ``fp32``; ``mixed`` (real images in bfloat16, synthetic ones in float32); ``bf16`` (both).
        compiled: Run networks through ``torch.compile``. There are no workers then, because the compiler keeps
            state for each thread. On an idle CPU this is faster than workers, on a busy CPU slower. Compiling takes
            up to a minute.
        chunk: Images in one network call; 0: the whole batch. None: as many as fit the cache on a CPU, and the whole
            batch on a GPU.
        workers: One-thread workers on a CPU; 0: compute in the calling thread. None: torch's number of threads.

    Raises:
        ConfigError: A missing device, an unknown precision, a chunk of one image, a missing C++ compiler; all
            problems listed.
    """

    device: str = "auto"
    precision: str = "fp32"
    compiled: bool = False
    chunk: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        refuse(
            None if str(self.device) == "auto" else device_misfit(str(self.device)),
            choice("precision", self.precision, PRECISIONS),
            None if self.chunk is None else whole("chunk", self.chunk, 0),
            "chunk must be 0 (whole batch) or at least 2, got 1" if finite(self.chunk) and self.chunk == 1 else None,
            None if self.workers is None else whole("workers", self.workers, 0),
            instance("compiled", self.compiled, bool, "True or False"),
            "compiled=True needs a C++ compiler (g++ or clang++) on the PATH"
            if self.compiled is True and not can_compile()
            else None,
        )

    def resolved(self, size: tuple[int, int] = (32, 32)) -> Machine:
        """The same machine with the values for ``auto`` and None filled in, for images of this (height, width)."""
        where = _best_device() if str(self.device) == "auto" else str(self.device)
        on_cpu = where == "cpu"
        chunk = self.chunk
        if chunk is None:
            chunk = max(2, min(256, CHUNK_PIXELS // (size[0] * size[1]))) if on_cpu else 0
        workers = torch.get_num_threads() if self.workers is None else int(self.workers)
        return Machine(where, self.precision, self.compiled, int(chunk), workers if on_cpu and not self.compiled else 0)

    @property
    def where(self) -> str:
        """What computes, for people: ``2 workers``, or the device."""
        return f"{self.workers} worker{'s' * (self.workers != 1)}" if self.workers else str(self.device)

    @property
    def identity(self) -> dict[str, Any]:
        """The fields that change the bits of a result on the same device, as JSON values."""
        return {"precision": self.precision, "compiled": self.compiled, "chunk": self.chunk}

    def to_json(self) -> dict[str, Any]:
        """All fields as a dictionary; ``Machine(**record)`` is the inverse."""
        return asdict(self)


def made_on(plan: Mapping[str, Any]) -> Machine:
    """The machine of :meth:`Machine.to_json`, on which a run was made; a resumed run uses the same.

    Raises:
        ConfigError: This computer lacks its device or its compiler.
    """
    way_out = "resume it there, or start anew in another folder"
    refuse(
        f"the run was made on {plan['device']}, which is not here: {way_out}"
        if device_misfit(plan["device"])
        else None,
        f"the run was made with a compiled network, and there is no C++ compiler here: {way_out}"
        if plan["compiled"] and not can_compile()
        else None,
    )
    return Machine(**plan)


@dataclass(frozen=True)
class Spent:
    """Work done by networks; the same run does the same work on every machine.

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
            ``passes``: images put through a network, divided by the training images. ``w128_passes``: operations,
            divided by those of one forward pass of all training images through a ConvNet of depth 3 and width 128.
        """
        return {
            "passes": round(self.images / images, 4),
            "w128_passes": round(self.flops / (images * _reference_flops(shape)), 4),
        }


@lru_cache
def _reference_flops(shape: Shape) -> int:
    """Operations of one image's forward pass in the papers' ConvNet, or in the deepest ConvNet that fits the image."""
    for depth in (3, 2, 1):
        with suppress(ConfigError):
            return ConvNet(depth=depth).build(shape, 10).flops
    return ConvNet(depth=1).build((shape[0], 8, 8), 10).flops


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def device_misfit(name: str) -> str | None:
    """The problem of the device called ``name``, which must not be ``auto``; None if it can be used."""
    if not re.fullmatch(r"cpu|mps|cuda(:(0|[1-9][0-9]*))?", name):
        hint = meant(name.partition(":")[0], ("auto", "cpu", "cuda", "mps"))
        return f"unknown device {name!r:.60}: use auto, cpu, cuda, cuda:N or mps{hint and '.' + hint}"
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
    """Whether this computer has a C++ compiler, which compiled networks need."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None or shutil.which("clang++") is not None


class Compute:
    """Runs networks on a :class:`Machine`, and counts their work. Use it as a context manager, or :meth:`close` it.

    As a context manager, it also sets torch's usual modes, see :func:`usual_modes`.

    Every method may be called from inside :meth:`map`; it then stays on that worker.

    Args:
        machine: Device, precision and parallelism.
        size: (height, width) of the images; it decides the size of chunks.

    Attributes:
        machine: The machine with the values for ``auto`` and None filled in.
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
        self._modes: list[ExitStack] = []
        if workers:
            _keep_freed_memory()

    @property
    def spent(self) -> Spent:
        """The work of all networks so far."""
        return self._spent

    @property
    def spent_here(self) -> Spent:
        """The work so far that was asked for in this thread."""
        return getattr(self._local, "spent", Spent())

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
        """Embed images, and return the function that takes a gradient of the embeddings back to the images.

        Both work chunk by chunk. The graphs of a small batch are kept. The graphs of a large batch are built
        again in the backward pass, so that memory does not grow with the batch.

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
        """Compute the mean loss over a batch, and add its gradients to the parameters' ``grad``.

        Args:
            module: A network whose parameters need gradients; unused parameters get gradients of 0.
            images_NCHW: (N, C, H, W) float32, normalised.
            targets: (N, ...) second argument of ``loss``.
            loss: (logits (n, K), targets (n, ...)) -> (n,) losses.

        Returns:
            The mean loss, detached.
        """
        parameters = [p for p in module.parameters() if p.requires_grad]
        cut = self.chunk and separable(module)  # workers must not matter: a sum over chunks depends on the cuts
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
        """Chunks that keep every worker busy; the whole batch for a network with batch norm."""
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
        """Halve the chunk after running out of memory, or raise the reason why that is impossible."""
        if not separable(module):
            raise ConfigError(
                f"out of memory on {self.device} with a network with batch norm, whose batch of {batch} images cannot "
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
    """Call the network, in bfloat16 if ``low``; the result is float32."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=low):
        output: Tensor = module(images) if entry == "forward" else module.features(images)
    return output.float()


def _compile() -> Callable[[str, FeatureNetwork, Tensor, bool], Tensor]:
    """:func:`_run`, compiled once for all weights of a network."""
    return torch.compile(_run, dynamic=False)


@contextmanager
def usual_modes() -> Iterator[None]:
    """Work with gradients, without inference mode and autocast, with float32 and the CPU as defaults.

    So a result is the same under ``torch.no_grad()``, ``torch.inference_mode()``, ``torch.autocast()``,
    ``torch.set_default_dtype()`` and ``torch.set_default_device()``; afterwards these hold again. The default type
    belongs to the whole process: where it is another, it changes for all threads meanwhile.

    >>> with torch.no_grad(), usual_modes():
    ...     torch.is_grad_enabled()
    True
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if (former := torch.get_default_dtype()) != torch.float32:
            stack.callback(torch.set_default_dtype, former)
            torch.set_default_dtype(torch.float32)
        yield


@contextmanager
def without_subnormals() -> Iterator[None]:
    """Replace subnormal numbers (below 1.2e-38 in float32) by 0, in this thread and in the threads it starts.

    The gradients of a network that does not learn can become this small, and make a CPU up to 25 times slower.
    """
    before = not torch.full((), SUBNORMAL, dtype=torch.float32, device="cpu").mul(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _keep_freed_memory() -> None:
    """Make the C library keep freed memory for the next chunk.

    glibc returns freed blocks above a threshold to the kernel. To get them back costs a page fault every
    4 KiB: a third of the time of a chunk. The threshold is the size of the largest block freed so far, up to
    32 MiB. Therefore this function makes and frees a block of nearly that size.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def _pad(images: Tensor, size: int) -> Tensor:
    """The batch, with its last image repeated up to ``size`` images."""
    if len(images) == size:
        return images
    return torch.cat([images, images[-1:].expand(size - len(images), -1, -1, -1)])
