"""What the scripts share: options, filling a table cell by cell, and how a result is written."""

from __future__ import annotations

import argparse
import functools
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

from condensekit.data import datasets
from condensekit.data.images import ClassImages
from condensekit.errors import CondensekitError
from condensekit.runs.files import write_json
from condensekit.runs.folder import environment

HERE = Path(__file__).resolve().parent
KINDS = ("cell", "continual", "nas")  # under which a record keeps the cell it answers


class Cell(Protocol):
    """One row of a table."""

    @property
    def stem(self) -> str:
        """Its file's name, without suffix."""

    @property
    def data(self) -> str:
        """The name of its data set."""


C = TypeVar("C", bound=Cell)


def machine() -> dict[str, Any]:
    """Versions and hardware; not the command line, which names folders of this machine."""
    return {name: value for name, value in environment().items() if name != "argv"}


def recipe_parser(description: str | None) -> argparse.ArgumentParser:
    """The options of a script that measures recipes of condensation, one by one, on one data set."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--data-root", type=Path, help="folder of the data sets (default: $CONDENSEKIT_DATA)")
    parser.add_argument("--trust-local-copy", action="store_true", help="read local copies whose checksum differs")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--try", dest="recipes", action="append", required=True, metavar="RECIPE")
    parser.add_argument("--json", type=Path, required=True, help="file to write, or to add to")
    return parser


def cell_parser(description: str | None, runs: str) -> argparse.ArgumentParser:
    """The options of a script that fills a table cell by cell; ``runs`` names the folder of its runs."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=("cpu", "gpu"), required=True, help="short runs, or published lengths")
    parser.add_argument("--data-root", type=Path, help="folder of the data sets (default: $CONDENSEKIT_DATA)")
    parser.add_argument("--trust-local-copy", action="store_true", help="read local copies whose checksum differs")
    parser.add_argument("--download", action="store_true", help="fetch data sets that are missing")
    parser.add_argument("--only", default="", help="run only cells whose name has this regular expression")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="fp32", help="of condensation: fp32, mixed or bf16")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--runs", type=Path, default=HERE.parent / "runs" / runs, help="folder of the runs")
    parser.add_argument("--list", action="store_true", help="list the cells and stop")
    return parser


def fill(
    cells: Iterable[C],
    args: argparse.Namespace,
    run: Callable[[C, ClassImages, ClassImages, argparse.Namespace], dict[str, Any]],
    figure: Callable[[Mapping[str, Any]], float],
) -> None:
    """Run the cells that are missing, each with its training and test images.

    Args:
        cells: What the table holds, in the order to run it.
        args: Of :func:`cell_parser`.
        run: One cell's record.
        figure: What is printed of a record.
    """

    @functools.lru_cache(maxsize=1)
    def load(name: str) -> tuple[ClassImages, ClassImages]:
        return datasets.load(name, root=args.data_root, download=args.download, trust_local_copy=args.trust_local_copy)

    for cell in cells:
        path = args.results / f"{cell.stem}.json"
        if not re.search(args.only, cell.stem):
            continue
        if path.exists():
            _refuse_other(path, cell)
        if args.list or path.exists():
            print(f"{cell.stem}: {'done' if path.exists() else 'missing'}", flush=True)
            continue
        record = run(cell, *load(cell.data), args)
        write(path, record)
        print(f"{cell.stem}: {figure(record):.4f} in {record['wall_s']:.0f} s", flush=True)


def _refuse_other(path: Path, cell: Cell) -> None:
    """Refuse a result of the same name that answers another question, such as one from before a change of recipe."""
    record, asked = json.loads(path.read_text()), json.loads(json.dumps(asdict(cell)))  # type: ignore[call-overload]
    found = next((record[kind] for kind in KINDS if kind in record), {})
    other = [f"{key} {found[key]!r} for {asked[key]!r}" for key in asked if key in found and found[key] != asked[key]]
    if other:
        raise CondensekitError(f"{path} was measured with {', '.join(other)}: move it away to measure the cell anew")


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Write a result in one go, so that a file that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**record, "environment": machine()})


def start(main: Callable[[], None]) -> None:
    """Run a script; what it cannot do ends it with one line."""
    try:
        main()
    except CondensekitError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on from here")
