"""Library of compiled functions: built once in a process of its own, kept on disk, called from several threads at once.

A function of tensors is traced to a graph of torch's plain operations, which torch's Inductor turns into a shared
library for this processor. The library is called through its C interface by ctypes. Unlike the Python call of a package
of torch's own, this lets other threads run meanwhile. Weights are inputs, so that new weights need no new library.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from condensekit.compute.cache import cache_folder
from condensekit.compute.graph import Unfit
from condensekit.compute.machine import can_compile

log = logging.getLogger(__name__)
SECONDS = 900  # longest time of one build
UNUSED = 90 * 86400  # seconds without use after which a library is removed
_BUILDER = Path(__file__).with_name("build.py")
_lock = threading.Lock()  # of the table of loaded libraries and of every build
_loaded: dict[tuple[str, str, int], Library] = {}


class Abandoned(Exception):  # noqa: N818 - no error, but the end of a wait
    """A build was given up, because nobody waits for what needs it."""


class Patience:
    """How long a program waits for the compiler.

    Attributes:
        asked: Whether the program wants to end; called all the time while the compiler works.
        tell: Says to people how long a build took.
        seconds: The time for all builds.
        used: What they took so far.
    """

    def __init__(self) -> None:
        self.asked: Callable[[], bool] = lambda: False
        self.tell: Callable[[str], None] = log.info
        self.seconds, self.used = math.inf, 0.0
        self._ended = threading.Event()

    def end(self) -> None:
        """Give up the present build and all later ones."""
        self._ended.set()

    def wait(self, builder: subprocess.Popen[bytes]) -> None:
        """Wait for the end of a process.

        Raises:
            Abandoned: The program wants to end.
            Unfit: The process took too long.
        """
        began, most = time.monotonic(), min(SECONDS, self.seconds - self.used)
        try:
            while builder.poll() is None:
                if self._ended.is_set() or self.asked():
                    raise Abandoned
                if time.monotonic() - began > most:
                    raise Unfit(f"the compiler needs more than {max(0, most):.0f} s")
                time.sleep(0.05)
        finally:
            self.used += time.monotonic() - began


class Library:
    """One compiled function of a shared library.

    Args:
        path: The shared library.
        outputs: Number of tensors that the function returns.
        copies: Calls that may run at the same time; further calls wait.
    """

    def __init__(self, path: Path, outputs: int, copies: int) -> None:
        try:
            library = ctypes.CDLL(str(path))
            create, self._run = library.AOTInductorModelContainerCreateWithDevice, library.AOTInductorModelContainerRun
            self._lend, self._take = (
                _aoti.unsafe_alloc_void_ptrs_from_tensors,
                _aoti.alloc_tensors_by_stealing_from_void_ptrs,
            )
        except (OSError, AttributeError) as error:  # a folder without leave to run programs, or another torch
            raise Unfit(f"the library cannot be loaded: {error}") from error
        self._outputs, self._handle = outputs, ctypes.c_void_p()
        create.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_char_p]
        self._run.argtypes = [ctypes.c_void_p, *2 * (ctypes.c_void_p, ctypes.c_size_t), *2 * (ctypes.c_void_p,)]
        if create(ctypes.byref(self._handle), copies, b"cpu", None):
            raise Unfit(f"{path.name} cannot be started")

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Call the function with inputs of the shapes, types and memory formats of its examples."""
        handles = [_address(capsule, None) for capsule in self._lend(list(inputs))]
        given, made = (ctypes.c_void_p * len(handles))(*handles), (ctypes.c_void_p * self._outputs)()
        if self._run(self._handle, given, len(handles), made, self._outputs, None, None):
            raise RuntimeError("a compiled network failed: its reason stands in the lines above")
        taken: list[Tensor] = self._take([_capsule(handle, None, None) for handle in made])
        return taken


_aoti: Any = torch._C._aoti
_address = ctypes.pythonapi.PyCapsule_GetPointer
_address.restype, _address.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_capsule = ctypes.pythonapi.PyCapsule_New
_capsule.restype, _capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


