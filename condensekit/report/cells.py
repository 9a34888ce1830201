"""Cells of a replay run: accuracies after each experience on the classes of each experience so far."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from condensekit.runs.files import failure, fitting, read_json

MAX_CELLS = 20_000  # files that are read
Matrix = list[list[float | None]]
Matrices = dict[tuple[str, str], Matrix]
"""Matrix of each (regime, folder of a memory): row e, column i is the mean accuracy after experience e on the classes
of experience i, a fraction; None: unknown."""
_NAME = re.compile(r"(?:experience|step)-(\d{1,4})(?:-of-\d+)?-network-\d+")  # step: version 0.1


def matrices(folder: Path) -> Matrices:
    """The matrices of all memories in the folder ``cells`` of a run; none if there is no such folder.

    Raises:
        StoreError: A file is damaged, or there are too many.
    """
    sums: dict[tuple[str, str], dict[tuple[int, int], list[float]]] = {}
    for number, file in enumerate(sorted(folder.glob("*/*/**/*.json"))):
        if number == MAX_CELLS:
            raise failure(folder, "read", f"it has more than {MAX_CELLS:,} cells, the matrix of accuracies is left out")
        found = sums.setdefault((file.relative_to(folder).parts[0], file.relative_to(folder).parts[1]), {})
        for experience, score in _scores(file):
            for place, share in enumerate(_shares(file, score)):
                if share is not None:
                    found.setdefault((experience, place), []).append(share)
    return {name: _square(found) for name, found in sums.items() if found}


def _scores(file: Path) -> Iterator[tuple[int, Any]]:
    """Number of an experience from 0, and the score after it; a file holds one or all of them."""
    record = read_json(file, dict)
    if isinstance(record.get("experiences"), list):
        yield from ((i, one.get("score")) for i, one in enumerate(record["experiences"]) if isinstance(one, dict))
    elif match := _NAME.fullmatch(file.stem):
        yield int(match[1]) - 1, record.get("score")


def _shares(file: Path, score: Any) -> list[float | None]:
    """The accuracy on the classes of each experience so far."""
    if not isinstance(score, Mapping):
        return []
    right, count = (fitting(file, score.get(name), list[int]) for name in ("right", "count"))
    return [r / c if c else None for r, c in zip(right, count, strict=False)]


def _square(found: Mapping[tuple[int, int], list[float]]) -> Matrix:
    size = 1 + max(max(place) for place in found)
    return [
        [sum(v) / len(v) if (v := found.get((row, column))) else None for column in range(size)] for row in range(size)
    ]
