"""The scripts that fill and print the rankers' tables, on made-up cells and tiny searches."""

import argparse
import importlib
import math
import subprocess
import sys
import time
from collections import deque
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from condensekit import datasets
from condensekit.describe import describe
from condensekit.errors import CondensekitError, DataError
from condensekit.nas.nasbench201 import to_table
from condensekit.nas.proxy_sets import Preparation
from condensekit.nas.spaces import convnet_space, enumerate_architectures, sample_architectures, space
from condensekit.nas.training import ProxyData, ProxyProtocol
from condensekit.nas.trials import FAILED, FINISHED, Trial, TrialLog, key
from condensekit.rng import Draw
from tests.nas.dying import died

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
nas, nas_cells, nas_grid, nas_overhead, nas_tables, nas_tasks = map(
    importlib.import_module, ("nas", "nas_cells", "nas_grid", "nas_overhead", "nas_tables", "nas_tasks")
)
Cell, Training = nas_cells.Cell, nas_cells.Training

WHOLE, TEST = datasets.load("digits")
TRAIN, HELD = WHOLE.split(0.2, Draw(0))
LABELS = {"width": (16, 32), "depth": (1, 2), "activation": ("relu",), "norm": ("none", "batch"), "pooling": ("max",)}
EVERY = [dict(zip(LABELS, values, strict=True)) for values in product(*LABELS.values())]
MANY = [{**a, "width": a["width"] + i} for i in range(5) for a in EVERY]
QUALITY = np.random.default_rng(0).normal(50, 10, len(MANY))
QUALITY[::4] = 10  # at chance


def made(ranker, noise, *, task="convnet", seed=0, changes="", sample="all", recipe=None, truths=None):
    """A cell whose scores are the quality with noise."""
    scores = QUALITY + noise * np.random.default_rng(len(ranker) + seed).normal(size=len(MANY))
    kind = "accuracy" if recipe else ranker
    trials = [
        Trial(ranker, a, float(s) / 100, scores={kind: float(s) / 100}, image_steps=100 if recipe else 0)
        for a, s in zip(MANY, scores, strict=True)
    ]
    known = truths if truths is not None else [None] * len(MANY)
    found = nas_cells.record(
        Cell(task, sample, ranker, seed, changes),
        trials,
        recipe=recipe,
        space={"trained": "a small space", "real": "a space"},
        held=1234,
        preparation=asdict(Preparation(1.0, 2e9)),
        about={
            key(a): {"group": key(a), "params": a["width"], "flops": 10**6, "truth": t}
            for a, t in zip(MANY, known, strict=True)
        },
        wall_s=1.0,
        workers=1,
        command="",
    )
    return {**found, "environment": {"device": "a CPU", "torch": "2"}}


def truth(seed, images=10_000, epochs=10, changes=""):
    recipe = {"images": images, "protocol": describe(ProxyProtocol(epochs, batch=77))}
    return made(f"truth-{seed}", 2.0, recipe=recipe, changes=changes)


RECIPE = asdict(Training())
CELLS = [
    made("params", 20.0),
    made("dm", 3.0, recipe=RECIPE),
    *(made(name, 9.0, recipe=RECIPE) for name in ("random", "random-equal", "early-stop")),
    *(made(name, 5.0 + seed, seed=seed, recipe=RECIPE) for seed in (1,) for name in ("dm", "random")),
    truth(0),
    truth(1),
]


@pytest.fixture(autouse=True)
def few_splits(monkeypatch):
    """Of the additive model's choices of truths, which take most of the time."""
    monkeypatch.setattr(nas_tables, "SPLITS", 4)


def printed(records):
    return "\n".join(nas_tables.nas(records))


def test_only_rankers_with_sets_of_their_own_are_repeated():
    listed = [(c.ranker, c.set_seed) for c in nas.cells("convnet", ["all"], nas.RANKERS["convnet"], 3, "-ipc5")]
    assert len(listed) == len(set(listed))
    assert {name for name, _ in listed} >= {"early-stop", "random-equal", "truth-1", "synflow"}
    assert {name for name, seed in listed if seed} == {"dm", "random", "random-equal"}
    assert [name for name, seed in listed if seed == 2] == ["dm", "random", "random-equal"]
    changes = {c.ranker: c.changes for c in nas.cells("nb201", ["top"], nas.RANKERS["nb201"], 1, "-ipc5")}
    assert changes["dm"] == "-ipc5"
    assert changes["params"] == changes["published-12-epochs"] == ""


