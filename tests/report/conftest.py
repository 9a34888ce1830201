"""Runs for reports: small ones of this version, and those that version 0.1 made."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from condensekit.catalog import recipes
from condensekit.driver import Saving, condense
from condensekit.everyday import evaluate
from condensekit.nas.spaces.architecture import key
from condensekit.nas.study.report import Ground, RankerCost, ranking_rows
from condensekit.nas.study.result import SearchResult
from condensekit.nas.trials.log import Trial, TrialLog
from condensekit.report import report
from condensekit.runs.files import write_json
from condensekit.testing import shapes
from condensekit.training.train import SHORT

FORMER = Path(__file__).parents[1] / "assets" / "v0.1"


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A condensed run of four classes with pictures on the way, evaluated against random images."""
    folder = tmp_path_factory.mktemp("made") / "run"
    data, recipe = shapes(), recipes.dm(batch_real=8, encoder_network="ConvNet-w8")
    condense(data, recipe, ipc=3, steps=4, saving=Saving(folder, snapshot_every=2), record={"name": "dm"})
    protocol = replace(SHORT, epochs=2)
    found = evaluate(folder, data, train=data, network="ConvNet-w8", networks=2, protocol=protocol)
    write_json(folder / "evaluation.json", found.to_json())
    return folder


@pytest.fixture
def run(made, tmp_path):
    """A copy of that run."""
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture
def former(tmp_path):
    """A copy of a run folder that version 0.1 made, under a name of one's choice."""

    def copied(name, to=None):
        return Path(shutil.copytree(FORMER / name, tmp_path / (to or f"former-{name}")))

    return copied


@pytest.fixture
def searched(tmp_path):
    """The folder of a search of 12 candidates with a truth and with the sizes of the candidates."""
    folder = tmp_path / "search"
    folder.mkdir()
    architectures = [{"width": 8 * (i + 1), "depth": 1 + i % 3} for i in range(12)]
    trials = tuple(
        Trial(ranker, one, 0.05 * i * (1 if ranker == "dm" else (-1) ** i))
        for ranker in ("dm", "random")
        for i, one in enumerate(architectures)
    )
    truth = {key(one): (40.0 + 3 * i,) for i, one in enumerate(architectures)}
    ground = Ground(tuple(truth), np.array(list(truth.values())))
    scores = {name: {key(t.architecture): t.score for t in trials if t.ranker == name} for name in ("dm", "random")}
    rows = ranking_rows(scores, {name: RankerCost(trials_s=2.0) for name in scores}, ground)
    best = {"ranker": "dm", "architecture": architectures[-1], "score": 0.55, "params": 10, "flops": 10, "truth": 73.0}
    write_json(folder / "search.json", SearchResult(best, trials, rows, None, truth).to_json())
    write_json(folder / "config.json", {"rankers": ["dm", "random"], "data_fingerprint": "0", "format": 2})
    log = TrialLog(folder / "candidates.jsonl")
    for i, one in enumerate(architectures):
        log.append(Trial("inspection", one, 1.0, curve=({"params": 100 * (i + 1), "flops": 10_000 * (12 - i)},)))
    return folder


@pytest.fixture
def told(tmp_path):
    """Write a report and read it: its text and what it says of each run."""

    def written(*runs):
        made = report(list(runs), tmp_path / "report.html", overwrite=True)
        return made.path.read_text(), made.runs

    return written
