"""A stand-in for CUDA graphs on a CPU: it records the operations of a capture, and runs them again on the same memory.

As on a GPU, nothing of Python runs in a replay; weights are read where they lay; a replay overwrites the results of the
replay before; and what graphs with one pool hold beside is overwritten by each other, here with NaN.
"""

import weakref
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten


class Graph:
    """A recorded capture.

    Attributes:
        replays: How often it was replayed.
    """

    made: ClassVar[list[Any]] = []  # weak references to all graphs, in the order of their captures

    def __init__(self):
        self.steps, self.own, self.replays, self._pool = [], [], 0, object()
        Graph.made.append(weakref.ref(self))

    def pool(self):
        return self._pool

    def replay(self):
        self.replays += 1
        for other in alive():
            if other is not self and other._pool is self._pool:
                for value in other.own:
                    value.fill_(torch.nan)
        with torch.no_grad():
            for function, args, kwargs, found in self.steps:
                for old, new in zip(tree_leaves(found), tree_leaves(function(*args, **kwargs)), strict=True):
                    if isinstance(old, torch.Tensor) and address(old) != address(new):
                        old.copy_(new)


class Capture(TorchDispatchMode):
    """What ``torch.cuda.graph`` is; it ends with an error where the host reads a value."""

    def __init__(self, graph, pool=None, stream=None):
        super().__init__()
        self.graph = graph
        if pool is not None:
            assert any(other._pool is pool for other in alive()), "the memory of a pool goes with its last graph"
            graph._pool = pool

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket is aten._local_scalar_dense:
            raise RuntimeError("operation not permitted when stream is capturing")
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        self.graph.steps.append((func, args, kwargs, found))
        given = {address(value) for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)}
        made = [value for value in tree_leaves(found) if isinstance(value, torch.Tensor) and value.is_floating_point()]
        self.graph.own += [value.detach() for value in made if address(value) not in given]
        return found


def address(value):
    return value.untyped_storage().data_ptr()


def alive():
    return [graph for graph in (reference() for reference in Graph.made) if graph is not None]


@contextmanager
def cuda_graphs(capture=Capture):
    """A CPU on which CUDA graphs can be captured."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    Graph.made.clear()
    with mock.patch.multiple(
        torch.cuda,
        Stream=lambda device: stream,
        current_stream=lambda device: stream,
        stream=lambda chosen: nullcontext(),
        CUDAGraph=Graph,
        graph=capture,
    ):
        yield
