"""``condensekit search``: what it writes and prints, resuming, and one line for every mistake."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from condensekit.runs.files import load_tensors
from tests.conftest import patterns

KEYS = {"ranker", "spearman", "kendall", "spearman_top", "recall_top", "regret", "ci95", "cost_s", "n"}
FAST = ("--space", "convnet-small", "--ipc", "2", "--steps", "2", "--train-steps", "2", "--trials", "4")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A .npz file with 3 classes of 40 noisy 8x8 patterns, and 6 of each for testing."""
    return patterns(tmp_path_factory.mktemp("data") / "shapes.npz", 40)


@pytest.fixture
def cli(cli, data):
    """Search in this process: (exit code, standard output, standard error)."""
    return lambda *arguments: cli("search", "--data", data, *FAST, *arguments)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_search_writes_everything_and_goes_on(cli, tmp_path):
    out = tmp_path / "run"
    options = (
        "--rankers",
        "dm,random,params,dm+params",
        "--engine",
        "sequential",
        "--truth",
        "full",
        "--full-epochs",
        "1",
    )
    code, text, err = cli(*options, "--out", out)
    assert code == 0, err
    assert err.startswith("Data: ")
    assert "| dm " in text
    assert "Best by dm: " in text
    assert f"condensekit search --resume --retrain --out {out}" in text
    assert max(map(len, text.split("Scores against")[0].splitlines())) <= 100
    record = json.loads((out / "search.json").read_text())
    assert [row["ranker"] for row in record["ranking"]] == ["dm", "random", "params", "dm+params"]
    assert all(set(row) >= KEYS for row in record["ranking"])
    assert record["ranking"][0]["spearman"] is not None
    assert set(record["ranking"][0]["strata"]) == {"width", "depth", "activation", "norm", "pooling"}
    assert len(record["trials"]) == 16
    assert set(record["trials"][0]) >= {"ranker", "architecture", "score", "cost_s"}
    assert len(lines(out / "trials.jsonl")) == 12
    assert len(lines(out / "truth.jsonl")) == 4
    assert (out / "ranking.png").is_file()
    assert {path.name for path in out.iterdir()} == {
        ".lock",
        "candidates.jsonl",
        "config.json",
        "env.json",
        "ranking.png",
        "search.json",
        "sets",
        "time.json",
        "trials.jsonl",
        "truth.jsonl",
    }

    assert cli(*options, "--out", out)[0] == 2  # without --resume
    code, _, err = cli(*options, "--out", out, "--resume", "--ipc", "3")
    assert code == 2
    assert "ipc: 2 there, 3 here" in err
    code, _, err = cli(*options, "--out", out, "--resume", "--space", "convnet")
    assert code == 2
    assert 'space: "convnet-small" there, "convnet" here' in err
    before = (out / "trials.jsonl").read_bytes()
    used = json.loads((out / "time.json").read_text())["used_s"]
    code, text, err = cli(*options, "--out", out, "--resume", "--retrain", "--budget", f"{used / 2:.3f}s")
    assert code == 0, err
    assert "the winner is not retrained: the budget ended before it was trained" in text
    assert not (out / "retrained.safetensors").exists()
    code, text, err = cli(*options, "--out", out, "--resume", "--retrain", "--json")
    assert code == 0, err
    again = json.loads(text)
    assert (out / "trials.jsonl").read_bytes() == before
    assert again["trials"] == record["trials"]
    assert 0 <= again["retrained"]["accuracy"] <= 1
    _, about = load_tensors(out / "retrained.safetensors", "network")
    assert about["architecture"] == record["best"]["architecture"]
    assert json.loads(cli(*options, "--out", out, "--resume", "--json")[1])["retrained"] == again["retrained"]
    written = (out / "retrained.safetensors").stat().st_mtime_ns
    text = cli(*options, "--out", out, "--resume", "--retrain", "--json")[1]
    assert json.loads(text)["retrained"] == again["retrained"]
    assert (out / "retrained.safetensors").stat().st_mtime_ns == written, "trained again"


def test_without_a_truth_the_rest_is_null(cli, tmp_path):
    code, text, err = cli("--rankers", "params,flops", "--engine", "sequential", "--out", tmp_path / "run", "--json")
    assert code == 0, err
    row = json.loads(text)["ranking"][0]
    assert {name: row[name] for name in KEYS} == {
        **dict.fromkeys(KEYS),
        "ranker": "params",
        "cost_s": row["cost_s"],
        "n": 4,
    }
    assert set(row["agreement"]) == {"flops"}


