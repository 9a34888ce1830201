"""A number format that is too small for the values loses no run."""

import json

import numpy as np
import pytest

import condensekit as ck
from condensekit.errors import ConfigError
from condensekit.sets.condensed import CondensedSet
from tests.cases.command import CONDENSE


def test_an_overflow_is_found_before_the_steps_or_the_set_is_there(cli, tmp_path):
    steep = [*CONDENSE, "--lr", "1e6", "--steps", 20, "--out", tmp_path]  # the later --steps counts
    metrics, stored = tmp_path / "metrics.csv", tmp_path / "set.safetensors"
    cli(*steep, "--storage", "float16")
    steps = len(metrics.read_text().splitlines()) - 1 if metrics.exists() else 0
    if not stored.exists() and steps > 0:
        cli(*steep, "--resume")  # the way out that is named
    assert stored.exists() or steps == 0


def test_what_outgrows_float16_is_stored_as_float32_and_said(cli, tmp_path):
    steep = [*CONDENSE, "--lr", "1e6", "--storage", "float16", "--out", tmp_path / "run", "--json"]
    code, out, err = cli(*steep)
    assert code in (0, 3), err
    (made,) = json.loads(out)["runs"]
    assert "stored as float32, because values are too large for float16" in made["message"]
    assert CondensedSet.load(tmp_path / "run" / "set.safetensors").formation.dtype == "float32"


def test_images_beyond_float16_are_refused_before_the_steps(tmp_path):
    images = np.random.default_rng(0).normal(0, 1e5, (20, 1, 8, 8)).astype("float32")
    with pytest.raises(ConfigError, match="float16"):
        ck.condense((images, np.arange(20) % 2), "dm storage=float16", ipc=1, steps=1, saving=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("storage", ["float32", "float16", "uint8"])
def test_a_step_beyond_float32_diverges_and_keeps_the_last_finite_images(cli, tmp_path, storage):
    code, out, _ = cli(*CONDENSE, "--lr", "1e38", "--storage", storage, "--out", tmp_path / "run", "--json")
    assert code == 3
    assert json.loads(out)["runs"][0]["status"] == "diverged"
    assert CondensedSet.load(tmp_path / "run" / "set.safetensors").decode()[0].isfinite().all()
