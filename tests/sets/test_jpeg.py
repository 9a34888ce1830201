"""Sets coded as JPEG."""

import dataclasses

import pytest
import torch

from condensekit.compute import Compute, Machine
from condensekit.data.images import ImageSpec
from condensekit.errors import ConfigError
from condensekit.rng import Draw
from condensekit.selection.base import selected_set
from condensekit.selection.classic import Random
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import Formation
from condensekit.testing import shapes
from tests.reference.jpeg_twin import coded as file_of

ROOM = 2_000


@pytest.fixture
def made():
    with Compute(Machine("cpu", workers=0)) as compute:
        return selected_set(shapes(per_class=20, size=16), Random(), 6, Draw(1), compute)


def total(pixels, quality):
    files = [file_of(image, quality)[0] for image in pixels]
    tables = files[0].index(b"\xff\xda")
    return sum(len(file) - tables + 8 for file in files) + tables


def pixels_of(made, label):
    shown = made.spec.to_pixels(made.decode()[0][made.labels == label])
    return (shown * 255).round().to(torch.uint8)


def test_each_class_has_the_highest_quality_that_fits(made):
    found = made.stored_as("jpeg", room=ROOM)
    assert found.coded is not None
    assert torch.equal(found.labels, made.labels)
    for label, quality in zip(found.classes, found.provenance["storage"]["quality"], strict=True):
        pixels, rows = pixels_of(made, label), found.labels == label
        assert quality == max(q for q in range(1, 96) if total(pixels, q) <= ROOM)
        assert int(found.coded[rows].sum()) + 8 * len(pixels) == total(pixels, quality)
        wanted = torch.stack([file_of(image, quality)[1] for image in pixels])
        torch.testing.assert_close(found.decode()[0][rows], made.spec.normalise(wanted))
        assert found.select([label]).nbytes <= ROOM


def test_packed_and_quantised_images_are_coded_as_they_are_stored(made):
    packed = CondensedSet.from_images(made.images, made.labels, made.spec, formation=Formation(2, "uint8"))
    found = packed.stored_as("jpeg", room=ROOM)
    assert found.formation == Formation(2, "jpeg")
    assert len(found.decode()[0]) == 4 * len(made)


def test_a_coded_set_goes_through_a_file(made, tmp_path):
    found = made.stored_as("jpeg", room=ROOM)
    found.save(tmp_path / "set.safetensors")
    loaded = CondensedSet.load(tmp_path / "set.safetensors")
    assert torch.equal(loaded.images, found.images)
    assert torch.equal(loaded.decode()[0], found.decode()[0])
    assert loaded.nbytes == found.nbytes <= ROOM * len(made.classes)
    assert found.images.nbytes + found.labels.nbytes == found.nbytes


def test_values_that_are_no_pixels_keep_their_range(made):
    spec = dataclasses.replace(made.spec, pixels=False)
    images = 3 * made.images - 1
    found = CondensedSet.from_images(images, made.labels, spec).stored_as("jpeg", room=ROOM)
    low, high = found.provenance["storage"]["range"]
    assert (low, high) == pytest.approx((float(images.min()), float(images.max())))
    assert (found.decode()[0] - images).abs().mean() < (high - low) / 10
    assert all(found.select([label]).nbytes <= ROOM for label in found.classes)


def test_what_does_not_fit_is_refused(made):
    with pytest.raises(ConfigError, match="the 6 images of class -3 take more than 700 bytes at the lowest quality"):
        made.stored_as("jpeg", room=700)
    with pytest.raises(ConfigError, match="room must be"):
        made.stored_as("jpeg", room=0)
    two = CondensedSet.from_images(torch.zeros(2, 2, 8, 8), torch.tensor([0, 1]), ImageSpec((2, 8, 8), (0, 0), (1, 1)))
    with pytest.raises(ConfigError, match=r"1 or 3 channels, got \(2, 8, 8\)"):
        two.stored_as("jpeg", room=ROOM)


def test_soft_labels_take_their_part(made):
    soft = CondensedSet.from_images(made.images, made.labels, made.spec, soft_labels=torch.zeros(len(made), 5))
    found, plain = soft.stored_as("jpeg", room=ROOM), made.stored_as("jpeg", room=ROOM)
    assert all(found.select([label]).nbytes <= ROOM for label in found.classes)
    assert found.provenance["storage"]["quality"] <= plain.provenance["storage"]["quality"]
