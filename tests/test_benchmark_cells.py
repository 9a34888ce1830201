"""The cells of benchmarks/accuracy, the results that are there, and how a result of another cell is refused."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from benchmarks import record
from benchmarks.accuracy.cells import Cell, cells
from condensekit import Recipe
from condensekit.errors import CondensekitError
from condensekit.runs.files import write_json


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
def test_each_cell_has_a_file_a_recipe_and_something_to_compare_with(scale):
    found = list(cells(scale))
    assert len({cell.stem for cell in found}) == len(found)
    labels = {(cell.data, cell.ipc, cell.label) for cell in found}
    for cell in found:
        if cell.recipe:
            Recipe.parse(cell.recipe)
        assert not cell.against or (cell.data, cell.ipc, cell.against) in labels


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
def test_runs_are_shared_by_equal_recipes_only(scale):
    runs: dict[str, set[tuple]] = {}
    for cell in cells(scale):
        if cell.recipe:
            runs.setdefault(cell.run, set()).add((cell.data, cell.condensed or cell.ipc, cell.recipe, cell.steps))
    assert all(len(made) == 1 for made in runs.values())


def test_each_result_is_that_of_a_cell(capsys):
    args = SimpleNamespace(results=record.RESULTS, only="", list=True)
    record.fill([*cells("cpu"), *cells("gpu")], args, None, None)
    done = {line.removesuffix(": done") for line in capsys.readouterr().out.splitlines() if line.endswith(": done")}
    assert done == {path.stem for path in record.RESULTS.glob("*.json") if "cell" in record.read(path)}
    assert len(done) > 100


def test_a_result_of_other_settings_is_refused(tmp_path, capsys):
    cell = Cell("cpu", "digits", 1, "dm", 3, "dm", 5)
    write_json(tmp_path / f"{cell.stem}.json", {"cell": asdict(cell)})
    args = SimpleNamespace(results=tmp_path, only="", list=True)
    record.fill([cell], args, None, None)
    assert capsys.readouterr().out == f"{cell.stem}: done\n"
    wrong = r'measured otherwise \(recipe: "dm" there, "dm lr=5" here\).*move it away'
    with pytest.raises(CondensekitError, match=wrong):
        record.fill([replace(cell, recipe="dm lr=5")], args, None, None)


def test_a_result_of_version_0_1_is_read_in_todays_words(tmp_path):
    old = {
        "cell": {"iterations": 5, "architectures": ["ConvNet"], "recipe": "dm encoder=kept network=ConvNet-w32"},
        "rows": [{"architecture": "ConvNet", "steps": 300, "difference_to_random": 0.1, "ci95": [0.0, 0.2]}],
    }
    (tmp_path / "old.json").write_text(json.dumps(old))
    new = record.read(tmp_path / "old.json")
    assert new == {
        "cell": {"steps": 5, "network": ["ConvNet"], "recipe": "dm encoder=kept encoder_network=ConvNet-w32"},
        "rows": [{"network": "ConvNet", "steps": 300, "difference": 0.1, "ci95": [0.0, 0.2], "reference": "random"}],
    }
    write_json(tmp_path / "new.json", new)
    assert record.read(tmp_path / "new.json") == new
