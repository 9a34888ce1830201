"""Kept results: made once, read again, refused where they were made otherwise."""

import json

import pytest

from condensekit.errors import ConfigError, StoreError
from condensekit.runs.files import read_json, write_json
from condensekit.runs.kept import changes, kept, plain, refuse_other

RECIPE = {"method": {"type": "dm", "lr": 1.0}, "ipc": 10, "layers": (1, 2)}


def keep(path, recipe=RECIPE, made=None):
    """Keep a result; ``made`` hears of each making."""

    def make():
        if made is not None:
            made.append(recipe)
        return {"accuracy": 0.5}

    return kept(path, recipe, make, "the set of dm")


def test_a_result_is_made_once_and_then_read(tmp_path):
    made: list[object] = []
    assert [keep(tmp_path / "a" / "x.json", made=made) for _ in range(3)] == [{"accuracy": 0.5}] * 3
    assert len(made) == 1
    assert read_json(tmp_path / "a" / "x.json") == {"recipe": plain(RECIPE), "accuracy": 0.5}


def test_a_result_made_otherwise_is_refused_with_each_difference(tmp_path):
    keep(tmp_path / "x.json")
    before = (tmp_path / "x.json").read_bytes()
    made: list[object] = []
    other = {"method": {"type": "dm", "lr": 2.0}, "ipc": 10, "layers": [1, 3], "seed": 0}
    with pytest.raises(ConfigError) as caught:
        keep(tmp_path / "x.json", other, made)
    assert str(caught.value) == (
        f"{tmp_path} holds the set of dm, made otherwise (method.lr: 1.0 there, 2.0 here; layers: [1, 2] there, "
        "[1, 3] here; seed: nothing there, 0 here): use the same options, or another folder"
    )
    assert made == []
    assert (tmp_path / "x.json").read_bytes() == before


def test_the_way_out_may_be_another(tmp_path):
    keep(tmp_path / "x.json")
    with pytest.raises(ConfigError, match=r"ipc: 10 there, 1 here\): wait$"):
        kept(tmp_path / "x.json", {**RECIPE, "ipc": 1}, dict, "it", "wait")


def test_a_failed_making_keeps_nothing(tmp_path):
    def fails():
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        kept(tmp_path / "x.json", RECIPE, fails, "it")
    assert list(tmp_path.iterdir()) == []
    assert keep(tmp_path / "x.json") == {"accuracy": 0.5}


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "x.json").write_text("{half")
    with pytest.raises(StoreError, match=r"x\.json.*damaged"):
        keep(tmp_path / "x.json")


@pytest.mark.parametrize("content", [{"accuracy": 0.5}, [1, 2], "text"])
def test_a_file_that_tells_no_recipe_is_refused(tmp_path, content):
    """As files of other programs, and records of version 0.1, are."""
    write_json(tmp_path / "x.json", content)
    with pytest.raises(ConfigError, match=r"x\.json tells no recipe.*: use another folder"):
        keep(tmp_path / "x.json")


def test_equal_records_are_let_through():
    refuse_other("it", {"a": [1, 2], "b": {"1": None}}, {"a": (1, 2), "b": {1: None}})


@pytest.mark.parametrize(
    ("found", "asked", "told"),
    [
        ({"a": 1}, {"a": 1.0}, ["a: 1 there, 1.0 here"]),
        ({"a": None}, {}, []),
        ({"a": {"b": 1}}, {"a": 1}, ["a.b: 1 there, nothing here", "a: nothing there, 1 here"]),
        ({"a": {}}, {"a": {"b": 1}}, ["a: {} there, nothing here", "a.b: nothing there, 1 here"]),
        ({"a": "x"}, {"a": "y"}, ['a: "x" there, "y" here']),
        ({"a": True}, {"a": 1}, ["a: true there, 1 here"]),
        ({"a": {"b": [1, {"c": 2}]}}, {"a": {"b": [1, {"c": 2}]}}, []),
    ],
)
def test_each_value_that_differs_is_told(found, asked, told):
    assert changes(found, asked) == told


def test_plain_records_are_those_of_json():
    assert plain({"a": (1, 2), 3: None}) == {"a": [1, 2], "3": None}
    assert json.dumps(plain(RECIPE)) == json.dumps(RECIPE)


def test_a_new_option_that_is_none_is_no_difference():
    assert changes({"ipc": 1}, {"ipc": 1, "classes_per_step": None}) == []
    assert changes({"ipc": 1}, {"ipc": 1, "nested": False}) == ["nested: nothing there, false here"]
