"""The controls: real images packed two by two, and real images coded as JPEG, each counted in the bytes it takes."""

import pytest
import torch

from condensekit.compute import Compute, Machine
from condensekit.data.images import ClassImages
from condensekit.driver import condense
from condensekit.errors import ConfigError, DataError
from condensekit.methods import DistributionMatching
from condensekit.methods.encoders import Fresh
from condensekit.methods.recipe import Recipe
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw
from condensekit.selection.base import selected_set
from condensekit.selection.classic import KMeans, Random
from condensekit.selection.embeddings import Pixels
from condensekit.selection.jpeg_random import JpegRandom
from condensekit.sets.codecs import CODECS
from condensekit.sets.codes import joined
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import Formation
from condensekit.sets.packing import pack
from condensekit.testing import LABELS, shapes
from tests.reference.jpeg_twin import coded, taken


@pytest.fixture
def compute():
    with Compute(Machine("cpu", workers=0)) as compute:
        yield compute


@pytest.mark.parametrize("selection", [Random(), KMeans(Pixels())])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_packed_images_are_the_chosen_ones_shrunk(compute, selection, dtype):
    data = shapes(size=8)
    made = selected_set(data, selection, 2, Draw(1), compute, Formation(2, dtype))
    assert (len(made), made.ipc, made.classes) == (2 * len(LABELS), 2, LABELS)
    chosen = selection(data, 8, Draw(1), compute).indices
    assert made.provenance["indices"] == chosen.tolist()
    packed = pack(data.gather(chosen), 2)
    step = 0.0 if dtype == "float32" else float(packed.max() - packed.min()) / 255
    images, labels = made.decode()
    assert labels.tolist() == data.labels[chosen].tolist()
    assert len(images) == 8 * len(LABELS)
    expected = CondensedSet.from_images(packed, made.labels, data.spec, formation=Formation(2)).decode()[0]
    assert (images - expected).abs().max() <= step
    assert made.nbytes == selected_set(data, Random(), 2, Draw(1), compute, Formation(1, dtype)).nbytes


def test_packed_random_is_where_a_packed_condensation_starts(compute):
    data = shapes(size=8)
    made = selected_set(data, Random(), 1, Draw(3), compute, Formation(2))
    method = DistributionMatching(batch_real=4, lr=1e-30)
    recipe = Recipe(method, Fresh(ConvNet(width=8)), augmentation=None, formation=Formation(2))
    result = condense(data, recipe, ipc=1, steps=1, seed=3, machine=Machine("cpu", workers=1))
    torch.testing.assert_close(result.set.images, made.images)


def test_packing_needs_images_enough_and_a_fitting_size(compute):
    with pytest.raises(DataError, match=r"class 42 has 15 images but ipc=4 with factor=2, which takes 16: lower ipc"):
        selected_set(shapes(), Random(), 4, Draw(0), compute, Formation(2))
    with pytest.raises(ConfigError, match="factor 3 does not divide the image size 8x8: use another factor, or 1"):
        selected_set(shapes(), Random(), 1, Draw(0), compute, Formation(3))


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("quality", [30, 75])
def test_jpeg_images_fill_the_bytes_of_raw_ones(compute, grey, quality):
    data = shapes(per_class=40, size=16)
    if grey:
        data = ClassImages.from_arrays(data.images[:, :1], data.labels)
    ipc = 5
    room = ipc * (data.images[0].numel() + 8)
    made = selected_set(data, JpegRandom(quality), ipc, Draw(2), compute)
    images, _ = made.decode()
    assert made.coded is not None
    for label in made.classes:
        rows = (made.labels == label).nonzero()[:, 0]
        own = [made.provenance["indices"][row] for row in rows]
        assert len(set(own)) == len(own)
        files, pictures = zip(*(coded(data.images[index], quality) for index in own), strict=True)
        tables = files[0].index(b"\xff\xda")
        assert all(file[:tables] == files[0][:tables] for file in files)  # the same in all: they count once
        total = tables + sum(len(file) - tables for file in files)
        assert int(made.coded[rows].sum()) == total
        total += 8 * len(own)  # the labels
        assert total <= room
        assert total > room - max(map(len, files)) - 8 or len(own) == data.count(label)
        torch.testing.assert_close(images[rows], data.spec.normalise(torch.stack(pictures)))
    assert made.nbytes == int(made.coded.sum()) + 8 * len(made)


