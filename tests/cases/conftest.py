import pytest
import torch

from tests.cases.command import check_usage


@pytest.fixture
def cli(cli):
    """Run a command in this process: (exit code, standard output, standard error)."""

    def run(*words):
        code, out, err = cli(*words)
        check_usage(err)
        return code, out, err

    return run


@pytest.fixture(autouse=True)
def one_thread():
    """Small networks train on one thread: several are much slower where anything else runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
