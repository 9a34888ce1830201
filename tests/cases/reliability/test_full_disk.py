"""A full disk costs no result, and the run goes on when there is room again."""

import json
import re

import pytest

from tests.cases.command import CONDENSE, python


def found(what, path):
    """What the command saw, and the text that it wrote before."""
    done = python("-m", "tests.cases.reliability.full_disk", what, path)
    *text, last = done.out.strip().splitlines() or [""]
    try:
        return json.loads(last), "\n".join(text)
    except ValueError:
        raise RuntimeError(done.err) from None


def test_a_disk_that_is_full_of_metrics_leaves_the_result_and_the_run_goes_on(tmp_path):
    seen, _ = found("condense", tmp_path / "run")
    assert seen["ours"], seen["failure"]
    assert seen["kept"]
    assert seen["steps"] == 200


@pytest.mark.slow
def test_evaluating_on_a_full_disk_prints_the_table_or_trains_nothing(cli, tmp_path):
    code, _, err = cli(*CONDENSE, "--out", tmp_path / "run")
    if code != 0:
        raise RuntimeError(err)
    seen, text = found("evaluate", tmp_path / "run")
    assert seen["steps"] == 0 or re.search(r"\d\.\d", text)
