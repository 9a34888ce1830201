import pytest


@pytest.fixture(scope="session")
def server():
    """One fork server for all tests: starting it costs seconds."""
    from condensekit.nas import WarmServer

    with WarmServer() as running:
        yield running
