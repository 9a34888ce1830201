"""Records: JSON text read strictly, checksums in it, and the check of its values against types."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import types
from collections.abc import Mapping, Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

FILE_FORMAT = 2  # number of the format of JSON files and lines; files of version 0.1 have no number and no checksum
MAX_DIGITS = 40  # of a whole number
_NUMBER, _SUM = "file_format", "sha256"  # the last entries of a sealed record


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as JSON has it, with the number of the format and a checksum as its last entries.

    Raises:
        TypeError: Values that JSON does not know.
        ValueError: Numbers that are not finite.
    """
    found = {**json.loads(json.dumps(record, allow_nan=False)), _NUMBER: FILE_FORMAT}
    return {**found, _SUM: _sum(found)}


def unsealed(record: Any) -> Any:
    """A record without the entries of :func:`sealed`, whose checksum is verified. Of version 0.1 the record itself.

    Raises:
        ValueError: The checksum is missing or wrong, or the format is newer than this version.
    """
    if not isinstance(record, dict) or not record.keys() & {_NUMBER, _SUM}:
        return record
    found = dict(record)
    if found.pop(_SUM, None) != _sum(found):
        raise ValueError("its checksum is missing or differs")
    number = found.pop(_NUMBER, None)
    if number != FILE_FORMAT:
        raise ValueError(f"it has format {number}, this version reads {FILE_FORMAT}: upgrade condensekit")
    return found


def parsed(text: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
        ValueError: No JSON, deep nesting, an entry that stands twice, a number that is not finite or endlessly long.
    """
    try:
        return json.loads(
            text.decode(), object_pairs_hook=_object, parse_constant=_real, parse_float=_real, parse_int=_whole
        )
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


def misfit(value: Any, kind: Any, place: str = "it") -> str | None:
    """How a JSON value differs from a type; None if it does not.

    Args:
        value: The value.
        kind: A class of JSON values, ``Any``, a union, ``list[int]``, ``tuple[float, float]``, ``dict[str, int]``, a
            TypedDict, or a dataclass, whose fields are the entries of an object; entries beyond them are allowed.
        place: How the text names the value.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return None
    if origin in (Union, types.UnionType):
        found = [misfit(value, one, place) for one in inner]
        return None if None in found else found[0]
    if origin in (list, Sequence, tuple):
        return _list_misfit(value, origin, inner, place)
    if origin in (dict, Mapping):
        return _object_misfit(value, {name: inner[1] for name in value} if isinstance(value, dict) else {}, (), place)
    if is_typeddict(kind) or dataclasses.is_dataclass(kind):
        return _object_misfit(value, *_entries(kind), place)
    classes: Any = {float: (int, float), None: type(None)}.get(kind, kind)
    if isinstance(value, classes) and not (isinstance(value, bool) and kind in (int, float)):
        return None
    return f"{place} is {value!r:.40}, expected {getattr(kind, '__name__', kind)}"


def _list_misfit(value: Any, origin: Any, inner: tuple[Any, ...], place: str) -> str | None:
    if not isinstance(value, list):
        return f"{place} is {value!r:.40}, expected a list"
    fixed = origin is tuple and inner[-1] is not ...
    if fixed and len(value) != len(inner):
        return f"{place} has {len(value)} values, expected {len(inner)}"
    kinds = inner if fixed else inner[:1] * len(value)
    found = (misfit(one, kind, f"{place}[{i}]") for i, (one, kind) in enumerate(zip(value, kinds, strict=True)))
    return next(filter(None, found), None)


def _object_misfit(value: Any, kinds: Mapping[str, Any], needed: Sequence[str], place: str) -> str | None:
    if not isinstance(value, dict):
        return f"{place} is {value!r:.40}, expected an object"
    missing = [name for name in needed if name not in value]
    if missing:
        return f"{place} has no entry {missing[0]!r}"
    found = (misfit(value[name], kind, f"{name!r}") for name, kind in kinds.items() if name in value)
    return next(filter(None, found), None)


@functools.lru_cache
def _entries(kind: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The types of the entries of an object, and the names of those that it must have."""
    hints = get_type_hints(kind)
    if is_typeddict(kind):
        return hints, tuple(kind.__required_keys__)
    absent = dataclasses.MISSING
    fields = dataclasses.fields(kind)
    return hints, tuple(f.name for f in fields if f.default is absent and f.default_factory is absent)


def _sum(record: Mapping[str, Any]) -> str:
    """The sha256 of a record, whatever the order of its entries and the blanks between them."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the entry {next(name for name in names if names.count(name) > 1)!r:.40} stands twice")
    return found


def _real(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text:.40} is no finite number")
    return float(text)


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)
