"""Records: options of the scripts, cells measured once, and results as JSON files, those of version 0.1 included."""

from __future__ import annotations

import argparse
import functools
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from condensekit.data import datasets
from condensekit.data.images import ClassImages
from condensekit.errors import CondensekitError
from condensekit.runs.files import read_json, write_json
from condensekit.runs.folder import environment
from condensekit.runs.kept import refuse_other

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
"""By part of a record: what version 0.1 called its entries, and what they are called now."""
OLD = {
    "iterations",
    "architecture",
    "difference_to_random",
    "accuracy_by_step",
}  # entries that only parts of version 0.1 have
RECIPES = ("recipe", "condense")  # entries that hold the text of a recipe
Record = dict[str, Any]


class Cell(Protocol):
    """One row of a table; a frozen dataclass."""

    kind: ClassVar[str]
    """Under which entry a record keeps the cell that it answers."""

    @property
    def stem(self) -> str:
        """Its file's name, without suffix."""

    @property
    def data(self) -> str:
        """The name of its data set."""


C = TypeVar("C", bound=Cell)


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help shows the description as it is written."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def data_parser(description: str | None) -> argparse.ArgumentParser:
    """The options of a script that reads a data set."""
    made = parser(description)
    made.add_argument("--data-root", type=Path, help="folder of the data sets (default: $CONDENSEKIT_DATA)")
    made.add_argument("--trust-local-copy", action="store_true", help="read local copies whose checksum differs")
    return made


def recipe_parser(description: str | None) -> argparse.ArgumentParser:
    """The options of a script that measures recipes of condensation, one by one, on one data set."""
    made = data_parser(description)
    made.add_argument("--data", required=True)
    made.add_argument("--ipc", type=int, default=10)
    made.add_argument("--try", dest="recipes", action="append", required=True, metavar="RECIPE")
    made.add_argument("--out", type=Path, required=True, help="file to write, or to add to")
    return made


def cell_parser(description: str | None, runs: str) -> argparse.ArgumentParser:
    """The options of a script that fills a table cell by cell; ``runs`` names the folder of its runs."""
    made = data_parser(description)
    made.add_argument("--scale", choices=("cpu", "gpu"), required=True, help="short runs, or published lengths")
    made.add_argument("--download", action="store_true", help="fetch data sets that are missing")
    made.add_argument("--only", default="", help="run only cells whose name has this regular expression")
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
    """Run the cells that are missing, each with its training and test images.

    Args:
        cells: What the table holds, in the order to run it.
        args: Of :func:`cell_parser`.
        run: One cell's record.
        figure: What is printed of a record.

    Raises:
        ConfigError: A result of the same name answers another question, such as one from before a change of recipe.
    """

    @functools.lru_cache(maxsize=1)
    def load(name: str) -> tuple[ClassImages, ClassImages]:
        return datasets.load(name, root=args.data_root, download=args.download, trust_local_copy=args.trust_local_copy)

    for cell in cells:
        path = args.results / f"{cell.stem}.json"
        if not re.search(args.only, cell.stem):
            continue
        if path.exists():
            asked = asdict(cell)  # type: ignore[call-overload]
            found = {**asked, **read(path)[cell.kind]}  # a file from before a new option says nothing of it
            refuse_other(f"{path} was measured otherwise", found, asked, "move it away to measure the cell anew")
        if args.list or path.exists():
            print(f"{cell.stem}: {'done' if path.exists() else 'missing'}", flush=True)
            continue
        record = run(cell, *load(cell.data), args)
        write(path, record)
        print(f"{cell.stem}: {figure(record):.4f} in {record['wall_s']:.0f} s", flush=True)


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Write a result in one go, so that a file that is there is whole.

    Versions and hardware are added; not the command line, which names folders of this machine.
    """
    where = {name: value for name, value in environment().items() if name != "argv"}
    write_json(path, {**record, "environment": where})


def read(path: Path) -> Record:
    """A result in today's words, whichever version wrote it."""
    found: Record = _renamed(read_json(path, dict))
    return found


def _renamed(part: Any, name: str = "") -> Any:
    """What stands under ``name`` in a record, in today's words."""
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
    """Where some results were measured."""
    found = {f"{r['environment']['device']}, torch {r['environment']['torch']}" for r in records}
    return "; ".join(sorted(found))


def start(main: Callable[[], None]) -> None:
    """Run a script; what it cannot do ends it with one line."""
    try:
        main()
    except CondensekitError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on from here")
