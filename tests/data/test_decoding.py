import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from condensekit.data.arrays import as_nchw
from condensekit.data.decoding import alike, as_image, check_size, mapped, resized, stacked
from condensekit.errors import ConfigError, DataError, StoreError


def photo(seed=0, size=(24, 20)):
    """A smooth RGB image with some noise: what resizing is made for."""
    x, y = np.meshgrid(np.linspace(0, 6, size[1]), np.linspace(0, 4, size[0]))
    waves = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], -1) * 100 + 128
    return (waves + np.random.default_rng(seed).normal(0, 8, waves.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [8, 16, 40])
def test_resizing_is_pillows(size):
    image = photo()
    expected = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)).astype(int)
    got = resized(as_nchw(torch.from_numpy(image)[None]), size)[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(got - expected).max() <= 1  # one grey level


def test_items_of_every_kind_give_the_same_image():
    image = photo()
    wanted = torch.from_numpy(image).permute(2, 0, 1)
    for item in (Image.fromarray(image), image, torch.from_numpy(image), wanted, image[::-1][::-1]):
        assert torch.equal(as_image(item), wanted)
    grey = Image.fromarray(image).convert("L")
    for item in (grey, grey.convert("LA"), np.asarray(grey), torch.from_numpy(np.array(grey))[None]):
        assert torch.equal(as_image(item), torch.from_numpy(np.array(grey))[None])
    tiny = Image.new("RGB", (3, 3), (1, 2, 3))  # three pixels wide: still no doubt where the channels are
    assert as_image(tiny)[:, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("text", "got str"),
        (np.zeros((2, 3, 8, 8)), r"got shape \(2, 3, 8, 8\)"),
        (np.full((8, 8), 65535, np.uint16), "got torch.uint16 in 65535..65535: scale them to 0..255 first"),
        (Image.new("I;16", (4, 4)), "more than 8 bits"),
    ],
)
def test_unusable_items_are_refused(item, reason):
    with pytest.raises(DataError, match=reason):
        as_image(item)


def test_different_shapes_name_both_and_the_option():
    images = [torch.zeros(3, 8, 8), torch.zeros(3, 8, 9)]
    with pytest.raises(DataError, match=r"a is \(3, 8, 8\); b is \(3, 8, 9\): use image_size=N"):
        list(alike(images, "ab".__getitem__, None))
    for size in (1, 4):
        assert {tuple(image.shape) for image in alike(images, "ab".__getitem__, size)} == {(3, size, size)}
    with pytest.raises(DataError, match="convert all to grey or all to RGB"):
        list(alike([torch.zeros(3, 8, 8), torch.zeros(1, 8, 8)], "ab".__getitem__, 8))


def test_floats_among_bytes_turn_the_whole_into_floats():
    parts = [torch.full((1, 2, 2), 51, dtype=torch.uint8), torch.full((1, 2, 2), -3.5), torch.zeros(1, 2, 2).byte()]
    whole = stacked(iter(parts), 3)
    assert whole.dtype == torch.float32
    torch.testing.assert_close(whole[:, 0, 0, 0], torch.tensor([0.2, -3.5, 0.0]))
    with pytest.raises(DataError, match="empty"):
        stacked(iter([]), 0)


@pytest.mark.parametrize("size", [0, -1, 2.5, "32"])
def test_bad_image_size(size):
    with pytest.raises(ConfigError, match="image_size must be an integer of at least 1"):
        check_size(size)


def images(count=6):
    return (torch.full((1, 4, 4), i, dtype=torch.uint8) for i in range(count))


def test_mapped_once_and_copied_on_write(tmp_path):
    file = tmp_path / "new" / "pixels.npy"
    first = mapped(images(), 6, file)
    assert first[:, 0, 0, 0].tolist() == list(range(6))
    first[0] = 99  # stays in this process
    second = mapped((pytest.fail("read again") for _ in range(1)), 6, file)
    assert second[:, 0, 0, 0].tolist() == list(range(6))
    assert str(file) in Path("/proc/self/maps").read_text()


def test_a_failed_write_leaves_nothing(tmp_path):
    def failing():
        yield from images(3)
        raise DataError("image 3 is damaged")

    file = tmp_path / "pixels.npy"
    with pytest.raises(DataError, match="image 3"):
        mapped(failing(), 6, file)
    assert [path.name for path in tmp_path.iterdir()] == ["pixels.lock"]
    assert len(mapped(images(), 6, file)) == 6


def test_links_are_never_followed(tmp_path):
    """A folder of maps may be shared, as /tmp is: others can make files with names that they know."""
    precious = tmp_path / "precious"
    precious.write_text("keep")
    maps = tmp_path / "maps"
    maps.mkdir()
    for name, reason in (("pixels.npy", "it is a link"), ("pixels.lock", "it is a symbolic link")):
        (maps / name).symlink_to(precious)
        with pytest.raises(StoreError, match=reason):
            mapped(images(), 6, maps / "pixels.npy")
        (maps / name).unlink()
    for name in ("pixels.part", ".pixels.0123.part", "pixels.npy.tmp"):
        (maps / name).symlink_to(precious)
    assert len(mapped(images(), 6, maps / "pixels.npy")) == 6
    assert precious.read_text() == "keep"
    assert not (maps / ".pixels.0123.part").is_symlink()  # what a killed process leaves is removed


@pytest.mark.timeout(60)
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pixels.npy")
    with pytest.raises(StoreError, match="cannot map the decoded images: it is a link or another special file"):
        mapped(images(), 6, tmp_path / "pixels.npy")


def test_the_name_of_the_part_is_not_known_beforehand(tmp_path):
    names: set[str] = set()

    def watched():
        for image in images():
            names.update(path.name for path in tmp_path.glob(".*.part"))
            yield image

    for name in ("a", "b"):
        mapped(watched(), 6, tmp_path / f"{name}.npy")
    assert len({name.split(".")[2] for name in names}) == 2
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize(
    "array", [np.zeros((6, 4, 4), np.uint8), np.zeros((5, 1, 4, 4), np.uint8), np.zeros((6, 1, 4, 4))]
)
def test_a_map_of_other_images_is_refused(tmp_path, array):
    np.save(tmp_path / "pixels.npy", array)
    with pytest.raises(StoreError, match=r"it holds .* of shape"):
        mapped(images(), 6, tmp_path / "pixels.npy")


def test_a_full_disk_is_refused_before_writing(tmp_path):
    with pytest.raises(StoreError, match=r"pixels\.npy: cannot write the decoded images: \d+ MiB needed, \d+ MiB free"):
        mapped(images(), 1 << 50, tmp_path / "pixels.npy")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot write"):
        mapped(images(), 6, tmp_path / "file" / "pixels.npy")


def test_a_damaged_map_is_named(tmp_path):
    file = tmp_path / "pixels.npy"
    mapped(images(), 6, file)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"pixels\.npy: cannot map .* delete it"):
        mapped(images(), 6, file)


def test_two_processes_write_one_file_once(tmp_path):
    code = """
import sys, time, torch
from pathlib import Path
from condensekit.data.decoding import mapped
written = 0
def images():
    global written
    for i in range(4):
        written += 1
        time.sleep(0.1)
        yield torch.full((1, 4, 4), i, dtype=torch.uint8)
whole = mapped(images(), 4, Path(sys.argv[1]))
assert whole[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
print(written)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "pixels.npy")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    written = sorted(int(process.communicate(timeout=120)[0]) for process in running)
    assert written == [0, 4]
