"""Fixtures that the tests of the command line share."""

import os
import signal
import sys

import numpy as np
import pytest

from condensekit.cli import main

if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as under nohup: what the tests start would ignore it too

os.environ["COLUMNS"] = "100"  # of tables and helps: a worker of pytest-xdist has a terminal of 80


def pytest_collection_modifyitems(items):
    """Tests that start processes of their own run one after the other, on one worker of pytest-xdist."""
    for item in items:
        if item.get_closest_marker("kill") or item.get_closest_marker("nni"):
            item.add_marker(pytest.mark.xdist_group("processes"))


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory):
    """A folder for compiled networks, so that no test reads or writes the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONDENSEKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def cli(capsys):
    """Run a command in this process: (exit code, standard output, standard error)."""

    def run(*arguments):
        before = signal.getsignal(signal.SIGTERM), list(sys.path)
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in arguments])
        signal.signal(signal.SIGTERM, before[0])
        sys.path[:] = before[1]
        return end.value.code, *capsys.readouterr()

    return run


def patterns(path, n):
    """Write a .npz file with 3 classes (labels with gaps) of ``n`` noisy 8x8 patterns, and 6 of each for testing."""
    rng = np.random.default_rng(0)
    plain = rng.integers(0, 150, (3, 8, 8, 3))

    def images(count):
        return np.concatenate([p + rng.integers(0, 100, (count, 8, 8, 3)) for p in plain]).astype(np.uint8)

    labels = [1, 5, 6]
    np.savez(
        path, images=images(n), labels=np.repeat(labels, n), test_images=images(6), test_labels=np.repeat(labels, 6)
    )
    return path
