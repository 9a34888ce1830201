"""Every storage: what it keeps, what it counts, what a file and a subset of it hold, and what it refuses."""

import dataclasses
import math

import pytest
import torch
from PIL import features

from condensekit.data.images import ImageSpec
from condensekit.errors import ConfigError, DataError, StoreError
from condensekit.rng import isolated
from condensekit.sets.bits import Bits
from condensekit.sets.codecs import CODECS
from condensekit.sets.codes import divided, joined
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import STORAGES, Formation
from condensekit.sets.pictures import Mosaic
from condensekit.sets.through import Through

MOSAICS = [name for name in CODECS if name.endswith("-mosaic")]
PICTURES = ["jpeg", *MOSAICS]
BITS = [f"{bits}bit" for bits in range(2, 9)]
SHAPES = [(1, 8, 8), (3, 32, 32), (1, 28, 28), (3, 5, 7), (3, 64, 64)]


def smooth(count, shape, seed=0):
    """(count, C, H, W) smooth 8-bit pixels in [0, 1]: waves of random direction and colour."""
    channels, height, width = shape
    with isolated(seed):
        turns, shifts = torch.rand(count, channels, 2) * 4, torch.rand(count, channels) * 6
    rows, columns = torch.arange(height)[:, None] / height, torch.arange(width) / width
    waves = turns[..., 0, None, None] * rows + turns[..., 1, None, None] * columns + shifts[..., None, None]
    return ((0.5 + 0.45 * waves.sin()) * 255).round() / 255


def a_set(counts, shape=(3, 16, 16), pixels=True, factor=1, soft=False):
    """A set with so many smooth images of each class."""
    channels = shape[0]
    spec = ImageSpec(shape, (0.5,) * channels, (0.25,) * channels, {k: f"c{k}" for k in range(len(counts))})
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    images = spec.normalise(smooth(len(labels), shape))
    if not pixels:
        spec = dataclasses.replace(spec, pixels=False)
    probabilities = torch.full((len(labels) * factor**2, len(counts)), 1 / len(counts)) if soft else None
    return CondensedSet.from_images(images, labels, spec, formation=Formation(factor), soft_labels=probabilities)


def decibels(made, stored):
    pixels = [one.spec.to_pixels(one.decode()[0]) for one in (made, stored)]
    return -10 * math.log10(max(1e-9, float((pixels[0] - pixels[1]).pow(2).mean())))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", CODECS)
def test_images_come_back_nearly_as_they_were(name, shape):
    made = a_set([3, 1], shape)
    stored = made.stored_as(name, **({"quality": 90} if name in PICTURES else {}))
    assert decibels(made, stored) > (15 if name in ("2bit", "3bit") else 20)
    assert stored.formation == Formation(dtype=name)
    assert torch.equal(stored.labels, made.labels)
    assert name in repr(stored)


@pytest.mark.parametrize("name", CODECS)
def test_bytes_are_what_a_file_holds(name, tmp_path):
    stored = a_set([5, 2]).stored_as(name)
    assert stored.nbytes == stored.images.nbytes + stored.labels.nbytes == int(stored.sizes().sum())
    stored.save(tmp_path / "set")
    loaded = CondensedSet.load(tmp_path / "set")
    assert torch.equal(loaded.images, stored.images)
    assert torch.equal(loaded.decode()[0], stored.decode()[0])
    again = stored.decode(torch.tensor([6, 0, 0]))
    assert torch.equal(again[0], stored.decode()[0][[6, 0, 0]])


@pytest.mark.parametrize("name", CODECS)
def test_taking_and_merging_keep_every_value(name):
    stored = a_set([5, 4, 1]).stored_as(name)
    rows = torch.tensor([9, 3, 1, 0, 8, 3])
    assert torch.equal(stored.take(rows).decode()[0], stored.decode()[0][rows])
    parts = [stored.select([label]) for label in stored.classes]
    assert sum(part.nbytes for part in parts) == stored.nbytes
    assert torch.equal(parts[2].merge(parts[0]).merge(parts[1]).decode()[0], stored.decode()[0])
    other = a_set([2, 2, 2]).stored_as(name, **({"quality": 30} if name in PICTURES else {}))
    both = stored.merge(other)
    assert len(both) == 16
    assert torch.equal(both.take(torch.arange(5, 7)).decode()[0], other.decode()[0][:2])


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("counts", [[1], [1, 1], [6, 2, 4]])
def test_each_class_fills_its_bytes_with_the_best_quality(name, counts):
    made, room = a_set(counts), 1200
    stored = made.stored_as(name, room=room)
    told = stored.provenance["storage"]
    assert (told["name"], told["room"]) == (name, room)
    for label, quality in zip(stored.classes, told["quality"], strict=True):
        one = stored.select([label])
        assert one.nbytes <= room
        plain = made.select([label])
        assert torch.equal(plain.stored_as(name, quality=quality).images, one.images)
        if quality < CODECS[name].qualities[-1]:
            assert plain.stored_as(name, quality=quality + 1).nbytes > room or name == "avif-mosaic"


