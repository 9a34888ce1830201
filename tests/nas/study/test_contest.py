"""A whole comparison on the real NNI: one list for all, truth, resume, budget, failures, and searches of their own."""

import json
import logging
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from condensekit.compute import Machine
from condensekit.data import datasets
from condensekit.errors import ConfigError, DataError
from condensekit.nas.rankers.base import Setting
from condensekit.nas.rankers.by_name import ranker
from condensekit.nas.rankers.sets import Maker
from condensekit.nas.rankers.training import ProxyProtocol
from condensekit.nas.spaces.architecture import key
from condensekit.nas.spaces.distinct import distinct, others
from condensekit.nas.spaces.nasbench201 import computation, from_table
from condensekit.nas.spaces.spaces import convnet_space, enumerate_architectures, space
from condensekit.nas.study.contest import Contest
from condensekit.nas.study.full_training import FullTraining, retrain
from condensekit.nas.study.notes import tallied
from condensekit.nas.study.plots import scatter
from condensekit.nas.study.ranking import regret
from condensekit.nas.study.report import Ground, RankerCost, cells, ranking_rows
from condensekit.nas.study.truth import Truth
from condensekit.nas.trials.log import TrialLog
from condensekit.nas.trials.settings import Running
from condensekit.nas.trials.strategies import population
from condensekit.rng import Draw
from condensekit.runs.files import load_tensors

WHOLE, TEST = datasets.load("digits")
TRAIN, HELD = WHOLE.split(0.2, Draw(0))
GRID = convnet_space((1, 8, 8), 10, depths=(1,), widths=(4, 8), activations=("relu", "sigmoid"))
PROTOCOL = ProxyProtocol(4, batch=32, augmentation=None)
SETTING = Setting(Maker(TRAIN, steps=2, machine=Machine("cpu")), HELD, PROTOCOL, ipc=3)
FULL = FullTraining(WHOLE, TEST, ProxyProtocol(1, batch=128, augmentation=None), seeds=2)
EVERY = list(enumerate_architectures(GRID))
TABLE = Truth("table", {key(a): (a["width"] + 0.1 * i, a["width"] + 1.0) for i, a in enumerate(EVERY)})


def contest(names, setting=SETTING, **options):
    return Contest(GRID, [ranker(n) for n in names.split(",")], setting, **{"trials": 6, **options})


def run(names, folder=None, engine="sequential", budget_s=None, **options):
    return contest(names, **options).run(Running(engine, folder=folder, budget_s=budget_s))


def scores(found, name):
    return {key(t.architecture): t.score for t in found.trials if t.ranker == name}


def test_rankers_score_one_list_and_are_measured_by_full_training(tmp_path):
    found = run("random,params,random+params", tmp_path, truth=FULL, strata=("activation",))
    assert set(scores(found, "random")) == set(scores(found, "params")) == set(found.values)
    truth = np.array(list(found.values.values()))
    assert truth.shape == (6, 2)
    row = found.rows[0]
    mine = [scores(found, "random")[k] for k in found.values]
    assert row.spearman == pytest.approx(stats.spearmanr(mine, truth.mean(1)).statistic)
    assert row.ci95[0] <= row.spearman <= row.ci95[1]
    assert sum(part["n"] for part in row.strata["activation"].values()) == row.n == 6
    assert found.rows[2].difference is not None
    assert row.difference is None
    assert found.truth["repeats"] == 2
    assert found.best["architecture"] in [t.architecture for t in found.trials]
    assert found.best["score"] == max(mine)
    json.dumps(found.to_json(), allow_nan=False)
    assert len(TrialLog(tmp_path / "trials.jsonl")) == 12
    assert len(TrialLog(tmp_path / "truth.jsonl")) == 12
    assert scatter(found.trials, found.values, tmp_path / "ranking.png")
    assert (tmp_path / "ranking.png").read_bytes().startswith(b"\x89PNG")


