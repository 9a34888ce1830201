"""JPEG images one after another in one tensor."""

import io
from contextlib import suppress

import pytest
import torch
from PIL import Image

from condensekit.data.images import ImageSpec
from condensekit.errors import DataError, StoreError
from condensekit.rng import isolated
from condensekit.sets.codecs import CODECS
from condensekit.sets.codes import divided, joined
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.pictures import split

JPEG = CODECS["jpeg"]
SHAPE = (3, 16, 16)


def code(seed, quality=75, shape=(3, 16, 16)):
    with isolated(seed):
        return JPEG.code(torch.randint(256, (1, *shape), dtype=torch.uint8), quality)[0]


@pytest.fixture
def made():
    codes = [code(0), code(1), code(2, 30), code(3)]
    spec = ImageSpec((3, 16, 16), (0.5,) * 3, (0.25,) * 3, {0: "a", 1: "b"})
    return CondensedSet.from_codes(codes, torch.tensor([0, 0, 1, 1]), spec)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 12)])
@pytest.mark.parametrize("quality", [1, 50, 95])
def test_a_code_is_the_file(shape, quality):
    found = code(0, quality, shape)
    with Image.open(io.BytesIO(found.head + found.body)) as image:
        assert (image.height, image.width) == shape[1:]
    assert JPEG.decode([found], shape).shape == (1, *shape)
    with pytest.raises(DataError, match=r"image 0 is a JPEG image of .*, expected \('RGB', 9, 9\)"):
        JPEG.decode([found], (3, 9, 9))


def test_tables_of_a_class_are_written_once():
    qualities = [75, 30, 75, 75, 30, 90, 30]
    codes = [code(seed, quality) for seed, quality in enumerate(qualities)]
    stream, sizes = joined(codes, torch.zeros(7, dtype=torch.int64), JPEG)
    assert divided(stream, sizes, JPEG, SHAPE) == codes
    tables = {c.head for c in codes}
    switches = 3  # back to a quality that the class has had before: one byte
    assert len(stream) == sum(map(len, tables)) + sum(len(c.body) for c in codes) + switches
    assert sizes[3] == len(codes[3].body)


def test_each_class_has_tables_of_its_own():
    codes = [code(seed) for seed in range(4)]
    stream, sizes = joined(codes, torch.tensor([5, 5, 2, 2]), JPEG)
    assert divided(stream, sizes, JPEG, SHAPE) == codes
    assert len(stream) == 2 * len(codes[0].head) + sum(len(c.body) for c in codes)


def test_taking_and_merging_keep_the_images(made):
    rows = torch.tensor([3, 1, 0, 3])
    assert torch.equal(made.take(rows).decode()[0], made.decode()[0][rows])
    halves = made.select([0]), made.select([1])
    assert sum(half.nbytes for half in halves) == made.nbytes
    again = halves[1].merge(halves[0])
    assert torch.equal(again.decode()[0], made.decode()[0])
    assert again.nbytes == made.nbytes
    assert torch.equal(made.stored_as("float32").decode()[0], made.decode()[0])


@pytest.mark.parametrize("place", [0, 1, 400, 700])
def test_damaged_codes_are_refused_when_a_file_is_read(made, tmp_path, place):
    images = made.images.clone()
    images[place : place + 2] = 0
    with suppress(DataError):  # or only the picture of one image is another
        assert len(CondensedSet.from_state({**made.to_state(), "images": images}).decode()[0]) == 4


def test_a_code_of_another_size_is_refused(made, tmp_path):
    small = CondensedSet.from_codes([code(0, shape=(3, 8, 8))], torch.tensor([0]), made.spec)
    small.save(tmp_path / "set")
    with pytest.raises(StoreError, match="image 0 is a JPEG image of"):
        CondensedSet.load(tmp_path / "set")


@pytest.mark.parametrize(
    "bad", [{"coded": None}, {"coded": torch.tensor([1, 2, 3, 4])}, {"images": torch.zeros(4, 3, 16, 16)}]
)
def test_bytes_and_sizes_must_fit(made, bad):
    with pytest.raises(DataError):
        CondensedSet.from_state({**made.to_state(), **bad})


def test_what_is_no_jpeg_is_refused():
    for file in (b"", b"GIF89a", b"\xff\xd8\xff"):
        with pytest.raises(DataError, match="are no JPEG file"):
            split(file)
    with pytest.raises(DataError, match="code 0 is no image stored as jpeg"):
        divided(torch.zeros(5, dtype=torch.uint8), torch.tensor([5]), JPEG, SHAPE)
