"""A signal ends a command, whenever it comes."""

import re

import pytest

from tests.cases.command import python


@pytest.mark.kill
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_in_the_last_step_ends_the_command_before_the_next_seed(tmp_path, name, code):
    done = python("-m", "tests.cases.reliability.signalled", name, tmp_path / "run")
    steps = re.search(r"steps: (\d+)", done.out)
    if not steps or steps[1] == "0":
        raise RuntimeError(done.err)
    assert (done.code, steps[1]) == (code, "3")
