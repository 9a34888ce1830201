"""Modes of torch and of the C library under which all networks run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

SUBNORMAL = 1e-39  # a number that is subnormal in float32


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


def keep_freed_memory() -> None:
    """Make the C library keep freed memory for the next chunk.

    glibc returns freed blocks above a threshold to the kernel. To get them back costs a page fault every
    4 KiB: a third of the time of a chunk. The threshold is the size of the largest block freed so far, up to
    32 MiB. Therefore this function makes and frees a block of nearly that size.
    """
    torch.empty(31 << 20, dtype=torch.uint8)
