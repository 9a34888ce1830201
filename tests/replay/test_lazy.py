import subprocess
import sys

import pytest

import condensekit.replay


@pytest.mark.parametrize(
    ("line", "loaded"),
    [
        ("import condensekit.replay", False),
        ("from condensekit.replay import Bytes, Images; Images(3)", False),
        ("from condensekit.replay import CondensedBuffer", True),
    ],
)
def test_avalanche_is_imported_only_where_it_is_needed(line, loaded):
    code = f"import sys; {line}; sys.exit(('avalanche' in sys.modules) != {loaded})"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


def test_every_name_is_there():
    for name in condensekit.replay.__all__:
        assert getattr(condensekit.replay, name) is not None
    assert sorted(condensekit.replay.__all__) == sorted(
        name for names in condensekit.replay._MODULES.values() for name in names
    )
    assert set(condensekit.replay.__all__) <= set(dir(condensekit.replay))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        condensekit.replay.Nothing  # noqa: B018
