import numpy as np
import pytest
import torch
from PIL import Image

from condensekit.data.arrays import as_nchw
from condensekit.data.decoding import alike, as_image, check_size, resized, stacked
from condensekit.errors import ConfigError, DataError


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