@pytest.mark.parametrize("ipc", [1, 5])
def test_jpeg_takes_what_the_twin_takes(compute, ipc):
    data, draw = shapes(per_class=20, size=16), Draw(3)
    chosen = JpegRandom(50)(data, ipc, draw, compute)
    indices, sizes = [], []
    for label in data.classes:
        order = data.indices_of(label)[draw.permutation(f"jpeg-random/{label}", data.count(label))]
        own = taken(data.images[order], ipc, 50)
        indices += order[: len(own)].tolist()
        sizes += own
    assert chosen.indices.tolist() == indices
    assert chosen.codes is not None
    assert joined(chosen.codes, data.labels[chosen.indices], CODECS["jpeg"])[1].tolist() == sizes
    files = [coded(data.images[index], 50) for index in indices]
    assert [code.head + code.body for code in chosen.codes] == [file for file, _ in files]
    assert torch.equal(CODECS["jpeg"].decode(chosen.codes, data.spec.shape), torch.stack([p for _, p in files]))


def test_jpeg_takes_at_least_one_image_and_counts_it_in_full(compute):
    data = shapes(size=8)
    made = selected_set(data, JpegRandom(), 1, Draw(2), compute)
    assert len(made) == len(LABELS)
    assert made.nbytes > data.images[0].numel() * len(LABELS)


def test_jpeg_follows_the_draw_and_classes_stand_apart(compute):
    data = shapes(per_class=20, size=16)
    first = JpegRandom()(data, 2, Draw(1), compute)
    assert torch.equal(first.indices, JpegRandom()(data, 2, Draw(1), compute).indices)
    assert not torch.equal(first.indices[:4], JpegRandom()(data, 2, Draw(2), compute).indices[:4])
    apart = [JpegRandom()(data.select([label]), 2, Draw(1), compute).indices for label in data.classes]
    assert torch.equal(first.indices, torch.cat(apart))


def test_a_coded_set_keeps_its_bytes(compute, tmp_path):
    made = selected_set(shapes(size=16), JpegRandom(), 2, Draw(0), compute)
    made.save(tmp_path / "set.safetensors")
    loaded = CondensedSet.load(tmp_path / "set.safetensors")
    assert loaded.nbytes == made.nbytes
    assert torch.equal(loaded.images, made.images)
    parts = made.select(LABELS[:2]), made.select(LABELS[2:])
    assert sum(part.nbytes for part in parts) == made.nbytes
    assert parts[0].merge(parts[1]).nbytes == made.nbytes
    plain = selected_set(shapes(size=16), Random(), 2, Draw(0), compute)
    with pytest.raises(DataError, match=r"cannot merge .*jpeg.* stored_as"):
        parts[0].merge(plain)
    assert made.stored_as("uint8").nbytes == plain.select(LABELS).stored_as("uint8").nbytes // len(plain) * len(made)


@pytest.mark.parametrize("bad", [torch.ones(3, dtype=torch.int64), torch.ones(8)])
def test_coded_bytes_must_be_one_whole_number_for_each_image(compute, bad):
    plain = selected_set(shapes(), Random(), 2, Draw(0), compute)
    with pytest.raises(DataError, match=r"coded must be \(8,\) int64"):
        CondensedSet.from_images(plain.images, plain.labels, plain.spec, coded=bad)


def test_coded_images_are_no_start(tmp_path, cli):
    with pytest.raises(ConfigError, match=r"jpeg-random images are stored as JPEG, .* use another start"):
        condense(shapes(), Recipe(DistributionMatching(), init=JpegRandom()), ipc=1, steps=1)
    init = "condensekit.selection.jpeg_random:JpegRandom"
    run = tmp_path / "run"
    code, _, err = cli("condense", "--data", "digits", "--ipc", 1, "--steps", 1, "--init", init, "--out", run)
    assert code == 2
    assert "jpeg-random images are stored as JPEG" in err
    assert not run.exists()


def test_what_jpeg_cannot_code_is_refused(compute):
    for quality in (0, 96, 75.5):
        with pytest.raises(ConfigError, match=f"quality must be an integer in 1 to 95, got {quality}"):
            JpegRandom(quality)
    data = shapes()
    floats = ClassImages.from_arrays(data.gather(torch.arange(len(data))), data.labels)
    with pytest.raises(ConfigError, match=r"needs 8-bit images of 1 or 3 channels, got torch.float32.*give 8-bit"):
        JpegRandom()(floats, 1, Draw(0), compute)
    for formation in (Formation(2), Formation(dtype="uint8")):
        with pytest.raises(ConfigError, match="leave out factor and storage"):
            selected_set(data, JpegRandom(), 1, Draw(0), compute, formation)
    with pytest.raises(DataError, match="15 images but ipc=16"):
        JpegRandom()(data, 16, Draw(0), compute)
