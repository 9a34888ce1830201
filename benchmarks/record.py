"""What the scripts share: the options of those that measure recipes, and how a result is written."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from condensekit.run import environment
from condensekit.store import write_json


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


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Write a result in one go, so that a file that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**record, "environment": machine()})