def test_a_mosaic_follows_from_the_number_of_images():
    codec = CODECS["webp-mosaic"]
    assert isinstance(codec, Mosaic)
    for count, tall, wide in ((1, 1, 1), (2, 1, 2), (3, 2, 2), (7, 3, 3), (300, 17, 18)):
        pixels = (smooth(count, (3, 8, 8)) * 255).to(torch.uint8)
        codes = codec.code(pixels, 50)
        assert len({code.head for code in codes}) == 1
        assert codec._tiles(codes[0].head, (3, 8, 8), "it").shape[0] == tall * wide
        stream, sizes = joined(codes, torch.zeros(count), codec)
        assert sizes.tolist() == [len(codes[0].head) + 2, *[0] * (count - 1)]
        assert divided(stream, sizes, codec, (3, 8, 8)) == codes


def test_a_class_of_300_images_is_one_picture():
    stored = a_set([300, 3], (1, 8, 8)).stored_as("avif-mosaic", room=6_000)
    assert len({code.head for code in stored.codes()}) == 2
    assert len(stored.decode()[0]) == 303


@pytest.mark.parametrize("name", ["4bit", *PICTURES])
def test_packed_images_with_soft_labels_are_stored_packed(name):
    made = a_set([2, 3], factor=2, soft=True)
    stored = made.stored_as(name, room=4_000)
    assert stored.formation == Formation(2, name)
    assert len(stored.decode()[0]) == 20
    assert torch.equal(stored.soft_labels, made.soft_labels)
    assert all(stored.select([label]).nbytes <= 4_000 for label in stored.classes)
    assert decibels(made, stored) > 15


@pytest.mark.parametrize("name", ["3bit", *PICTURES])
def test_values_that_are_no_pixels_keep_their_range(name):
    made = a_set([4, 4], pixels=False)
    stored = made.stored_as(name)
    assert (stored.ranges is not None) == (name in PICTURES)
    low, high = made.value_range
    assert (stored.decode()[0] - made.images).abs().mean() < (high - low) / 10


def test_images_are_ordered_by_class():
    made = a_set([3, 3]).take(torch.tensor([5, 0, 3, 1]))
    stored = made.stored_as("8bit")
    assert stored.labels.tolist() == [0, 0, 1, 1]
    assert (stored.decode()[0] - made.images[[1, 3, 0, 2]]).abs().max() < 0.02
    again = CondensedSet.from_images(made.images, made.labels, made.spec, formation=stored.formation)
    assert torch.equal(again.images, stored.images)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 5, 7), (1, 64, 64)])
