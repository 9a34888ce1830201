"""The fork server's loop without its process: what the kernel may tell it at one moment, in any order."""

import os
import signal
import socket
import subprocess

import pytest

from condensekit.nas.engines.forkserver import ForkServer


@pytest.fixture
def loop():
    """A server in this process, whose signal handling is put back afterwards."""
    handler, wakeup = signal.getsignal(signal.SIGCHLD), signal.set_wakeup_fd(-1)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ForkServer(theirs)
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGCHLD, handler)


def test_a_trial_and_its_client_that_end_at_the_same_moment(loop):
    trial = subprocess.Popen(["true"], start_new_session=True)
    theirs, client = socket.socketpair()
    loop.clients[trial.pid] = client
    loop._watch(client, lambda: loop._left(trial.pid, client))
    os.waitid(os.P_PID, trial.pid, os.WEXITED | os.WNOWAIT)
    theirs.close()
    events = {key.data for key, _ in loop.selector.select(0)}
    assert len(events) == 2  # a child has ended, and the client's socket
    left = events - {loop._reap}
    assert loop._reap()
    trial.wait()
    assert trial.pid not in loop.clients
    assert all(stale() for stale in left)
    assert {key.data for key in loop.selector.get_map().values()} == {loop._command, loop._reap}


def test_a_client_that_ends_first_takes_its_trial_along(loop):
    trial = subprocess.Popen(["sleep", "60"], start_new_session=True)
    theirs, client = socket.socketpair()
    loop.clients[trial.pid] = client
    loop._watch(client, lambda: loop._left(trial.pid, client))
    theirs.close()
    assert loop._left(trial.pid, client)
    os.waitid(os.P_PID, trial.pid, os.WEXITED | os.WNOWAIT)
    assert loop._reap()
    trial.wait()
    assert loop.clients == {}
    assert {key.data for key in loop.selector.get_map().values()} == {loop._command, loop._reap}
