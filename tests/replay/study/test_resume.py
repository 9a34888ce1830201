import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from condensekit.rng import isolated
from tests.replay.killed import main

pytestmark = pytest.mark.kill


def test_a_run_that_was_killed_within_a_condensation_ends_as_if_it_had_not_been(tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "tests.replay.killed", str(tmp_path / "killed"), "215"]
    (tmp_path / "killed").mkdir()
    (tmp_path / "whole").mkdir()
    ended = subprocess.run(command, cwd=Path(__file__).parents[3], check=False)
    assert ended.returncode == -signal.SIGKILL
    with isolated(1):
        images, accuracy, steps = main(tmp_path / "killed", 0)
    with isolated(0):
        whole, wanted, all_steps = main(tmp_path / "whole", 0)
    assert torch.equal(images.images, whole.images)
    assert accuracy == wanted
    assert all_steps == 330
    assert steps == 330 - 110 - 100  # the first experience and the last checkpoint before the end
