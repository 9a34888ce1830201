"""Devices, pipes and links stay what they are, and are never waited for."""

import os
import stat
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.cases.command import CONDENSE, SEARCH, condensekit


def device(path):
    """A copy of /dev/null, which root alone may make."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")
    return ()


def pipe(path):
    """A named pipe with a reader, so that who opens it goes on."""
    os.mkfifo(path)
    return (os.open(path, os.O_RDWR | os.O_NONBLOCK),)


def link(path):
    """A link to a file."""
    (path.parent / "real").write_text("precious")
    path.symlink_to("real")
    return ()


def link_to_stream(path):
    """A link to an open pipe, as /dev/stdout is one."""
    ends = os.pipe()
    path.symlink_to(f"/dev/fd/{ends[1]}")
    return ends


@pytest.mark.parametrize("make", [device, pipe, link, link_to_stream])
def test_export_leaves_a_special_file_what_it_was(cli, tmp_path, make):
    code, _, err = cli(*CONDENSE, "--out", tmp_path / "run")
    if code != 0:
        raise RuntimeError(err)
    path = tmp_path / "grid.png"
    held = make(path)
    try:
        before = path.lstat()
        cli("export", tmp_path / "run", "--grid", path)
        after = path.lstat()
    finally:
        for end in held:
            os.close(end)
    assert (before.st_ino, before.st_mode, before.st_rdev) == (after.st_ino, after.st_mode, after.st_rdev)


def check_end(done):
    """A traceback is an error, not the hanging that the test looks for."""
    if done.code == 1:
        raise RuntimeError(done.err)


@pytest.mark.kill
@pytest.mark.slow
def test_a_pipe_as_an_image_of_a_class_is_refused_or_left_out(tmp_path):
    noise = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(4):
            image = Image.fromarray(noise.integers(0, 256, (8, 8), dtype=np.uint8))
            image.save(tmp_path / "data" / name / f"{i}.png")
    os.mkfifo(tmp_path / "data/cats/pipe.png")
    words = ("--data", tmp_path / "data", "--ipc", 1, "--out", tmp_path / "chosen")
    done = condensekit("select", *words, limit=60)  # some 10 s without the pipe
    check_end(done)
    assert done.refused or (done.code == 0 and "pipe.png" in done.out + done.err)


@pytest.mark.kill
@pytest.mark.slow
def test_a_pipe_as_a_table_of_truths_is_refused(tmp_path):
    os.mkfifo(tmp_path / "truth.csv")
    done = condensekit(*SEARCH, "--truth", tmp_path / "truth.csv", "--out", tmp_path / "out", limit=60)
    check_end(done)
    assert done.refused


@pytest.mark.kill
@pytest.mark.slow
def test_a_picture_goes_through_standard_output(cli, tmp_path):
    """As in ``condensekit export run --grid /dev/stdout > grid.png``: nothing else stands in the file."""
    code, _, err = cli(*CONDENSE, "--out", tmp_path / "run")
    if code != 0:
        raise RuntimeError(err)
    cli("export", tmp_path / "run", "--grid", tmp_path / "expected.png")
    with (tmp_path / "grid.png").open("wb") as out:
        words = ("export", tmp_path / "run", "--grid", "/dev/stdout")
        done = subprocess.run(
            [sys.executable, "-m", "condensekit", *words], stdout=out, stderr=subprocess.PIPE, text=True, timeout=120
        )
    assert done.returncode == 0, done.stderr
    assert "wrote 10 images" in done.stderr
    assert (tmp_path / "grid.png").read_bytes() == (tmp_path / "expected.png").read_bytes()
