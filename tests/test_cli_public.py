"""Files of other codes on the command line."""

import json

import numpy as np
import pytest
import torch

import condensekit as ck
from condensekit.sets.condensed import CondensedSet
from tests.conftest import patterns

EVALUATE = ("--networks", 1, "--network", "ConvNet-w8-d1", "--quiet")
LABELS = torch.tensor([1, 5, 6]).repeat_interleave(2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return patterns(tmp_path_factory.mktemp("data") / "shapes.npz", 12)


@pytest.fixture
def public(tmp_path):
    """Two experiments, normalised by constants that the file does not tell."""
    images = [(torch.rand(6, 3, 8, 8) - 0.5) / 0.25 for _ in range(2)]
    path = tmp_path / "res_DM_own_ConvNet_2ipc.pt"
    accuracies = {"ConvNet": [np.float64(0.5)]}
    torch.save({"data": [[one, LABELS] for one in images], "accs_all_exps": accuracies}, path)
    return path


VALUES = ("--values", "0.5,0.5,0.5/0.25,0.25,0.25")


def test_evaluate_judges_a_public_file_beside_random(cli, data, public):
    code, out, err = cli("evaluate", public, "--data", data, *VALUES, *EVALUATE, "--json")
    assert code == 0, err
    rows = json.loads(out)["rows"]
    assert [(row["set"], row["sets"], row["ipc"]) for row in rows] == [(public.stem, 2, 2), ("random", 2, 2)]


def test_a_public_file_and_a_run_are_compared(cli, data, public, tmp_path):
    assert cli("select", "--data", data, "--ipc", 2, "--out", tmp_path / "run", "--quiet")[0] == 0
    code, out, err = cli("evaluate", tmp_path / "run", public, *VALUES, *EVALUATE, "--against", "none", "--json")
    assert code == 0, err
    assert [row["set"] for row in json.loads(out)["rows"]] == ["random", public.stem]


def test_what_a_public_file_does_not_tell_is_asked_for_with_options(cli, data, public):
    code, _, err = cli("evaluate", public, *EVALUATE)
    assert (code, "does not record its data: give --data, such as --data cifar10" in err) == (2, True)
    code, _, err = cli("evaluate", public, "--data", data, *EVALUATE)
    assert code == 2
    assert "such as --values 0.4914,0.4822,0.4465/0.2023,0.1994,0.201\n" in err
    torch.save([torch.rand(6, 3, 8, 8), LABELS], public.with_name("data.pt"))
    code, _, err = cli("inspect", public.with_name("data.pt"))
    assert (code, "give --factor 2, or --factor 1 if each is one image" in err) == (2, True)
    code, _, err = cli("inspect", public, "--values", "0.5")
    assert (code, "takes pixels, or MEAN/STD such as" in err) == (2, True)


def test_inspect_and_export_choose_an_experiment_by_seed(cli, public, tmp_path):
    code, out, err = cli("inspect", public, *VALUES, "--seed", 1, "--json")
    assert code == 0, err
    assert json.loads(out)["provenance"]["config"]["seed"] == 1
    code, _, err = cli("inspect", public, *VALUES, "--seed", 2)
    assert (code, "no set of seed 2 in" in err) == (2, True)
    file = tmp_path / "one.safetensors"
    code, out, err = cli("export", public, *VALUES, "--seed", 1, "--safetensors", file)
    assert code == 0, err
    assert "condensekit inspect" in out
    second = torch.load(public, weights_only=False)["data"][1][0]
    assert torch.equal(CondensedSet.load(file).images, second)
    assert cli("inspect", file)[0] == 0


def test_a_converted_set_is_evaluated_and_started_from(cli, data, public, tmp_path, caplog):
    file = tmp_path / "set.safetensors"
    assert cli("export", public, *VALUES, "--safetensors", file)[0] == 0
    code, out, err = cli("evaluate", file, "--data", data, *EVALUATE, "--json")
    assert code == 0, err
    assert json.loads(out)["rows"][0]["set"] == public.stem
    options = ("--batch-real", 8, "--encoder-network", "ConvNet-w8", "--ipc", 3, "--steps", 2, "--quiet")
    out = tmp_path / "run"
    code, _, err = cli("condense", "--data", data, "--init", file, *options, "--out", out)
    assert code == 0, err
    assert "images beyond those of the set in 3 classes start as random" in caplog.text
    config = CondensedSet.load(out / "set.safetensors").provenance["config"]
    assert (config["init"]["type"], config["init"]["of"]) == ("Saved", public.stem)
    assert cli("condense", "--resume", "--out", out, "--steps", 3, "--quiet")[0] == 0


def test_files_for_other_codes_are_written(cli, data, tmp_path):
    assert cli("select", "--data", data, "--ipc", 2, "--out", tmp_path / "run", "--quiet")[0] == 0
    out = ("--pt", tmp_path / "set.pt", "--pair", tmp_path / "pair")
    code, _, err = cli("export", tmp_path / "run", *out)
    assert code == 0, err
    made = CondensedSet.load(tmp_path / "run/set.safetensors")
    for path in (tmp_path / "set.pt", tmp_path / "pair/images_best.pt"):
        (back,) = ck.read_sets(path)
        assert torch.equal(back.images, made.images)
        assert back.spec == made.spec


def test_options_for_public_files_are_refused_for_others(cli, data, tmp_path):
    assert cli("select", "--data", data, "--ipc", 2, "--out", tmp_path / "run", "--quiet")[0] == 0
    for command in (("inspect",), ("export", "--npz", tmp_path / "a.npz"), ("evaluate",)):
        code, _, err = cli(*command, tmp_path / "run", "--factor", 2)
        assert (code, "--factor does nothing here: it is for files of other codes" in err) == (2, True)


def test_code_in_a_file_is_not_run(cli, tmp_path):
    class Code:
        def __reduce__(self):
            return (__import__("os").mkdir, (str(tmp_path / "ran"),))

    torch.save({"data": Code()}, tmp_path / "set.pt")
    options = ("--ipc", 1, "--steps", 1, "--out", tmp_path / "run")
    for words in (
        ("inspect", tmp_path / "set.pt"),
        ("export", tmp_path / "set.pt", "--npz", tmp_path / "a.npz"),
        ("evaluate", tmp_path / "set.pt", "--data", "digits"),
        ("condense", "--data", "digits", "--init", tmp_path / "set.pt", *options),
    ):
        code, _, err = cli(*words)
        assert (code, err.count("\n"), "is not run" in err) == (2, 1, True)
    assert not (tmp_path / "ran").exists()
