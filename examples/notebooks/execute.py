"""Run the notebooks of this folder in a real kernel, and write their outputs into them.

python examples/notebooks/execute.py
"""

import os
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
TIMEOUT = 600  # seconds of one cell


def executed(file: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of a run in ``folder``; a cell that fails raises its error."""
    notebook = nbformat.read(file, as_version=4)
    NotebookClient(notebook, timeout=TIMEOUT, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
        if "outputs" in cell:
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]  # bars, and their last state
    return notebook


def main() -> None:
    """Write all notebooks anew."""
    for file in sorted(FOLDER.glob("*.ipynb")):
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(executed(file, Path(folder)), file)
        print(f"{file.name}: {os.path.getsize(file) / 1024:.0f} KiB in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
