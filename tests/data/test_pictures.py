"""Picture files: the formats that are read, what becomes of alpha, EXIF and 16 bits, and limits."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image, ImageDraw

from condensekit.data import decoding, pictures
from condensekit.data.decoding import as_image
from condensekit.errors import DataError, StoreError
from condensekit.progress import SILENT

NOISE = np.random.default_rng(0)
GREY = Image.fromarray(NOISE.integers(0, 256, (6, 4), dtype=np.uint8))
COLOUR = Image.fromarray(NOISE.integers(0, 256, (6, 4, 3), dtype=np.uint8))
LEVELS = NOISE.integers(0, 65536, (6, 4)).astype(np.uint16)


def save(path, image, **options):
    image.save(path, **options)
    return path


def read(*files, size=None):
    """The pixels (N, C, H, W) and the notes."""
    found, notes = pictures.read(files, size, None, SILENT)
    return found.numpy(), notes


def test_files_are_decoded_in_order_and_greys_join_colours(tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(40)]
    for i, file in enumerate(files):
        Image.new("RGB" if i == 30 else "L", (4, 4), (i, i, i) if i == 30 else i).save(file)
    mixed, notes = read(*files)
    assert mixed.shape == (40, 3, 4, 4)
    assert mixed[:, 0, 0, 0].tolist() == list(range(40))
    assert notes == ["39 images in grey repeated to 3 channels"]
    alone, notes = read(*files[:30])
    assert (alone.shape, notes) == ((30, 1, 4, 4), [])


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "gif", "ppm", "webp"])
def test_formats_without_loss(tmp_path, ending):
    options = {"webp": {"lossless": True}}.get(ending, {})
    image = COLOUR.quantize(24) if ending == "gif" else COLOUR
    found, notes = read(save(tmp_path / f"a.{ending.upper()}", image, **options))
    assert np.array_equal(found[0], np.asarray(COLOUR).transpose(2, 0, 1))
    assert notes == []


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_16_bits_are_cut_to_8_and_not_clipped(tmp_path, name):
    found, notes = read(save(tmp_path / name, Image.fromarray(LEVELS)))
    assert np.array_equal(found[0, 0], LEVELS >> 8)
    assert notes == ["1 image cut from 16 to 8 bits"]
    with Image.open(tmp_path / name) as image, pytest.raises(DataError, match="more than 8 bits"):
        as_image(image)


def test_16_bits_with_a_transparent_level(tmp_path):
    found, _ = read(save(tmp_path / "a.png", Image.fromarray(LEVELS), transparency=int(LEVELS[2, 1])))
    assert found[0, 0, 2, 1] == 255
    assert (found[0, 0] == LEVELS >> 8).sum() >= 23


@pytest.mark.parametrize("kind", ["I", "F"])
def test_32_bits_are_refused(tmp_path, kind):
    path = save(tmp_path / "a.tif", Image.new(kind, (4, 4)))
    with pytest.raises(DataError, match=rf"cannot read the image .*a\.tif: it has 32 bits per pixel \(mode {kind}\)"):
        read(path)


@pytest.mark.parametrize(("image", "channels"), [(GREY.convert("1"), 1), (COLOUR.convert("CMYK"), 3)])
def test_one_bit_and_cmyk(tmp_path, image, channels):
    found, _ = read(save(tmp_path / "a.tif", image))
    assert np.array_equal(
        found[0], np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(6, 4, -1).transpose(2, 0, 1)
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L", "PA"])
def test_transparent_parts_become_white(tmp_path, mode):
    """Black drawings on a transparent ground, in every way that files have to say so."""
    drawing = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    ImageDraw.Draw(drawing).rectangle((2, 2, 5, 5), fill=(0, 0, 0, 255))
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    options: dict[str, int | tuple[int, int, int]] = {}
    if mode == "P":
        image = drawing.convert("P")
        image.putpalette([0] * 768)
        image.putdata([int(alpha > 0) for alpha in drawing.getchannel("A").tobytes()])
        options = {"transparency": 0}
    elif mode in ("RGB", "L"):
        image = Image.new(mode, (8, 8), "red" if mode == "RGB" else 7)
        ImageDraw.Draw(image).rectangle((2, 2, 5, 5), fill=0)
        options = {"transparency": (255, 0, 0)} if mode == "RGB" else {"transparency": 7}
    else:
        image = drawing.convert(mode)
    if mode == "PA":
        assert as_image(image)[0, 0, 0] == 255
        return
    found, notes = read(save(tmp_path / "a.png", image, **options))
    assert (found[0, 0] == 0).sum() == 16
    assert (found[0] == 255).sum() == 48 * found.shape[1]
    assert notes == ["1 image with an alpha channel laid on white"]
    assert as_image(half)[:, 0, 0].tolist() == [127, 127, 127]


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_exif_orientation_is_applied(tmp_path, turn, ending):
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = turn
    blocks = Image.fromarray(np.kron(np.array([[0, 80, 160], [255, 200, 40]], np.uint8), np.ones((16, 16), np.uint8)))
    options = {"jpg": {"quality": 100}, "webp": {"lossless": True}}.get(ending, {})
    path = save(tmp_path / f"a.{ending}", blocks.convert("RGB"), exif=exif, **options)
    found, notes = read(path)
    wanted = np.asarray(blocks.transpose(decoding.TURNS[turn]) if turn > 1 else blocks).astype(int)
    assert np.abs(found[0, 0].astype(int) - wanted).max() <= 3
    assert notes == (["1 image turned by their EXIF orientation"] if turn > 1 else [])
    same, _ = read(path, save(tmp_path / "b.png", Image.fromarray(wanted.astype(np.uint8))))
    assert len(same) == 2


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_counts_as_none(tmp_path):
    found, notes = read(save(tmp_path / "a.jpg", COLOUR, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05junk"))
    assert (found.shape, notes) == ((1, 3, 6, 4), [])


@pytest.mark.parametrize("ending", ["gif", "webp", "tif", "png"])
def test_the_first_frame_is_read(tmp_path, ending):
    frames = [Image.new("L", (4, 4), level).convert("RGB") for level in (10, 200, 90)]
    options = {"lossless": True} if ending == "webp" else {}
    found, notes = read(save(tmp_path / f"a.{ending}", frames[0], save_all=True, append_images=frames[1:], **options))
    assert np.unique(found).tolist() == [10]
    assert notes[0] == "1 image with several frames or pages: the first is read"


def test_no_program_is_started_for_text_of_another_format(tmp_path, monkeypatch):
    """Pillow starts Ghostscript for PostScript, whatever the name of the file."""
    monkeypatch.setattr(shutil, "which", lambda *_: pytest.fail("a program is looked for"))
    text = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    (tmp_path / "a.png").write_bytes(text)
    save(tmp_path / "b.png", COLOUR, format="TGA")
    with pytest.raises(DataError, match=r"cannot read 2 images: .*a\.png: it is no image, .*b\.png: it is no image"):
        read(tmp_path / "a.png", tmp_path / "b.png")


@pytest.mark.parametrize("damage", ["empty", "text", "cut"])
def test_damaged_images_are_all_named(tmp_path, damage):
    good = save(tmp_path / "good.png", Image.fromarray(NOISE.integers(0, 256, (24, 20, 3), dtype=np.uint8)))
    bad = [tmp_path / f"bad{i:02}.png" for i in range(40)]
    for file in bad:
        file.write_bytes({"empty": b"", "text": b"hello", "cut": good.read_bytes()[:400]}[damage])
    with pytest.raises(DataError, match=r"cannot read the image .*bad00\.png: .*; repair or remove it"):
        read(good, bad[0])
    with pytest.raises(
        DataError, match=r"cannot read 40 images: .*bad00.*bad09\.png: [^;]*; and 30 more; repair or rem"
    ):
        read(good, *bad, good)


def test_a_decompression_bomb_is_refused_by_name(tmp_path):
    path = save(tmp_path / "bomb.png", Image.new("1", (10_000, 9_000)))
    with pytest.raises(DataError, match=r"bomb\.png: it has 10,000 x 9,000 pixels, more than"):
        read(path)


def test_the_bytes_of_all_images_are_bounded(tmp_path, monkeypatch):
    """Four files of 92 KB took 4.5 GB; sizes are known from the headers."""
    files = [save(tmp_path / f"{i}.png", Image.new("RGB", (64, 64))) for i in range(4)]
    monkeypatch.setattr(decoding, "MAX_BYTES", 4 * 3 * 64 * 64 - 1)
    reason = (
        r"4 images need 49,152 bytes of memory, more than the limit of 49,151: use a smaller image_size=N, or mmap="
    )
    with pytest.raises(DataError, match=reason):
        read(*files)
    assert read(*files, size=8)[0].shape == (4, 3, 8, 8)
    mapped, _ = pictures.read(files, None, tmp_path / "maps" / "a.npy", SILENT)
    assert len(mapped) == 4


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_too_little_memory_says_how_much_is_needed(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    path = save(tmp_path / "a.png", COLOUR)
    monkeypatch.setattr(pictures, "from_pil" if isinstance(error, MemoryError) else "stacked", fail)
    with pytest.raises(
        DataError, match=r"not enough memory for images of 72 bytes: use a smaller image_size=N, or mmap="
    ):
        read(path)


def test_notes_are_kept_with_mapped_images(tmp_path):
    files = [save(tmp_path / "a.png", COLOUR.convert("RGBA"))]
    first = pictures.read(files, None, tmp_path / "maps" / "a.npy", SILENT)[1]
    again = pictures.read(files, None, tmp_path / "maps" / "a.npy", SILENT)[1]
    assert first == again == ["1 image with an alpha channel laid on white"]
    (tmp_path / "maps" / "a.json").write_text("{")
    with pytest.raises(StoreError, match=r"a\.json"):
        pictures.read(files, None, tmp_path / "maps" / "a.npy", SILENT)


def test_photographs_with_a_preview_are_no_animations(tmp_path):
    """Cameras and telephones write MPO: a JPEG with further JPEGs behind it."""
    buffer = io.BytesIO()
    COLOUR.save(buffer, "MPO", save_all=True, append_images=[GREY.convert("RGB")])
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    found, notes = read(tmp_path / "a.jpg")
    assert (found.shape, notes) == ((1, 3, 6, 4), [])


def test_all_damaged_files_are_named_whatever_the_damage(tmp_path):
    """The header of one file is unreadable, the pixels of two others are: one error names the three."""
    noise = Image.effect_noise((64, 64), 90)
    files = [save(tmp_path / f"{name}.png", noise) for name in "abcd"]
    for cut in (files[0], files[3]):
        cut.write_bytes(cut.read_bytes()[:400])
    files[2].write_bytes(b"hello")
    with pytest.raises(
        DataError, match=r"cannot read 3 images: .*a\.png: .*; .*c\.png: it is no image.*; .*d\.png: "
    ) as told:
        read(*files)
    assert "b.png" not in str(told.value)


def test_pictures_that_become_squares_are_counted(tmp_path):
    """Photographs of a camera, and one that is a square but for a row."""
    sizes = [(30, 20), (20, 30), (100, 99)]
    files = [save(tmp_path / f"{i}.png", Image.new("RGB", size)) for i, size in enumerate(sizes)]
    assert read(*files, size=8)[1] == ["2 images stretched to a square: height and width differ"]
    assert read(*files[1:], size=8)[1] == ["1 image stretched to a square: height and width differ"]
    assert read(files[0])[1] == []
