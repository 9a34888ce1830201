"""Kept results: JSON files with the recipe that made them, which are read again only for the same recipe."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from condensekit.errors import ConfigError, require
from condensekit.runs.files import fitting, keeping, read_json, write_json

WAY_OUT = "use the same options, or another folder"


def kept(
    path: Path,
    recipe: Mapping[str, Any],
    make: Callable[[], Mapping[str, Any]],
    what: str,
    way_out: str = WAY_OUT,
    kind: Any = dict,
) -> dict[str, Any]:
    """Read a result from a file; if there is no file, make the result and write it.

    Args:
        path: A JSON file.
        recipe: Everything that decides the result; JSON values.
        make: Makes the result, JSON values.
        what: Name of the result in errors, such as ``"the set of dm"``.
        way_out: The end of the error for a file with another recipe.
        kind: The type of the result, see :func:`condensekit.runs.records.misfit`.

    Raises:
        ConfigError: The file has another recipe (the text shows each difference), or no recipe.
        StoreError: The file cannot be read or written, or is damaged.
    """
    asked = plain(recipe)
    if os.path.lexists(path):
        found = read_json(path)
        require(
            isinstance(found, dict) and "recipe" in found,
            f"{path} tells no recipe, so it comes from condensekit 0.1 or another program: use another folder",
        )
        refuse_other(f"{path.parent} holds {what}, made otherwise", found.pop("recipe"), asked, way_out)
        return dict(fitting(path, found, kind))
    made = dict(make())
    with keeping(made):
        write_json(path, {"recipe": asked, **made})
    return made


def refuse_other(what: str, found: Any, asked: Any, way_out: str = WAY_OUT) -> None:
    """Raise ConfigError if two recipes differ.

    Args:
        what: The beginning of the error, which describes the existing result.
        found: The recipe of the existing result.
        asked: The recipe of the wanted result.
        way_out: The end of the error.
    """
    if listed := changes(plain(found), plain(asked)):
        raise ConfigError(f"{what} ({'; '.join(listed)}): {way_out}")


def plain(record: Any) -> Any:
    """A record after writing to JSON and reading again: tuples become lists, and keys become text."""
    return json.loads(json.dumps(record))


def changes(found: Any, asked: Any) -> list[str]:
    """``ipc: 1 there, 10 here`` for each value in which two records differ; None is as good as no value.

    So an option that is new and None does not make an older record another one.
    """
    there, here = dict(leaves(found)), dict(leaves(asked))
    return [
        f"{key}: {there.get(key, 'nothing')} there, {here.get(key, 'nothing')} here"
        for key in dict.fromkeys([*there, *here])
        if there.get(key, "null") != here.get(key, "null")
    ]


def leaves(record: Any, name: str = "") -> list[tuple[str, str]]:
    """A pair such as (``method.lr``, ``1.0``) for each value of nested dictionaries."""
    if isinstance(record, dict) and (record or not name):
        return [leaf for k, v in record.items() for leaf in leaves(v, f"{name}.{k}" if name else k)]
    return [(name, json.dumps(record))]
