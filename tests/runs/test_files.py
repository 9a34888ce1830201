import os
import stat
from pathlib import Path

import pytest
import torch

from condensekit.data.images import ImageSpec
from condensekit.errors import ConfigError, DataError, StoreError
from condensekit.runs.files import (
    FORMAT,
    check_writable,
    load_tensors,
    read_json,
    regular,
    save_tensors,
    write_bytes_atomic,
    write_json,
)
from condensekit.sets import found
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import DTYPES, Formation

ASSETS = Path(__file__).parent / "assets"
TENSORS = {
    "a": torch.arange(6, dtype=torch.int64).reshape(2, 3),
    "b": torch.tensor([1.5, -2.0]).to(torch.bfloat16),
    "empty": torch.zeros(0, 4),
    "scalar": torch.tensor(3.25, dtype=torch.float64),
}


def a_set(dtype="uint8"):
    """The set of the files in tests/assets; a released format is never written anew."""
    spec = ImageSpec((1, 4, 4), (0.5,), (0.25,), {0: "cat", 7: "horse"})
    images = torch.linspace(-2, 2, 4 * 16).reshape(4, 1, 4, 4)
    soft = torch.tensor([[0.75, 0.25]] * 8 + [[0.125, 0.875]] * 8)
    return CondensedSet.from_images(
        images,
        torch.tensor([0, 0, 7, 7]),
        spec,
        formation=Formation(factor=2, dtype=dtype),
        soft_labels=soft,
        provenance={"method": "dm", "seed": 3, "options": {"lr": 0.1}},
    )


def assert_same(a, b):
    for name in ("images", "labels", "ranges", "soft_labels"):
        mine, theirs = getattr(a, name), getattr(b, name)
        assert mine is theirs is None or (mine.dtype == theirs.dtype and torch.equal(mine, theirs)), name
    assert (a.spec, a.formation, a.provenance) == (b.spec, b.formation, b.provenance)


def test_tensors_and_manifest_come_back(tmp_path):
    path = tmp_path / "new" / "folder" / "x.safetensors"
    save_tensors(path, TENSORS, {"step": 3, "plan": {"chunk": 16}}, "checkpoint")
    tensors, manifest = load_tensors(path, "checkpoint")
    assert manifest == {"step": 3, "plan": {"chunk": 16}, "kind": "checkpoint", "format": FORMAT}
    assert set(tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    tensors["a"] += 1  # a loaded state is written to


def test_a_view_of_a_larger_tensor_is_stored_alone(tmp_path):
    large = torch.randn(1000, 100)
    save_tensors(tmp_path / "x", {"view": large.T[3:5]}, {}, "part")
    assert (tmp_path / "x").stat().st_size < 10_000
    assert torch.equal(load_tensors(tmp_path / "x", "part")[0]["view"], large.T[3:5])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_set_comes_back(tmp_path, dtype):
    a_set(dtype).save(tmp_path / "set.safetensors")
    assert_same(CondensedSet.load(tmp_path / "set.safetensors"), a_set(dtype))


def test_a_manifest_may_hold_what_looks_like_a_checksum(tmp_path):
    manifest = {"sha256": "0" * 64, "text": '"sha256":"' + "0" * 64 + '"'}
    save_tensors(tmp_path / "x", {}, manifest, "part")
    tensors, told = load_tensors(tmp_path / "x", "part")
    assert tensors == {}
    assert told["text"] == manifest["text"]


def test_a_file_is_replaced_and_no_temporary_one_stays(tmp_path):
    for content in (b"first", b"second, longer"):
        write_bytes_atomic(tmp_path / "x", content[:3], memoryview(content)[3:])
        assert (tmp_path / "x").read_bytes() == content
    assert os.listdir(tmp_path) == ["x"]


def special(kind, path):
    """Something at a path that is no file."""
    if kind == "link":
        path.symlink_to(path.with_name("real"))
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
@pytest.mark.parametrize(
    "write", [lambda path: write_bytes_atomic(path, b"x"), lambda path: a_set().save(path), check_writable]
)
def test_what_is_no_file_is_not_replaced(tmp_path, kind, write):
    special(kind, tmp_path / "x.png")
    with pytest.raises((StoreError, ConfigError), match=r"x\.png"):
        write(tmp_path / "x.png")
    assert os.listdir(tmp_path) == ["x.png"]


def test_a_stream_is_written_to(tmp_path, capfd):
    write_bytes_atomic(Path("/dev/stdout"), b"one ", b"two")
    write_bytes_atomic(Path("/dev/stderr"), b"three")
    assert capfd.readouterr() == ("one two", "three")
    reading, writing = os.pipe()
    a_set().save(f"/dev/fd/{writing}")
    os.close(writing)
    with open(reading, "rb") as file:
        (tmp_path / "x").write_bytes(file.read())
    assert_same(CondensedSet.load(tmp_path / "x"), a_set())


def test_a_stream_that_is_closed_is_named():
    with pytest.raises(StoreError, match="/dev/fd/987: cannot write"):
        write_bytes_atomic(Path("/dev/fd/987"), b"x")


def test_a_place_that_can_be_written_stays_as_it_is(tmp_path):
    (tmp_path / "x").write_text("former")
    check_writable(tmp_path / "x")
    assert (tmp_path / "x").read_text() == "former"
    assert os.listdir(tmp_path) == ["x"]
    with pytest.raises(StoreError, match="cannot write"):
        check_writable(tmp_path / "missing" / "x")


def test_a_saved_set_is_not_replaced_silently(tmp_path):
    """A set saved as "scene" got a file without ending, and the next one its place."""
    path = a_set().save(tmp_path / "scene")
    assert path == tmp_path / "scene.safetensors"
    assert_same(CondensedSet.load(tmp_path / "scene"), a_set())
    for name in ("scene", "scene.safetensors"):
        with pytest.raises(ConfigError, match=r"scene\.safetensors exists: pass overwrite=True"):
            a_set("float32").save(tmp_path / name)
    assert_same(CondensedSet.load(path), a_set())
    a_set("float32").save(path, overwrite=True)
    assert_same(CondensedSet.load(path), a_set("float32"))
    assert found.groups(tmp_path / "scene")[0].sets[0].formation.dtype == "float32"


def test_a_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").write_bytes(b"")
    write_bytes_atomic(tmp_path / "ours", b"")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "ours")]
    assert modes[0] == modes[1]


