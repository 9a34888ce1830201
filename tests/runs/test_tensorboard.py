"""TensorBoard files, read again with the package that reads them for people."""

import importlib.util

import pytest

from condensekit.driver import Saving
from condensekit.errors import ConfigError, StoreError
from condensekit.runs.folder import metric_rows
from condensekit.runs.tensorboard import TensorBoard
from tests.test_driver import run

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def curves(folder):
    """(step, value) of each curve of one stage."""
    found = accumulator.EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_the_curves_are_those_of_metrics_csv(tmp_path):
    run(saving=Saving(tmp_path / "run"), progress=TensorBoard(tmp_path / "board"))
    found = curves(tmp_path / "board" / "condense-dm")
    rows = metric_rows(tmp_path / "run" / "metrics.csv")
    assert [step for step, _ in found["loss"]] == [1, 2, 3, 4]
    assert [value for _, value in found["loss"]] == pytest.approx([row["loss"] for row in rows])
    assert [folder.name for folder in (tmp_path / "board").iterdir()] == ["condense-dm"]  # no empty stages


def test_a_resumed_run_goes_on_with_its_curves(tmp_path):
    board, saving = TensorBoard(tmp_path / "board"), Saving(tmp_path / "run", resume=True, every=2)
    asked = iter([False, False, True])
    run(saving=saving, progress=board, stop=lambda: next(asked))
    (tmp_path / "run" / "checkpoints" / "step-000003.safetensors").unlink()  # as after a kill: step 3 is repeated
    run(saving=saving, progress=board)
    assert [step for step, _ in curves(tmp_path / "board" / "condense-dm")["loss"]] == [1, 2, 3, 4]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "board").write_text("")
    with pytest.raises(StoreError, match="board"):
        run(progress=TensorBoard(tmp_path / "board"))


def test_without_the_package_the_way_out_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        TensorBoard(tmp_path)
