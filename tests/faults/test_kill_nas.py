"""kill -9 of a search alone: nothing it started stays, and its resume repeats no finished trial."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from condensekit.nas import TrialLog, search
from tests.faults.kill_nas_child import run
from tests.nas.toy import Toy, scoring

pytestmark = pytest.mark.kill

ROOT = Path(__file__).parents[2]
MARK = "CONDENSEKIT_KILL_TEST"


def start(engine, folder, mark):
    command = [sys.executable, "-m", "tests.faults.kill_nas_child", engine, str(folder)]
    env = {**os.environ, MARK: mark, "PYTHONPATH": str(ROOT)}
    with (folder / "said").open("wb") as said:
        return subprocess.Popen(command, cwd=ROOT, env=env, stdout=said, stderr=said)


def wait_for_it(child, folder, condition):
    """Until the search got so far; what it said where it ended before, or does not get there."""
    end = time.monotonic() + 90
    while not condition():
        goes_on = child.poll() is None and time.monotonic() < end
        assert goes_on, (folder / "said").read_text()
        time.sleep(0.02)


def marked(mark):
    """Processes that have inherited the mark, with what they run; those that have ended and wait for us are none."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            inherited = f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0")
            zombie = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            if inherited and not zombie:
                found[entry.name] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def wait_until_nothing_is_left(mark):
    end = time.monotonic() + 10
    while left := marked(mark):
        assert time.monotonic() < end, f"left behind: {left}"
        time.sleep(0.02)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # sockets nni leaves open
@pytest.mark.parametrize("engine", ["sequential", "pool", "nni"])
def test_kill_after_four_of_ten_and_resume(engine, tmp_path):
    trials, calls = tmp_path / "trials.jsonl", tmp_path / "calls"
    mark = uuid.uuid4().hex
    child = start(engine, tmp_path, mark)
    try:
        wait_for_it(child, tmp_path, lambda: trials.exists() and trials.read_bytes().count(b"\n") >= 4)
        assert len(marked(mark)) >= {"sequential": 1, "pool": 2, "nni": 3}[engine]  # a worker may just have ended
    finally:
        os.kill(child.pid, signal.SIGKILL)  # the search alone
        child.wait()
    wait_until_nothing_is_left(mark)
    finished = TrialLog(trials).trials("proxy")
    assert 4 <= len(finished) < 10
    before = calls.read_text().splitlines()
    run(engine, tmp_path)
    ran = calls.read_text().splitlines()[len(before) :]
    done = {(trial.architecture["width"], trial.architecture["act"]) for trial in finished}
    names = {"ReLU": "relu", "Tanh": "tanh", "Identity": "none"}
    repeated = [line for line in ran if (int(line.split()[0]), names[line.split()[1]]) in done]
    assert repeated == []
    assert len(ran) == 10 - len(finished)
    whole = search(Toy(), scoring(), "random", trials=10, engine="sequential", seed=2)
    resumed = TrialLog(trials).trials("proxy")
    assert [(t.architecture, t.score) for t in resumed] == [(t.architecture, t.score) for t in whole]


def test_a_manager_without_a_warm_server_ends_with_the_search_and_its_trials(tmp_path):
    """As with NNI's services on other machines: there is no fork server that could take it along."""
    mark = uuid.uuid4().hex
    child = start("nni-as-it-is", tmp_path, mark)
    try:
        wait_for_it(child, tmp_path, (tmp_path / "calls").exists)
        assert any("main.js" in line for line in marked(mark).values())
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    wait_until_nothing_is_left(mark)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # sockets nni leaves open
@pytest.mark.parametrize("engine", ["pool", "nni"])
def test_a_killed_fork_server_ends_the_search_and_fails_no_candidate(engine, tmp_path):
    mark = uuid.uuid4().hex
    child = start(engine, tmp_path, mark)
    try:
        wait_for_it(child, tmp_path, (tmp_path / "calls").exists)
        parents = {pid: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] for pid in marked(mark)}
        servers = [pid for pid, line in marked(mark).items() if "forkserver" in line and parents[pid] == str(child.pid)]
        assert len(servers) == 1
        os.kill(int(servers[0]), signal.SIGKILL)
        assert child.wait(30) != 0
    finally:
        child.kill()
        child.wait()
    wait_until_nothing_is_left(mark)
    assert "the fork server has ended" in (tmp_path / "said").read_text()
    run(engine, tmp_path)
    assert [trial.reason for trial in TrialLog(tmp_path / "trials.jsonl").trials()] == [""] * 10
