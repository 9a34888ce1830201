"""A stand-in for a GPU: tensors without numbers that say that they lie on ``cuda:0``, and a record of waits.

FakeTensorMode alone does not do: where torch is built for CUDA and there is no driver, its autograd ends the process.
"""

import sys
import weakref
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any
from unittest import mock
from unittest.mock import MagicMock

import torch
import torch._meta_registrations  # the shapes of results of many operations
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

import condensekit
from condensekit.rng import Draw

aten = torch.ops.aten
CUDA = torch.device("cuda:0")
INDEX = (aten.index, aten.index_put, aten.index_put_)
WAITS = {  # operations whose result, or size of the result, the host reads
    aten._local_scalar_dense,
    aten.bincount,
    aten.equal,
    aten.linalg_eigh,
    aten._linalg_check_errors,
    aten.masked_select,
    aten.nonzero,
    aten.repeat_interleave.Tensor.overloadpacket,
    aten._unique2,
    aten.unique_consecutive,
}
HOME = condensekit.__path__[0]
FREE = 1 << 33  # bytes
STAGED = 1 << 16  # bytes of a copy from usual memory of the host, up to which it waits for nothing


class OnGPU(torch.Tensor):
    """A tensor without numbers.

    Attributes:
        plain: The tensor on ``meta`` on which torch's kernels run.
        known: The tensor that was copied from the host, if it is a copy.
    """

    plain: Any
    known: Any
    device: Any = CUDA
    __torch_function__: Any = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, plain):
        made = torch.Tensor._make_subclass(cls, plain.detach(), device_for_backend_keys=CUDA)
        made.plain, made.known = plain, None
        return made


@dataclass(frozen=True)
class Copy:
    """A copy from the host to the GPU: its bytes, its place in the code, and whether the host waits for it."""

    place: str
    nbytes: int
    waits: bool


class StandIn(TorchDispatchMode):
    """Runs operations on the GPU's tensors, and records copies, waits and the bytes that are alive.

    Attributes:
        waits: What made the host wait for the GPU, each with its place in the code.
        copies: Copies from the host.
        live, peak: Bytes on the GPU, now and at most since ``peak`` was set.
        launches: Operations on the GPU that compute something.
    """

    def __init__(self):
        super().__init__()
        self.waits, self.copies, self.live, self.peak, self.launches = [], [], 0, 0, 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
        there = [t for t in tensors if isinstance(t, OnGPU)]
        target = kwargs.get("device")
        if not there and (target is None or target.type != "cuda"):
            return func(*args, **kwargs)
        packet = func.overloadpacket
        if packet in WAITS or (packet in INDEX and any(i is not None and i.dtype == torch.bool for i in args[1])):
            self.waits.append(f"{func} at {_place()}")
        if packet is aten.equal:
            return True
        if packet is aten._local_scalar_dense:
            return _numbers(there[0], there[0].dtype).item()
        if packet is aten._to_copy and there and target is not None and target.type == "cpu":
            self.waits.append(f"copy to the host at {_place()}")
            return _numbers(there[0], kwargs.get("dtype") or there[0].dtype)
        if packet is aten._to_copy and there and kwargs.get("dtype", there[0].dtype) == there[0].dtype:
            return OnGPU(there[0].plain.view_as(there[0].plain))
        self._check(func, args, kwargs, [t for t in tensors if t.device.type == "cpu"])
        made = self._run(func, args, kwargs if target is None else {**kwargs, "device": torch.device("meta")})
        if packet is aten._to_copy and not there and made.dtype == tensors[0].dtype:
            made.known = tensors[0]
        return made

    def _check(self, func, args, kwargs, here):
        """Note the copies of tensors from the host; a mix of devices in any other operation is a fault."""
        packet = func.overloadpacket
        for tensor in here:
            if packet in (aten._to_copy, aten.copy_):
                asked = kwargs.get("non_blocking") or (packet is aten.copy_ and args[2:] == (True,))
                beside = asked and (getattr(tensor, "pinned", False) or tensor.nbytes <= STAGED)
            elif packet in INDEX and any(tensor is index for index in args[1]):
                beside = False
            elif tensor.ndim:
                raise AssertionError(f"{func} mixes host and GPU at {_place()}")
            else:
                continue  # a number
            self.copies.append(Copy(_place(), tensor.numel() * tensor.element_size(), not beside))

    def _run(self, func, args, kwargs):
        views = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        self.launches += not views and "empty" not in func._schema.name
        plain_args, kwargs = tree_map_only(torch.Tensor, _plain, (args, kwargs))
        found = func(*plain_args, **kwargs)
        if torch.Tag.inplace_view in func.tags:
            func(*args)  # the shape of the tensor itself
        if func._schema.is_mutable and found is not None:
            return kwargs.get("out", args[0])
        return tree_map_only(torch.Tensor, self._made, found)

    def _made(self, plain):
        storage = plain.untyped_storage()
        if storage not in self._known:
            size = storage.nbytes()
            self._known.add(storage)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._freed, size)
        return OnGPU(plain)

    def _freed(self, size):
        self.live -= size