def test_depths_that_do_not_fit_are_told(cli, tmp_path):
    options = ("--rankers", "params", "--engine", "sequential", "--space", "convnet")
    code, text, _ = cli(*options, "--out", tmp_path / "run")
    assert code == 0
    assert "Note: dropped depth 4" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--space", "nowhere:Space"), "space 'nowhere:Space' cannot be imported"),
        (("--space", "convnets"), "Did you mean 'convnet'"),
        (("--rankers", "dmm"), "Did you mean 'dm'"),
        (("--rankers", ","), "names nothing"),
        (("--truth", "missing.csv"), "cannot read the truth table missing.csv"),
        (("--engine", "pol", "--workers", "999", "--rankers", "dn"), "Did you mean 'pool'"),
        (("--workers", "999"), "workers must lie in 1 to"),
        (("--budget", "soon"), "'soon' is not a time: write 90s, 30m or 2h"),
        (("--budget", "5"), "'5' has no unit: write 5s (seconds), 5m (minutes) or 5h (hours)"),
        (("--score", "loss"), "unknown --score 'loss'"),
        (("--rankers", "ridge:params"), "give a truth"),
        (("--trials", "0"), "0 is not in the range"),
        (("--trials", "2", "--truth", "full"), "at least 3 architectures, got 2: ask for 3 or more"),
        (("--init", "kmean"), "Did you mean 'kmeans'"),
        (("--encoder-network", "ConvNot"), "unknown network"),
        (("--score", "margin", "--hopeless", "0.5"), "leave hopeless out, or use score accuracy or tse"),
        (("--trainings", "0"), "0 is not in the range"),
        (("--set", "lr"), "--set takes NAME=VALUE such as lr=3, got 'lr'"),
        (("--augment", "flipp"), "Did you mean 'flip'"),
        (("--rankers", "dc", "--discrepancy", "linear"), "dc takes no --discrepancy: "),
        (("--strategy", "tpe", "--space", "tests.nas.toy:Constrained"), "tpe cannot search this space"),
        (("--strategy", "evolution", "--trials", "12", "--workers", "5"), "population above its 5 workers, got 5"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_bad_input_is_one_line_and_makes_no_folder(cli, tmp_path, monkeypatch, options, message):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8))
    code, out, err = cli(*options, "--out", tmp_path / "run")
    assert code == 2
    assert out == ""
    assert message in err
    assert len([line for line in err.splitlines() if line.startswith("Error")]) == 1
    assert not (tmp_path / "run").exists()


def test_how_to_condense_and_train_can_be_chosen(cli, tmp_path):
    out = tmp_path / "run"
    how = ("--init", "kmeans", "--encoder-network", "ConvNet-d1-w8", "--encoder", "kept", "--factor", "1")
    options = ("--rankers", "dm", "--engine", "sequential", "--out", out, "--hopeless", "0.01")
    code, _, err = cli(*options, *how, "--discrepancy", "linear", "--trainings", "2")
    assert code == 0, err
    recipe = json.loads((out / "sets" / "dm-2" / "made.json").read_text())["recipe"]
    assert recipe["init"]["type"] == "KMeans"
    assert recipe["encoder"]["network"]["width"] == 8
    assert [trial["recipe"]["seeds"] for trial in lines(out / "trials.jsonl")] == [2] * 4
    assert {trial["recipe"]["hopeless"] for trial in lines(out / "trials.jsonl")} == {0.01}
    code, _, err = cli(*options, "--resume")
    assert code == 2
    assert 'options.init: "kmeans" there, nothing here' in err
    assert "seeds: 2 there, 1 here" in err


def test_augmentation_holds_for_sets_and_candidates(cli, tmp_path):
    out = tmp_path / "run"
    options = (
        "--rankers",
        "dm lr=2",
        "--engine",
        "sequential",
        "--out",
        out,
        "--augment",
        "crop,scale",
        "--set",
        "lr=3",
    )
    code, _, err = cli(*options, "--precision", "bf16")
    assert code == 0, err
    made = json.loads((out / "sets" / "dm-lr-2-2" / "made.json").read_text())["recipe"]
    assert made["augmentation"]["ops"] == ["crop", "scale"]
    assert made["method"]["lr"] == 2.0  # of the ranker, before that of every recipe
    assert made["machine"]["precision"] == "bf16"
    for trial in lines(out / "trials.jsonl"):
        assert trial["recipe"]["protocol"]["augmentation"]["ops"] == ["crop", "scale"]
        assert trial["recipe"]["precision"] == "bf16"
        assert trial["image_steps"] == 2 * 64


def test_digits_are_never_mirrored(cli, tmp_path):
    code, _, err = cli("--data", "digits", "--rankers", "dm", "--engine", "sequential", "--out", tmp_path / "run")
    assert code == 0, err
    made = json.loads((tmp_path / "run/sets/dm-2/made.json").read_text())["recipe"]
    assert "flip" not in made["augmentation"]["ops"]
    (crop,) = lines(tmp_path / "run/trials.jsonl")[0]["recipe"]["protocol"]["augmentation"]
    assert crop["ops"] == ["crop"]


