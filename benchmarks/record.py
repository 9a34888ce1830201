"""What a result file says about the machine, and how it is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from condensekit.run import environment
from condensekit.store import write_json


def machine() -> dict[str, Any]:
    """Versions and hardware; not the command line, which names folders of this machine."""
    return {name: value for name, value in environment().items() if name != "argv"}


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Write a result in one go, so that a file that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**record, "environment": machine()})