@pytest.fixture(scope="module")
def task():
    grid = convnet_space((1, 8, 8), 10, depths=(1,), widths=(4, 8), activations=("relu",), norms=("none",))
    sample = list(enumerate_architectures(grid))[:3]
    return nas_tasks.Task("toy", "digits", TRAIN, HELD, grid, grid, {"all": sample}, {})


@pytest.mark.parametrize("name", ["random-equal", "early-stop"])
def test_rankers_at_equal_cost_spend_what_dm_spends(task, name, tmp_path, server):
    recipe = Training(ipc=4, epochs=2, iterations=2, batch=20)
    args = argparse.Namespace(runs=tmp_path, limit=None, workers=1)
    records = [nas.run_cell(Cell("toy", "all", n), task, recipe, args, server, "") for n in ("dm", name, "random")]
    spent = nas_tables.Sheet(records).spent
    assert spent[name].flops == pytest.approx(spent["dm"].flops, rel=0.1)
    assert spent["random"].flops < 0.9 * spent["dm"].flops


def test_published_scores_are_read_by_cell(tmp_path):
    real = space("nasbench201", (3, 8, 8), 10)
    cells = sample_architectures(real, 5, 0)
    head = ["net_str", *nas_cells.FREE]
    rows = [[to_table(a), *(str(10 * i + j) for j in range(len(nas_cells.FREE)))] for i, a in enumerate(cells)]
    (tmp_path / nas_tasks.PROXIES).write_text("\n".join(",".join(row) for row in (head, *rows)))
    with pytest.raises(DataError, match=r"cannot read .*12_epochs\.csv .*: --tables names the folder"):
        nas_tasks._published(tmp_path, real)
    rows = [["net_str", "cifar10_val", "cifar10_test"], *([to_table(a), str(i), "9"] for i, a in enumerate(cells))]
    (tmp_path / nas_tasks.EPOCHS).write_text("\n".join(",".join(row) for row in rows))
    found = nas_tasks._published(tmp_path, real)
    assert set(found) == set(nas_cells.PUBLISHED)
    assert sorted(found["published-flops"].values()) == [1, 11, 21, 31, 41]
    assert sorted(found["published-12-epochs"].values()) == [0, 1, 2, 3, 4]


def test_the_tables_hold_every_analysis():
    text = printed(CELLS)
    first, second = text.split("**convnet, sample all, set seed 1")
    assert "set seed 0, truth of 10,000 images x 10 epochs**: 40 architectures; ipc 10, epochs 40" in first
    assert "accuracy on 1,234 test images after 10 epochs on 10,000 images in batches of 77" in first
    assert "images 10000" not in text  # a truth's recipe is not that of the candidates
    assert "mean of 2 trainings" in first
    whole, without = first.split("Without networks below 20 %")
    for part in (whole, without):
        for other in ("random", "random-equal", "early-stop"):
            assert f"| dm less {other} | +0" in part
    assert "(30 left)" in without
    assert "- rho of dm inside each norm (networks): batch 0." in whole
    assert "- rho of random inside each depth (networks): 1 0." in whole
    assert "(one draw)" in whole
    assert "An additive model of the choices" in without
    assert "early-stop" not in second.split("**Between sets**")[0]
    assert "| dm less random |" in second.split("**Between sets**")[1]
    assert "No option was tuned" in text


