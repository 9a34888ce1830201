"""Each notebook runs in a real kernel, and what it shows is saved in it, from a run of the same cells."""

import os
import re
import runpy
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"
FILES = sorted(FOLDER.glob("*.ipynb"))
MOST = 300_000  # bytes of a file
SHOWN = {"text/html", "image/png"}  # kinds of output that are pictures of ours


def kinds(cell):
    """What a cell shows, without the numbers in it."""
    found = [sorted(SHOWN & set(one.get("data", {}))) or one.output_type for one in cell.get("outputs", ())]
    return [cell.source, found]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_notebook_runs_and_shows_what_is_saved(file, tmp_path):
    execute = runpy.run_path(str(FOLDER / "execute.py"))["executed"]
    saved, found = nbformat.read(file, as_version=4), execute(file, tmp_path)
    assert [kinds(cell) for cell in found.cells] == [kinds(cell) for cell in saved.cells]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_notebook_is_small_and_complete(file):
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    assert os.path.getsize(file) <= MOST
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [one for cell in cells for one in cell.outputs if one.output_type == "error"]
    told = [one.get("text", "") + str(one.get("data", {}).get("text/plain", "")) for c in cells for one in c.outputs]
    assert not [text for text in told if re.search(r"(?<![\w.<])/\w+/", text)]  # the path of a folder of a machine
    shown = {kind for cell in cells for one in cell.outputs for kind in one.get("data", {})}
    assert shown >= SHOWN
    assert notebook.cells[0].source.startswith("# ")
    assert "**Question.**" in notebook.cells[0].source
    assert any("**What the result says.**" in cell.source for cell in notebook.cells)


def test_there_is_a_notebook_for_each_job():
    assert [file.stem for file in FILES] == ["condense", "replay", "search"]
