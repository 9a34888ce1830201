"""Maps of decoded images: written once, by one process at a time, and gone on with after a kill or on a full disk."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from condensekit.data.maps import mapped
from condensekit.errors import DataError, StoreError

ROOT = Path(__file__).parents[2]


def images(done=0, end=6):
    return (torch.full((1, 4, 4), i, dtype=torch.uint8) for i in range(done, end))


def unread(done):
    pytest.fail("read again")


def parts(folder):
    return [path for path in folder.iterdir() if path.suffix == ".part"]


def test_mapped_once_and_copied_on_write(tmp_path):
    file = tmp_path / "new" / "pixels.npy"
    first = mapped(images, 6, file)
    assert first[:, 0, 0, 0].tolist() == list(range(6))
    first[0] = 99  # stays in this process
    second = mapped(unread, 6, file)
    assert second[:, 0, 0, 0].tolist() == list(range(6))
    assert str(file) in Path("/proc/self/maps").read_text()


def test_a_failed_write_leaves_nothing(tmp_path):
    def failing(done):
        yield from images(done, 3)
        raise DataError("image 3 is damaged")

    file = tmp_path / "pixels.npy"
    with pytest.raises(DataError, match="image 3"):
        mapped(failing, 6, file)
    assert [path.name for path in tmp_path.iterdir()] == ["pixels.lock"]
    assert len(mapped(images, 6, file)) == 6


def test_links_are_never_followed(tmp_path):
    """A folder of maps may be shared, as /tmp is: others can make files with names that they know."""
    precious = tmp_path / "precious"
    precious.write_text("keep")
    maps = tmp_path / "maps"
    maps.mkdir()
    for name, reason in (("pixels.npy", "it is a link"), ("pixels.lock", "it is a symbolic link")):
        (maps / name).symlink_to(precious)
        with pytest.raises(StoreError, match=reason):
            mapped(images, 6, maps / "pixels.npy")
        (maps / name).unlink()
    for name in ("pixels.part", ".pixels.0123.part", "pixels.npy.tmp"):
        (maps / name).symlink_to(precious)
    assert len(mapped(images, 6, maps / "pixels.npy")) == 6
    assert precious.read_text() == "keep"
    assert not (maps / ".pixels.0123.part").is_symlink()  # what a killed process leaves is removed


@pytest.mark.timeout(60)
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pixels.npy")
    with pytest.raises(StoreError, match="cannot map the decoded images: it is a link or another special file"):
        mapped(images, 6, tmp_path / "pixels.npy")


def test_the_name_of_the_part_is_not_known_beforehand(tmp_path):
    names: set[str] = set()

    def watched(done):
        for image in images(done):
            names.update(path.name for path in tmp_path.glob(".*.part"))
            yield image

    for name in ("a", "b"):
        mapped(watched, 6, tmp_path / f"{name}.npy")
    assert len({name.split(".")[2] for name in names}) == 2
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize(
    "array", [np.zeros((6, 4, 4), np.uint8), np.zeros((5, 1, 4, 4), np.uint8), np.zeros((6, 1, 4, 4))]
)
def test_a_map_of_other_images_is_refused(tmp_path, array):
    np.save(tmp_path / "pixels.npy", array)
    with pytest.raises(StoreError, match=r"it holds .* of shape"):
        mapped(images, 6, tmp_path / "pixels.npy")


def test_too_little_room_is_told_before_writing(tmp_path, monkeypatch):
    said = r"pixels\.npy: cannot write the decoded images: 18,014,398,509,481,984 bytes needed, [\d,]+ bytes free: make"
    with pytest.raises(StoreError, match=said):
        mapped(images, 1 << 50, tmp_path / "pixels.npy")
    assert not parts(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot write"):
        mapped(images, 6, tmp_path / "file" / "pixels.npy")
    with pytest.raises(KeyboardInterrupt):
        mapped(stopped(4), 6, tmp_path / "pixels.npy")
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=31))
    with pytest.raises(StoreError, match="32 bytes needed, 31 bytes free: make room, and the same call goes"):
        mapped(unread, 6, tmp_path / "pixels.npy")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=32))
    assert mapped(images, 6, tmp_path / "pixels.npy")[:, 0, 0, 0].tolist() == list(range(6))


def test_a_disk_that_becomes_full_is_told_and_a_later_call_goes_on(tmp_path):
    """The limit of the size of files stands for the end of the disk."""
    code = """
import resource, signal, sys
from pathlib import Path
from condensekit.data.maps import mapped
from condensekit.errors import StoreError
from tests.data.test_maps import images
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (128 + 16 * 3 + 5, resource.RLIM_INFINITY))
try:
    mapped(images, 6, Path(sys.argv[1]))
except StoreError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
def rest(done):
    print(done)
    return images(done)
