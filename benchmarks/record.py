"""Records: options of the scripts, cells that are measured once, and results as JSON files, also of version 0.1."""

from __future__ import annotations

import argparse
import functools
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import torch

from condensekit.compute import Machine, of_rank
from condensekit.data import datasets
from condensekit.data.images import ClassImages
from condensekit.errors import CondensekitError
from condensekit.ranks import alone, launched
from condensekit.runs.files import read_json, write_json
from condensekit.runs.folder import environment
from condensekit.runs.kept import refuse_other
from condensekit.runs.lock import trying
from condensekit.runs.sharing import each_once

HERE = Path(__file__).resolve().parent
RESULTS, RUNS = HERE / "results", HERE.parent / "runs"
RENAMED = {
    "": {"accuracy_by_step": "accuracy_by_experience"},
    "cell": {"iterations": "steps", "architectures": "network"},
    "rows": {"architecture": "network", "difference_to_random": "difference"},
    "search": {"iterations": "steps", "judge": "network", "steps": "train_steps"},
    "continual": {"steps": "experiences", "per_class": "ipc", "iterations": "steps"},
    "row": {
        "per_class": "ipc",
        "difference_to_random": "difference",
        "condense_s_per_step": "condense_s_per_experience",
        "gradient_steps": "train_steps",
    },
    "settings": {
        "steps": "experiences",
        "per_class": "ipc",
        "iterations": "steps",
        "network": "encoder_network",
    },
    "recipe": {"steps": "train_steps", "iterations": "steps"},
    "options": {"steps": "train_steps", "iterations": "steps"},
}
"""Names of entries in version 0.1 and their names now, by part of a record."""
OLD = {
    "iterations",
    "architecture",
    "difference_to_random",
    "accuracy_by_step",
}  # entries that only records of version 0.1 have
RECIPES = ("recipe", "condense")  # entries with the text of a recipe
Record = dict[str, Any]


class Cell(Protocol):
    """One row of a table; a frozen dataclass."""

    kind: ClassVar[str]
    """Name of the entry of a record that holds the cell."""

    @property
    def stem(self) -> str:
        """Name of the cell's file, without suffix."""

    @property
    def data(self) -> str:
        """Name of the data set."""

    @property
    def lock(self) -> str:
        """Name of what one process at a time makes: the cell, or runs that it has in common with other cells."""


C = TypeVar("C", bound=Cell)
T = TypeVar("T")


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help keeps the line breaks of the description."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def data_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of a script that reads a data set."""
    made = parser(description)
    made.add_argument("--data-root", type=Path, help="folder of the data sets (default: $CONDENSEKIT_DATA)")
    made.add_argument("--trust-local-copy", action="store_true", help="read local copies whose checksum differs")
    return made


