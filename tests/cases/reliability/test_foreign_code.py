"""A folder is data: no code that lies in it runs, and no name in its files is imported.

Sources: pickles and `module:function` entries in shared model folders that run code when a run is continued or a file
is looked at; `python -m` in a downloaded folder, which searches that folder for optional modules of torch.
"""

import json
import os
import subprocess
import sys

import pytest

from condensekit.cli.kinds import recorded
from tests.cases.command import CONDENSE, REPLAY, ROOT, SEARCH, condensekit

OPTIONAL = ("pydot", "opt_einsum", "torchcomms", "matplotlib", "scipy")  # some are not installed: torch looks for them
SELECT = ("select", "--data", "digits", "--ipc", "1")


def module(path, marker):
    """A file that leaves a marker when it is imported."""
    path.write_text(f"open({str(marker)!r}, 'w').close()\n")


@pytest.fixture
def made(cli, tmp_path):
    """Make a run by its words; its folder."""

    def make(*words):
        code, _, err = cli(*words, "--out", tmp_path / "out")
        if code != 0:
            raise RuntimeError(err)
        return tmp_path / "out"

    return make


def changed(file, change):
    """Change a JSON file as an attacker would."""
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))


def test_resuming_imports_nothing_that_the_folder_names(cli, made, tmp_path, monkeypatch):
    study, marker = made(*REPLAY), tmp_path / "ran"
    module(study / "brought_along.py", marker)
    row = json.loads((study / "replay.json").read_text())["rows"][0]
    changed(study / "replay.json", lambda found: found["rows"].append({**row, "memory": "brought_along:anything"}))
    monkeypatch.chdir(study)
    code, _, err = cli(*REPLAY, "--out", ".", "--resume")
    sys.modules.pop("brought_along", None)
    assert not marker.exists()
    assert code in (2, 4)
    assert code == 4 or "again in --memory" in err


@pytest.mark.parametrize("words", [CONDENSE, SELECT, REPLAY, SEARCH], ids=lambda words: words[0])
def test_a_run_goes_on_with_its_folder_alone(cli, made, words):
    out = made(*words)
    code, _, err = cli(words[0], "--resume", "--out", out)
    assert code == 0, err


def test_colons_of_what_is_built_in_are_no_code(tmp_path):
    told = {"device": "cuda:0", "rankers": "ridge:dm+params,random", "data": "C:/photos"}
    (tmp_path / "env.json").write_text(json.dumps({"command": {"name": "search", "options": told}}))
    assert recorded(tmp_path, "search", {name: f"--{name}" for name in told}) == told


def test_several_seeds_go_on_with_their_folder_alone(cli, made):
    out = made(*CONDENSE, "--seeds", "2")
    (out / "seed-1/set.safetensors").unlink()
    assert cli("condense", "--resume", "--out", out)[0] == 0
    assert (out / "seed-1/set.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "option", "value", "flag"),
    [
        (CONDENSE, "method", "brought_along:anything", "--method"),
        (CONDENSE, "method", "dm init=brought_along:anything", "--method"),
        (CONDENSE, "settings", ["init=brought_along:anything"], "--set"),
        (CONDENSE, "init", "brought_along:anything", "--init"),
        (CONDENSE, "encoder", "brought_along:anything", "--encoder"),
        (SELECT, "selection", "brought_along:anything", "--selection"),
        (REPLAY, "memories", "random,brought_along:anything", "--memory"),
        (SEARCH, "space_name", "brought_along:anything", "--space"),
        (SEARCH, "rankers", "random,ridge:brought_along:anything", "--rankers"),
    ],
)
def test_options_of_a_folder_name_no_code(cli, made, tmp_path, monkeypatch, words, option, value, flag):
    out, marker = made(*words), tmp_path / "ran"
    module(out / "brought_along.py", marker)
    changed(out / "env.json", lambda found: found["command"]["options"].update({option: value}))
    monkeypatch.chdir(out)
    code, _, err = cli(words[0], "--resume", "--out", ".")
    sys.modules.pop("brought_along", None)
    assert not marker.exists()
    assert code in (2, 4)
    assert code == 4 or f"give {flag} again" in err