print(mapped(rest, 6, Path(sys.argv[1]))[:, 0, 0, 0].tolist())
"""
    said, done, found = output(code, tmp_path / "pixels.npy").splitlines()
    assert re.fullmatch(
        r".*pixels\.npy: cannot write the decoded images: 48 bytes needed, [\d,]+ bytes free \(File too large\): make "
        "room, and the same call goes on, or use another mmap=FOLDER",
        said,
    )
    assert (done, found) == ("3", "[0, 1, 2, 3, 4, 5]")


def stopped(end):
    """The images up to one, and then Ctrl-C."""

    def given(done):
        yield from images(done, end)
        raise KeyboardInterrupt

    return given


@pytest.mark.parametrize("cut", [0, 1, 5, 100, 127, 128, 129, 128 + 16, 128 + 3 * 16 - 1, 128 + 3 * 16 + 1, None])
def test_a_build_goes_on_where_it_was_killed(tmp_path, cut):
    """Whatever part of the file has reached the disk."""
    file, whole = tmp_path / "pixels.npy", tmp_path / "whole.npy"
    mapped(images, 6, whole)
    with pytest.raises(KeyboardInterrupt):
        mapped(stopped(4), 6, file)
    assert not file.exists()
    (part,) = parts(tmp_path)
    size = 128 + 4 * 16 if cut is None else cut
    os.truncate(part, size)
    asked = []

    def rest(done):
        asked.append(done)
        return images(done)

    mapped(rest, 6, file)
    assert asked == [max(0, size - 128) // 16]
    assert file.read_bytes() == whole.read_bytes()
    assert not parts(tmp_path)


def test_a_build_killed_before_its_end_reads_nothing_again(tmp_path):
    file = tmp_path / "pixels.npy"
    with pytest.raises(KeyboardInterrupt):
        mapped(stopped(6), 6, file)
    mapped(lambda done: images(done) if done == 6 else pytest.fail("read again"), 6, file)
    assert np.load(file)[:, 0, 0, 0].tolist() == list(range(6))


def test_a_build_stopped_before_its_first_image_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        mapped(stopped(0), 6, tmp_path / "pixels.npy")
    assert not parts(tmp_path)


def test_a_part_of_other_images_is_not_gone_on_with(tmp_path):
    def larger(done):
        return (torch.full((1, 4, 5), i, dtype=torch.uint8) for i in range(done, 6))

    file = tmp_path / "pixels.npy"
    with pytest.raises(KeyboardInterrupt):
        mapped(stopped(2), 6, file)
    with pytest.raises(DataError, match=r"image 2 is uint8 \(1, 4, 5\), unlike those before, uint8 \(1, 4, 4\)"):
        mapped(larger, 6, file)
    assert mapped(larger, 6, file).shape == (6, 1, 4, 5)
    (tmp_path / ".other.0.part").write_bytes(file.read_bytes())  # of six images, not of five
    assert len(mapped(lambda done: images(done, 5), 5, tmp_path / "other.npy")) == 5


def test_only_a_file_of_one_name_is_gone_on_with(tmp_path):
    """Others could give the name of a part to a file elsewhere."""
    precious = tmp_path / "precious"
    precious.write_text("keep")
    os.link(precious, tmp_path / ".pixels.0123.part")
    assert len(mapped(images, 6, tmp_path / "pixels.npy")) == 6
    assert precious.read_text() == "keep"


def test_a_damaged_map_is_named(tmp_path):
    file = tmp_path / "pixels.npy"
    mapped(images, 6, file)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"pixels\.npy: cannot map .* delete it"):
        mapped(images, 6, file)


SLOW = """
import signal, sys, time, torch
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell, it would be ignored
from pathlib import Path
from condensekit.data.maps import mapped
def images(done):
    for i in range(done, 4):
        print(i, flush=True)
        time.sleep(float(sys.argv[2]) if i == 2 else 0)
        yield torch.full((1, 4, 4), i, dtype=torch.uint8)
whole = mapped(images, 4, Path(sys.argv[1]))
assert whole[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
"""


def output(code, *words):
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout


def started(file, seconds):
    command = [sys.executable, "-c", SLOW, str(file), str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def test_two_processes_write_one_file_once(tmp_path):
    running = [started(tmp_path / "pixels.npy", 0.5) for _ in range(2)]
    assert sorted(process.communicate(timeout=120)[0].split() for process in running) == [[], ["0", "1", "2", "3"]]
    assert [process.returncode for process in running] == [0, 0]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_a_process_goes_on_for_another_that_is_killed(tmp_path, signum):
    file = tmp_path / "pixels.npy"
    with started(file, 60) as first:
        assert first.stdout is not None
        assert [first.stdout.readline() for _ in range(3)] == ["0\n", "1\n", "2\n"]
        with started(file, 0) as second:  # waits
            first.send_signal(signum)
            assert second.communicate()[0].split() == ["2", "3"]
    assert second.returncode == 0
    assert not parts(tmp_path)
