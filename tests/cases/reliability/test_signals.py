"""A signal ends a command, whenever it comes, and nothing that the command started stays.

Sources: keyboard interrupts that end in pages of tracebacks from workers and imports, or that are lost in a loop over
seeds; trainings that a closed terminal or a scheduler's SIGHUP ends without a checkpoint; orphans of killed searches.
"""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from condensekit.runs.files import load_tensors
from tests.cases.command import CONDENSE, EVALUATE, REPLAY, ROOT, SEARCH, python

pytestmark = pytest.mark.kill
CODES = [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)]
LONG = (*CONDENSE, "--steps", "200000")  # the later --steps counts
MARK = "CONDENSEKIT_SIGNAL_TEST"
WAIT_S = 90  # a bound against hanging; a busy machine imports torch in 20 s


class Started:
    """A command of the package that runs beside the test; ``marked`` finds what it started."""

    def __init__(self, *words, cwd, ignored=(), terminal=None):
        self.mark = uuid.uuid4().hex
        self.said = Path(cwd) / "said"

        def prepare():  # shells let background jobs ignore SIGINT; pytest may be one
            for name, _ in CODES:
                signal.signal(signal.Signals[name], signal.SIG_IGN if name in ignored else signal.SIG_DFL)

        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "condensekit", *map(str, words)],
                cwd=cwd,
                env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", MARK: self.mark},
                stdin=terminal or subprocess.DEVNULL,
                stdout=terminal or said,
                stderr=terminal or said,
                start_new_session=True,
                preexec_fn=prepare,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in self.marked():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def marked(self):
        """Processes that have inherited the mark and run, with their command lines."""
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, IndexError):
                inherited = f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes().split(b"\0")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if inherited and state != "Z":
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def wait_for(self, condition):
        """Until the command got so far; it must not end before."""
        end = time.monotonic() + WAIT_S
        while not condition():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(self.said.read_text())
            time.sleep(0.01)

    def has_loaded(self, library):
        """Whether a file of this name is in the memory of the command."""
        return library in Path(f"/proc/{self.process.pid}/maps").read_text()

    def ends(self):
        """The exit code and what it said; everything that it started has to end, too."""
        code = self.process.wait(WAIT_S)
        end = time.monotonic() + WAIT_S
        while left := self.marked():
            assert time.monotonic() < end, left
            time.sleep(0.02)
        return code, self.said.read_text()


@pytest.fixture
def run(cli, tmp_path):
    """The folder of a finished run."""
    code, _, err = cli(*CONDENSE, "--out", tmp_path / "made")
    if code != 0:
        raise RuntimeError(err)
    return tmp_path / "made"


@pytest.mark.parametrize(("name", "code"), CODES)
def test_a_signal_in_the_last_step_ends_the_command_before_the_next_seed(tmp_path, name, code):
    done = python("-m", "tests.cases.reliability.signalled", name, tmp_path / "run")
    steps = re.search(r"steps: (\d+)", done.out)
    if not steps or steps[1] == "0":
        raise RuntimeError(done.err)
    assert (done.code, steps[1]) == (code, "3")
    assert (tmp_path / "run/seed-0/set.safetensors").exists()  # the run had finished


@pytest.mark.parametrize(("name", "code"), CODES)
def test_a_second_signal_ends_the_command_at_once(tmp_path, name, code):
    done = python("-m", "tests.cases.reliability.signalled", name, tmp_path / "run", name)
    assert (done.code, done.out) == (code, "")
    assert "Traceback" not in done.err


@pytest.mark.slow
def test_a_hangup_is_ignored_under_nohup(tmp_path):
    with Started(*LONG, "--out", "run", cwd=tmp_path, ignored=("SIGHUP",)) as command:
        metrics = tmp_path / "run/metrics.csv"
        command.wait_for(metrics.exists)
        command.process.send_signal(signal.SIGHUP)
        size = metrics.stat().st_size
        command.wait_for(lambda: metrics.stat().st_size > size + 2000)
        command.process.send_signal(signal.SIGTERM)
        assert command.ends()[0] == 143


