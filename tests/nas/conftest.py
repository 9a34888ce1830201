import pytest

import condensekit.nas  # first: it silences what nni says at its first import


@pytest.fixture(scope="session")
def server():
    """One fork server for all tests: starting it costs seconds."""
    with condensekit.nas.WarmServer() as running:
        yield running
