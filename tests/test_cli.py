"""The command line: what each command writes and prints, its exit codes, and one line for every mistake."""

import csv
import html
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from condensekit import catalog
from condensekit.runs.files import read_json
from condensekit.sets.condensed import CondensedSet
from condensekit.training.number import search_number
from condensekit.training.train import TrainProtocol
from tests.conftest import patterns

BRIEF = TrainProtocol("brief", epochs=1, full_epochs=1, steps=2, batch=8)

FAST = ("--method", "dm", "--batch-real", "8", "--encoder-network", "ConvNet-w8", "--ipc", "2", "--steps", "4")
NAME = "dm batch_real=8 encoder_network=ConvNet-w8"


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A .npz file with 3 classes (labels with gaps) of 12 noisy 8x8 patterns, and 6 of each for testing."""
    return patterns(tmp_path_factory.mktemp("data") / "shapes.npz", 12)


@pytest.fixture
def run(cli, data, tmp_path):
    """A condensed run of the tiny data set; options are added."""

    def make(out="run", *options):
        folder = tmp_path / out
        code, _, err = cli("condense", "--data", data, *FAST, "--out", folder, *options)
        assert code == 0, err
        return folder

    return make


def steps(folder):
    with (folder / "metrics.csv").open() as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def test_version(cli):
    assert cli("--version")[:2] == (0, "condensekit, version 0.2.0\n")


def test_condense_writes_a_run(cli, data, tmp_path):
    out = tmp_path / "run"
    code, printed, err = cli("condense", "--data", data, *FAST, "--checkpoint-every", 2, "--out", out)
    assert code == 0, err
    assert re.fullmatch("Data: 36 training and 18 test images; 3 classes: 1, 5, 6; 3 x 8 x 8, uint8 pixels .*\n", err)
    assert "finished 4 steps" in printed
    assert len(CondensedSet.load(out / "set.safetensors")) == 6
    assert steps(out) == [1, 2, 3, 4]
    assert (out / "env.json").exists()
    config = read_json(out / "config.json")
    assert config["name"] == NAME
    assert config["data"] == {"name": str(data), "image_size": None}
    assert [p.name for p in (out / "checkpoints").iterdir() if "4" in p.name]


def test_json_is_one_object_and_nothing_else(cli, data, tmp_path):
    code, out, err = cli("condense", "--data", data, *FAST, "--out", tmp_path / "run", "--json", "--quiet")
    assert (code, err) == (0, "")
    (made,) = json.loads(out)["runs"]
    assert made["status"] == "finished"
    assert (made["steps"], made["classes"], made["ipc"], made["seed"]) == (4, 3, 2, 0)


def test_existing_run_needs_resume(cli, run, data):
    folder = run()
    again = ("condense", "--data", data, *FAST, "--out", folder)
    before = CondensedSet.load(folder / "set.safetensors")
    code, _, err = cli(*again)
    assert code == 2
    assert "--resume" in err
    (folder / "set.safetensors").unlink()
    assert cli(*again, "--resume")[0] == 0
    after = CondensedSet.load(folder / "set.safetensors")
    assert after.images.equal(before.images)
    assert steps(folder) == [1, 2, 3, 4]


def test_resume_of_an_empty_folder_starts_from_zero(run, tmp_path):
    (tmp_path / "run").mkdir()
    assert steps(run("run", "--resume")) == [1, 2, 3, 4]


def test_resume_with_other_options_shows_the_difference(cli, run, data):
    folder = run()
    code, _, err = cli("condense", "--data", data, *FAST, "--out", folder, "--resume", "--lr", 2)
    assert code == 2
    assert "method.lr: 1.0 there, 2.0 here" in err


@pytest.fixture
def named(tmp_path):
    """A folder with another MNIST: 3 classes of 12 noisy 8x8 images, and as many for testing."""
    raw = tmp_path / "root" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for part in ("train", "t10k"):
        images = draw.integers(0, 255, (36, 8, 8), np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, *images.shape) + images.tobytes())
        labels = bytes(range(3)) * 12
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, 36) + labels)
    return tmp_path / "root"


def test_resume_finds_data_that_moved(cli, named, tmp_path):
    folder, moved = tmp_path / "run", tmp_path / "moved"
    command = ("condense", "--data", "mnist", "--trust-local-copy", *FAST, "--out", folder)
    assert cli(*command, "--data-root", named)[0] == 0
    named.rename(moved)
    code, _, err = cli(*command, "--resume", "--data-root", moved)
    assert code == 0, err
    assert read_json(folder / "config.json")["data_root"] == str(named)


def test_seeds_make_one_folder_each_and_one_row(cli, run):
    folder = run("runs", "--seeds", 3, "--seed", 4)
    assert sorted(p.name for p in folder.iterdir()) == ["seed-4", "seed-5", "seed-6"]
    code, out, err = cli("evaluate", folder, "--networks", 1, "--network", "ConvNet-w8", "--json")
    assert code == 0, err
    record = json.loads(out)
    assert record == read_json(folder / "evaluation.json")
    rows = {row["set"]: row for row in record["rows"]}
    assert set(rows) == {NAME, "random"}
    row = rows[NAME]
    assert (row["network"], row["ipc"], row["sets"], row["networks"]) == ("ConvNet-w8", 2, 3, 1)
    assert (row["n"], row["unit"]) == (3, "set")
    assert 0 <= row["accuracy_mean"] <= 1
    assert row["ci95"][0] <= row["difference"] <= row["ci95"][1]
    assert rows["random"]["difference"] is None


def test_evaluate_takes_runs_baselines_and_all_data(cli, run, data, tmp_path):
    first = run("a")
    second = tmp_path / "b"
    assert cli("select", "--data", data, "--selection", "kmeans", "--ipc", 2, "--out", second)[0] == 0
    options = ("--networks", 2, "--network", "ConvNet-w8", "--against", "random,herding,full")
    code, out, err = cli("evaluate", first, second, *options)
    assert code == 0, err
    names = [row["set"] for row in read_json(first / "evaluation.json")["rows"]]
    assert names == [NAME, "kmeans", "random", "herding", "full"]
    rows = [line.split("|") for line in out.splitlines() if line.startswith("| ")]
    assert {row[1].strip() for row in rows} == {"set", *names}
    assert "18 test images" in out
    assert "difference to random" in out
    assert max(map(len, out.split("Result: ")[0].splitlines())) <= 100
    end = out.split("Result: ")[1].splitlines()
    assert end[0] == str(first / "evaluation.json")
    assert "6 images condensed by dm" in end[1].lower()
    assert end[2].endswith(f"condensekit report {first} {second} --out {first / 'report.html'}")
    assert not (second / "evaluation.json").exists()
    assert "train steps" in out
    (first / "report.html").touch()
    assert "report.html --overwrite" in cli("evaluate", first, second, *options)[1]
    assert f"condensekit report {first} --out" in cli("inspect", first)[1]
    made = cli("report", first, second, "--out", tmp_path / "all.html")[1]
    assert "evaluate measures" not in made


def test_runs_of_one_name_are_told_apart_by_folder(cli, run):
    first, second = run("a"), run("b", "--steps", 5)
    options = ("--networks", 1, "--network", "ConvNet-w8", "--against", "none", "--json")
    code, out, err = cli("evaluate", first, second, *options)
    assert code == 0, err
    assert [row["set"] for row in json.loads(out)["rows"]] == [f"{NAME} ({first})", f"{NAME} ({second})"]


def test_one_run_twice_is_refused(cli, run):
    folder = run()
    code, _, err = cli("evaluate", folder, folder)
    assert code == 2
    assert "same run" in err


def test_evaluate_refuses_other_data(cli, run, data):
    folder = run()
    code, _, err = cli("evaluate", folder, "--data", "digits")
    assert code == 2
    assert "other training images" in err


def test_classes_named_like_splits(cli, tmp_path):
    for k, name in enumerate(("bus", "train")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(5):
            Image.new("L", (8, 8), 100 * k + i).save(tmp_path / "data" / name / f"{i}.png")
    words = ("select", "--data", tmp_path / "data", "--selection", "random", "--ipc", 1, "--out", tmp_path / "run")
    code, _, err = cli(*words)
    assert (code, "use --no-splits" in err) == (2, True)
    assert cli(*words, "--no-splits")[0] == 0
    options = ("--networks", 1, "--network", "ConvNet-w8", "--against", "none")
    code, _, err = cli("evaluate", tmp_path / "run", *options)
    assert code == 0, err


def test_a_published_layout_names_the_options(cli, tmp_path):
    (tmp_path / "tiny-imagenet-200" / "val").mkdir(parents=True)
    code, _, err = cli("select", "--data", tmp_path / "tiny-imagenet-200", "--ipc", 1, "--out", tmp_path / "run")
    assert (code, f"use --data tinyimagenet --data-root '{tmp_path}'" in err) == (2, True)


def test_trust_is_not_taken_from_a_run_folder(cli, named, tmp_path, monkeypatch):
    """A stranger's run must not decide that altered pickles are read."""
    folder = tmp_path / "run"
    where = ("--data", "mnist", "--data-root", named, "--trust-local-copy")
    assert cli("condense", *where, *FAST, "--out", folder)[0] == 0
    config = read_json(folder / "config.json")
    assert "trust_local_copy" not in json.dumps(config)
    altered = tmp_path / "cifar-10-batches-py"
    altered.mkdir()
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch", "batches.meta"):
        (altered / name).write_bytes(b"cposix\nsystem\n(S'touch owned'\ntR.")
    config |= {"data": {"name": "cifar10", "image_size": None}, "data_root": str(tmp_path), "trust_local_copy": True}
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    code, _, err = cli("evaluate", folder)
    assert code == 2
    assert "--trust-local-copy" in err
    assert not list(tmp_path.rglob("owned"))


