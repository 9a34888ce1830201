"""A folder is data: no code that lies in it runs."""

import json
import sys

from tests.cases.command import CONDENSE, REPLAY, condensekit

OPTIONAL = ("pydot", "opt_einsum", "torchcomms")  # whichever is not installed, torch looks for


def module(path, marker):
    """A file that leaves a marker when it is imported."""
    path.write_text(f"open({str(marker)!r}, 'w').close()\n")


def test_resuming_imports_nothing_that_the_folder_names(cli, tmp_path, monkeypatch):
    study, marker = tmp_path / "study", tmp_path / "ran"
    code, _, err = cli(*REPLAY, "--out", study)
    if code != 0:
        raise RuntimeError(err)
    module(study / "brought_along.py", marker)
    results = json.loads((study / "replay.json").read_text())
    results["rows"].append({**results["rows"][0], "memory": "brought_along:anything"})
    (study / "replay.json").write_text(json.dumps(results))
    monkeypatch.chdir(study)
    cli(*REPLAY, "--out", ".", "--resume")
    sys.modules.pop("brought_along", None)
    assert not marker.exists()


def test_inspecting_inside_a_folder_imports_nothing_of_it(cli, tmp_path):
    run = tmp_path / "run"
    code, _, err = cli(*CONDENSE, "--out", run)
    if code != 0:
        raise RuntimeError(err)
    for name in OPTIONAL:
        module(run / f"{name}.py", tmp_path / name)
    condensekit("inspect", ".", cwd=run)
    assert [name for name in OPTIONAL if (tmp_path / name).exists()] == []