def test_without_nni_one_line_says_so(cli, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "nni"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nni", None)
    code, _, err = cli("--rankers", "params", "--out", tmp_path / "run")
    assert code == 2
    assert err == "Error: condensekit search needs NNI, which is not installed: pip install 'nni>=3.0,<4'\n"


def test_a_search_that_scores_nothing_says_why_and_fails(cli, tmp_path):
    where = ("--data", "digits", "--space", "tests.nas.toy:Constrained", "--engine", "sequential")
    code, text, err = cli(*where, "--rankers", "nwot", "--out", tmp_path / "run")
    assert code == 3
    assert "nwot: 4 of 4 trials failed and rank last: ConfigError: nwot needs activation modules" in text
    assert "No candidate was scored." in text
    assert "Traceback" not in err
    assert "| nwot" not in text


def test_a_search_that_ends_before_a_score_says_why_once(cli, tmp_path):
    options = ("--rankers", "dm", "--engine", "sequential", "--steps", "1000000", "--budget", "2s")
    code, text, err = cli(*options, "--out", tmp_path / "run")
    assert code == 3
    assert "Warning: dm scored no candidate: the budget ended" in err
    assert text.splitlines()[0] == "No candidate was scored."
    assert "condensekit search --resume --budget" in text


def test_a_space_of_which_no_candidate_fits_is_refused_in_one_line(cli, tmp_path):
    options = ("--engine", "sequential", "--space", "tests.nas.toy:Toy")  # for gray images
    code, text, err = cli("--rankers", "random,params", *options, "--out", tmp_path / "run")
    assert (code, text) == (2, "")
    (line,) = [line for line in err.splitlines() if not line.startswith("Data: ")]
    assert line.startswith("Error: no candidate of this space can be trained: RuntimeError: mat1 and mat2 shapes")
    assert not (tmp_path / "run" / "search.json").exists()


def test_a_space_that_logs_and_has_a_constraint_prints_one_json_object(cli, tmp_path):
    where = (
        "--data",
        "digits",
        "--space",
        "tests.nas.toy:Constrained",
        "--rankers",
        "params",
        "--engine",
        "sequential",
        "--json",
    )
    for strategy in ("random", "grid", "evolution"):
        more = ("--strategy", strategy, "--trials", "6", "--out", tmp_path / strategy)
        code, text, err = cli(*where, *more)
        assert code == 0, err
        assert {tuple(trial["architecture"]) for trial in json.loads(text)["trials"]} == {("width", "deep")}


def test_a_table_that_lacks_an_architecture_is_refused(cli, tmp_path):
    table = tmp_path / "truth.csv"
    table.write_text("depth,width,activation,norm,pooling,accuracy\n1,16,relu,none,max,50\n")
    code, _, err = cli("--rankers", "params", "--truth", table, "--out", tmp_path / "run")
    assert code == 2
    assert "truth.csv lacks" in err
    table.write_text(table.read_text() + "1,16,relu,none,max,51\n")
    code, _, err = cli("--rankers", "params", "--truth", table, "--out", tmp_path / "run")
    assert code == 2
    assert "line 3: " in err
    assert "a second time" in err


@pytest.mark.parametrize(
    ("signum", "engine", "code"),
    [
        (signal.SIGKILL, "pool", -signal.SIGKILL),
        (signal.SIGTERM, "pool", 143),
        (signal.SIGTERM, "sequential", 143),
        (signal.SIGINT, "sequential", 130),
    ],
)
def test_a_killed_search_goes_on_where_it_stopped(data, tmp_path, signum, engine, code):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "condensekit", "search", "--data", str(data), *FAST, "--trials", "12"]
    command += ["--rankers", "random", "--train-steps", "20", "--engine", engine, "--workers", "1", "--out", str(out)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    child = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    log = out / "trials.jsonl"
    end = time.monotonic() + 100
    while time.monotonic() < end and child.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") >= 3):
        time.sleep(0.02)
    child.send_signal(signum)
    assert child.wait(60) == code
    before = lines(log)
    assert {trial["status"] for trial in before} == {"finished"}
    assert 3 <= len(before) < 12
    done = subprocess.run(
        [*command, "--resume", "--json"], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    after = lines(log)
    assert after[: len(before)] == before
    assert len(after) == len({json.dumps(trial["architecture"], sort_keys=True) for trial in after}) == 12
    assert len(json.loads(done.stdout)["trials"]) == 12


def test_a_budget_that_condensing_uses_up_is_told_loudly(cli, tmp_path):
    """A newcomer's search with --budget 3m whose condensation needs 40 minutes ended as if it had gone well."""
    out = tmp_path / "run"
    options = ("--rankers", "dm,params", "--engine", "sequential", "--steps", "1000000", "--budget", "3s")
    code, text, err = cli(*options, "--out", out)
    assert code == 3
    (line,) = [line for line in err.splitlines() if line.startswith("Warning: dm scored no candidate: ")]
    for way in ("--budget", "--steps", "--ipc", "--encoder-network"):
        assert way in line
    assert "Best by params: " in text
    assert "resume=True" not in text + err
    assert "--retrain" not in text
    assert re.search(rf"condensekit search --resume --budget [0-9]+m --out {out}", text)
    (row,) = [row for row in json.loads((out / "search.json").read_text())["ranking"] if row["ranker"] == "dm"]
    assert row["n"] == 0
    assert row["cost_s"] > 0