@pytest.mark.parametrize("name", ["random", "herding", "kmeans", "kcenter"])
def test_select(cli, data, tmp_path, name):
    folder = tmp_path / name
    code, out, err = cli(
        "select", "--data", data, "--selection", name, "--ipc", 3, "--storage", "uint8", "--out", folder, "--json"
    )
    assert code == 0, err
    assert json.loads(out)["runs"][0]["ipc"] == 3
    chosen = CondensedSet.load(folder / "set.safetensors")
    assert chosen.labels.tolist() == [1, 1, 1, 5, 5, 5, 6, 6, 6]
    assert chosen.provenance["selection"] == name


def test_select_fills_bytes(cli, data, tmp_path, monkeypatch):
    select = ("select", "--data", data, "--storage", "webp-mosaic")
    code, out, err = cli(*select, "--bytes", 700, "--out", tmp_path / "webp", "--json")
    assert code == 0, err
    chosen = CondensedSet.load(tmp_path / "webp" / "set.safetensors")
    assert all(chosen.select([label]).nbytes <= 700 for label in chosen.classes)
    assert json.loads(out)["runs"][0]["nbytes"] == chosen.nbytes
    config = read_json(tmp_path / "webp" / "config.json")
    assert (config["name"], config["room"], config["ipc"]) == ("webp-random", 700, round(700 / (3 * 8 * 8 + 8)))
    code, out, err = cli("select", "--data", data, "--selection", "webp-random", "--ipc", 4, "--out", tmp_path / "four")
    assert code == 0, err
    assert read_json(tmp_path / "four" / "config.json")["room"] == 4 * (3 * 8 * 8 + 8)
    assert "bytes" in out
    code, out, _ = cli("inspect", tmp_path / "webp")
    assert (code, bool(re.search(r"webp-mosaic of quality \d+ to \d+, ", out))) == (0, True)
    assert cli("export", tmp_path / "webp", "--to", tmp_path / "png")[0] == 0
    evaluate = ("evaluate", tmp_path / "webp", "--networks", 1, "--network", "ConvNet-w8", "--json")
    code, out, err = cli(*evaluate, "--against", "random storage=4bit,random")
    assert code == 0, err
    rows = {row["set"]: row for row in json.loads(out)["rows"]}
    assert [*rows] == ["webp-random", "random storage=4bit", "random"]
    assert rows["random storage=4bit"]["nbytes"] <= 3 * 700

    monkeypatch.setattr("condensekit.cli.select.search_number", partial(search_number, protocol=BRIEF, numbers=[2, 4]))
    code, out, err = cli(*select, "--bytes", 700, "--search", "--out", tmp_path / "searched")
    assert code == 0, err
    assert "(best)" in out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "give --ipc, the images of each class, or --bytes"),
        (("--search", "--ipc", 2), "--search finds the number of images in --bytes: give --bytes, and no --ipc"),
        (("--bytes", 60, "--storage", "avif-mosaic"), "take more than 60 bytes at the lowest quality of avif-mosaic"),
        (("--bytes", 60, "--selection", "jpeg-random"), "jpeg-random images are stored as JPEG"),
        (("--ipc", 2, "--storage", "gif"), "gif"),
    ],
)
def test_select_refuses_what_does_not_fit(cli, data, tmp_path, options, told):
    code, _, err = cli("select", "--data", data, *options, "--out", tmp_path / "run")
    assert (code, told in err) == (2, True), err
    assert not (tmp_path / "run").exists()


