import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from condensekit.errors import ConfigError, StoreError
from condensekit.nas.trials.time_budget import TimeBudget


def test_time_counts_while_it_is_entered_and_over_all_uses_of_a_file(tmp_path):
    path = tmp_path / "new" / "time.json"
    with TimeBudget(10, path) as first:
        time.sleep(0.1)
        assert 0.1 <= first.used_s < 1
        assert first.deadline == pytest.approx(time.monotonic() + 10 - first.used_s, abs=0.05)
    used = json.loads(path.read_text())["used_s"]
    assert used == pytest.approx(first.used_s, abs=0.002)
    assert 0.1 <= used < 1
    time.sleep(0.05)
    assert first.used_s == pytest.approx(used, abs=0.002)
    with TimeBudget(used + 0.2, path) as second:
        assert not second.spent()
        time.sleep(0.25)
        assert second.spent()
        assert second.left_s == 0
    assert TimeBudget(used, path).spent()
    assert not TimeBudget(100, path).spent()


def test_without_a_limit_time_is_kept_all_the_same(tmp_path):
    with TimeBudget(None, tmp_path / "time.json") as budget:
        assert budget.deadline is None
        assert not budget.spent()
    assert (tmp_path / "time.json").is_file()
    with TimeBudget(0.01) as memory:
        time.sleep(0.02)
        assert memory.spent()


def test_a_kill_forgets_a_second_at_most(tmp_path):
    path = tmp_path / "time.json"
    code = "import time\nfrom pathlib import Path\nfrom condensekit.nas.trials.time_budget import TimeBudget\n"
    code += f"with TimeBudget(60, Path({str(path)!r})):\n    print('on', flush=True)\n    time.sleep(60)\n"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONWARNINGS": "ignore"}
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"on\n"
        time.sleep(2.4)
        child.send_signal(signal.SIGKILL)
    assert 1 <= TimeBudget(60, path).used_s < 4


def test_a_limit_that_makes_no_sense():
    with pytest.raises(ConfigError, match="budget_s must be positive, got 0"):
        TimeBudget(0)


@pytest.mark.parametrize("text", ["{}", "[]", '{"used_s": null}', '{"used_s": "long"}'])
def test_a_file_that_says_no_time_is_named(tmp_path, text):
    (tmp_path / "time.json").write_text(text)
    with pytest.raises(StoreError, match=r"time\.json does not say the time used .* delete it to count from 0"):
        TimeBudget(10, tmp_path / "time.json")
