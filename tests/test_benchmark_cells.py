"""The cells of benchmarks/accuracy.py, and how a result of another cell is refused."""

import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from condensekit.recipe import Recipe

from condensekit.errors import CondensekitError
from condensekit.runs.files import write_json

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import cells
    import record

    yield SimpleNamespace(cells=cells, record=record)
    for name in ("cells", "record"):
        del sys.modules[name]


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
def test_each_cell_has_a_file_a_recipe_that_builds_and_something_to_compare_with(scripts, scale):
    found = list(scripts.cells.cells(scale))
    assert len({cell.stem for cell in found}) == len(found)
    labels = {(cell.data, cell.ipc, cell.label) for cell in found}
    for cell in found:
        if cell.recipe:
            Recipe.parse(cell.recipe).build(cell.data)
        assert not cell.against or (cell.data, cell.ipc, cell.against) in labels


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
def test_runs_are_shared_by_equal_recipes_only(scripts, scale):
    runs = {}
    for cell in scripts.cells.cells(scale):
        if cell.recipe:
            runs.setdefault(cell.run, set()).add((cell.data, cell.condensed or cell.ipc, cell.recipe, cell.iterations))
    assert all(len(made) == 1 for made in runs.values())


def test_a_result_of_other_settings_is_refused(scripts, tmp_path, capsys):
    cell = scripts.cells.Cell("cpu", "digits", 1, "dm", 3, "dm", 5)
    write_json(tmp_path / f"{cell.stem}.json", {"cell": asdict(cell)})
    args = SimpleNamespace(results=tmp_path, only="", list=True)
    scripts.record.fill([cell], args, None, None)
    assert capsys.readouterr().out == f"{cell.stem}: done\n"
    with pytest.raises(CondensekitError, match=r"measured with recipe 'dm' for 'dm lr=5'.*move it away"):
        scripts.record.fill([replace(cell, recipe="dm lr=5")], args, None, None)