@pytest.mark.parametrize("option", ["trust_local_copy", "download"])
def test_options_of_a_folder_trust_nothing_and_download_nothing(cli, made, tmp_path, option):
    out = made(*CONDENSE)
    told = {"data": "cifar10", "data_root": str(tmp_path), option: True}
    changed(out / "env.json", lambda found: found["command"]["options"].update(told))
    code, _, err = cli("condense", "--resume", "--out", out)
    assert code in (2, 4)
    assert code == 4 or "not found" in err or "no such" in err.lower() or "--download" in err


def test_a_path_that_a_folder_names_is_not_written(cli, made, tmp_path):
    study = made(*REPLAY)
    before = {path for path in tmp_path.rglob("*") if study not in path.parents}
    row = json.loads((study / "replay.json").read_text())["rows"][0]
    changed(study / "replay.json", lambda found: found["rows"].append({**row, "regime": "../../elsewhere"}))
    changed(study / "env.json", lambda found: found["command"]["options"].update(mmap=str(tmp_path / "elsewhere")))
    code, _, _ = cli("replay", "--out", study, "--resume")
    assert code in (2, 4)
    assert {path for path in tmp_path.rglob("*") if study not in path.parents} == before


@pytest.mark.parametrize("how", ["-P -m", "-m", "PYTHONPATH"])
def test_inspecting_inside_a_folder_imports_nothing_of_it(made, tmp_path, how):
    run = made(*CONDENSE)
    for name in OPTIONAL:
        module(run / f"{name}.py", tmp_path / name)
    paths = f":{ROOT}:" if how == "PYTHONPATH" else str(ROOT)  # an empty entry is the current folder
    done = subprocess.run(
        [sys.executable, *(["-P", "-m"] if how == "-P -m" else ["-m"]), "condensekit", "inspect", "."],
        cwd=run,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [name for name in OPTIONAL if (tmp_path / name).exists()] == []


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sequential", "pool"])
def test_searching_inside_a_folder_imports_nothing_of_it(tmp_path, engine):
    here = tmp_path / "here"
    here.mkdir()
    for name in OPTIONAL:
        module(here / f"{name}.py", tmp_path / name)
    done = condensekit(*SEARCH, "--engine", engine, "--out", "out", cwd=here)
    assert done.code == 0, done.err
    assert [name for name in OPTIONAL if (tmp_path / name).exists()] == []


@pytest.mark.slow
def test_code_of_the_current_folder_that_the_user_names_is_found(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from condensekit.methods import DistributionMatching\nclass Method(DistributionMatching):\n    pass\n"
    )
    words = [*CONDENSE, "--out", "run"]
    words[words.index("dm")] = "mine:Method"
    words += ["--method", "mine:Method", "--set", "batch_real=8"]
    words = [word for i, word in enumerate(words) if word != "--batch-real" and words[i - 1] != "--batch-real"]
    done = condensekit(*words, cwd=tmp_path)
    assert done.code == 0, done.err
    done = condensekit("condense", "--resume", "--out", "run", cwd=tmp_path)
    assert done.code == 2
    assert "give --method again" in done.err
    done = condensekit("condense", "--resume", "--method", "mine:Method", "--out", "run", cwd=tmp_path)
    assert done.code == 0, done.err


@pytest.mark.slow
def test_a_space_of_the_current_folder_reaches_the_workers(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from nni.nas.nn.pytorch import LayerChoice, ModelSpace\n"
        "from torch import nn\n"
        "class Space(ModelSpace):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
        "        deep = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))\n"
        "        self.body = LayerChoice([flat, deep], label='body')\n"
        "    def forward(self, x):\n"
        "        return self.body(x)\n"
    )
    done = condensekit(
        *SEARCH, "--space", "mine:Space", "--trials", 2, "--engine", "pool", "--out", "out", cwd=tmp_path
    )
    assert done.code == 0, done.err
