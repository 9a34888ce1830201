"""Client of the fork server: starts the server, gives it jobs, and forks and kills their workers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

import cloudpickle

import condensekit
from condensekit.errors import CondensekitError, ConfigError
from condensekit.nas.engines import messages
from condensekit.nas.engines.worker import Job

START_S = 120  # largest time of the server's imports in seconds


class WarmServer:
    """Fork server that ends with this process, however this process ends. Use it as a context manager.

    It can serve several searches, also at the same time: the start of the server takes seconds, that of a worker
    milliseconds.

    >>> from condensekit.nas import WarmServer
    >>> with WarmServer() as server:  # search(..., server=server), any number of times
    ...     server.process.poll() is None
    True
    """

    def __init__(self) -> None:
        self._ends: dict[int, int] = {}
        ours, theirs = socket.socketpair()
        self._control = ours
        home = str(Path(condensekit.__file__).parents[1])
        path = os.pathsep.join([p for p in search_path() if p != os.getcwd()] + [home])  # code of the job may lie here
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "condensekit.nas.engines.forkserver", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, **threads, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=2,  # what candidates print must not mix with the output of a command
                start_new_session=True,  # Ctrl-C reaches the search only
            )
        self._ready = False

    def __enter__(self) -> WarmServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the server and all its workers."""
        self._control.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    @contextlib.contextmanager
    def working_on(self, job: Job) -> Iterator[int]:
        """Context in which the server has a job; gives the number of the job.

        Raises:
            ConfigError: The job cannot be sent, or cannot be loaded by the server.
        """
        try:
            payload = cloudpickle.dumps(job)
        except Exception as error:
            raise ConfigError(
                f"space or evaluator cannot be sent to workers: {type(error).__name__}: {error}"
            ) from error
        if not self._ready:
            self._control.settimeout(START_S)
            self._expect("r")
            self._control.settimeout(None)
            self._ready = True
        self._send("P", json.dumps(search_path()).encode())
        self._send("J", payload)
        number = int(self._expect("j"))
        try:
            yield number
        finally:
            with contextlib.suppress(CondensekitError):  # the server may have ended
                self._send("D", str(number).encode())

    def fork(self, job: int) -> tuple[int, Connection]:
        """Start a worker for a job; returns its pid and the pipe to it."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._send("F", str(job).encode(), descriptors=(theirs.fileno(),))
        pid = int(self._expect("f"))
        return pid, Connection(ours.detach())

    def kill(self, pid: int) -> None:
        """Kill a worker."""
        self._send("K", str(pid).encode())

    def listen(self, job: int, path: Path) -> None:
        """Accept trials of a job from NNI's training service at a socket ``path``, whose folder exists."""
        self._send("L", f"{job} {path.absolute()}".encode())
        self._expect("l")

    def guard(self, manager: int) -> None:
        """Kill the process group of NNI's manager when this process ends; 0: the manager has ended already."""
        self._send("M", str(manager).encode())

    def end_of(self, pid: int) -> str:
        """Wait for the end of a worker; returns a text that says how it ended."""
        while pid not in self._ends:
            self._note(self._expect("x"))
        code = os.waitstatus_to_exitcode(self._ends.pop(pid))
        if code >= 0:
            return f"its worker ended with exit code {code}"
        hint = ", perhaps out of memory" if -code == signal.SIGKILL else ""
        return f"its worker was killed by signal {-code} ({signal.Signals(-code).name}){hint}"

    def _note(self, text: str) -> None:
        pid, status = map(int, text.split())
        self._ends[pid] = status

    def _send(self, kind: str, payload: bytes = b"", descriptors: tuple[int, ...] = ()) -> None:
        try:
            messages.send(self._control, kind, payload, descriptors)
        except OSError as error:
            raise self._gone() from error

    def _expect(self, kind: str) -> str:
        """Payload of the next message of this kind; messages on ended workers that arrive before it are stored."""
        while True:
            try:
                message = messages.receive(self._control)
            except TimeoutError:
                raise CondensekitError(f"the fork server was not ready within {START_S} s") from None
            if message is None:
                raise self._gone()
            found, payload, _ = message
            if found == kind:
                return payload.decode()
            if found == "x":
                self._note(payload.decode())
            elif found == "e":
                raise ConfigError(f"space or evaluator cannot be loaded in a worker: {payload.decode()}")

    def _gone(self) -> CondensekitError:
        return CondensekitError("the fork server has ended: see its messages above; start the search again")


def serving(engine: str) -> AbstractContextManager[WarmServer | None]:
    """Context with a fork server for the searches of an engine; None: ``sequential`` needs none."""
    return contextlib.nullcontext() if engine == "sequential" else WarmServer()


def search_path() -> list[str]:
    """The folders that are searched for modules."""
    return [os.path.abspath(entry) for entry in sys.path]
