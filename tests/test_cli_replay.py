"""``condensekit replay``: what it writes and prints, exit codes, resume, one line for every mistake."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

FAST = (
    *("replay", "--data", "digits", "--ipc", "2", "--steps", "3", "--experiences", "2", "--orders", "2"),
    *("--encoder-network", "ConvNet-w8", "--network", "ConvNet-w8", "--train-epochs", "5"),
)


def test_both_regimes_end_in_a_table_a_plot_and_a_record(cli, tmp_path):
    out = tmp_path / "run"
    options = (
        "--set",
        "batch_real=8",
        "--memory",
        "dm,random,herding",
        "--regime",
        "from-scratch,er",
        "--er-epochs",
        "1",
        "--out",
        out,
    )
    code, shown, _ = cli(*FAST, *options)
    assert code == 0
    assert "359 test images of all classes of digits" in shown
    assert max(map(len, shown.split("Plot: ")[0].splitlines())) <= 100
    assert "Result: " in shown
    assert "After the last of" in shown.split("Result: ")[1]
    assert f"condensekit report {out}" in shown
    assert (out / "replay.png").exists()
    assert shown.startswith((out / "replay.md").read_text())
    record = json.loads((out / "replay.json").read_text())
    promised = {
        *("memory", "regime", "ipc", "nbytes", "work", "reference", "final_accuracy_mean", "final_accuracy_std"),
        *("average_accuracy_mean", "forgetting_mean", "n", "difference", "ci95", "condense_s", "train_s"),
    }
    assert len(record["rows"]) == 6
    assert all(promised <= set(found) for found in record["rows"])
    assert len(record["accuracy_by_experience"]) == 6
    assert record["settings"]["protocol"]["epochs"] == 5
    code, shown, _ = cli(*FAST, *options, "--resume", "--json")
    assert code == 0
    assert json.loads(shown)["rows"] == record["rows"]
    assert json.loads((out / "config.json").read_text())["data"]["name"] == "digits"


def test_every_mistake_is_listed_at_once(cli, tmp_path):
    code, shown, err = cli(
        *FAST, "--memory", "dm,randm", "--regime", "er,err", "--protocol", "dcc", "--device", "tpu", "--out", tmp_path
    )
    assert (code, shown) == (2, "")
    assert err.count("\n") == 1
    for part in ("unknown memory 'randm'. Did you mean 'random'?", "unknown regime 'err'", "'dcc'", "'tpu'"):
        assert part in err


@pytest.mark.parametrize("regime", ["from-scratch", "er"])
def test_five_classes_are_learnt_in_two_experiences(cli, tmp_path, regime):
    images, labels = load_digits(return_X_y=True)
    chosen = labels < 5
    pixels = (images[chosen] * 15.9).astype(np.uint8).reshape(-1, 8, 8)
    np.savez(tmp_path / "five.npz", images=pixels, labels=labels[chosen])
    command = [tmp_path / "five.npz" if part == "digits" else part for part in FAST]
    options = ("--memory", "random", "--experiences", 2, "--regime", regime, "--out", tmp_path / "x", "--json")
    code, out, err = cli(*command, *options)
    assert code == 0, err
    (row,) = json.loads(out)["rows"]
    assert row["final_accuracy_mean"] > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--memory", "gdumb", "--out", "x"), "runs in er only"),
        (
            ("--memory", "dm,m3d,random", "--set", "lrr=3", "--out", "x"),
            "option lrr=3: none of dm, m3d has this",
        ),
        (("--memory", "random", "--set", "lr=3", "--out", "x"), "option lr=3: nothing is condensed"),
        (("--memory", "dm", "--set", "lr", "--out", "x"), "--set takes NAME=VALUE such as lr=3, got 'lr'"),
        (("--memory", "dm", "--experiences", "11", "--out", "x"), "experiences=11 is more than the 10 classes: use 2"),
        (("--memory", "dm", "--er-lr", "0", "--out", "x"), "lr must be positive"),
        (
            ("--memory", "dm", "--distillation", "inf", "--out", "x"),
            "distillation must be finite and at least 0, got inf",
        ),
        (
            ("--memory", "dm", "--er-weight-decay", "inf", "--out", "x"),
            "weight_decay must be finite and at least 0, got",
        ),
        (("--memory", "dm", "--first-order", "5000000000", "--out", "x"), "got first_order=5000000000 and orders=2"),
        (("--memory", "dm", "--storage", "int8", "--out", "x"), "int8"),
        (("--memory", "dm", "--network", "ResNet18-instance", "--out", "x"), "needs images of 9x9 or more, got 8x8"),
        (
            ("--memory", "downscaled-3", "--out", "x"),
            "memory 'downscaled-3': factor 3 does not divide the image size 8x8",
        ),
        (("--memory", "downscaled-9", "--regime", "er", "--out", "x"), "factor 9 does not divide"),
        (
            ("--memory", "dm,jpeg-random", "--out", "x"),
            "memory 'jpeg-random' has 160 bytes for each class, and an image",
        ),
        (("--memory", "jpeg-random", "--regime", "er", "--out", "x"), "use ipc=6, or leave the memory out"),
        (("--out", "x"), "--memory"),
    ],
)
def test_bad_options_end_with_2_and_make_no_folder(cli, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    code, _, err = cli(*FAST, *options)
    assert code == 2
    assert said in err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupt_ends_within_a_step_and_is_resumed(cli, tmp_path, signum, code):
    out = tmp_path / "run"
    long = ("--steps", "2000", "--set", "batch_real=8", "--orders", "1", "--memory", "dm", "--out", str(out))
    child = subprocess.Popen(
        [sys.executable, "-m", "condensekit", *FAST, *long],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        folder = out / "sets" / "dm-2" / "order-0-experience-1-of-2"
        limit = time.monotonic() + 60
        while not (folder / "metrics.csv").exists() and time.monotonic() < limit:
            time.sleep(0.05)
        child.send_signal(signum)
        _, err = child.communicate(timeout=30)
    finally:
        child.kill()
    assert child.returncode == code
    assert "continue with --resume" in err
    assert "the training in work starts anew, a condensation goes on from its checkpoint" in err
    assert list((folder / "checkpoints").iterdir())


def test_a_resumed_run_says_what_was_finished_and_what_stays(cli, tmp_path):
    out = tmp_path / "run"
    options = ("--set", "batch_real=8", "--memory", "dm lr=3,random", "--out", out)
    code, shown, _ = cli(*FAST, *options)
    assert code == 0
    assert "keeps 20 images condensed by dm lr=3 in" in shown
    assert "one that keeps 20 random images" in shown
    code, shown, err = cli(*FAST, "--set", "batch_real=8", "--memory", "dm,random", "--out", out, "--resume")
    assert code == 0
    assert "4 of 6 pairs of a memory and a class order were finished before" in err
    assert "the primary contrast stays that of the first run: dm lr=3 against random" in err
    assert "keeps 20 images condensed by dm lr=3 in" in shown
    code, _, err = cli("replay", "--resume", "--out", out, "--data", "cifar10", "--data-root", tmp_path)
    assert code == 2
    assert f'{out} holds a run of other data (name: "digits" there, "cifar10" here)' in err
    code, _, err = cli("replay", "--resume", "--out", tmp_path / "nosuch")
    way_out = "name its folder, or leave out --resume and give all options"
    assert (code, err) == (2, f"Error: there is no run in {tmp_path / 'nosuch'}: {way_out}\n")
    code, _, err = cli(*FAST[:3], "--ipc", 2, "--memory", "dm", "--out", out)
    assert (code, "is not empty: continue its run with --resume" in err) == (2, True)


def test_an_encoder_network_that_does_nothing_is_told(cli, tmp_path):
    small = ("--er-epochs", 1, "--orders", 1, "--set", "batch_real=8", "--memory", "dm,random", "--regime")
    code, _, err = cli(*FAST, *small, "from-scratch,er", "--out", tmp_path / "run")
    assert code == 0
    assert "the learner embeds images for dm in er, and encoder_network does nothing there: --own-encoder uses" in err
    code, _, err = cli(*FAST, *small, "er", "--own-encoder", "--out", tmp_path / "other")
    assert (code, "does nothing" in err) == (0, False)


def test_folders_of_experiences_are_refused_with_the_way_out(cli, tmp_path):
    for place in ("session0/bear", "session0/mouse", "session1/ant", "session1/bear"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / place / "0.png")
    code, _, err = cli("replay", "--data", tmp_path, "--ipc", 1, "--memory", "random", "--out", tmp_path / "run")
    assert code == 2
    assert "This command divides one folder of classes into experiences" in err
    assert "see 'A stream of folders' in docs/tutorials/replay.md" in err
