"""FAULTS 1 (the store's part), 2, 3, 4, 5 and 14: kills, failing disks, damaged and hostile files, two owners."""

import errno
import hashlib
import json
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from condensekit.data.images import ImageSpec
from condensekit.errors import ConfigError, StoreError
from condensekit.runs import files as store
from condensekit.runs.folder import RunDir
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import Formation

TENSORS = {"images": torch.arange(60.0).reshape(2, 30), "momentum": torch.ones(7)}
STAGES = {
    "open": "open",
    "write": "write",
    "fsync": "fsync",
    "replace": "replace",
    "folder fsync": "fsync",
}


def a_run(path, resume=False):
    return RunDir.create(path, {"ipc": 1}, resume, "data")


def temporary_files(path):
    return list(path.rglob("*.tmp"))


def broken(monkeypatch, stage):
    """Make ``stage`` of the next atomic write fail as a disk does."""
    error = OSError(errno.EIO, os.strerror(errno.EIO))

    def fail(*_, **__):
        raise error

    if stage == "write":

        class Full:
            def __init__(self, file):
                self.file = file

            def write(self, data):
                if len(data) < 100:
                    raise error
                return self.file.write(data[: len(data) // 2])

        whole = store._write_all
        monkeypatch.setattr(store, "_write_all", lambda path, file, *rest: whole(path, Full(file), *rest))
    elif stage == "open":
        real_open = os.open
        monkeypatch.setattr(os, "open", lambda p, *a, **k: fail() if str(p).endswith(".tmp") else real_open(p, *a, **k))
    elif stage == "folder fsync":
        monkeypatch.setattr(store, "_sync_folder", _failing_sync(fail))
    else:
        monkeypatch.setattr(os, STAGES[stage], fail)


def _failing_sync(fail):
    real = store._sync_folder

    def sync(path):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            real(path)

    return sync


@pytest.mark.parametrize("stage", STAGES)
def test_a_failing_stage_is_named_and_the_former_checkpoint_loads(tmp_path, monkeypatch, stage):
    with a_run(tmp_path / "run") as run:
        run.save_checkpoint(5, TENSORS, {})
        with monkeypatch.context() as patch:
            broken(patch, stage)
            with pytest.raises(StoreError, match=rf"step-000010\.safetensors: cannot {stage}: .*error"):
                run.save_checkpoint(10, TENSORS, {})
        assert temporary_files(tmp_path) == []
    (run.path / "checkpoints" / ".step-000007.safetensors.01234567.tmp").write_bytes(b"left by a kill")
    with a_run(tmp_path / "run", resume=True) as run:
        assert temporary_files(tmp_path) == []
        step, tensors, _ = run.latest_checkpoint()
        assert step == (10 if stage == "folder fsync" else 5)
        assert torch.equal(tensors["images"], TENSORS["images"])


POINTS = ["before open", "after open", "mid-write", "before fsync", "after fsync", "before rename", "after rename"]


def arm(point):
    """Kill this process at ``point`` of the next atomic write."""

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    def around(name, applies=lambda *_: True):
        real = getattr(os, name)

        def call(*args, **kwargs):
            if point.startswith("before") and applies(*args):
                die()
            result = real(*args, **kwargs)
            if applies(*args):
                die()
            return result

        setattr(os, name, call)

    if point == "mid-write":
        store._write_all = lambda path, file, parts, *_: die(file.write(bytes(parts[1])[:40]))
    elif point.endswith("open"):
        around("open", lambda path, *_: str(path).endswith(".tmp"))
    else:
        around("replace" if point.endswith("rename") else "fsync")


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_point_of_a_write_leaves_a_whole_file(tmp_path, point):
    with a_run(tmp_path / "run") as run:
        run.save_checkpoint(5, TENSORS, {})
    child = os.fork()
    if child == 0:
        try:
            with a_run(tmp_path / "run", resume=True) as run:
                arm(point)
                run.save_checkpoint(5, {"images": TENSORS["images"] + 1}, {})
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(temporary_files(tmp_path)) == (point not in ("before open", "after rename"))
    with a_run(tmp_path / "run", resume=True) as run:
        assert temporary_files(tmp_path) == []
        _, tensors, _ = run.latest_checkpoint()
        assert torch.equal(tensors["images"], TENSORS["images"] + (point == "after rename"))


def test_a_kill_at_random_times_leaves_a_whole_file(tmp_path):
    moments = random.Random(0)
    path = tmp_path / "x"
    start = time.perf_counter()
    store.save_tensors(path, {"x": torch.full((100_000,), 0)}, {"value": 0}, "part")
    took_s = time.perf_counter() - start
    for _ in range(20):
        child = os.fork()
        if child == 0:
            value = 0
            while True:
                value = (value + 1) % 256
                store.save_tensors(path, {"x": torch.full((100_000,), value)}, {"value": value}, "part")
        time.sleep(moments.uniform(0.005, 0.03) + moments.uniform(0, 3) * took_s)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        tensors, manifest = store.load_tensors(path, "part")
        assert (tensors["x"] == manifest["value"]).all()


def test_a_full_disk_names_needed_and_free_bytes(tmp_path):
    large = torch.zeros(100_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with a_run(tmp_path / "run") as run:
        run.save_checkpoint(5, TENSORS, {})
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
        try:
            with pytest.raises(StoreError, match=r"cannot write: .*\(400,\d+ bytes needed, [\d,]+ bytes free\)"):
                run.save_checkpoint(10, {"images": large}, {})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert temporary_files(tmp_path) == []
        assert run.latest_checkpoint()[0] == 5


def test_free_space_is_checked_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(StoreError, match="11 bytes needed, 10 bytes free"):
        store.write_bytes_atomic(tmp_path / "x", b"hello world")
    assert os.listdir(tmp_path) == []


def a_set():
    spec = ImageSpec((1, 8, 8), (0.5,), (0.25,), {0: "cat", 7: "horse"})
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 7, 7])
    return CondensedSet.from_images(images, labels, spec, formation=Formation(dtype="uint8"), provenance={"seed": 1})


@pytest.fixture(scope="module")
def content():
    with tempfile.TemporaryDirectory() as folder:
        return a_set().save(Path(folder) / "x").read_bytes()


def assert_refused(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "broken.safetensors"
        path.write_bytes(data)
        with pytest.raises(StoreError, match=r"broken\.safetensors: cannot read"):
            CondensedSet.load(path)


def test_every_97th_byte_flipped_is_noticed(content):
    for start in range(97):  # each byte of the file in one of the passes
        damaged = bytearray(content)
        for index in range(start, len(content), 97):
            damaged[index] ^= 0xFF
        assert_refused(bytes(damaged))


@given(where=st.integers(0, 1 << 30), flip=st.integers(1, 255))
def test_any_changed_byte_is_noticed(content, where, flip):
    damaged = bytearray(content)
    damaged[where % len(content)] ^= flip
    assert_refused(bytes(damaged))


def test_truncated_and_padded_files_are_noticed(content):
    for length in [0, 1, 7, 8, 9, len(content) - 1, *random.Random(0).sample(range(len(content)), 50)]:
        assert_refused(content[:length])
    assert_refused(content + b"\0")
    assert_refused(content + content)


@given(data=st.binary(max_size=200), claim=st.booleans())
def test_arbitrary_bytes_are_refused(data, claim):
    header = len(data).to_bytes(8, "little") if claim else b""
    assert_refused(header + data)


class Hostile:
    def __reduce__(self):
        return os.mkdir, (os.environ["HOSTILE"],)


def declared(shape, offsets):
    manifest = json.dumps({"kind": "condensed set", "format": 1})
    header = {
        "__metadata__": {"manifest": manifest, "sha256": "0" * 64},
        "images": {"dtype": "F32", "shape": shape, "data_offsets": offsets},
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + b"\0" * 700


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_hostile_files_are_refused_without_side_effects(tmp_path, monkeypatch):
    monkeypatch.setenv("HOSTILE", str(tmp_path / "made"))
    torch.save({"images": Hostile()}, tmp_path / "saved.pt")
    deep = b'{"__metadata__":' + b"[" * 200_000
    files = {
        "pickle": pickle.dumps(Hostile()),
        "torch": (tmp_path / "saved.pt").read_bytes(),
        "ten gigabytes": declared([2_500_000_000], [0, 10_000_000_000]),
        "ten gigabytes, small offsets": declared([2_500_000_000], [0, 700]),
        "overflow": declared([1 << 62, 1 << 62], [0, 700]),
        "negative": declared([-1], [0, 700]),
        "text offsets": declared([175], ["0", "700"]),
        "huge header": (1 << 62).to_bytes(8, "little") + b"{}",
        "deep": len(deep).to_bytes(8, "little") + deep,
        "list": (2).to_bytes(8, "little") + b"[]",
    }
    before = resident_bytes()
    for name, data in files.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(data)
        with pytest.raises(StoreError, match=path.name):
            CondensedSet.load(path)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(20 << 30)
    with pytest.raises(StoreError, match="more than the limit"):
        CondensedSet.load(tmp_path / "sparse")
    assert resident_bytes() - before < 50 << 20
    assert not (tmp_path / "made").exists()


def test_a_right_checksum_does_not_excuse_wrong_sizes(tmp_path):
    """A file made to pass the checksum is still refused before its tensors are made."""
    for shape in ([2_500_000_000], [1 << 62, 1 << 62], [1]):
        blank = declared(shape, [0, 700])
        digest = hashlib.sha256(blank).hexdigest()
        (tmp_path / "x").write_bytes(blank.replace(b"0" * 64, digest.encode()))
        with pytest.raises(StoreError, match="no valid safetensors file"):
            CondensedSet.load(tmp_path / "x")


def test_links_pipes_and_folders_are_refused(tmp_path):
    (tmp_path / "link").symlink_to(a_set().save(tmp_path / "real"))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, reason in {"link": "symbolic link", "pipe": "regular file", "folder": "regular file"}.items():
        with pytest.raises(StoreError, match=reason):
            CondensedSet.load(tmp_path / name)
    assert len(CondensedSet.load(tmp_path / "real")) == 4


HOLDER = """
import sys, time
from pathlib import Path
from condensekit.runs.folder import RunDir
with RunDir.create(Path(sys.argv[1]), {"ipc": 1}, False, "data"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_runs_cannot_share_a_folder(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for resume in (False, True):
            start = time.monotonic()
            with pytest.raises(ConfigError, match=f"in use by process {holder.pid}"):
                a_run(tmp_path / "run", resume=resume)
            assert time.monotonic() - start < 2
        RunDir.read(tmp_path / "run")  # looking is allowed
    finally:
        holder.kill()
        holder.communicate()
    a_run(tmp_path / "run", resume=True).close()


def test_one_process_cannot_take_a_folder_twice(tmp_path):
    with a_run(tmp_path / "run"), pytest.raises(ConfigError, match=f"process {os.getpid()}"):
        a_run(tmp_path / "run", resume=True)


def test_a_lock_that_is_a_link_or_a_pipe_is_refused(tmp_path):
    target = tmp_path / "precious"
    target.write_text("keep")
    for make in (lambda p: p.symlink_to(target), os.mkfifo):
        lock = tmp_path / "run" / ".lock"
        lock.parent.mkdir(exist_ok=True)
        lock.unlink(missing_ok=True)
        make(lock)
        with pytest.raises(StoreError, match=r"\.lock: cannot lock"):
            a_run(tmp_path / "run")
    assert target.read_text() == "keep"
