"""The scripts that fill and print the rankers' tables, on made-up cells and tiny searches."""

import argparse
import json
import math
import subprocess
import sys
import time
from collections import deque
from dataclasses import asdict, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks import record, tables
from benchmarks.nas import cells as nas_cells
from benchmarks.nas import grid as nas_grid
from benchmarks.nas import overhead as nas_overhead
from benchmarks.nas import regret as nas_regret
from benchmarks.nas import run as nas
from benchmarks.nas import sheets as nas_sheets
from benchmarks.nas import tables as nas_tables
from benchmarks.nas import tasks as nas_tasks
from benchmarks.nas.cells import Cell, Training
from condensekit import Recipe
from condensekit.data import datasets
from condensekit.errors import CondensekitError, ConfigError, DataError
from condensekit.nas.rankers.sets import Preparation
from condensekit.nas.rankers.trained import Condensed, Started
from condensekit.nas.rankers.training import ProxyData, ProxyProtocol
from condensekit.nas.spaces.architecture import key
from condensekit.nas.spaces.nasbench201 import to_table
from condensekit.nas.spaces.spaces import convnet_space, enumerate_architectures, sample_architectures, space
from condensekit.nas.study.ranking import spearman
from condensekit.nas.trials.log import FAILED, FINISHED, Trial, TrialLog
from condensekit.networks.cost import PASSES
from condensekit.rng import Draw
from condensekit.runs.describe import describe
from condensekit.runs.files import read_json, write_json
from tests.nas.dying import died

WHOLE, TEST = datasets.load("digits")
TRAIN, HELD = WHOLE.split(0.2, Draw(0))
LABELS = {"width": (16, 32), "depth": (1, 2), "activation": ("relu",), "norm": ("none", "batch"), "pooling": ("max",)}
EVERY: list[dict[str, Any]] = [dict(zip(LABELS, values, strict=True)) for values in product(*LABELS.values())]
MANY = [{**a, "width": a["width"] + i} for i in range(5) for a in EVERY]
QUALITY = np.random.default_rng(0).normal(50, 10, len(MANY))
QUALITY[::4] = 10  # at chance
SEEDS = [i % 5 for i in range(len(MANY))]  # of the sets


