"""Fork server: a process that imports all modules once and then forks each worker in milliseconds.

``python -m condensekit.nas.engines.forkserver DESCRIPTOR``; the descriptor is a socket to the process that started the
server (:mod:`condensekit.nas.engines.client`). When the other end of this socket closes, for any reason, the server
kills all its workers and exits. Each worker leads a process group of its own, and ends when the server ends.

Messages to the server: ``P`` with the folders of ``sys.path``; ``J`` with a job (a pickled space and evaluator),
answered by ``j`` with its number, or by ``e`` with a reason; ``D`` with the number of a job that is done; ``F`` with
the number of a job and the socket of a new worker, answered by ``f`` with its pid; ``K`` with the pid of a worker to
kill; ``L`` with the number of a job and the path of a socket for trials of NNI's training service; ``M`` with the pid
of NNI's manager, which is killed with the workers. The server sends ``x`` with the pid and wait status of each worker
that ended.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from condensekit.nas.engines import messages  # all else is imported by main, which prepares for signals before

if TYPE_CHECKING:
    from condensekit.nas.engines.worker import Job


class ForkServer:
    """Event loop of the server process.

    Args:
        control: Socket to the process that started the server.
    """

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.selector = selectors.DefaultSelector()
        self.alive, self._pulse = os.pipe()  # a worker reads the end of ``alive`` when this process has ended
        self.ended, wake = os.pipe()
        os.set_blocking(self.ended, False)
        os.set_blocking(wake, False)
        self.wake = wake
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake)
        self.clients: dict[int, socket.socket | None] = {}  # by pid: client of a trial; None: a worker of the pool
        self.manager = 0
        self.jobs: dict[int, Job] = {}  # by number
        self.numbers = count()
        self._watch(control, self._command)
        self._watch(self.ended, self._reap)

    def _watch(self, source: socket.socket | int, call: Callable[[], bool]) -> None:
        self.selector.register(source, selectors.EVENT_READ, call)

    def serve(self) -> None:
        """Handle messages until the other end of the control socket closes; then kill all workers."""
        going = True
        while going:
            for ready, _ in self.selector.select():
                going = ready.data() and going
        for pid in [*self.clients, *filter(None, [self.manager])]:
            _kill(pid)

    def _command(self) -> bool:
        message = messages.receive(self.control)
        if message is None:
            return False
        kind, payload, descriptors = message
        if kind == "P":
            sys.path[:] = json.loads(payload)
        elif kind == "J":
            self._take_job(payload)
        elif kind == "D":
            del self.jobs[int(payload)]
        elif kind == "F":
            from condensekit.nas.engines import worker

            job = self.jobs[int(payload)]
            pid = self._fork(lambda: worker.work(job, descriptors[0]))
            self.clients[pid] = None
            os.close(descriptors[0])
            self._tell("f", pid)
        elif kind == "K" and int(payload) in self.clients:
            _kill(int(payload))
        elif kind == "L":
            number, path = payload.decode().split(" ", 1)
            self._listen(self.jobs[int(number)], Path(path))
        elif kind == "M":
            self.manager = int(payload)
        return True

    def _tell(self, kind: str, *numbers: int) -> None:
        with contextlib.suppress(OSError):
            messages.send(self.control, kind, " ".join(map(str, numbers)).encode())

    def _take_job(self, payload: bytes) -> None:
        import cloudpickle

        try:
            with _leaving_with(self.control):
                job: Job = cloudpickle.loads(payload)
                job.prepare()
        except Exception as error:
            messages.send(self.control, "e", f"{type(error).__name__}: {error}".encode())
        else:
            number = next(self.numbers)
            self.jobs[number] = job
            self._tell("j", number)

    def _listen(self, job: Job, path: Path) -> None:
        """Accept trials of a job from NNI's training service at a socket that only this user can open."""
        listener = socket.socket(socket.AF_UNIX)
        here = os.open(".", os.O_RDONLY)
        before = os.umask(0o077)
        try:
            os.chdir(path.parent)  # the path of a socket must be short
            path.unlink(missing_ok=True)
            listener.bind(path.name)
        finally:
            os.umask(before)
            os.fchdir(here)
            os.close(here)
        listener.listen(64)
        self._watch(listener, lambda: self._accept(job, listener))
        messages.send(self.control, "l")

    def _accept(self, job: Job, listener: socket.socket) -> bool:
        client, _ = listener.accept()
        message = messages.receive(client)
        if message is None or len(message[2]) != 3:
            client.close()
            return True
        from condensekit.nas.engines import worker

        request, streams = json.loads(message[1]), message[2]
        pid = self._fork(lambda: worker.nni_trial(job, request, streams))
        for descriptor in streams:
            os.close(descriptor)
        self.clients[pid] = client
        self._watch(client, lambda: self._left(pid, client))
        return True

    def _left(self, pid: int, client: socket.socket) -> bool:
        """Kill a trial whose client was killed by NNI."""
        if self.clients.get(pid) is client:  # otherwise the trial ended at the same time, and this was handled first
            self.selector.unregister(client)
            client.close()
            self.clients[pid] = None
            _kill(pid)
        return True

    def _reap(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            os.read(self.ended, 4096)
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                client = self.clients.pop(pid, None)
                with contextlib.suppress(OSError):
                    os.killpg(pid, signal.SIGKILL)  # processes that the worker left behind
                if client is None:
                    self._tell("x", pid, status)
                    continue
                with contextlib.suppress(OSError):
                    messages.send(client, "x", str(os.waitstatus_to_exitcode(status)).encode())
                self.selector.unregister(client)
                client.close()
        return True

    def _fork(self, work: Callable[[], None]) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            os.setsid()
            _first_to_go()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(self._pulse)
            for entry in list(self.selector.get_map().values()):
                os.close(entry.fd)
            os.close(self.wake)
            threading.Thread(target=_die_with, args=(self.alive,), daemon=True).start()
            work()
            code = 0
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _first_to_go() -> None:
    """Let the system end this worker, and not the search, if memory runs out."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _die_with(alive: int) -> None:
    """Wait until the server ends and its pipe closes, then kill the process group of this worker."""
    os.read(alive, 1)
    os.killpg(0, signal.SIGKILL)


@contextlib.contextmanager
def _leaving_with(control: socket.socket) -> Iterator[None]:
    """Work that takes seconds, in which the other end sends nothing: leave at once when it is gone."""
    over, told = os.pipe()

    def watch() -> None:
        ready, _, _ = select.select([control.fileno(), over], [], [])
        if over not in ready:
            os._exit(0)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        os.close(told)
        watcher.join()
        os.close(over)


def _kill(pid: int) -> None:
    """Kill a process group, and the process itself, which may not lead a group yet."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def main() -> None:
    """Serve the socket whose descriptor is the first argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    with _leaving_with(control):
        from condensekit.nas.engines import worker

        worker.preload()
    gc.collect()
    gc.freeze()  # workers share the memory of what is imported until a collector writes into it
    messages.send(control, "r")
    ForkServer(control).serve()
    os._exit(0)  # a usual exit would take seconds to unload torch


if __name__ == "__main__":
    main()