def test_code_stores_in_any_form(cli, run, tmp_path):
    folder = run()
    code, out, err = cli(
        "code", folder, "--storage", "avif-mosaic", "--bytes", 900, "--out", tmp_path / "avif", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["runs"][0]["nbytes"] <= 3 * 900
    code, out, err = cli("code", folder, "--storage", "4bit", "--out", tmp_path / "bits")
    assert code == 0, err
    assert "random storage=4bit" in out
    assert CondensedSet.load(tmp_path / "bits" / "set.safetensors").formation.dtype == "4bit"
    assert cli("code", folder, "--storage", "webp-mosaic", "--quality", 30, "--out", tmp_path / "webp")[0] == 0
    code, _, err = cli("code", folder, "--ipc", 2, "--bytes", 900, "--out", tmp_path / "both")
    assert (code, "--ipc and --bytes each say how small the images become: give one of them" in err) == (2, True)
    code, _, err = cli("code", folder, "--storage", "4bit", "--quality", 30, "--out", tmp_path / "both")
    assert (code, "4bit has no quality, got --quality 30: leave it out" in err) == (2, True)


def test_export(cli, run, tmp_path):
    folder = run("runs", "--seeds", 2)
    code, out, err = cli("export", folder, "--to", tmp_path / "png", "--grid", tmp_path / "grid.png", "--seed", 1)
    assert code == 0, err
    assert "6 images" in out
    assert len(list((tmp_path / "png").glob("*/*.png"))) == 6
    assert (tmp_path / "grid.png").exists()
    assert f"python {tmp_path / 'png' / 'load.py'}" in out
    code, _, err = cli("export", folder, "--to", tmp_path / "png")
    assert (code, "choose another --to" in err) == (2, True)
    assert cli("export", folder, "--npz", tmp_path / "set.npz")[0] == 0
    with np.load(tmp_path / "set.npz") as arrays:
        assert arrays["images"].shape == (6, 3, 8, 8)
        assert arrays["labels"].tolist() == [1, 1, 5, 5, 6, 6]
    code, _, err = cli("export", folder, "--npz", tmp_path / "set.npz")
    assert (code, "set.npz exists: choose another name" in err) == (2, True)


def test_an_export_of_a_packed_set_tells_stored_images_and_images(cli, data, tmp_path):
    """Which said "wrote 40 images" of 10 stored ones, and showed a quarter of the resolution without a word."""
    words = ("select", "--data", data, "--ipc", 2, "--selection", "packed-random", "--out", tmp_path / "run")
    assert cli(*words)[0] == 0
    code, out, err = cli("export", tmp_path / "run", "--grid", tmp_path / "grid.png")
    assert code == 0, err
    assert "24 images of 3 classes; unpacked from 6 stored images, each at 1/2 of the resolution" in out


def test_inspect(cli, run):
    folder = run()
    code, out, _ = cli("inspect", folder)
    assert code == 0
    assert "DistributionMatching" in out
    assert re.search(r"^status +finished after 4 steps and [\d.]+ s$", out, re.MULTILINE)
    assert f"condensekit evaluate {folder}" in out
    code, out, _ = cli("inspect", folder, "--json")
    record = json.loads(out)
    assert (record["images"], record["classes"], record["storage"]) == (6, 3, "float32")
    assert record["provenance"]["config"]["seed"] == 0


def test_options_are_told_in_words():
    """inspect told ``flip=0.5`` of an augmentation without flip, and Python objects in alphabetical order."""
    from condensekit.cli.inspect import _words
    from condensekit.runs.describe import describe
    from condensekit.training.augment import Augmentation

    assert _words(describe(Augmentation(ops=("color", "crop")))) == (
        "color (brightness 1, saturation 2, contrast 0.5), crop 0.125"
    )
    assert _words({"type": "Fresh", "keep": 1, "network": {"type": "ConvNet", "depth": None, "width": 8}}) == (
        "Fresh, keep 1, network ConvNet, width 8"
    )
    assert _words({"name": "digits", "image_size": None, "splits": False}) == "digits"


def test_demo_in_small(cli, tmp_path, monkeypatch):
    from condensekit.cli import demo

    small = {"SETS": 2, "NETWORKS": 1, "STEPS": 2, "ORDERS": 1, "REPLAYED": 9, "REPLAY_STEPS": 2, "CANDIDATES": 3}
    for name, value in small.items():
        monkeypatch.setattr(demo, name, value)
    out = tmp_path / "demo"
    code, printed, err = cli("demo", "--out", out)
    assert code == 0, err
    for number in range(1, 6):
        assert f"{number} of 5: " in err
    told = printed.split("\n\n")[0].splitlines()
    assert len(told) == 5
    assert "10 images condensed by dm batch_real=64 teach a network (ConvNet) " in told[2]
    assert "90 images condensed by dm in 7,200 bytes" in told[3]
    assert "100 random images in 7,200 bytes" in told[3]  # equal bytes are equal
    assert "The order of 3 candidates by dm agrees" in told[4]
    assert printed.count("condensekit ") == 3
    assert max(map(len, err.splitlines())) < 250
    rows = read_json(out / "evaluation.json")["rows"]
    assert [row["set"] for row in rows] == ["dm batch_real=64", "random"]
    assert len(read_json(out / "search" / "search.json")["trials"]) == 12
    assert steps(out / "seed-1") == [1, 2]
    page = html.unescape((out / "report.html").read_text()).replace("\xa0", " ")
    for text in told[2:]:
        assert text.strip() in page
    code, printed, _ = cli("demo", "--out", out, "--json", "--quiet")  # takes up what is there
    record = json.loads(printed)
    assert code == 0
    assert [text.strip() for text in told] == record["verdicts"]


def test_method_of_your_own(cli, data, tmp_path, monkeypatch):
    (tmp_path / "their_method.py").write_text(
        "from dataclasses import dataclass\n"
        "from condensekit import DistributionMatching\n\n"
        "@dataclass(frozen=True)\n"
        "class Theirs(DistributionMatching):\n"
        "    batch_real: int = 8\n    strength: float = 0.5\n    name: str = 'theirs'\n"
    )
    monkeypatch.chdir(tmp_path)
    options = ("--ipc", 1, "--steps", 2, "--encoder-network", "ConvNet-w8", "--set", "strength=0.25", "--out", "run")
    code, _, err = cli("condense", "--data", data, "--method", "their_method:Theirs", *options)
    assert code == 0, err
    assert read_json(tmp_path / "run" / "config.json")["name"] == "theirs strength=0.25 encoder_network=ConvNet-w8"


def test_diverged_exits_3_and_keeps_the_last_finite_images(cli, data, tmp_path):
    folder = tmp_path / "run"
    code, out, _ = cli("condense", "--data", data, *FAST, "--lr", 1e38, "--steps", 20, "--out", folder)
    assert code == 3
    assert "lower the method's lr" in out
    assert CondensedSet.load(folder / "set.safetensors").provenance["status"] == "diverged"


def test_damaged_set_exits_4(cli, run):
    folder = run()
    path = folder / "set.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    for command in ("inspect", "evaluate"):
        code, out, err = cli(command, folder)
        assert (code, out) == (4, "")
        assert str(path) in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(("signum", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_leaves_a_run_that_resumes(cli, data, tmp_path, signum, expected):
    folder = tmp_path / "run"
    arguments = ["condense", "--data", str(data), *FAST, "--steps", "1500", "--out", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-m", "condensekit", *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (folder / "metrics.csv").exists():
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signum)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == expected
    assert "--resume" in out
    assert not (folder / "set.safetensors").exists()
    assert cli("evaluate", folder)[0] == 2
    done = subprocess.run([sys.executable, "-m", "condensekit", *arguments, "--resume"], env=environment, check=False)
    assert done.returncode == 0
    assert steps(folder) == list(range(1, 1501))


BAD = [
    ("--ipc 0", "--ipc"),
    ("--ipc -1", "--ipc"),
    ("--ipc 2.5", "--ipc"),
    ("--ipc ten", "--ipc"),
    ("--ipc nan", "--ipc"),
    ("--steps 0", "--steps"),
    ("--steps -5", "--steps"),
    ("--steps 1e3", "--steps"),
    ("--iterations 5", "No such option '--iterations'. Did you mean '--steps'?"),
    ("--network ConvNet", "No such option '--network'. Did you mean '--encoder-network'?"),
    ("--minutes 5", "--steps or --minutes"),
    ("--minutes 0", "--minutes"),
    ("--minutes inf", "--minutes"),
    ("--minutes nan", "--minutes"),
    ("--method dmm", "Did you mean 'dm'"),
    ("--method nowhere:thing", "nowhere"),
    ("--method math:pi", "expected a Condenser or a Recipe"),
    ("--lr nan", "lr must be positive"),
    ("--lr 0", "lr must be positive"),
    ("--lr -1", "lr must be positive"),
    ("--lr inf", "lr must be positive"),
    ("--lr fast", "--lr"),
    ("--batch-real 0", "batch_real"),
    ("--set momentum=1", "momentum must lie in [0, 1)"),
    ("--set momentum=much", "momentum must be a number"),
    ("--set momentun=0.5", "Did you mean 'momentum'"),
    ("--set momentum", "NAME=VALUE"),
    ("--init kmean", "Did you mean 'kmeans'"),
    ("--encoder-network ConvNett", "Did you mean 'ConvNet'"),
    ("--encoder-network ConvNet-w0", "width"),
    ("--encoder-network ConvNet-d9", "depth"),
    ("--method dc --encoder kept", "dc takes no --encoder: it trains the networks it matches gradients of"),
    ("--method krr --discrepancy mean", "krr takes no --discrepancy"),
    ("--encoder fresh --keep 5", "use --encoder kept"),
    ("--encoder keptt", "Did you mean 'kept'"),
    ("--sampling kmean", "Did you mean 'kmeans'"),
    ("--set sampling.epsilom=1", "unknown option of sampling 'uniform'"),
    ("--discrepancy gauss", "unknown discrepancy 'gauss'"),
    ("--set calibration=1", "use --encoder trained"),
    ("--soft-labels", "--soft-labels needs trained networks: use --encoder trained"),
    (
        "--method krr --soft-labels --encoder trained --set labels=soft --set encoder.count=1",
        "krr with --set labels=soft takes no --soft-labels",
    ),
    ("--method dsa --augment none", "dsa needs an augmentation (without it, it is dc)"),
    ("--init kmeans --set init.candidates=1", "2 images per class cannot be chosen among 1 candidates"),
    ("--lr 3 --set lr=1", "lr is given 2 times"),
    ("--set lr=fast", "lr must be a number, got 'fast'"),
    ("--image-size 1", "leaves nothing of a 1x1 image: use a larger --image-size"),
    ("--minutes 5m", "Invalid value for '--minutes': takes a number without a unit, got '5m': write 5"),
    ("--minutes 1h", "Invalid value for '--minutes': takes a number without a unit, got '1h'"),
    ("--factor 0", "--factor"),
    ("--factor 3", "factor 3 does not divide the image size 8x8"),
    ("--factor 4", "12 images but ipc=2 with factor=4, which takes 32"),
    ("--method krr --classes-per-step 5", "krr takes no --classes-per-step: it predicts the labels of all classes"),
    ("--encoder-network ConvNet-batch --classes-per-step 5", "takes no --classes-per-step: leave it out"),
    ("--nested --ipc 1", "--nested needs an ipc of at least 2"),
    ("--encoder-network ConvNet-bach", "Did you mean 'batch'"),
    ("--keep 0", "--keep"),
    ("--augment flop", "flop"),
    ("--storage int4", "--storage"),
    ("--precision fp16", "--precision"),
    ("--device tpu9", "tpu9"),
    ("--seed x", "--seed"),
    ("--seeds 0", "--seeds"),
    ("--checkpoint-every 0", "--checkpoint-every"),
    ("--checkpoint-minutes 0", "--checkpoint-minutes"),
    ("--snapshot-every -1", "--snapshot-every"),
    ("--image-size 0", "--image-size"),
    ("--data digit", "Did you mean 'digits'"),
    ("--data no/such/folder", "no/such/folder"),
    ("--step 5", "Did you mean"),
    ("--unknown-option 5", "unknown-option"),
    ("surplus", "surplus"),
]


@pytest.mark.parametrize(("options", "says"), BAD, ids=[options for options, _ in BAD])
def test_bad_value_exits_2_with_one_line_and_no_folder(cli, data, tmp_path, options, says):
    folder = tmp_path / "run"
    code, out, err = cli("condense", "--data", data, *FAST, "--out", folder, *options.split())
    assert (code, out) == (2, "")
    assert says in err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("Error: ")
    assert not folder.exists()


def test_all_bad_values_are_reported_together(cli, tmp_path):
    code, _, err = cli("condense", "--ipc", 0, "--steps", "many", "--precision", "fp12", "--out", tmp_path / "run")
    assert code == 2
    assert all(name in err for name in ("--data", "--ipc", "--steps", "--precision"))
    options = (
        "--lr",
        "nan",
        "--set",
        "momentum=2",
        "--init",
        "x",
        "--encoder-network",
        "y",
        "--augment",
        "z",
        "--device",
        "q",
    )
    code, _, err = cli("condense", "--data", "digits", "--ipc", 1, *options, "--out", tmp_path / "run")
    assert code == 2
    assert all(f"'{name}'" in err for name in "xyzq")
    assert all(text in err for text in ("lr must", "momentum must", "--steps or --minutes"))
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["evalute"], "Did you mean 'evaluate'"),
        (["evaluate"], "RUN"),
        (["evaluate", "nowhere"], "no run folder nowhere"),
        (["evaluate", "nowhere", "--protocol", "shrt", "--against", "kmean"], "Did you mean 'short'"),
        (["evaluate", "nowhere", "--networks", "0"], "--networks"),
        (["export", "nowhere", "--to", "x"], "no run folder nowhere"),
        (["export", "nowhere"], "--to"),
        (["inspect", "nowhere"], "no run folder nowhere"),
        (["select", "--data", "digits", "--out", "x", "--ipc", "1", "--selection", "kmens"], "Did you mean 'kmeans'"),
        (
            ["select", "--data", "digits", "--out", "x", "--ipc", "1", "--selection", "packed-kmeans", "--factor", "1"],
            "packed-kmeans is packed, got --factor 1: leave out the factor or 'packed-'",
        ),
        (["demo"], "--out"),
    ],
)
def test_bad_use_of_other_commands(cli, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert err.splitlines()[-1].startswith("Error: ")
    assert not list(tmp_path.iterdir())


READING = {
    "condense": (*FAST, "--out", "{out}"),
    "select": ("--ipc", 1, "--out", "{out}"),
    "evaluate": ("{run}", "--networks", 1, "--network", "ConvNet-w8", "--against", "none"),
    "replay": (
        *("--experiences", 3, "--ipc", 1, "--memory", "random", "--orders", 1, "--network", "ConvNet-w8"),
        *("--train-epochs", 1, "--steps", 1, "--out", "{out}"),
    ),
}


@pytest.mark.parametrize("command", READING)
def test_a_command_begins_with_a_line_about_the_data(cli, run, tmp_path, command):
    """Floats that were not normalised, a folder of splits taken for classes: this line shows such mistakes."""
    source = patterns(tmp_path / "\x1b[2Jshapes.npz", 12)
    folder = run("run", "--data", source) if command == "evaluate" else ""
    words = [str(word).format(run=folder, out=tmp_path / "out") for word in READING[command]]
    words += [] if command == "evaluate" else ["--data", source]
    code, out, err = cli(command, *words, "--json")
    assert code == 0, err
    assert json.loads(out)
    assert err.startswith("Data: 36 training and 18 test images; 3 classes: 1, 5, 6; 3 x 8 x 8, uint8 pixels ")
    assert "\x1b" not in err
    words = [word if word != str(tmp_path / "out") else str(tmp_path / "again") for word in words]
    assert "Data:" not in cli(command, *words, "--quiet")[2]


def test_a_layout_is_kept_for_evaluate(cli, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "cubes.npz", images=images, labels=np.arange(20) % 2)
    command = ("select", "--data", tmp_path / "cubes.npz", "--ipc", 1, "--out", tmp_path / "run")
    code, _, err = cli(*command)
    assert code == 2
    assert "give --layout NCHW if they are on axis 1, or --layout NHWC if they are on axis 3" in err
    assert cli(*command, "--layout", "NHWC")[0] == 0
    assert read_json(tmp_path / "run" / "config.json")["data"]["layout"] == "NHWC"
    code, _, err = cli("evaluate", tmp_path / "run", "--networks", 1, "--network", "ConvNet-w8", "--against", "none")
    assert code == 0, err


def test_ipc_above_a_class_names_the_class_and_leaves_nothing(cli, data, tmp_path):
    for command in (["condense", "--steps", 1], ["select"]):
        code, _, err = cli(*command, "--data", data, "--ipc", 13, "--out", tmp_path / "run")
        assert code == 2
        assert "12 images but ipc=13" in err
        assert not (tmp_path / "run").exists()


def test_an_export_without_a_seed_folder_says_which_there_are(cli, run, tmp_path):
    folder = run("runs", "--seeds", 2)
    code, _, err = cli("export", folder, "--to", tmp_path / "png", "--seed", 7)
    assert code == 2
    assert "seed-0, seed-1" in err


def test_methods_lists_what_goes_with_what(cli):
    code, out, err = cli("methods")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 160
    assert "m3d     light   yes        2       random  kept     Zhang et al., M3D, AAAI 2024" in out
    assert "refuses  --encoder: it trains the networks it matches gradients of" in out
    assert out.count("refuses  --keep: ") == out.count("refuses  --compiled: ") == 2
    assert "  --encoder trained: encoder.count=5" in out
    assert "not with --encoder trained, --sampling importance or a network with batch norm" in out
    one = cli("methods", "dm")[1]
    assert "--set    " in one
    assert "m3d" not in one
    code, _, err = cli("methods", "dmm")
    assert (code, "Did you mean 'dm'?" in err) == (2, True)
    record = json.loads(cli("methods", "--json")[1])
    assert record["parts"]["init"]["kmeans"] == {"candidates": 0}
    assert list(record["methods"]) == list(catalog.PUBLISHED)
    assert record["methods"]["m3d"]["options"]["discrepancy"] == "gaussian"
    assert record["methods"]["dc"]["separable"] is False
    assert set(record["costs"]) >= {made["cost"] for made in record["methods"].values()}


SHORT = ("--encoder-network", "ConvNet-w8", "--ipc", "2", "--steps", "2")


@pytest.mark.parametrize(
    ("options", "name", "factor"),
    [
        (
            "--method m3d --batch-real 8 --init kmeans --lr 3",
            "m3d lr=3 batch_real=8 init=kmeans encoder_network=ConvNet-w8",
            1,  # images of 8 x 8 pixels are not packed unless asked for
        ),
        (
            "--method m3d --batch-real 8 --factor 1 --encoder fresh",
            "m3d batch_real=8 encoder=fresh encoder_network=ConvNet-w8 factor=1",
            1,
        ),
        (
            "--method echo --discrepancy moments-3 --factor 2",
            "echo discrepancy=moments-3 encoder_network=ConvNet-w8 factor=2",
            2,
        ),
        (
            "--method dm --discrepancy linear --nested --factor 2",
            "dm discrepancy=linear encoder_network=ConvNet-w8 factor=2 nested=True",
            2,
        ),
        ("--method dsa --set outer=1", "dsa outer=1 encoder_network=ConvNet-w8", 1),
        ("--method dc --init importance-krr", "dc init=importance-krr encoder_network=ConvNet-w8", 1),
        ("--method krr --init importance-kmeans", "krr init=importance-kmeans encoder_network=ConvNet-w8", 1),
        (
            "--sampling kmeans --set sampling.clusters=3",
            "dm sampling=kmeans sampling.clusters=3 encoder_network=ConvNet-w8",
            1,
        ),
    ],
)
def test_every_method_runs_by_name(cli, data, tmp_path, options, name, factor):
    out = tmp_path / "run"
    code, _, err = cli("condense", "--data", data, *SHORT, *options.split(), "--out", out)
    assert code == 0, err
    assert read_json(out / "config.json")["name"] == name
    made = CondensedSet.load(out / "set.safetensors")
    assert made.formation.factor == factor
    assert len(made.decode()[0]) == 3 * 2 * factor**2


def test_code_puts_a_runs_images_into_the_bytes_of_fewer(cli, run, data, tmp_path):
    folder, out = run("run", "--seeds", 2), tmp_path / "coded"
    code, text, err = cli("code", folder, "--ipc", 12, "--out", out, "--json")
    assert code == 0, err
    for seed, row in enumerate(json.loads(text)["runs"]):
        made = CondensedSet.load(folder / f"seed-{seed}" / "set.safetensors")
        found = CondensedSet.load(out / f"seed-{seed}" / "set.safetensors")
        assert torch.equal(found.images, made.stored_as("jpeg", room=12 * (3 * 8 * 8 + 8)).images)
        assert row["nbytes"] == found.nbytes <= 3 * 12 * (3 * 8 * 8 + 8)
        assert row["quality"] == found.provenance["storage"]["quality"]
    code, text, err = cli(
        "evaluate", out, "--against", "jpeg-random", "--networks", 1, "--network", "ConvNet-w8", "--json"
    )
    assert code == 0, err
    assert [(row["set"], row["ipc"], row["sets"]) for row in json.loads(text)["rows"]] == [
        (f"jpeg {NAME}", 12, 2),
        ("jpeg-random", 12, 2),
    ]
    code, _, err = cli("code", folder, "--ipc", 1, "--out", tmp_path / "tight")
    assert code == 2
    assert "more than plain pixels; jpeg saves nothing on" in err
    assert not (tmp_path / "tight").exists()
    code, _, err = cli("code", folder, "--ipc", 12, "--out", out)
    assert (code, "is not empty" in err) == (2, True)


def test_packed_and_coded_baselines(cli, run, data, tmp_path):
    folder = run()
    select = ("select", "--data", data, "--ipc", 2, "--out")
    assert cli(*select, tmp_path / "packed", "--selection", "random", "--factor", 2)[0] == 0
    assert cli(*select, tmp_path / "jpeg", "--selection", "jpeg-random")[0] == 0
    assert len(CondensedSet.load(tmp_path / "packed" / "set.safetensors").decode()[0]) == 24
    evaluate = (
        "evaluate",
        folder,
        tmp_path / "packed",
        tmp_path / "jpeg",
        "--networks",
        1,
        "--network",
        "ConvNet-w8",
    )
    code, out, err = cli(*evaluate, "--against", "random,packed-random,packed-kmeans", "--json")
    assert code == 0, err
    rows = {row["set"]: row for row in json.loads(out)["rows"]}
    assert list(rows) == [NAME, "packed-random", "jpeg-random", "random", "packed-kmeans"]
    assert {row["ipc"] for row in rows.values()} == {2}
    assert rows["packed-kmeans"]["nbytes"] == rows["random"]["nbytes"]
    code, _, err = cli(*select, tmp_path / "wrong", "--selection", "jpeg-random", "--factor", 2)
    assert code == 2
    assert "leave out factor and storage" in err
    assert not (tmp_path / "wrong").exists()
