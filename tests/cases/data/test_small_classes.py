"""A class with fewer images than asked for: commands take what there is; if no class has enough, the advice helps."""

import json
import re

import numpy as np
import pytest

from condensekit.sets.condensed import CondensedSet

NETWORK = "ConvNet-w8-d1"
CONDENSE = ("condense", "--method", "m3d", "--steps", 1, "--encoder-network", NETWORK, "--batch-real", 8)
COUNTS = {0: 30, 1: 3, 2: 12, 3: 1}


@pytest.fixture
def tail(tmp_path):
    """A long tail (Cao et al., "Learning imbalanced datasets", NeurIPS 2019), down to a class of one image."""
    labels = np.repeat(list(COUNTS), list(COUNTS.values()))
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "tail.npz", images=images, labels=labels)
    return tmp_path / "tail.npz"


def counts(run):
    return dict(zip((made := CondensedSet.load(run / "set.safetensors")).classes, made.counts, strict=True))


def run(cli, *words):
    code, out, err = cli(*words)
    assert code == 0, err
    return out, err


@pytest.mark.parametrize(("factor", "expected"), [(1, {0: 4, 1: 2, 2: 4, 3: 1}), (2, {0: 4, 1: 1, 2: 2, 3: 1})])
def test_condense_takes_what_there_is(cli, tail, tmp_path, factor, expected):
    out, _ = run(cli, *CONDENSE, "--factor", factor, "--data", tail, "--ipc", 4, "--out", tmp_path / "run")
    assert "classes have fewer images than 4, the smallest 1" in out
    assert counts(tmp_path / "run") == expected
    out, _ = run(cli, "inspect", tmp_path / "run")
    assert "at most 4 per class" in out


@pytest.mark.parametrize("selection", ["random", "kmeans", "herding", "importance-krr", "packed-random", "jpeg-random"])
def test_select_takes_what_there_is(cli, tail, tmp_path, selection):
    out, _ = run(cli, "select", "--data", tail, "--selection", selection, "--ipc", 4, "--out", tmp_path / "run")
    assert "fewer images than 4" in out
    assert counts(tmp_path / "run")[3] == 1
    run(cli, "code", tmp_path / "run", "--ipc", 40, "--out", tmp_path / "coded")
    run(cli, "export", tmp_path / "run", "--to", tmp_path / "images")
    assert set(json.loads((tmp_path / "images/labels.json").read_text())["labels"].values()) == set(COUNTS)


def test_evaluate_says_what_is_not_tested_before_it_begins(cli, tail, tmp_path):
    """Of the class of one image nothing can be held out."""
    run(cli, "select", "--data", tail, "--selection", "packed-random", "--ipc", 4, "--out", tmp_path / "run")
    words = ("--against", "random,full", "--networks", 1, "--network", NETWORK, "--equal-epochs", "--json")
    out, _ = run(cli, "evaluate", tmp_path / "run", *words)
    found = json.loads(out)
    assert found["notes"] == ["no test images of 1 of 4 classes (3): accuracy is that of the others"]
    assert [(row["ipc"], row["ipc_min"]) for row in found["rows"]] == [(4, 1), (4, 1), (None, None)]


def test_replay_takes_what_there_is(cli, tail, tmp_path):
    words = ("--experiences", 2, "--ipc", 4, "--memory", "random,dm,hybrid-dm-50,downscaled", "--orders", 1)
    quick = ("--steps", 1, "--network", NETWORK, "--encoder-network", NETWORK, "--train-epochs", 2, "--networks", 1)
    out, _ = run(cli, "replay", "--data", tail, *words, *quick, "--out", tmp_path / "replay", "--json")
    assert {row["memory"]: row["images"] for row in json.loads(out)["rows"]} == {
        "random": 11,
        "dm": 11,
        "hybrid-dm-50": 11,
        "downscaled": 8,
    }


@pytest.mark.parametrize(("factor", "way_out"), [(("--factor", 2), r"--factor 1\b"), ((), "lower ipc")])
def test_where_no_class_has_enough_the_largest_is_named(cli, tail, tmp_path, factor, way_out):
    words = ("--data", tail, "--ipc", 25, "--out", tmp_path / "run")
    code, _, err = cli(*CONDENSE, *factor, *words)
    assert code == 2
    assert re.search(rf"largest class 0 has 24 images .*{way_out}", err)
    assert "noise" not in err


def test_a_packed_set_of_a_small_class_is_made_or_the_advice_is_factor_1(cli, tail, tmp_path):
    code, _, err = cli(*CONDENSE, "--data", tail, "--ipc", 1, "--out", tmp_path / "packed")
    assert code == 0 or (code == 2 and re.search(r"factor[ =]1\b", err))


def test_select_of_a_small_class_says_nothing_of_noise(cli, tail, tmp_path):
    code, _, err = cli("select", "--data", tail, "--selection", "random", "--ipc", 3, "--out", tmp_path / "chosen")
    assert code == 0 or (code == 2 and "noise" not in err)
