"""Machine: device, precision, chunks, worker threads and compilation of all networks."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from condensekit.errors import choice, finite, instance, meant, refuse, whole

AUTO, PRECISIONS = "auto", ("fp32", "mixed", "bf16")
CHUNK_PIXELS = 16 * 32 * 32  # input pixels of a chunk that fits the cache of a core


@dataclass(frozen=True)
class Machine:
    """Device, precision and parallelism of all networks.

    On one device, ``precision``, ``compiled`` and ``chunk`` change the last bits of a result; ``workers`` does not.

    >>> import condensekit as ck
    >>> train, test = ck.load("digits")
    >>> made = ck.condense(train, "dm batch_real=16", ipc=1, steps=1, machine=ck.Machine("cpu", workers=1))

    Args:
        device: ``auto`` (CUDA, else Apple's MPS, else the CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        precision: ``fp32``; ``mixed`` (real images in bfloat16, synthetic ones in float32); ``bf16`` (both). ``auto``:
            ``fp32``, but for :func:`condensekit.condense` see :meth:`condensing`.
        compiled: Compile the functions of networks. On a CPU this takes about a minute for each architecture, once: the
            results are kept in ``$CONDENSEKIT_CACHE``, or in the user's folder for caches. On CUDA they are captured as
            CUDA graphs, which takes a second. None: from the third step on, on CUDA and in a long run on a CPU with a
            C++ compiler; see :meth:`condensekit.compute.Compute.expect`.
        chunk: Images in one network call; 0: the whole batch. None: as many as fit the cache on a CPU, and the whole
            batch on a GPU, in parts of at most 16,384 images of 32x32.
        workers: One-thread workers on a CPU; 0: compute in the calling thread. None: torch's number of threads.

    Raises:
        ConfigError: A missing device, an unknown precision, a chunk of one image, a missing C++ compiler, a device
            that does not compile; all problems listed.
    """

    device: str = "auto"
    precision: str = "fp32"
    compiled: bool | None = None
    chunk: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        where = self._where
        refuse(
            None if str(self.device) == "auto" else device_misfit(where),
            choice("precision", self.precision, (AUTO, *PRECISIONS)),
            None if self.chunk is None else whole("chunk", self.chunk, 0),
            "chunk must be 0 (whole batch) or at least 2, got 1" if finite(self.chunk) and self.chunk == 1 else None,
            None if self.workers is None else whole("workers", self.workers, 0),
            None if self.compiled is None else instance("compiled", self.compiled, bool, "True or False"),
            "compiled=True needs a C++ compiler (g++ or clang++) on the PATH"
            if self.compiled is True and where == "cpu" and not can_compile()
            else None,
            "compiled=True works on a CPU and on CUDA, not on mps: leave it out"
            if self.compiled is True and where == "mps"
            else None,
        )

    @property
    def _where(self) -> str:
        """The device, ``auto`` filled in."""
        return _best_device() if str(self.device) == "auto" else str(self.device)

    def resolved(self, size: tuple[int, int] = (32, 32)) -> Machine:
        """The same machine with the values for ``auto`` and None filled in, for images of this (height, width)."""
        where = self._where
        on_cpu = where == "cpu"
        chunk = self.chunk
        if chunk is None:
            chunk = max(2, min(256, CHUNK_PIXELS // (size[0] * size[1]))) if on_cpu else 0
        workers = torch.get_num_threads() if self.workers is None else int(self.workers)
        able = can_compile() if on_cpu else where.startswith("cuda")
        compiled = False if self.compiled is None and not able else self.compiled
        precision = "fp32" if self.precision == AUTO else self.precision
        return Machine(where, precision, compiled, int(chunk), workers if on_cpu else 0)

    def condensing(self, compares_features: bool) -> Machine:
        """The same machine with the precision of a condensation filled in for ``auto``.

        On CPUs with instructions for bfloat16 it is ``mixed``, which is faster for wide networks. Over ten pairs of
        sets of ``dm`` with a ConvNet of width 32, it changed the accuracy by 0.0 points [-0.1, +0.1] on CIFAR-10 and by
        0.0 [-0.1, +0.0] on Fashion-MNIST.

        Args:
            compares_features: Whether the method compares features only: other methods are not measured, and get fp32.
        """
        if self.precision != AUTO:
            return self
        fast = compares_features and self._where == "cpu" and has_bfloat16()
        return replace(self, precision="mixed" if fast else "fp32")

    @property
    def where(self) -> str:
        """What computes, for people: ``2 workers``, or the device."""
        return f"{self.workers} worker{'s' * (self.workers != 1)}" if self.workers else str(self.device)

    @property
    def identity(self) -> dict[str, Any]:
        """The fields that change the bits of a result on the same device, as JSON values."""
        return {"precision": self.precision, "compiled": self.compiled is True, "chunk": self.chunk}

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
        if plan["compiled"] and plan["device"] == "cpu" and not can_compile()
        else None,
    )
    return Machine(**plan)


def of_rank(machine: Machine, local: int) -> Machine:
    """The machine of one of several ranks: on GPUs, each rank has its own.

    Args:
        machine: The machine of all ranks.
        local: Number of the rank among those of this computer.

    Raises:
        ConfigError: More ranks than GPUs on this computer.
    """
    if not machine.resolved().device.startswith("cuda"):
        return machine
    here = torch.cuda.device_count()
    refuse(f"more ranks than GPUs on a computer with {here}: start one rank for each GPU" if local >= here else None)
    return replace(machine, device=f"cuda:{local}")


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


def has_bfloat16() -> bool:
    """Whether this computer's CPU has instructions for bfloat16: AVX512-BF16 or AMX."""
    known = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(told() for told in known if told)


def can_compile() -> bool:
    """Whether this computer has a C++ compiler, which compiled networks need."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None or shutil.which("clang++") is not None