def test_json_comes_back(tmp_path):
    record = {"a": [1, 2.5, None, True], "b": {"c": "é"}}
    write_json(tmp_path / "x.json", record)
    assert read_json(tmp_path / "x.json") == record


def test_what_is_not_json_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(StoreError, match=r"x\.json: cannot serialise"):
        write_json(tmp_path / "x.json", {"value": float("nan")})
    with pytest.raises(StoreError, match="cannot serialise"):
        save_tensors(tmp_path / "x", {}, {"value": object()}, "part")
    assert os.listdir(tmp_path) == []


def test_a_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        CondensedSet.load(tmp_path / "none.safetensors")
    with pytest.raises(DataError, match="no such file"):
        read_json(tmp_path / "none.json")


def test_a_file_of_another_kind_is_named(tmp_path):
    save_tensors(tmp_path / "x", TENSORS, {}, "checkpoint")
    with pytest.raises(StoreError, match="holds a checkpoint, expected a condensed set"):
        CondensedSet.load(tmp_path / "x")


def test_a_newer_format_asks_for_an_upgrade(tmp_path, monkeypatch):
    monkeypatch.setattr("condensekit.runs.files.FORMAT", FORMAT + 1)
    a_set().save(tmp_path / "x.safetensors")
    monkeypatch.undo()
    with pytest.raises(StoreError, match=f"format {FORMAT + 1}.*upgrade"):
        CondensedSet.load(tmp_path / "x.safetensors")


def test_a_well_formed_file_that_is_no_set_is_refused(tmp_path):
    save_tensors(tmp_path / "x", TENSORS, {"spec": None}, "condensed set")
    with pytest.raises(StoreError, match="no valid condensed set"):
        CondensedSet.load(tmp_path / "x")


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_sets_of_format_1_load_for_ever(dtype):
    assert_same(CondensedSet.load(ASSETS / f"set-v1-{dtype}.safetensors"), a_set(dtype))


@pytest.mark.timeout(60)
def test_only_regular_files_are_read(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    regular(tmp_path / "file")
    regular(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "a named pipe"), (Path("/dev/null"), "a device"), (tmp_path, "a folder")):
        with pytest.raises(OSError, match=f"it is {kind}, not a regular file"):
            regular(path)
