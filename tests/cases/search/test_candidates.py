"""A candidate that hangs or ends its process fails its own trials, and the search ends with the others ranked."""

import shlex

import pytest

from tests.cases.command import condensekit

SPACES = "tests.cases.search.spaces"
SEARCH = shlex.split(
    "search --data digits --rankers random,early-stop --ipc 2 --train-steps 1 --trials 4 --engine pool --workers 1"
)


@pytest.mark.nni
@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.parametrize(("space", "limit"), [("Hanging", "5s"), ("Dying", "60s")])
def test_a_search_survives_its_candidates(tmp_path, space, limit):
    words = ("--space", f"{SPACES}:{space}", "--trial-limit", limit, "--out", tmp_path / "out")
    done = condensekit(*SEARCH, *words, cwd=tmp_path, limit=120)  # some 20 s where no candidate hangs
    if done.code in (1, 2):
        raise RuntimeError(done.err)  # it did not come to the candidates
    assert done.code == 0, done.err
    assert (tmp_path / "out/search.json").exists()