def recipe_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of a script that measures recipes of condensation on one data set."""
    made = data_parser(description)
    made.add_argument("--data", required=True)
    made.add_argument("--ipc", type=int, default=10)
    made.add_argument("--try", dest="recipes", action="append", required=True, metavar="RECIPE")
    made.add_argument("--out", type=Path, required=True, help="file to write or to extend")
    return made


def cell_parser(description: str | None, runs: str) -> argparse.ArgumentParser:
    """A parser with the options of a script that measures cells; ``runs`` is the name of the folder of its runs."""
    made = data_parser(description)
    made.add_argument("--scale", choices=("cpu", "gpu"), required=True, help="short runs, or published lengths")
    made.add_argument("--download", action="store_true", help="download missing data sets")
    made.add_argument("--only", default="", help="run only cells whose name matches this regular expression")
    made.add_argument("--device", default="auto")
    made.add_argument("--precision", default="fp32", help="of condensation: fp32, mixed or bf16")
    made.add_argument("--results", type=Path, default=RESULTS)
    made.add_argument("--runs", type=Path, default=RUNS / runs, help="folder of the runs")
    made.add_argument("--list", action="store_true", help="list the cells and stop")
    return made


def fill(
    cells: Iterable[C],
    args: argparse.Namespace,
    run: Callable[[C, ClassImages, ClassImages, argparse.Namespace], Record],
    figure: Callable[[Mapping[str, Any]], float],
) -> None:
    """Run the missing cells, each with its training and test images, together with other processes.

    Args:
        cells: All cells of the tables, in the order in which they are run.
        args: Options of :func:`cell_parser`.
        run: Function that measures a cell and returns its record.
        figure: Function that returns the number of a record to print.

    Raises:
        ConfigError: The file of a cell holds another cell, for example from before a change of its recipe.
    """

    @functools.lru_cache(maxsize=1)
    def load(name: str) -> tuple[ClassImages, ClassImages]:
        return datasets.load(name, root=args.data_root, download=args.download, trust_local_copy=args.trust_local_copy)

    first = launched().first

    def one(cell: C) -> None:
        path = args.results / f"{cell.stem}.json"
        if path.exists():
            asked = asdict(cell)  # type: ignore[call-overload]
            found = {**asked, **read(path)[cell.kind]}  # an older file has no entry for a new option
            refuse_other(f"{path} holds another cell", found, asked, "move the file away to measure the cell again")
        if args.list or path.exists():
            if first:
                print(f"{cell.stem}: {'done' if path.exists() else 'missing'}", flush=True)
            return
        record = run(cell, *load(cell.data), args)
        write(path, record)
        print(f"{cell.stem}: {figure(record):.4f} in {record['wall_s']:.0f} s", flush=True)

    wanted = (cell for cell in cells if re.search(args.only, cell.stem))
    if args.list:
        for cell in wanted:
            one(cell)
        return
    _own_gpu(args.device)
    share(wanted, lambda cell: args.results / f"{cell.lock}.lock", one)


def share(tasks: Iterable[T], lock: Callable[[T], Path], make: Callable[[T], None]) -> None:
    """Make each task in one process at a time, the ranks of torchrun or any others; ``make`` passes what is done.

    A process that ends leaves its task to the others. Each rank runs what is in a task alone.

    Args:
        tasks: The tasks, in their order of importance.
        lock: The file whose lock a process holds while it makes a task.
        make: Makes a task unless it is made.
    """

    def attempt(task: T) -> bool | None:
        with trying(lock(task)) as held, alone():
            if held:
                make(task)
        return held or None

    each_once(tasks, attempt)


def _own_gpu(device: str) -> None:
    """On GPUs, give each rank of torchrun its own. Raises ConfigError for more ranks than GPUs."""
    here = launched()
    if here.several and (mine := of_rank(Machine(device), here.local).device).startswith("cuda"):
        torch.cuda.set_device(mine)


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Write a result with versions and hardware, atomically, so that a file is never incomplete.

    The command line is left out, because it has folders of this machine.
    """
    where = {name: value for name, value in environment().items() if name != "argv"}
    write_json(path, {**record, "environment": where})


def read(path: Path) -> Record:
    """Read a result with the names of this version, also from a file of version 0.1."""
    found: Record = _renamed(read_json(path, dict))
    return found


def _renamed(part: Any, name: str = "") -> Any:
    """The entry ``name`` of a record with the names of this version."""
    if isinstance(part, list):
        return [_renamed(each, name) for each in part]
    if isinstance(part, str) and name in RECIPES:
        return re.sub(r"(?<= )network=", "encoder_network=", part)
    if not isinstance(part, dict):
        return part
    words = RENAMED.get(name, {}) if OLD & part.keys() else {}
    made = {words.get(key, key): _renamed(value, key) for key, value in part.items()}
    if "difference_to_random" in part:
        made["reference"] = None if made["difference"] is None else "random"
    return made


def hardware(records: Iterable[Record]) -> str:
    """Hardware and torch version of results, as text."""
    found = {f"{r['environment']['device']}, torch {r['environment']['torch']}" for r in records}
    return "; ".join(sorted(found))


def start(main: Callable[[], None], shared: bool = False) -> None:
    """Run a script; an error of this package ends it with one line.

    Args:
        main: The script.
        shared: Whether the ranks of torchrun share its work; if not, they are refused.
    """
    here = launched()
    if here.several and not shared:
        sys.exit("Error: this script runs in one process: start it without torchrun" if here.first else 1)
    try:
        main()
    except CondensekitError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command continues from here")
