"""Commands in a process group of their own, with a limit of time; nothing of the group is left behind."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONDENSE = shlex.split(
    "condense --data digits --method dm --encoder-network ConvNet-w8-d1 --ipc 1 --steps 3 --batch-real 8"
)
REPLAY = shlex.split(
    "replay --data digits --experiences 5 --ipc 1 --memory random --orders 1 --steps 1 --network ConvNet-w8-d1 "
    "--train-epochs 2 --regime from-scratch"
)
EVALUATE = shlex.split("evaluate --networks 1 --network ConvNet-w8-d1 --against none")
SEARCH = shlex.split(
    "search --data digits --space convnet-small --rankers random --ipc 2 --train-steps 5 --trials 3 --engine sequential"
)


@dataclass(frozen=True)
class Ended:
    """Exit code, None where the limit ended the command; what it wrote to standard output and error."""

    code: int | None
    out: str
    err: str

    @property
    def refused(self):
        """Whether it ended as commands do for bad input or damaged files."""
        return self.code in (2, 4) and "Traceback" not in self.err


def python(*arguments, cwd=None, limit=120):
    """Run this Python with ``arguments``; the folder it runs in is not searched for modules by Python itself."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    child = subprocess.Popen(
        [sys.executable, "-P", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, err = child.communicate(timeout=limit)
        code = child.returncode
    except subprocess.TimeoutExpired:
        _kill(child)
        out, err = child.communicate()
        code = None
    finally:
        _kill(child)
    return Ended(code, out, err)


def condensekit(*words, cwd=None, limit=120):
    """Run a command of the package; an unknown option is an error of the test."""
    done = python("-m", "condensekit", *words, cwd=cwd, limit=limit)
    check_usage(done.err)
    return done


def check_usage(err):
    """A command that no longer knows its words is an error of the test, not the refusal that the test looks for."""
    if "Error: No such" in err or "Error: Missing" in err or "Error: Got unexpected" in err:
        raise RuntimeError(err)


def _kill(child):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