def libraries(
    kind: str, graph: GraphModule, examples: Sequence[Tensor], copies: int, patience: Patience
) -> dict[str, Library]:
    """The compiled functions of a graph, from this process, from the disk, or built now.

    Args:
        kind: ``plain``: ``run`` is the graph. ``pullback``: ``forward`` returns its output and what ``backward`` needs
            before the gradient of the output, to give the gradient of the first input. ``gradient``: ``run`` returns
            the output, one number, and its gradients with respect to all inputs that need one.
        graph: A graph of one output; see :func:`condensekit.compute.graph.traced`.
        examples: Its inputs; shapes and types are kept, values are not.
        copies: See :class:`Library`.
        patience: How long a build may take.

    Raises:
        Unfit: There is no compiler, or the build failed or took too long.
        Abandoned: The program wants to end.
    """
    told = [[list(t.shape), list(t.stride()), str(t.dtype), t.requires_grad] for t in examples]
    builder = hashlib.sha256(_BUILDER.read_bytes()).hexdigest()
    asked = {"builder": builder, "kind": kind, "graph": graph.code, "inputs": told, "machine": _machine()}
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]
    with _lock:
        folder = cache_folder("compiled") / key
        found = _manifest(folder)
        if found is None:
            _build(folder, kind, graph, examples, patience)
            found = _manifest(folder)
            if found is None:
                raise Unfit(f"{folder} cannot be read")
        with suppress(OSError):
            os.utime(folder)  # its last use
        for name, outputs in found.items():
            if (key, name, copies) not in _loaded:
                _loaded[key, name, copies] = Library(folder / f"{name}.so", outputs, copies)
        return {name: _loaded[key, name, copies] for name in found}


def _machine() -> list[str]:
    """What a library depends on besides its function: torch and the processor."""
    flags = ""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return [torch.__version__, platform.machine(), torch.backends.cpu.get_cpu_capability(), flags]


def _manifest(folder: Path) -> dict[str, int] | None:
    """Number of outputs by function; None if the folder is missing or damaged. A damaged folder is removed."""
    try:
        found = json.loads((folder / "manifest.json").read_bytes())
        for name, sha256 in found["sha256"].items():
            if hashlib.sha256((folder / f"{name}.so").read_bytes()).hexdigest() != sha256:
                raise ValueError("another checksum")
        return {name: int(count) for name, count in found["outputs"].items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s is damaged (%s), and is built again", folder, error)
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _build(folder: Path, kind: str, graph: GraphModule, examples: Sequence[Tensor], patience: Patience) -> None:
    """Build the library in a process of its own, so that a compiler's memory and failures stay there."""
    if not can_compile():
        raise Unfit("there is no C++ compiler (g++ or clang++) on the PATH")
    began = time.monotonic()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    except OSError as error:
        raise Unfit(f"{folder.parent} cannot be written: {error.strerror}") from error
    try:
        empty = [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype) for t in examples]
        for kept, given in zip(empty, examples, strict=True):
            kept.requires_grad_(given.requires_grad)
        torch.save({"kind": kind, "graph": graph, "inputs": empty}, work / "asked.pt")
        with (work / "log").open("wb") as written:
            builder = subprocess.Popen(
                [sys.executable, str(_BUILDER), str(work)], stdout=written, stderr=written, start_new_session=True
            )
            try:
                patience.wait(builder)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(builder.pid, signal.SIGKILL)  # with the compiler that it may have started
                builder.wait()
        if builder.returncode:
            last = (work / "log").read_text(errors="replace").strip().splitlines()[-1:]
            raise Unfit(f"the build failed ({' '.join(last)[:200] or 'without a word'})")
        with suppress(OSError):  # another process was first
            work.rename(folder)
    except (OSError, RuntimeError) as error:
        raise Unfit(f"the build failed ({error})"[:240]) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    patience.tell(f"compiled in {time.monotonic() - began:.0f} s")
    _tidy(folder.parent)


def _tidy(cache: Path) -> None:
    """Remove libraries that nobody has used for long, such as those of a former torch."""
    with suppress(OSError):  # another process tidies, too
        for folder in cache.iterdir():
            if time.time() - folder.stat().st_mtime > UNUSED:
                shutil.rmtree(folder, ignore_errors=True)