def test_a_result_shows_itself(tmp_path):
    found = run("params,flops", truth=TABLE)
    assert repr(found).startswith("SearchResult(params rho ")
    assert len(repr(found)) < 120
    assert str(found) == found.table()
    lines = found.table().splitlines()
    assert [line.split()[1] for line in lines if line.startswith("| ")] == ["ranker", "params", "flops"] * 2
    assert max(map(len, lines)) <= 100
    assert found._repr_html_().startswith('<div class="ck">')
    frame = found.to_pandas()
    assert list(frame["ranker"]) == ["params", "flops"]
    assert frame["spearman"][0] == found.rows[0].spearman
    assert found.rows[0].work["passes"] == 0


def test_a_resumed_comparison_repeats_nothing_and_equals_the_first(tmp_path):
    first = run("random,params", tmp_path, truth=FULL)
    before = (tmp_path / "trials.jsonl").read_bytes(), (tmp_path / "truth.jsonl").read_bytes()
    again = run("random,params", tmp_path, truth=FULL)
    assert ((tmp_path / "trials.jsonl").read_bytes(), (tmp_path / "truth.jsonl").read_bytes()) == before
    lines = before[0].splitlines(keepends=True)
    (tmp_path / "trials.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][:20])
    cut = run("random,params", tmp_path, truth=FULL)
    for found in (again, cut):
        assert [(t.ranker, t.architecture, t.score) for t in found.trials] == [
            (t.ranker, t.architecture, t.score) for t in first.trials
        ]
    timed = ("cost_s", "preparation_s", "pays_from")
    untimed = [
        [{k: v for k, v in asdict(row).items() if k not in timed} for row in found.rows] for found in (first, cut)
    ]
    assert untimed[0] == untimed[1]


@pytest.mark.skipif(not torch.__version__.startswith("2.11."), reason="its set has the bits of torch 2.11")
def test_a_log_of_version_1_is_gone_on_with(tmp_path):
    written = Path(__file__).with_name("trials-0.1.jsonl").read_bytes()  # by condensekit 0.1, four trials of dm
    (tmp_path / "trials.jsonl").write_bytes(written)
    found = run("dm", tmp_path, trials=4)
    assert (tmp_path / "trials.jsonl").read_bytes() == written
    assert [t.score for t in found.trials] == [t.score for t in TrialLog(tmp_path / "trials.jsonl").trials("dm")]
    with pytest.raises(ConfigError, match=r"holds trials of 'dm' that were scored otherwise .*: 0 there, 1 here"):
        run("dm", tmp_path, trials=4, setting=replace(SETTING, seed=1))


def test_the_pool_gives_the_same_scores():
    one, many = run("random,synflow", trials=4), run("random,synflow", trials=4, engine="pool")
    assert scores(one, "random") == scores(many, "random")
    assert scores(one, "synflow") == scores(many, "synflow")


def test_regressions_are_fitted_on_architectures_that_are_not_ranked():
    found = run("ridge:params+synflow,additive,params", truth=TABLE, trials=8, fitted=4)
    rows = {row.ranker: row for row in found.rows}
    assert rows["ridge:params+synflow"].evaluations == rows["additive"].evaluations == 4
    assert rows["params"].evaluations == 0
    assert {row.n for row in found.rows} == {8}
    assert found.notes == ()  # those that a regression is fitted on are not counted among the ranked ones
    assert rows["additive"].spearman > 0.3
    ranked = {key(t.architecture) for t in found.trials}
    assert not ranked & {key(a) for a in others(GRID, [t.architecture for t in found.trials], 4, 0)}


def test_combinations_that_lack_architectures_say_why(tmp_path):
    names = "params+flops,ridge:params"
    short = run(names, tmp_path, budget_s=1e-6, truth=TABLE, fitted=3)
    parts = "params and flops did not score all of them: resume with a larger budget, or combine other rankers"
    assert f"params+flops: only 0 of 6 architectures were scored, because {parts}" in short.notes
    some = [key(a) for a in distinct(GRID, 6, 0)] + [key(a) for a in others(GRID, distinct(GRID, 6, 0), 3, 0)[:2]]
    partial = contest("ridge:params,params", truth=TABLE, fitted=3)
    partial.wanted = Truth("partial", {k: TABLE.values[k] for k in some})
    found = partial.run(Running("sequential"))
    why = "only 2 of the 3 architectures to which it is fitted have a truth and all scores"
    assert found.notes == (
        f"ridge:params: only 0 of 6 architectures were scored, because {why}: resume with a larger budget, or give a "
        "truth that has them",
        "the best is that of params, because ridge:params has no score",
    )


def test_the_ranking_is_reported_apart_by_every_label_with_few_choices():
    row = run("params", truth=TABLE).rows[0]
    assert set(row.strata) == {"width", "activation", "norm", "pooling"}  # of depth there is one
    assert set(row.strata["pooling"]) <= {"none", "max", "avg"}
    assert run("params", truth=TABLE, strata=()).rows[0].strata == {}


def test_without_a_truth_there_is_agreement_and_cost():
    found = run("params,flops")
    first = found.rows[0]
    assert first.agreement == {"flops": pytest.approx(found.rows[1].agreement["params"])}
    assert first.n == 6
    assert first.cost_s >= 0
    empty = {"spearman", "kendall", "spearman_top", "recall_top", "regret", "ci95", "pairs", "partial", "difference"}
    assert all(asdict(first)[name] is None for name in empty)
    assert "with flops" in found.table()
    assert not scatter(found.trials, found.values, None)


def test_evolution_searches_for_each_ranker(tmp_path):
    found = run("params,flops", tmp_path, strategy="evolution", trials=8, truth=TABLE, engine="pool")
    assert {len(scores(found, name)) for name in ("params", "flops")} == {8}
    assert all(row.n == 8 for row in found.rows)


@pytest.mark.parametrize("seeds", [1, 3])
def test_rankers_at_equal_cost_cost_what_the_dearest_set_costs(seeds):
    found = run("random-equal,dm,early-stop,random", trials=4, setting=replace(SETTING, seeds=seeds))
    spent = {row.ranker: row.flops for row in found.rows}
    assert spent["early-stop"] == spent["random-equal"] == pytest.approx(spent["dm"], rel=0.1)
    assert spent["random"] < 0.5 * seeds * spent["dm"]


def test_what_a_search_asked_for_and_the_truth_lacks_is_told():
    some = Truth("some.csv", {k: v for k, v in TABLE.values.items() if "sigmoid" in k and 'norm":"none' not in k})
    found = run("params,flops", strategy="evolution", trials=8, truth=some)
    for row in found.rows:
        without = 8 - row.n
        assert 0 < without < 8
        assert f"{row.ranker}: {without} of 8 have no truth and are not compared" in found.notes


def test_a_space_smaller_than_asked_for_is_told_and_too_small_a_one_refused():
    tiny = convnet_space((1, 8, 8), 10, depths=(1,), widths=(4,), activations=("relu",), norms=("none", "batch"))
    two = convnet_space(
        (1, 8, 8), 10, depths=(1,), widths=(4, 8), activations=("relu",), norms=("none",), poolings=("max",)
    )
    for strategy in ("random", "evolution"):
        with pytest.raises(ConfigError, match="at least 3 architectures, got 2: take a larger space, or leave out"):
            Contest(two, [ranker("params")], SETTING, strategy=strategy, trials=8, truth=FULL)
    for made, n in ((two, 2), (tiny, 6)):
        found = Contest(made, [ranker("params")], SETTING, trials=8).run(Running("sequential"))
        assert found.notes == (f"the space has only {n} different architectures, not 8",)


def test_why_trials_failed_is_told_in_one_line_and_another_ranker_finds_the_best(caplog):
    caplog.set_level(logging.WARNING)
    without = space("tests.nas.toy:Constrained")  # without activation modules
    found = Contest(without, [ranker("nwot"), ranker("params")], SETTING, trials=4).run(Running("sequential"))
    failed = [t for t in found.to_json()["trials"] if t["ranker"] == "nwot"]
    assert "nwot needs activation modules" in failed[0]["reason"]
    assert found.notes == (
        f"nwot: 4 of 4 trials failed and rank last: {failed[0]['reason']}",
        "the best is that of params, because nwot has no score",
    )
    assert found.best is not None
    assert found.best["ranker"] == "params"
    assert [record.getMessage().endswith(failed[0]["reason"]) for record in caplog.records] == [True] * 4
    assert "Traceback" not in caplog.text
    assert tallied([*"abcacd", "a"]) == "a (3); c (2); b (1); 1 more"


def test_a_spent_budget_leaves_out_what_is_not_done():
    found = run("params,flops", budget_s=1e-6)
    assert found.trials == ()
    assert found.best is None
    assert found.notes[0] == (
        "params scored no candidate: the budget ended before its first trial; resume with a larger budget"
    )
    json.dumps(found.to_json(), allow_nan=False)


def test_the_budget_bounds_condensation_and_all_resumes(tmp_path):
    long = replace(SETTING, maker=replace(SETTING.maker, steps=100_000, folder=tmp_path / "sets"))
    for _ in range(3):
        start = time.monotonic()
        found = Contest(GRID, [ranker("params"), ranker("dm")], long, trials=4).run(
            Running("sequential", folder=tmp_path, budget_s=2.5)
        )
        assert time.monotonic() - start < 4
        assert len(scores(found, "params")) == 4  # free ones come first, and stay
        assert scores(found, "dm") == {}
        assert any(note.startswith("dm scored no candidate: the budget ended") for note in found.notes)
        assert [late.ranker for late in found.late] == ["dm"]
        json.dumps(found.to_json(), allow_nan=False)
    assert time.monotonic() - start < 1  # nothing was left for the last one
    assert json.loads((tmp_path / "time.json").read_text())["used_s"] >= 2.5


@pytest.mark.parametrize("lr", [1e30, 1e38])  # the loss is not finite; the images are not
def test_a_condensation_that_diverges_fails_its_ranker_alone(tmp_path, lr):
    bad = replace(SETTING, maker=replace(SETTING.maker, options={"lr": lr}, folder=tmp_path / "sets"))
    for _ in range(2):
        names = ("dm", "random", "early-stop", "dm+random")
        contestants = [ranker(name) for name in names]
        found = Contest(GRID, contestants, bad, trials=4, truth=TABLE).run(Running("sequential", folder=tmp_path))
        rows = {row.ranker: row for row in found.rows}
        assert rows["dm"].n == rows["dm+random"].n == 0
        assert rows["random"].n == rows["early-stop"].n == 4
        assert found.best is not None
        assert found.best["ranker"] == "random"
        assert "the best is that of random, because dm has no score" in found.notes
        assert any(note.startswith("dm failed: ") and "not finite" in note for note in found.notes)
        assert "dm+random: only 0 of 4 architectures were scored, because dm did not" in " ".join(found.notes)
        json.dumps(found.to_json(), allow_nan=False)
        assert "nan" not in found.table().lower()


def test_regressions_pay_for_their_truths_and_fits_and_others_do_not():
    names = "ridge:random,random,params"
    found = run(names, truth=FULL, trials=5, fitted=3)
    rows = {row.ranker: row for row in found.rows}
    assert rows["random"].image_steps == 5 * 4 * 32  # 4 passes over 30 images in batches of 32
    full = 2 * -(-len(WHOLE) // 128) * 128
    assert rows["ridge:random"].image_steps == 8 * 4 * 32 + 3 * full
    assert rows["ridge:random"].flops > rows["random"].flops
    assert rows["ridge:random"].cost_s > rows["random"].cost_s


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ("params,params", {}, "named twice"),
        ("ridge:params", {}, "is fitted on truths: give a truth"),
        ("params+flops", {"strategy": "tpe"}, "combines scores of one list"),
        ("additive", {"trials": len(EVERY), "truth": TABLE}, r"the space has only \d+: rank fewer"),
        ("additive", {"truth": TABLE, "fitted": 2}, "fitted must be an integer of at least 3, got 2"),
        ("params", {"trials": 2, "truth": TABLE}, "at least 3 architectures, got 2: ask for 3 or more, or leave out"),
        ("params", {"trials": 2, "truth": FULL, "strategy": "tpe"}, "got 2: ask for 3 or more"),
        ("params", {"truth": TABLE, "architectures": EVERY[:1]}, "got 1: ask for 3 or more"),
        ("params", {"strategy": "evolutoin"}, "Did you mean 'evolution'"),
        ("params", {"strata": ("norms",)}, "stratum 'norms' is not a label of the space: use width, depth"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(names, options, message):
    with pytest.raises(ConfigError, match=message):
        contest(names, **options)


def test_a_population_is_checked_before_anything_is_condensed(monkeypatch, tmp_path):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8))
    long = replace(SETTING, maker=replace(SETTING.maker, steps=100_000, folder=tmp_path / "sets"))
    whole = Contest(GRID, [ranker("dm")], long, strategy="evolution", trials=8)
    enough = "population above its 5 workers, got 5: use fewer workers, or at least 24 trials$"
    with pytest.raises(ConfigError, match=enough):
        whole.run(Running("pool", workers=5, folder=tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert population(24) > 5 >= population(23)


def test_one_core_is_enough(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    assert Running().workers == 1
    assert Running("sequential", workers=2)
    with pytest.raises(ConfigError, match="workers must lie in 1 to 1, the number of cores, got 2"):
        Running("pool", workers=2)


def test_a_list_with_an_architecture_of_another_space_is_an_error_at_once():
    with pytest.raises(DataError, match="not an architecture of this space"):
        contest("params", architectures=[*EVERY, {**EVERY[0], "width": 5}])


def test_what_stands_twice_in_a_list_counts_once():
    found = contest("params", architectures=[*EVERY, EVERY[0]], truth=TABLE)
    assert (found.ranked, found.trials, found.notes) == (EVERY, len(EVERY), [])
    with pytest.raises(ConfigError, match="at least 3 architectures, got 1: ask for 3 or more"):
        contest("params", architectures=[EVERY[0]] * 3, truth=TABLE)


def test_architectures_that_the_truth_lacks_are_an_error_at_once():
    some = Truth("some.csv", dict(list(TABLE.values.items())[:3]))
    with pytest.raises(DataError, match=r"some\.csv lacks \d of 6 architectures"):
        contest("params", truth=some)


def test_engines_are_checked_first(tmp_path):
    with pytest.raises(ConfigError, match="unknown engine 'pol'"):
        Running("pol")
    with pytest.raises(ConfigError, match="workers must lie in 1 to"):
        Running(workers=10_000)
    with pytest.raises(ConfigError, match="needs a folder"):
        Running("nni")


def test_failures_and_constants_have_rows_without_nan():
    keys = tuple("abcde")
    ground = Ground(keys, np.arange(10.0).reshape(5, 2), params=dict.fromkeys(keys, 7))
    given = {
        "good": dict(zip(keys, [1.0, 2, 3, 4, 5], strict=True)),
        "random": dict.fromkeys(keys, 1.0),
        "failed": dict.fromkeys(keys),
        "half": {"a": 1.0, "b": None},
        "empty": {},
    }
    rows = {row.ranker: row for row in ranking_rows(given, dict.fromkeys(given, RankerCost()), ground)}
    json.dumps([asdict(row) for row in rows.values()], allow_nan=False)
    assert rows["good"].spearman == pytest.approx(1.0)
    assert rows["random"].spearman == rows["failed"].spearman == 0.0
    assert rows["failed"].failed == 5
    assert rows["half"].spearman is None
    assert (rows["half"].n, rows["half"].failed, rows["empty"].n) == (2, 1, 0)
    assert rows["good"].difference is not None
    assert rows["good"].difference[0] == pytest.approx(1.0)
    assert "nan" not in str(cells(list(rows.values()))).lower()
    head, lines = cells([replace(rows["good"], pays_from=3), rows["random"], rows["failed"]])
    assert [line[head.index("pays from")] for line in lines] == ["3", "never", ""]
    assert "pays from" not in cells([rows["good"], rows["random"]])[0]


def test_few_candidates_tell_no_regret_among_more_and_no_recall():
    """The table of a demo with 12 candidates told a regret among 100 of them, and the recall of the one best."""
    keys = [f"{i:03}" for i in range(101)]
    truth = np.random.default_rng(0).normal(size=(101, 1))
    scores = dict(zip(keys, (truth[:, 0] + np.random.default_rng(1).normal(size=101)).tolist(), strict=True))
    for n, heads in (
        (101, ["recall of the top tenth", "regret among 100", "regret among 25"]),
        (60, ["recall of the top tenth", "regret", "regret among 25"]),
        (49, ["regret", "regret among 25"]),
        (25, ["regret"]),
    ):
        mine = {"it": {k: scores[k] for k in keys[:n]}}
        row = ranking_rows(mine, {"it": RankerCost()}, Ground(tuple(keys[:n]), truth[:n]))[0]
        assert row.regret_25 == pytest.approx(regret(list(mine["it"].values()), truth[:n, 0], 25))
        assert row.regret_25 is not None
        assert row.ci95_regret_25 is not None
        assert row.ci95_regret_25[0] <= row.regret_25 <= row.ci95_regret_25[1]
        assert [head for head in cells([row])[0] if head.startswith(("regret", "recall"))] == heads


def test_cells_drawn_at_random_compute_different_things():
    cells = space("nasbench201", (1, 8, 8), 10, stem=4, cells=1)
    drawn = distinct(cells, 60, 3)
    assert len({key(a) for a in drawn}) == 60
    assert drawn[:20] == distinct(cells, 20, 3)
    assert len(distinct(GRID, 1000, 0)) == len(EVERY)
    many = distinct(cells, 300, 0)
    assert len({computation(a) for a in many}) == 300
    assert not {computation(a) for a in others(cells, many, 50, 0)} & {computation(a) for a in many}


def test_cells_that_compute_the_same_are_one_group():
    cells = space("nasbench201", (1, 8, 8), 10, stem=4, cells=1)
    same = ["|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|"]
    same += ["|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|"]
    three = [from_table(text) for text in (*same, same[0].replace("3x3", "1x1"))]
    truth = Truth("truth", {key(a): (float(i),) for i, a in enumerate(three)})
    made = Contest(cells, [ranker("params")], SETTING, architectures=three, truth=truth)
    first, second, other = made._ground({key(a): a for a in three}, truth).groups.values()
    assert first == second != other


def test_the_winner_is_retrained_on_everything(tmp_path):
    architecture = {"depth": 1, "width": 8, "activation": "relu", "norm": "batch", "pooling": "avg"}
    module, accuracy = retrain(GRID, architecture, FULL, 0, tmp_path / "winner.safetensors")
    assert accuracy > 0.3
    tensors, about = load_tensors(tmp_path / "winner.safetensors", "network")
    assert about["architecture"] == architecture
    assert all(np.array_equal(tensors[name], value) for name, value in module.state_dict().items())


def test_ranks_do_not_share_a_search(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="a search runs in one process: start it without torchrun"):
        run("params")
