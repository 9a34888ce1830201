"""A space whose candidates misbehave in every way that a choice names, importable by worker processes."""

import ctypes
import os
import signal
import sys
import threading
import time
import warnings

import nni
import torch
from nni.mutable import ensure_frozen
from nni.nas.nn.pytorch import ModelSpace
from torch import nn

FAULTS = {
    "hangs": "over its limit of ",
    "hangs at birth": "over its limit of ",
    "spins in C": "over its limit of ",
    "ends": "its worker ended with exit code 9",
    "ends at birth": "its worker ended with exit code 9",
    "is killed": "its worker was killed by signal 11 (SIGSEGV)",
    "leaves": "SystemExit: enough",
    "interrupts": "KeyboardInterrupt",
    "interrupts at birth": "KeyboardInterrupt",
    "stops": "_Halt: own",
    "raises": "ValueError: no good",
    "hogs": "out of memory: RuntimeError",
    "heads": "its forward returns a tuple, expected a tensor (16, 10): one output for each class, without auxiliary",
    "lists": "its forward returns a list, expected a tensor (16, 10)",
    "names": "its forward returns a dict, expected a tensor (16, 10)",
    "silent": "its forward returns a NoneType, expected a tensor (16, 10)",
    "short": "its outputs are (16, 9) of float32, expected a tensor (16, 10): one output for each class",
    "flat": "its outputs are (160,) of float32, expected a tensor (16, 10)",
    "map": "its outputs are (16, 10, 1, 1) of float32, expected a tensor (16, 10)",
    "halved": "its outputs are (8, 10) of float32, expected a tensor (16, 10)",
    "classes": "its outputs are (16,) of int64, expected a tensor (16, 10)",
    "nan": "its outputs are not finite numbers before the training",
    "fixed": "its outputs depend on no parameter that can be trained",
    "ungraded": "its outputs depend on no parameter that can be trained",
    "zero": "its outputs are constant: they depend on no parameter that can be trained",
    "bias": "its outputs are constant: they do not depend on the images",
    "frozen": "its outputs depend on no parameter that can be trained",
    "steep": "its gradients are not finite numbers before the training",
    "sparse": "its outputs are (16, 10) of float32 sparse_coo, expected a tensor (16, 10)",
    "complex": "its outputs are (16, 10) of complex64, expected a tensor (16, 10)",
    "half tested": "its outputs are (16, 5) of float32, expected a tensor (16, 10)",
    "recurses": "RecursionError: maximum recursion depth exceeded",
    "refuses warnings": "UserWarning: a warning",
}
"""Why each candidate fails."""
FINE = (
    "fine",
    *("closes", "moves", "shallow", "forgets", "on meta"),  # these would disturb the next ones in their process
    *("prints", "reseeds", "doubles", "is exact", "threads", "wide", "uncounted", "blind", "forks", "whole tensors"),
)
"""Candidates that can be trained all the same."""


class _Halt(BaseException):
    """An exception of a candidate that no ``except Exception`` catches."""


def _thread():
    threading.Thread(target=time.sleep, args=(3600,)).start()


def _refuse():
    raise _Halt("own")


def _interrupt():
    raise KeyboardInterrupt


def _fork():
    if os.fork() == 0:
        time.sleep(3600)


def _warn():
    warnings.simplefilter("error")
    warnings.warn("a warning", stacklevel=1)


ACTS = {
    "hangs": lambda: time.sleep(3600),
    "spins in C": lambda: ctypes.PyDLL(None).pause(),  # signals are not handled before it returns
    "ends": lambda: os._exit(9),
    "is killed": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "leaves": lambda: sys.exit("enough"),
    "interrupts": _interrupt,
    "stops": _refuse,
    "hogs": lambda: torch.empty(1 << 50),
    "prints": lambda: print("a candidate prints"),
    "reseeds": lambda: torch.manual_seed(0),
    "doubles": lambda: torch.set_default_dtype(torch.float64),
    "is exact": lambda: torch.use_deterministic_algorithms(True),
    "ungraded": lambda: torch.set_grad_enabled(False),
    "threads": _thread,
    "forks": _fork,
    "closes": lambda: (sys.stdout.close(), sys.stderr.close()),
    "moves": lambda: os.chdir("/"),
    "shallow": lambda: sys.setrecursionlimit(100),
    "forgets": lambda: sys.modules.pop(__name__, None),
    "on meta": lambda: torch.set_default_device("meta"),
    "refuses warnings": _warn,
}  # what a candidate does, by its name; ``at birth`` in its constructor


def _single(images):
    if len(images) == 1:
        raise RuntimeError("one image is too few")


class Unruly(ModelSpace):
    """One hidden layer for (1, 8, 8) images, and a choice of what else the candidate does."""

    def __init__(self, kinds=("fine", *FAULTS), widths=(4,), classes=10):
        super().__init__()
        self.kind = ensure_frozen(self.add_mutable(nni.choice("kind", list(kinds))))
        width = ensure_frozen(self.add_mutable(nni.choice("width", list(widths))))
        self.first, self.last = nn.Linear(64, width), nn.Linear(width, classes)
        if self.kind.endswith(" at birth"):
            ACTS[self.kind.removesuffix(" at birth")]()
        self.requires_grad_(self.kind != "frozen")
        if self.kind == "whole tensors":
            self.extra = self.last.weight * 1  # which cannot be copied

    def forward(self, x):
        ACTS.get(self.kind, lambda: None)()
        if self.kind == "raises":
            raise ValueError("no good\nat all")
        if self.kind == "recurses":
            return self.forward(x)
        if self.kind == "blind":
            x = x * 0
        if self.kind == "uncounted":
            _single(x)
        y = self.last(torch.relu(self.first(x.flatten(1))))
        answers = {
            "heads": lambda: (y, y),
            "lists": lambda: [y],
            "names": lambda: {"out": y},
            "silent": lambda: None,
            "short": lambda: y[:, 1:],
            "flat": lambda: y.flatten(),
            "map": lambda: y[:, :, None, None],
            "halved": lambda: y[: len(y) // 2],
            "classes": lambda: y.argmax(1),
            "nan": lambda: y * float("nan"),
            "fixed": lambda: torch.zeros_like(y),
            "zero": lambda: y * 0,
            "bias": lambda: self.last.bias.expand(len(x), -1),
            "wide": lambda: torch.cat([y, y], 1),
            "steep": lambda: y + (y * 0).sqrt(),
            "sparse": lambda: y.to_sparse(),
            "complex": lambda: y.to(torch.complex64),
            "half tested": lambda: y if self.training else y[:, :5],
        }
        return answers.get(self.kind, lambda: y)()


class Here(Unruly):
    """Candidates that cannot end the process in which they run."""

    def __init__(self):
        changes = ["moves", "shallow", "refuses warnings", "on meta", "prints"]
        super().__init__(["fine", *changes, "hangs", "leaves", "interrupts", "interrupts at birth", "stops", "heads"])


class Apart(Unruly):
    """All candidates."""

    def __init__(self):
        super().__init__(kinds=["fine", *FAULTS, *FINE[1:]])


class Threads(Unruly):
    """Candidates that leave a thread, for which a process would wait at its end."""

    def __init__(self):
        super().__init__(kinds=["fine", "threads"])


class Stillborn(Unruly):
    """The first candidate ends its process when it is built."""

    def __init__(self):
        super().__init__(kinds=["ends at birth", "fine"])
