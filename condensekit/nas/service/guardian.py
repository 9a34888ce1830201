"""Guardian: a small process that ends NNI's manager after the search was killed.

This file has both ends. The search starts ``python -I -S guardian.py`` and writes a pid to its standard input. When
this input closes, for any reason, the guardian kills the process group of the last pid. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from types import TracebackType


class Guardian:
    """The guardian process, as the search uses it. Use it as a context manager."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__], stdin=subprocess.PIPE, start_new_session=True
        )

    def guard(self, manager: int) -> None:
        """Kill the process group of NNI's manager when this process ends; 0: the manager has ended already."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{manager}\n".encode())
        self.process.stdin.flush()

    def __enter__(self) -> Guardian:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    """Run in the guardian process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pid = 0
    for line in sys.stdin.buffer:
        pid = int(line)
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
