"""Resuming tidies up what the run made, and nothing else."""

import pytest

from tests.cases.command import CONDENSE


@pytest.fixture
def run(cli, tmp_path):
    """The folder of a finished run."""
    code, _, err = cli(*CONDENSE, "--out", tmp_path / "run")
    if code != 0:
        raise RuntimeError(err)
    return tmp_path / "run"


def test_a_folder_that_a_killed_export_left_stops_no_resume(cli, run):
    (run / ".images.0123abcd.tmp/0").mkdir(parents=True)
    code, _, _ = cli(*CONDENSE, "--out", run, "--resume")
    assert code == 0


def test_a_file_of_the_user_stays(cli, run):
    (run / "notes").mkdir()
    (run / "notes/.draft.tmp").write_text("mine")
    cli(*CONDENSE, "--out", run, "--resume")
    assert (run / "notes/.draft.tmp").exists()


def test_a_folder_that_holds_no_run_is_refused_and_left_as_it_is(cli, tmp_path):
    metrics = "epoch,loss\n0,1.0\n1,0.9\n2,0.8\n"
    (tmp_path / "metrics.csv").write_text(metrics)
    code, _, _ = cli(*CONDENSE, "--out", tmp_path, "--resume")
    assert (tmp_path / "metrics.csv").read_text() == metrics
    assert code == 2