def test_bits_are_counted(bits, shape):
    made = a_set([4], shape)
    values = math.prod(shape)
    levels = 2**bits if shape[1] * shape[2] >= 4 ** (bits + 1) else 2
    each = -(-values * bits // 8) + levels * shape[0] + 8
    assert made.stored_as(f"{bits}bit").nbytes == 4 * each + 8 * shape[0]


def test_learned_levels_are_better_than_even_ones(monkeypatch):
    made = a_set([6], (1, 32, 32))
    learned = decibels(made, made.stored_as("3bit"))
    monkeypatch.setattr(Bits, "_each", lambda self, pixels: 2)
    assert learned > decibels(made, made.stored_as("3bit")) + 0.5


def test_values_that_fit_the_levels_are_kept():
    spec = ImageSpec((1, 16, 16), (0.0,), (1.0,), {0: "a"})
    with isolated(1):
        images = torch.randint(4, (3, 1, 16, 16)).float() / 3
    made = CondensedSet.from_images(images, torch.zeros(3, dtype=torch.int64), spec)
    torch.testing.assert_close(made.stored_as("2bit").decode()[0], images)
    flat = CondensedSet.from_images(torch.full_like(images, 0.7), made.labels, spec)
    torch.testing.assert_close(flat.stored_as("2bit").decode()[0], flat.images)


@pytest.mark.parametrize("name", STORAGES)
@pytest.mark.parametrize("pixels", [True, False])
def test_through_is_to_store_and_to_decode(name, pixels):
    made = a_set([4, 4, 4], pixels=pixels)
    quality = [20, 50, 80] if name in PICTURES else None
    images = made.images.reshape(3, 4, *made.spec.shape).clone().requires_grad_()
    found = Through(name, made.spec, quality)(images)
    assert torch.equal(found.flatten(0, 1), made.stored_as(name, quality=quality).decode()[0])
    assert (found.shape, found.requires_grad) == (images.shape, False)


def test_through_refuses_what_it_cannot_store():
    spec = a_set([1]).spec
    with pytest.raises(DataError, match="images must be"):
        Through("4bit", spec)(torch.zeros(2, 3, 16, 16))
    with pytest.raises(ConfigError, match="storage must be one of"):
        Through("gif", spec)


@pytest.mark.parametrize("name", CODECS)
def test_what_does_not_fit_is_refused_in_one_line(name):
    with pytest.raises(ConfigError, match=rf"the 4 images of class 1 \('c1'\) take more than 60 bytes .*{name}.*: "):
        a_set([1, 4]).select([1]).stored_as(name, room=60)
    with pytest.raises(ConfigError, match="room must be an integer of at least 1"):
        a_set([1]).stored_as(name, room=0)


def test_quality_is_checked():
    made = a_set([2, 2])
    for quality in (0, 101, True, "high"):
        with pytest.raises(ConfigError, match="quality"):
            made.stored_as("avif-mosaic", quality=quality)
    with pytest.raises(ConfigError, match="one value for each of 2 classes, got 3"):
        made.stored_as("avif-mosaic", quality=[1, 2, 3])
    with pytest.raises(ConfigError, match="room= chooses the quality"):
        made.stored_as("avif-mosaic", quality=3, room=1_000)
    for name in ("4bit", "uint8"):
        with pytest.raises(ConfigError, match=f"{name} has no quality"):
            made.stored_as(name, quality=3)
    with pytest.raises(ConfigError, match=r"take more than 1,000 bytes as uint8: 1,\d+, more than plain pixels"):
        made.stored_as("uint8", room=1_000)


def test_other_images_are_refused():
    two = CondensedSet.from_images(torch.zeros(2, 2, 8, 8), torch.tensor([0, 1]), ImageSpec((2, 8, 8), (0, 0), (1, 1)))
    for name in PICTURES:
        with pytest.raises(ConfigError, match=rf"{name} needs images of 1 or 3 channels, got \(2, 8, 8\)"):
            two.stored_as(name)
    assert len(two.stored_as("4bit")) == 2
    spec, labels = ImageSpec((1, 1, 2), (0,), (1,), pixels=False), torch.tensor([0])
    huge = CondensedSet.from_images(torch.tensor([3e38, -3e38]).reshape(1, 1, 1, 2), labels, spec)
    for name in ("4bit", "webp-mosaic"):
        with pytest.raises(DataError, match=f"too large for {name}"):
            huge.stored_as(name)


def test_a_codec_that_pillow_lacks_is_refused_before_any_work(monkeypatch, tmp_path):
    a_set([2]).stored_as("avif-mosaic").save(tmp_path / "set")
    monkeypatch.setattr(features, "check", lambda name: name != "avif")
    with pytest.raises(ConfigError, match=r"avif-mosaic needs AVIF, which this Pillow lacks: install Pillow 11.3"):
        a_set([2]).stored_as("avif-mosaic")
    with pytest.raises(StoreError, match="this Pillow lacks: install Pillow 11"):
        CondensedSet.load(tmp_path / "set")


@pytest.mark.parametrize("name", CODECS)
def test_damaged_codes_are_refused_in_one_line(name):
    stored = a_set([3, 3]).stored_as(name)
    state = stored.to_state()
    for cut in (slice(None, 40), slice(3, None), slice(0, 0)):
        with pytest.raises(DataError, match="it holds no valid condensed set"):
            CondensedSet.from_state({**state, "images": stored.images[cut]})
    empty = torch.zeros(len(stored.images), dtype=torch.uint8)
    if name not in BITS:  # zeros are values, too
        with pytest.raises(DataError, match="it holds no valid condensed set"):
            CondensedSet.from_state({**state, "images": empty})
    with pytest.raises(DataError, match="it holds no valid condensed set"):
        CondensedSet.from_state({**state, "coded": stored.coded.flip(0)})


def test_a_tile_outside_the_picture_is_refused():
    stored = a_set([3]).stored_as("webp-mosaic")
    images, coded = stored.images.clone(), stored.coded.clone()
    images[int(coded[0]) - 1] = 200
    with pytest.raises(DataError, match="is tile 200 of a picture of 4 tiles"):
        CondensedSet.from_state({**stored.to_state(), "images": images})


def test_bits_with_a_bad_range_are_refused():
    stored = a_set([3]).stored_as("4bit")
    images = stored.images.clone()
    images[:4] = torch.tensor([0, 0, 192, 127], dtype=torch.uint8)  # NaN
    with pytest.raises(DataError, match="image 0 has a range that is not finite"):
        CondensedSet.from_state({**stored.to_state(), "images": images})
