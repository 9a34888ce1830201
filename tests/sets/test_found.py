"""Found sets: what a path holds, and what it says where there is no set."""

import pytest

from condensekit.errors import ConfigError
from condensekit.sets import found


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("search.json", "is a run of search, which has no set of its own: condensekit report"),
        ("replay.json", "is a run of replay, which has no set of its own: condensekit report"),
        ("config.json", "no finished set in .*: finish its run with resume=True, or give another run"),
    ],
)
def test_other_runs_say_what_they_are(tmp_path, name, says):
    (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match=says):
        found.find(tmp_path)
    with pytest.raises(ConfigError, match=f"{name} is a file, not a run: give a folder made by .*, or load\\(\\) it"):
        found.find(tmp_path / name)
