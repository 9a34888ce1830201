"""Random numbers: every number is a function of the seed and of its purpose.

Indices and augmentation parameters are a 64-bit hash of (seed, step, attempt, role, class label,
sample). No number depends on earlier numbers. Therefore a resumed run, a run with some of the classes,
and a run on another device draw the same numbers. Network weights come from one
:class:`torch.Generator` per (seed, step, attempt, role). Code that needs the global generator runs
inside :func:`isolated`; nothing else uses that generator.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

_ALONE = threading.RLock()
_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX1, _MIX2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _signed(value: int) -> int:
    """The two's-complement int64 with the same bits as the unsigned ``value``."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _mix(value: int) -> int:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014) on one Python integer."""
    value = (value + _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * _MIX1) & _MASK
    value = ((value ^ (value >> 27)) * _MIX2) & _MASK
    return value ^ (value >> 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical (zero-filling) right shift of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix_tensor(x: Tensor) -> Tensor:
    """:func:`_mix`, element by element, on int64 (multiplication wraps)."""
    x = x + _signed(_GOLDEN)
    x = (x ^ _shift(x, 30)) * _signed(_MIX1)
    x = (x ^ _shift(x, 27)) * _signed(_MIX2)
    return x ^ _shift(x, 31)


def key_of(text: str) -> int:
    """A 63-bit key of a text; unlike ``hash``, it is the same in every process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


@dataclass(frozen=True)
class Draw:
    """The random numbers of one step: hashes, uniforms, indices and generators, each named by its role.

    Args:
        seed: Seed of the run, any integer.
        step: Number of the step; 0 before the first step.
        attempt: 0; 1 if the step is repeated after a value that is not finite.
    """

    seed: int
    step: int = 0
    attempt: int = 0

    def at(self, step: int, attempt: int = 0) -> Draw:
        """The random numbers of another step, with the same seed."""
        return replace(self, step=step, attempt=attempt)

    def key(self, role: str) -> int:
        """A 64-bit unsigned key for ``role`` at this step."""
        value = _mix(int(self.seed) & _MASK)  # int: NumPy's integers overflow
        for part in (int(self.step), int(self.attempt), key_of(role)):
            value = _mix(value ^ part)
        return value

    def bits(self, role: str, labels: Tensor, n: int) -> Tensor:
        """(L, n) int64 hashes, one for each class label (L,) and sample, on the labels' device."""
        rows = _mix_tensor(labels.to(torch.int64) ^ _signed(self.key(role)))
        samples = torch.arange(n, dtype=torch.int64, device=labels.device)
        return _mix_tensor(rows[:, None] ^ _mix_tensor(samples)[None])

    def uniform(self, role: str, labels: Tensor, n: int) -> Tensor:
        """(L, n) float32 in [0, 1), 24 random bits each."""
        return _shift(self.bits(role, labels, n), 40).to(torch.float32) * 2.0**-24

    def uniform64(self, role: str, labels: Tensor, n: int) -> Tensor:
        """(L, n) float64 in [0, 1), 53 random bits each: fine enough to invert a distribution over millions."""
        return _shift(self.bits(role, labels, n), 11).to(torch.float64) * 2.0**-53

    def integers(self, role: str, labels: Tensor, n: int, high: Tensor | int) -> Tensor:
        """(L, n) int64 in [0, high); ``high`` is a number or (L, 1), below 2**31."""
        return (_shift(self.bits(role, labels, n), 33) * high) >> 31

    def normal(self, role: str, labels: Tensor, n: int) -> Tensor:
        """(L, n) float32 standard normal numbers (Box and Muller)."""
        radius = torch.sqrt(-2.0 * torch.log1p(-self.uniform(role + "/radius", labels, n)))
        return radius * torch.cos(2.0 * torch.pi * self.uniform(role + "/angle", labels, n))

    def permutation(self, role: str, n: int) -> Tensor:
        """(n,) int64: a random order of range(n), on the CPU."""
        return torch.argsort(self.bits(role, torch.zeros(1, dtype=torch.int64), n)[0], stable=True)

    def generator(self, role: str, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh generator on ``device``, seeded by ``role`` and this step."""
        return torch.Generator(device=device).manual_seed(self.key(role) >> 1)


@contextlib.contextmanager
def isolated(key: int) -> Iterator[None]:
    """Seed the global generators (torch, numpy, random) with ``key``, and restore them at the end.

    Only one thread at a time runs inside; calls may be nested.
    """
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with _ALONE, torch.random.fork_rng(devices=cuda):
        python_state, numpy_state = random.getstate(), np.random.get_state()
        try:
            random.seed(key)
            np.random.seed(key & 0xFFFFFFFF)
            torch.manual_seed(key & (_MASK >> 1))
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