@pytest.mark.slow
def test_a_terminal_that_closes_leaves_a_checkpoint(tmp_path):
    ours, theirs = pty.openpty()
    with Started(*LONG, "--out", "run", cwd=tmp_path, terminal=theirs) as command:
        os.close(theirs)
        command.wait_for((tmp_path / "run/metrics.csv").exists)
        os.close(ours)
        command.process.send_signal(signal.SIGHUP)
        assert command.ends()[0] == 129
    assert len(list((tmp_path / "run/checkpoints").iterdir())) == 1


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_its_folder_alone_to_the_same_images(cli, tmp_path):
    words = (*CONDENSE, "--steps", "500")
    with Started(*words, "--out", "run", cwd=tmp_path) as command:
        command.wait_for((tmp_path / "run/metrics.csv").exists)
        command.process.send_signal(signal.SIGHUP)
        ended, said = command.ends()
    assert "Traceback" not in said
    assert ended == 129
    assert "--resume" in said
    assert cli("condense", "--resume", "--out", tmp_path / "run")[0] == 0
    assert cli(*words, "--out", tmp_path / "whole")[0] == 0
    one, two = (load_tensors(tmp_path / f / "set.safetensors", "condensed set")[0] for f in ("run", "whole"))
    assert all((one[name] == two[name]).all() for name in two)


@pytest.mark.parametrize("name", ["condense", "evaluate", "search"])
def test_ctrl_c_during_the_imports_is_silent(tmp_path, name):
    """The words of the command do not matter: it is not called yet."""
    with Started(name, "--help", cwd=tmp_path) as command:
        command.wait_for(lambda: command.has_loaded("libtorch"))
        command.process.send_signal(signal.SIGINT)
        assert command.ends() == (130, "")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
@pytest.mark.parametrize("engine", ["pool", "nni"])
def test_nothing_stays_when_a_search_ends_while_its_workers_import(tmp_path, engine, name):
    words = (*SEARCH, "--engine", engine, "--port", "8731", "--out", "out", "--quiet")
    with Started(*words, cwd=tmp_path) as command:
        command.wait_for(lambda: any("forkserver" in line for line in command.marked().values()))
        command.process.send_signal(signal.Signals[name])
        code, said = command.ends()
    assert "Traceback" not in said
    assert code == (130 if name == "SIGINT" else -signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), CODES)
@pytest.mark.parametrize("engine", ["sequential", "pool", "nni"])
def test_a_signal_ends_a_search_with_all_its_processes(tmp_path, engine, name, code):
    words = (*SEARCH, "--trials", "40", "--train-steps", "300", "--port", "8732", "--workers", "1", "--out", "out")
    with Started(*words, "--engine", engine, cwd=tmp_path) as command:
        command.wait_for(lambda: (tmp_path / "out/trials.jsonl").exists())
        command.process.send_signal(signal.Signals[name])
        ended, said = command.ends()
    assert "Traceback" not in said
    assert ended == code


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), CODES)
@pytest.mark.parametrize("regime", ["from-scratch", "er"])
def test_a_signal_ends_a_replay(tmp_path, regime, name, code):
    words = (*REPLAY, "--train-epochs", "1000", "--er-epochs", "1000", "--regime", regime, "--out", "out")
    with Started(*words, cwd=tmp_path) as command:
        command.wait_for(lambda: (tmp_path / "out/memories.json").exists())
        command.process.send_signal(signal.Signals[name])
        ended, said = command.ends()
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said
    assert ended == code


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), CODES)
def test_a_signal_ends_an_evaluation(run, tmp_path, name, code):
    words = (*EVALUATE, run, "--networks", "5000")
    with Started(*words, cwd=tmp_path) as command:
        command.wait_for(lambda: command.has_loaded("libtorch"))
        time.sleep(5)  # imports or trainings, whatever the machine got to
        command.process.send_signal(signal.Signals[name])
        ended, said = command.ends()
    assert "Traceback" not in said
    assert ended == code