def made(ranker, noise, *, task="convnet", changes="", sample="all", recipe=None, truths=None):
    """A cell whose scores are the quality with noise."""
    scores = QUALITY + noise * np.random.default_rng(len(ranker)).normal(size=len(MANY))
    kind = "accuracy" if ranker.startswith("truth-") else nas_sheets.PRIMARY if recipe else ranker
    trials = [
        Trial(ranker, a, float(s) / 100, scores={kind: float(s) / 100}, image_steps=100 if recipe else 0)
        for a, s in zip(MANY, scores, strict=True)
    ]
    known = truths if truths is not None else [None] * len(MANY)
    found = nas_cells.record(
        Cell(task, sample, ranker, changes),
        trials,
        recipe=recipe,
        options=recipe or {},
        shared=2 * len(MANY),
        space={"trained": "a small space", "real": "a space"},
        held=1234,
        data={"images": 1000, "shape": (1, 8, 8)},
        preparation=asdict(Preparation(1.0, flops=2_000_000_000)),
        about={
            key(a): {
                "group": key(a),
                "params": a["width"],
                "flops": 10**6,
                "truth": t,
                "set": seed if recipe else None,
            }
            for a, t, seed in zip(MANY, known, SEEDS, strict=True)
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
    made("condensed", 3.0, recipe=RECIPE),
    *(made(name, 9.0, recipe=RECIPE) for name in ("random", "random-equal", "kmeans")),
    truth(0),
    truth(1),
]


@pytest.fixture(autouse=True)
def few_splits(monkeypatch):
    """Of the additive model's choices of truths, which take most of the time."""
    monkeypatch.setattr(nas_sheets, "SPLITS", 4)


def printed(records):
    return "\n".join(nas_tables.nas(records))


def test_cells_come_cheapest_first():
    assert [c.ranker for c in nas.cells("convnet", ["all"], ["condensed", "params"], "")] == ["params", "condensed"]
    names = [c.ranker for c in nas.cells("convnet", ["all"], nas.RANKERS["convnet"], "-ipc5")]
    assert len(names) == len(set(names))
    assert set(names) >= {"early-stop", "random-equal", "truth-1", "synflow"}
    assert names.index("truth-1") < names.index("condensed")  # without a truth the others say nothing
    changes = {c.ranker: c.changes for c in nas.cells("nb201", ["all"], nas.RANKERS["nb201"], "-ipc5")}
    assert changes["condensed"] == changes["random@250"] == changes["early-stop-plain"] == "-ipc5"
    assert changes["params"] == changes["published-12-epochs"] == ""


@pytest.fixture(scope="module")
def task():
    grid = convnet_space((1, 8, 8), 10, depths=(1,), widths=(4, 8), activations=("relu",), norms=("none",))
    sample = list(enumerate_architectures(grid))[:3]
    return nas_tasks.Task("toy", TRAIN, HELD, grid, grid, {"all": sample}, sample, {})


SHORT = Training(
    sets=1,
    ipc=4,
    train_steps=4,
    steps=2,
    condense="m3d batch_real=8 factor=1 encoder_network=ConvNet-w16",
    batch=20,
    held=100,
    seeds=2,
)


def ran(task, names, tmp_path, server, limit=None, recipe=SHORT):
    args = argparse.Namespace(runs=tmp_path, limit=limit, workers=1, stem=8, cells=1)
    return [nas.run_cell(Cell("toy", "all", name), task, recipe, args, server, "") for name in names]


@pytest.mark.parametrize("name", ["random-equal", "early-stop"])
def test_rankers_at_equal_cost_spend_what_condensed_spends(task, name, tmp_path, server):
    records = ran(task, ("condensed", name, "random", "early-stop-plain"), tmp_path, server)
    flops = {ranker: cost.flops or 0 for ranker, cost in nas_sheets.Sheet(records).spent.items()}
    assert flops[name] == pytest.approx(flops["condensed"], rel=0.1)
    assert flops["random"] == flops["early-stop-plain"] < 0.9 * flops["condensed"]


def test_a_limit_changes_no_candidates_share(task, tmp_path, server):
    (whole,) = ran(task, ["random-equal"], tmp_path / "whole", server)
    (part,) = ran(task, ["random-equal"], tmp_path / "part", server, limit=1)
    kept = ("architecture", "scores", "image_steps")
    assert len(part["trials"]) == 1
    assert {k: part["trials"][0][k] for k in kept} == {k: whole["trials"][0][k] for k in kept}
    assert part["shared"] == whole["shared"] == 3


def test_trials_of_a_random_subset_are_kept_for_another_recipe_of_condensation(task, tmp_path, server):
    (first,) = ran(task, ["random"], tmp_path, server)
    (again,) = ran(task, ["random"], tmp_path, server, recipe=replace(SHORT, condense="dm batch_real=8"))
    assert [t["cost_s"] for t in first["trials"]] == [t["cost_s"] for t in again["trials"]]
    assert first["options"] != again["options"]
    assert len(list(tmp_path.glob("toy-set0-*"))) == 1


def test_each_candidate_is_trained_on_one_of_the_sets(task, tmp_path, server):
    (found,) = ran(task, ["random"], tmp_path, server, recipe=replace(SHORT, sets=2))
    assert [t["set"] for t in found["trials"]] == [0, 0, 1]
    order = [key(a) for a in task.samples["all"]]
    assert [order.index(key(t["architecture"])) for t in found["trials"]] == [0, 2, 1]
    (alone,) = ran(task, ["random"], tmp_path, server, limit=1)  # the same trial, whatever the number of sets
    assert alone["trials"][0]["cost_s"] == found["trials"][0]["cost_s"]
    (start, condensed) = ran(task, ["start", "condensed"], tmp_path, server, recipe=replace(SHORT, sets=2))
    assert 0 == start["preparation"]["flops"] < condensed["preparation"]["flops"]
    assert start["trials"][0]["image_steps"] == condensed["trials"][0]["image_steps"]


def test_a_trial_that_the_machine_lost_is_no_finding(task, tmp_path, server):
    log = tmp_path / "toy-set0"
    fine = Trial("random", task.samples["all"][0], None, FAILED, reason="diverged by step 3 of 4: loss not finite")
    nas._refuse_accidents([fine], log)
    with pytest.raises(CondensekitError, match=r"its process died.*remove its line from random\.jsonl"):
        nas._refuse_accidents([replace(fine, reason="its process died")], log)


def test_the_recipe_is_that_of_the_ranker_condensed_alone(task, tmp_path):
    first, second = (task.setting(SHORT, seed, tmp_path) for seed in (0, 1))
    condensed, start, dm = (nas_cells.named(name, SHORT) for name in ("condensed", "start", "dm"))
    assert isinstance(condensed, Condensed)
    assert isinstance(start, Started)
    assert isinstance(dm, Condensed)
    assert (condensed.name, start.name, dm.name) == ("condensed", "start", "dm")
    assert first.maker.recipe(condensed.source) == Recipe.parse(SHORT.condense).on(TRAIN.spec)
    assert first.maker.recipe(start.source) == first.maker.recipe(condensed.source)
    assert first.maker.recipe(dm.source) == Recipe.parse("dm batch_real=64").on(TRAIN.spec)
    assert (first.seed, second.seed, len(first._test)) == (0, 2, 100)


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (
            {"train_steps": 0, "held": 6_000},
            "train_steps must be .* at least 1.*; held must be at most 5,000, got 6000",
        ),
        ({"condense": "dm batch_rael=3"}, "batch_rael"),
        ({"condense": "dmm"}, "dmm"),
        ({"lr": -1.0}, "lr must be positive"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(options, wrong):
    with pytest.raises(ConfigError, match=wrong):
        Training(**options)


def test_all_names_are_checked_before_anything_is_loaded(monkeypatch):
    command = ["run.py", "--task", "nb201", "--sample", "all,best", "--stem", "0"]
    monkeypatch.setattr(sys, "argv", [*command, "--rankers", "rnadom,synflow+jacov,ridge:params,truth-0"])
    with pytest.raises(ConfigError) as refused:
        nas.main()
    for text in (
        "--stem must be",
        "unknown ranker 'rnadom'. Did you mean 'random'?",
        "'synflow+jacov': it is computed by SUMS of sheets.py",
        "'ridge:params': it is computed by condensekit search",
        "has no ranker truth-0",
        "unknown sample 'best'",
    ):
        assert text in str(refused.value)


def command(tmp_path, *more):
    options = ["--train-steps", "2", "--held", "20", "--steps", "2", "--ipc", "1", "--batch", "4", "--condense"]
    recipe = "dm batch_real=4 factor=1 encoder_network=ConvNet-w16 lr=1e30"
    where = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    return ["run.py", "--task", "convnet", "--workers", "1", *where, *options, recipe, *more]


def test_a_condensation_that_diverges_costs_its_own_ranker_only(task, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(nas_tasks, "convnet", lambda *_: replace(task, name="convnet"))
    monkeypatch.setattr(sys, "argv", command(tmp_path, "--rankers", "condensed,random"))
    nas.main()
    condensed, random = capsys.readouterr().out.splitlines()
    assert "all-condensed-" in condensed
    assert ": failed, condensing with dm " in condensed
    assert "s of trials in" in random
    assert [path.stem.split("-")[2] for path in (tmp_path / "results").iterdir()] == ["random"]


def test_a_file_made_with_other_options_is_refused(task, tmp_path, monkeypatch):
    monkeypatch.setattr(nas_tasks, "convnet", lambda *_: replace(task, name="convnet"))
    monkeypatch.setattr(sys, "argv", command(tmp_path, "--rankers", "random,params"))
    nas.main()
    path = next((tmp_path / "results").glob("*random*"))
    write_json(path, json.loads(json.dumps(read_json(path, dict)).replace('"held": 20', '"held": 30')))
    with pytest.raises(ConfigError, match=r"made with other options .held: 30 there, 20 here.: move it away"):
        nas.main()


def test_published_scores_are_read_by_cell(tmp_path):
    real = space("nasbench201", (3, 8, 8), 10)
    cells = sample_architectures(real, 5, 0)
    head = ["net_str", *nas_cells.FREE]
    rows = [[to_table(a), *(str(10 * i + j) for j in range(len(nas_cells.FREE)))] for i, a in enumerate(cells)]
    (tmp_path / nas_tasks.PROXIES).write_text("\n".join(",".join(row) for row in (head, *rows)))
    with pytest.raises(DataError, match=r"cannot read .*12_epochs\.csv .*: --tables must be the folder"):
        nas_tasks._published(tmp_path, real)
    rows = [["net_str", "cifar10_val", "cifar10_test"], *([to_table(a), str(i), "9"] for i, a in enumerate(cells))]
    (tmp_path / nas_tasks.EPOCHS).write_text("\n".join(",".join(row) for row in rows))
    found = nas_tasks._published(tmp_path, real)
    assert set(found) == set(nas_cells.PUBLISHED)
    assert sorted(found["published-flops"].values()) == [1, 11, 21, 31, 41]
    assert sorted(found["published-12-epochs"].values()) == [0, 1, 2, 3, 4]


def test_the_tables_hold_every_analysis():
    text = printed(CELLS)
    assert "**convnet, sample all, truth of 10,000 images x 10 epochs**: 40 architectures; trained ones" in text
    assert f"; ipc {RECIPE['ipc']}, train steps {RECIPE['train_steps']}" in text
    assert "accuracy on 1,234 test images after 10 epochs on 10,000 images in batches of 77" in text
    assert "images 10000" not in text  # a truth's recipe is not that of the candidates
    assert "mean of 2 trainings" in text
    whole, without = text.split("Without networks below 20 %")
    for part in (whole, without):
        for other in ("random", "random-equal", "kmeans"):
            assert f"| condensed less {other} | +0" in part
    assert "(30 left)" in without
    assert "- rho of condensed inside each norm (networks): batch 0." in whole
    assert "- rho of random inside each depth (networks): 1 0." in whole
    assert "(one draw)" in whole
    assert "An additive model of the choices" in without
    assert "are not ranked" not in text


def test_sets_are_the_replicates():
    sheet = nas_sheets.Sheet([r for r in CELLS if not r["nas"]["ranker"].endswith("-equal")])
    each = sheet.each_set()
    assert [len(one.trials) for one in each] == [8] * 5
    ours = [key(MANY[i]) for i in range(1, 40, 5)]  # those on the set of seed 1
    assert set(each[1].trials) == set(ours)
    scores = dict(nas_sheets.keyed(sheet.cells["condensed"]["trials"]))
    rho = spearman([scores[k]["score"] for k in ours], sheet.ground().truth.mean(1)[1::5])
    assert each[1].correlations()["condensed"] == pytest.approx(rho)
    lines = "\n".join(nas_tables._sets(sheet)).splitlines()
    (line,) = (line for line in lines if line.startswith("| condensed less random |"))
    differences = [one.correlations()["condensed"] - one.correlations()["random"] for one in each]
    _, listed, mean, interval, p = line.strip("| ").split(" | ")
    assert listed == ", ".join(f"{value:+.2f}" for value in differences)
    found = stats.ttest_1samp(differences, 0)
    assert (mean, p) == (f"{np.mean(differences):+.2f}", f"{found.pvalue:.3f}")
    assert interval == "[{:.2f}, {:.2f}]".format(*found.confidence_interval(0.95))


def test_a_sets_level_does_not_rank():
    record = made("random", 0.0, recipe=RECIPE)
    for trial in record["trials"]:
        trial["scores"][nas_sheets.PRIMARY] += trial["set"]  # 100 points from set to set
    sheet = nas_sheets.Sheet([record, truth(0)])
    assert sheet.correlations()["random"] > 0.8


def test_where_sets_do_not_differ_nothing_is_taken_away():
    record = made("random", 0.0, recipe=RECIPE)
    for trial, seed in zip(record["trials"], [0, 1, 1, 0, 1, 0, 0, 1] * 5, strict=True):  # alike groups
        trial["set"] = seed
    sheet = nas_sheets.Sheet([record, truth(0)])
    plain = {k: t["scores"][nas_sheets.PRIMARY] for k, t in nas_sheets.keyed(record["trials"])}
    assert [sheet.scores["random"][k] - v for k, v in plain.items()] == pytest.approx([0] * 40, abs=0.02)


def test_options_are_told_with_every_score():
    known = [[q] for q in QUALITY.tolist()]
    cells = [
        made(n, 5.0, task="nb201", sample="tune-top", truths=known, recipe=r, changes=c)
        for n, r, c in (("synflow", None, ""), ("jacov", None, ""), ("random", RECIPE, ""), ("dm", RECIPE, "-ipc50"))
    ]
    for trial in cells[-1]["trials"]:
        trial["score"] = None  # all of them failed
    rows = [line for line in printed(cells).splitlines() if line.startswith(("| usual | random", "| ipc50 | dm"))]
    assert len(rows) == 2
    sheet = nas_sheets.Sheet(cells[:3])
    rho, summed = sheet.rho(sheet.scores["random"]), sheet.rho(sheet.summed(("random", "synflow", "jacov")))
    assert any(row.startswith("| usual | random |") and f"| {rho:.2f} ({summed:.2f}) |" in row for row in rows)


def test_each_truth_has_a_sheet_and_a_table_of_its_own(tmp_path):
    quick = [truth(0, 500, 1, "-images500-epochs1"), *CELLS]
    titles = [sheet.title for sheet in nas_sheets.sheets(quick)]
    assert [title.partition("truth of ")[2] for title in titles] == [
        "10,000 images x 10 epochs",
        "500 images x 1 epochs",
    ]
    assert {len(sheet.truths) for sheet in nas_sheets.sheets(quick) if sheet.budget == (500, 1)} == {1}
    nas_tables.write_truths(quick, tmp_path)
    assert {path.name for path in tmp_path.glob("*.csv")} == {
        "convnet-truth-10000x10.csv",
        "convnet-truth-500x1.csv",
    }
    assert len((tmp_path / "convnet-truth-10000x10.csv").read_text().splitlines()) == 1 + len(MANY)
    text = tables.rewritten("<!-- nas: begin -->\n<!-- nas: end -->\n", quick, ["nas"])
    assert text.startswith("<!-- nas: begin -->\n\n")
    assert text.endswith("\n\n<!-- nas: end -->\n")
    assert "condensed less random-equal" in text


def test_two_cells_of_one_ranker_are_refused():
    again = made("condensed", 3.0, recipe=RECIPE)
    with pytest.raises(DataError, match="two cells of condensed for one table, convnet-all-condensed and"):
        list(nas_sheets.sheets([*CELLS, again]))


def test_cells_made_otherwise_are_not_put_into_one_table():
    other = made("packed-random", 3.0, recipe={**RECIPE, "held": 1_500})
    with pytest.raises(ConfigError, match=r"were made with other options .held: 5000 there, 1500 here.: move one away"):
        list(nas_sheets.sheets([*CELLS, other]))
    fewer = made("packed-random", 3.0, recipe=RECIPE)
    fewer["trials"] = fewer["trials"][1:]
    with pytest.raises(DataError, match="packed-random hold scores of different architectures"):
        list(nas_sheets.sheets([*CELLS, fewer]))


def test_what_a_set_cost_is_shared_by_the_full_sample():
    sheet = nas_sheets.Sheet([made("condensed", 3.0, recipe=RECIPE)])
    passed = PASSES * 100 * 10**6 * len(MANY)
    assert sheet.spent["condensed"].flops == passed + 2e9 / 2


def test_architectures_whose_full_training_failed_are_counted():
    broken = truth(1)
    broken["trials"][3]["score"] = None
    text = printed([*(r for r in CELLS if r["nas"]["ranker"] != "truth-1"), broken])
    assert "1 of 40 are not ranked: a full training of theirs failed." in text
    assert "**: 39 architectures" in text


def test_another_score_can_be_the_primary_one():
    record = made("condensed", 3.0, recipe=RECIPE)
    for trial in record["trials"]:
        trial["scores"]["tse"] = -trial["score"]
    usual, other = (nas_sheets.Sheet([record], score=score).scores for score in (nas_sheets.PRIMARY, "tse"))
    assert usual.keys() == {"condensed", "condensed [tse]"}
    assert other == {"condensed": usual["condensed [tse]"], f"condensed [{nas_sheets.PRIMARY}]": usual["condensed"]}


def test_the_regret_among_random_candidates_is_that_of_all_cells():
    rng = np.random.default_rng(0)
    truth = np.concatenate([rng.uniform(85, 91, 250), rng.uniform(20, 85, 50)])
    noisy = truth + rng.normal(0, 3, 300)
    better = truth >= 85
    parts = {"itself": [truth], "noisy": [noisy], "sum": [truth, truth], "nothing": [np.zeros(300)]}
    found = nas_regret.sampled(parts, truth, better)
    for name in ("itself", "sum"):
        assert found[name][0] == pytest.approx((0, 0, 0), abs=1e-9)
        assert found[name][1] is None
    assert found["noisy"][0][1] < found["noisy"][0][0] < found["noisy"][0][2]
    lost = [  # the same, one draw at a time
        truth[drawn].max() - truth[drawn][noisy[drawn].argmax()]
        for count in rng.binomial(100, nas_regret.BETTER, 1000)
        for drawn in [np.r_[rng.choice(250, count, False), 250 + rng.choice(50, 100 - count)]]
    ]
    assert found["noisy"][0][0] == pytest.approx(np.mean(lost), abs=0.15)
    expected = truth[better].mean() * nas_regret.BETTER + truth[~better].mean() * (1 - nas_regret.BETTER)
    assert found["nothing"][0][0] == pytest.approx(truth.max() - expected, abs=1.5)


def test_regrets_are_put_together_from_both_samples():
    known = [[q] for q in QUALITY.tolist()]
    cells = [made(n, 5.0, task="nb201", truths=known, recipe=r) for n, r in (("params", None), ("random", RECIPE))]
    top = [made(n, 5.0, task="nb201", sample="top-200", truths=known, recipe=None) for n in ("params", "jacov")]
    for cell in top:
        cell["trials"] = [t for t in cell["trials"] if t["truth"][0] > 50]
    population = {"cells": 7, "regret": {"at random": 5.0, "params": 1.2}}
    text = printed([*cells, *top, {"population": population}])
    rows = text.split("**Regret@1 among 100 random cells**")[1].splitlines()
    assert "those of `top-200` and of `all`" in rows[0]
    assert "Over all draws from the 7 distinct computations: params 1.20, at random 5.00." in rows[0]
    assert [row.split(" | ")[0] for row in rows if row.startswith("| ")][1:] == ["| params"]


def test_a_trained_ranker_without_error_loses_nothing_by_its_sets():
    known = [[q] for q in QUALITY.tolist()]
    whole, top = (made("random", 0.0, task="nb201", sample=s, truths=known, recipe=RECIPE) for s in ("all", "top-200"))
    top["trials"] = [t for t in top["trials"] if t["truth"][0] > 50]
    found = nas_regret.regrets(nas_sheets.Sheet([whole]), nas_sheets.Sheet([top]))
    lost = nas_regret.regrets(nas_sheets.Sheet([worst_first(whole)]), nas_sheets.Sheet([worst_first(top)]))
    assert found["random"][0][0] < 0.1 * lost["random"][0][0]


def worst_first(record):
    """The same, with the worst first."""
    trials = [{**t, "scores": {kind: -score for kind, score in t["scores"].items()}} for t in record["trials"]]
    return {**record, "trials": trials}


def test_changed_options_are_told():
    other = made("condensed", 3.0, changes="-ipc50", recipe={**RECIPE, "ipc": 50})
    text = printed([*CELLS, other])
    assert "other options than the usual ones: `convnet-all-condensed-ipc50`" in text
    tuned = printed([*CELLS, made("dm", 3.0, changes="-ipc50", sample="tune-top", recipe=RECIPE)])
    assert "Figures of the samples to tune on (convnet) come first" in tuned
    assert "other options than" not in tuned


def test_published_columns_stand_beside_ours_and_say_which_truth():
    known = [[q] for q in QUALITY.tolist()]
    names = ("synflow", "jacov", "params")
    records = [made(n, 5.0, task="nb201", truths=known) for n in (*names, *(f"published-{n}" for n in names))]
    text = printed(records)
    assert "| published-synflow+published-jacov |" in text
    assert "The truth is one measurement of validation accuracy, by which the better half is chosen as well" in text
    assert "Ours rank them as those columns do, by rho: params 0." in text
    row = next(line for line in text.splitlines() if line.startswith("| published-params |"))
    assert row.endswith("|  |  |  | 0 |")


def test_a_network_that_kills_its_process_is_found_and_the_others_are_trained(tmp_path):
    args = argparse.Namespace(workers=2, end=math.inf)
    log, left = TrialLog(tmp_path / "dm.jsonl"), deque({"width": w} for w in (1, 2, 3, 4, 5))
    suspects = nas_grid.side_by_side(died, left, None, log, args)
    assert {"width": 2} in suspects
    alone = [a for a in suspects if nas_grid.side_by_side(died, deque([a]), None, log, args)]
    assert alone == [{"width": 2}]
    assert nas_grid.side_by_side(died, left, None, log, args) == []
    assert sorted(trial.architecture["width"] for trial in TrialLog(log.path).trials()) == [1, 3, 4, 5]


def test_a_network_that_cannot_be_trained_is_a_failed_trial(tmp_path):
    fits = {"width": 4, "depth": 1, "activation": "relu", "norm": "none", "pooling": "max"}
    wanted = [{**fits, "depth": 4}, fits]  # four poolings leave nothing of an 8x8 map
    args = argparse.Namespace(workers=1, end=math.inf, device="cpu")
    data = ProxyData(TRAIN.subset(TRAIN.order[:64]), HELD.compact())
    for _ in range(2):
        log = TrialLog(tmp_path / "truth-0.jsonl")
        nas_grid.trained(Cell("grid", "all", "truth-0"), wanted, data, ProxyProtocol(1), 0, 1, log, args)
    found = {trial.architecture["depth"]: trial for trial in TrialLog(log.path).trials()}
    assert {depth: trial.status for depth, trial in found.items()} == {4: FAILED, 1: FINISHED}
    assert found[4].reason.startswith("ConfigError: ")
    assert len((tmp_path / "truth-0.jsonl").read_text().splitlines()) == 2


def test_processes_that_cannot_start_are_no_networks_fault(tmp_path):
    class Breaks:
        def __reduce__(self):
            return (int, ("no number",))

    log, left = TrialLog(tmp_path / "dm.jsonl"), deque([{"width": 1}])
    args = argparse.Namespace(workers=1, end=math.inf)
    with pytest.raises(CondensekitError, match="a process ended before its first training"):
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


def test_each_result_keeps_the_name_that_its_options_give_it():
    usual = {**asdict(Training()), "stem": nas_tasks.STEM, "cells": nas_tasks.CELLS}
    for path in (record.RESULTS / "nas").glob("*.json"):
        found = record.read(path)
        if "nas" in found:
            cell = Cell(**found["nas"])
            assert cell.stem == path.stem
            if found["recipe"] and not cell.full:
                assert cell.changes == nas_cells.suffix(nas_cells.changed(found["options"], usual))
