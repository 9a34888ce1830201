import pytest

from tests.cases.command import check_usage


@pytest.fixture
def cli(cli):
    """Run a command in this process: (exit code, standard output, standard error)."""

    def run(*words):
        code, out, err = cli(*words)
        check_usage(err)
        return code, out, err

    return run
