"""Records: checksums that notice every change, strict JSON, and types of what files hold."""

import contextlib
import json
from dataclasses import dataclass, field
from typing import Any, TypedDict

import pytest

from condensekit.errors import StoreError
from condensekit.runs.files import read_json, write_json
from condensekit.runs.records import FILE_FORMAT, misfit, parsed, sealed, unsealed

RECORD = {"a": [1, 2.5, None, True], "b": {"c": "é"}, 3: (1, 2)}
PLAIN = {"a": [1, 2.5, None, True], "b": {"c": "é"}, "3": [1, 2]}


def test_a_record_comes_back_whatever_its_order():
    found = sealed(RECORD)
    assert list(found) == ["a", "b", "3", "file_format", "sha256"]
    assert unsealed(found) == PLAIN
    assert unsealed(dict(reversed(found.items()))) == PLAIN


def test_a_record_of_version_01_has_no_checksum():
    assert unsealed(PLAIN) == PLAIN
    assert unsealed([1]) == [1]


@pytest.mark.parametrize("name", ["a", "3", "file_format", "sha256"])
def test_an_entry_less_or_another_is_noticed(name):
    found = sealed(RECORD)
    for changed in ({k: v for k, v in found.items() if k != name}, {**found, name: "0"}):
        with pytest.raises(ValueError, match="checksum"):
            unsealed(changed)


def test_a_newer_format_asks_for_an_upgrade(monkeypatch):
    monkeypatch.setattr("condensekit.runs.records.FILE_FORMAT", FILE_FORMAT + 1)
    found = sealed(RECORD)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=f"format {FILE_FORMAT + 1}.*upgrade"):
        unsealed(found)


def test_every_changed_byte_of_a_file_is_noticed_or_changes_nothing(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, RECORD)
    whole = path.read_bytes()
    for place in range(len(whole)):
        for other in (b"0", b"7", b" ", b"x", b'"', b"\xff", b""):
            path.write_bytes(whole[:place] + other + whole[place + 1 :])
            with contextlib.suppress(StoreError):
                assert read_json(path) == PLAIN


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "Expecting value"),
        (b"\xff", "decode"),
        (b'\xef\xbb\xbf{"a": 1}', "BOM"),
        ('{"a": 1}'.encode("utf-16"), "decode"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "5000 digits"),
        (b'{"a": 1e999}', "1e999 is no finite number"),
        (b'{"a": NaN}', "NaN is no finite number"),
        (b'{"a": 1, "a": 1}', "'a' stands twice"),
    ],
)
def test_what_is_no_plain_json_is_refused(text, told):
    with pytest.raises(ValueError, match=told):
        parsed(text)


@dataclass
class Part:
    name: str
    size: int | None = None
    more: list[float] = field(default_factory=list)


class Whole(TypedDict):
    parts: list[Part]
    ends: tuple[float, float]
    by_name: dict[str, int]
    other: Any


GOOD = {"parts": [{"name": "a", "size": 1}], "ends": [0, 1.5], "by_name": {"x": 1}, "other": None, "unknown": 1}


def test_values_of_the_right_types_fit():
    assert misfit(GOOD, Whole) is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"parts": {}}, "'parts' is {}, expected a list"),
        ({"parts": [{}]}, "'parts'[0] has no entry 'name'"),
        ({"parts": [{"name": None}]}, "'name' is None, expected str"),
        ({"parts": [{"name": "a", "size": True}]}, "'size' is True, expected int"),
        ({"parts": [{"name": "a", "more": ["x"]}]}, "'more'[0] is 'x', expected float"),
        ({"ends": [1]}, "'ends' has 1 values, expected 2"),
        ({"by_name": {"x": "1"}}, "'x' is '1', expected int"),
        ({"by_name": []}, "'by_name' is [], expected an object"),
    ],
)
def test_other_values_are_named(change, told):
    assert misfit({**GOOD, **change}, Whole) == told


@pytest.mark.parametrize("value", [None, [], 1, "text"])
def test_another_value_in_place_of_all(value):
    assert misfit(value, Whole) == f"it is {value!r}, expected an object"


def test_a_file_of_other_content_is_named(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({**GOOD, "ends": 1}))
    with pytest.raises(StoreError, match=r"x\.json: cannot read: .* \('ends' is 1, expected a list\)"):
        read_json(tmp_path / "x.json", Whole)