def _plain(value):
    return value.plain if isinstance(value, OnGPU) else value.to("meta") if value.ndim else value


def _numbers(like, dtype):
    """What the host reads of a tensor on the GPU: what it copied there, else numbers in [0, 1), and True."""
    if like.known is not None:
        return like.known.to(dtype)
    values = torch.rand(like.shape, generator=torch.Generator().manual_seed(like.numel()))
    return torch.ones_like(values, dtype=dtype) if dtype == torch.bool else values.to(dtype)


def _new_tensor(like, values):
    return torch.tensor(values, dtype=like.dtype, device=like.device)


def _pinned(values):
    made = values.clone()
    made.pinned = True
    return made


def _one_hot(classes, count):
    """Torch's own asks a kernel where the classes lie."""
    return (classes[..., None] == torch.arange(count, device=classes.device)).long()


def _place():
    """The innermost line of this package that runs."""
    frame: FrameType | None = sys._getframe(1)
    while frame and not frame.f_code.co_filename.startswith(HOME):
        frame = frame.f_back
    return f"{frame.f_code.co_filename[len(HOME) + 1 :]}:{frame.f_lineno}" if frame else "the test"


@contextmanager
def stand_in():
    """A machine whose GPU is a :class:`StandIn`; random numbers for it come from generators of the host."""
    cuda, generator = torch.cuda, Draw.generator
    with ExitStack() as stack:
        for name, value in {
            "is_available": True,
            "device_count": 1,
            "is_bf16_supported": True,
            "_lazy_init": None,
            "reset_peak_memory_stats": None,
            "max_memory_allocated": 0,
            "get_device_name": "a stand-in",
            "mem_get_info": (FREE, FREE),
            "empty_cache": None,
            "Stream": MagicMock(),
            "stream": MagicMock(),
            "current_stream": MagicMock(),
            "CUDAGraph": MagicMock(),
            "graph": MagicMock(),  # operations run once, while it is recorded; a replay leaves their results
        }.items():
            stack.enter_context(mock.patch.object(cuda, name, lambda *_, value=value, **__: value))
        stack.enter_context(
            mock.patch.object(Draw, "generator", lambda draw, role, device="cpu": generator(draw, role))
        )
        stack.enter_context(mock.patch.object(torch.Tensor, "new_tensor", _new_tensor))
        stack.enter_context(mock.patch.object(torch.Tensor, "pin_memory", _pinned))
        stack.enter_context(mock.patch.object(F, "one_hot", _one_hot))
        overwritten = torch.__future__.get_overwrite_module_params_on_conversion()
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwritten)
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # module.to("cuda") makes new parameters
        lifted = torch._C._only_lift_cpu_tensors()
        stack.callback(torch._C._set_only_lift_cpu_tensors, lifted)
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") is made here and copied
        yield stack.enter_context(StandIn())