def test_each_truth_has_a_sheet_and_a_table_of_its_own(tmp_path, monkeypatch):
    quick = [truth(0, 500, 1, "-images500-epochs1"), *CELLS]
    titles = [sheet.title for sheet in nas_tables.sheets(quick)]
    assert [title.partition("truth of ")[2] for title in titles] == ["10,000 images x 10 epochs"] * 2 + [
        "500 images x 1 epochs"
    ] * 2
    assert {len(sheet.truths) for sheet in nas_tables.sheets(quick) if sheet.budget == (500, 1)} == {1}
    for number, record in enumerate(quick):
        nas_tables.Path(tmp_path / f"{number}.json").write_text(nas_tables.json.dumps(record))
    (tmp_path / "README.md").write_text("<!-- nas: begin -->\n<!-- nas: end -->\n")
    monkeypatch.setattr(nas_tables, "HERE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["nas_tables.py", "--results", str(tmp_path)])
    nas_tables.main()
    assert {path.name for path in tmp_path.glob("*.csv")} == {
        "convnet-truth-10000x10.csv",
        "convnet-truth-500x1.csv",
    }
    assert len((tmp_path / "convnet-truth-10000x10.csv").read_text().splitlines()) == 1 + len(MANY)
    assert "dm less random-equal" in (tmp_path / "README.md").read_text()


def test_two_cells_of_one_ranker_are_refused():
    again = made("dm", 3.0, recipe=RECIPE)
    with pytest.raises(DataError, match="two cells of dm for one table, convnet-all-dm-set0 and convnet-all-dm-set0"):
        list(nas_tables.sheets([*CELLS, again]))


def test_changed_options_are_told():
    other = made("dm", 3.0, changes="-ipc50", recipe={**RECIPE, "ipc": 50})
    text = printed([*CELLS, other])
    assert "No option was tuned" not in text
    assert "other options than those set down beforehand: `convnet-all-dm-set0-ipc50`" in text
    tuned = printed([*CELLS, made("dm", 3.0, changes="-ipc50", sample="tune", recipe=RECIPE)])
    assert "Options were looked at on the sample `tune` alone (convnet;" in tuned
    assert "other options than" not in tuned


def test_published_columns_stand_beside_ours_and_say_which_truth():
    known = [[q] for q in QUALITY.tolist()]
    names = ("synflow", "jacov", "params")
    records = [made(n, 5.0, task="nb201", truths=known) for n in (*names, *(f"published-{n}" for n in names))]
    text = printed(records)
    assert "| published-synflow+published-jacov |" in text
    assert "all regrets here are against validation truth" in text
    assert "Ours rank them as those columns do, by rho: params 0." in text
    row = next(line for line in text.splitlines() if line.startswith("| published-params |"))
    assert row.endswith("|  |  |  | 0 |")


def test_a_network_that_kills_its_process_is_found_and_the_others_are_trained(tmp_path):
    args = argparse.Namespace(processes=2, end=math.inf)
    log, left = TrialLog(tmp_path / "dm.jsonl"), deque({"width": w} for w in (1, 2, 3, 4, 5))
    suspects = nas_grid.side_by_side(died, left, None, log, args)
    assert {"width": 2} in suspects
    alone = [a for a in suspects if nas_grid.side_by_side(died, deque([a]), None, log, args)]
    assert alone == [{"width": 2}]
    assert nas_grid.side_by_side(died, left, None, log, args) == []
    assert sorted(trial.architecture["width"] for trial in TrialLog(log.path).trials()) == [1, 3, 4, 5]


def test_a_network_that_cannot_be_trained_is_a_failed_trial(tmp_path, monkeypatch):
    fits = {"width": 4, "depth": 1, "activation": "relu", "norm": "none", "pooling": "max"}
    wanted = [{**fits, "depth": 4}, fits]  # four poolings leave nothing of an 8x8 map
    monkeypatch.setattr(nas_grid, "listed", lambda args: wanted)
    args = argparse.Namespace(processes=1, end=math.inf, device="cpu")
    data = ProxyData(TRAIN.subset(TRAIN.order[:64]), nas_grid._compact(HELD))
    for _ in range(2):
        log = TrialLog(tmp_path / "truth-0.jsonl")
        nas_grid.trained(Cell("grid", "all", "truth-0"), data, ProxyProtocol(1), 0, 1, log, args)
    found = {trial.architecture["depth"]: trial for trial in TrialLog(log.path).trials()}
    assert {depth: trial.status for depth, trial in found.items()} == {4: FAILED, 1: FINISHED}
    assert found[4].reason.startswith("ConfigError: ")
    assert len(log.path.read_text().splitlines()) == 2


def test_processes_that_cannot_start_are_no_networks_fault(tmp_path):
    class Breaks:
        def __reduce__(self):
            return (int, ("no number",))

    log, left = TrialLog(tmp_path / "dm.jsonl"), deque([{"width": 1}])
    args = argparse.Namespace(processes=1, end=math.inf)
    with pytest.raises(CondensekitError, match="a process ended before it trained anything"):
        nas_grid.side_by_side(died, left, Breaks(), log, args)
    assert len(log) == 0


def test_waiting_for_a_search_that_ended_says_why(tmp_path):
    with (tmp_path / "messages").open("wb") as messages:
        gone = subprocess.Popen([sys.executable, "-c", "import sys; sys.exit('no such engine')"], stderr=messages)
        with pytest.raises(CondensekitError, match=r"ended with exit code 1 before 4 trials .*: no such engine"):
            nas_overhead.wait_for_trials(gone, tmp_path)
        slow = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        start = time.monotonic()
        with pytest.raises(CondensekitError, match=r"took more than 0\.1 s before 4 trials"):
            nas_overhead.wait_for_trials(slow, tmp_path, limit_s=0.1)
        slow.kill()
        slow.wait()
    assert time.monotonic() - start < 10
    (tmp_path / "trials.jsonl").write_text("x\n" * 4)
    nas_overhead.wait_for_trials(gone, tmp_path)
