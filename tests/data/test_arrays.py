import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from condensekit.data.arrays import as_bytes, as_nchw, as_numbers, as_tensor, check_layout
from condensekit.data.decoding import as_image
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 8, 9), (5, 1, 8, 9)),
        ((5, 8, 9, 3), (5, 3, 8, 9)),
        ((5, 8, 9, 1), (5, 1, 8, 9)),
        ((5, 3, 8, 9), (5, 3, 8, 9)),
        ((5, 4, 8, 9), (5, 4, 8, 9)),
        ((5, 8, 9, 4), (5, 4, 8, 9)),
        ((5, 13, 64, 64), (5, 13, 64, 64)),
        ((5, 64, 64, 13), (5, 13, 64, 64)),
        ((5, 1, 1, 1), (5, 1, 1, 1)),
        ((5, 3, 2, 2), (5, 3, 2, 2)),
    ],
)
def test_the_axis_of_the_channels(shape, expected):
    assert as_nchw(torch.zeros(shape)).shape == expected


@pytest.mark.parametrize("shape", [(5, 3, 8, 3), (5, 1, 8, 3), (5, 8, 8, 8), (5, 13, 8, 8)])
def test_the_axis_of_the_channels_is_asked_for(shape):
    images = torch.zeros(shape)
    with pytest.raises(DataError, match=r"cannot tell the channels .* layout='NCHW' .* layout='NHWC'"):
        as_nchw(images)
    assert as_nchw(images, "NCHW").shape == shape
    assert as_nchw(images, "NHWC").shape == (5, shape[3], shape[1], shape[2])


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((5,), r"must be \(N, C, H, W\)"),
        ((5, 3, 8, 8, 8), r"must be \(N, C, H, W\)"),
        ((5, 784), r"flat rows: pass images.reshape\(-1, 28, 28\)"),
        ((5, 3072), r"reshape\(-1, 3, 32, 32\), or images.reshape\(-1, 32, 32, 3\) if the channels"),
        ((5, 30), r"reshape\(-1, C, H, W\)"),
    ],
)
def test_other_shapes_are_refused(shape, reason):
    with pytest.raises(DataError, match=reason):
        as_nchw(torch.zeros(shape))


def test_unknown_layouts():
    check_layout(None)
    with pytest.raises(ConfigError, match=r"unknown layout 'HWC'\. Did you mean 'NHWC'"):
        check_layout("HWC")
    with pytest.raises(ConfigError, match="unknown layout"):
        ClassImages.from_arrays(np.zeros((2, 8, 8)), [0, 1], layout="nhwc!")


def test_bytes_come_back_from_to_tensor_floats_only():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(as_bytes(pixels / 255), pixels)
    assert torch.equal(as_bytes(torch.from_numpy(pixels.numpy() / 255.0).float()), pixels)
    for other in (pixels / 256, pixels / 255 - 0.5, pixels / 128, torch.full((1, 1, 2, 2), torch.nan)):
        assert as_bytes(other) is other


def arrays(draw):
    """uint8 pixels (N, C, H, W); the same in a random type; and whether that type has the levels of the bytes."""
    count, channels = draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 3, 4, 5]))
    height, width = draw(st.integers(6, 9)), draw(st.integers(6, 9))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    pixels = rng.integers(0, 256, (count, channels, height, width), dtype=np.uint8)
    pixels[0, 0, 0, :2] = 0, 255
    return pixels


TYPES = {
    **{name: lambda pixels, name=name: pixels.astype(name) for name in ("uint8", "uint16", "int16", ">i4", "int64")},
    **{f"whole {name}": lambda pixels, name=name: pixels.astype(name) for name in ("float16", "float32", ">f8")},
    **{f"{name} to 1": lambda pixels, name=name: (pixels / 255).astype(name) for name in ("float32", "float64")},
}


@settings(max_examples=120, deadline=None)
@given(data=st.data(), kind=st.sampled_from(sorted(TYPES)), layout=st.sampled_from(["NCHW", "NHWC"]))
def test_pixels_are_those_that_numpy_reads(data, kind, layout):
    pixels = arrays(data.draw)
    array = TYPES[kind](pixels)
    stored = array if layout == "NCHW" else np.ascontiguousarray(array.transpose(0, 2, 3, 1))
    labels = np.arange(len(pixels)) - 2
    found = ClassImages.from_arrays(stored, labels)
    assert np.array_equal(found.images.numpy(), pixels)
    assert found.labels.tolist() == labels.tolist()
    assert found.spec.mean == pytest.approx((pixels / 255).mean((0, 2, 3)).tolist())
    items = torch.stack([as_image(item) for item in stored])
    assert np.array_equal(np.rint(items.numpy() * (255 if "to 1" in kind else 1)), pixels)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), low=st.floats(-3, -0.1), high=st.floats(0.2, 4), dtype=st.sampled_from(["float32", "float64"]))
def test_normalised_values_stay_what_they_are(data, low, high, dtype):
    array = (low + (high - low) * (arrays(data.draw) / 255)).astype(dtype)
    found = ClassImages.from_arrays(array, np.zeros(len(array), int))
    assert np.array_equal(found.images.numpy(), array.astype(np.float32))
    assert not found.spec.pixels
    assert (set(found.spec.mean), set(found.spec.std)) == ({0.0}, {1.0})


def test_true_and_false_are_white_and_black():
    masks = np.arange(32).reshape(2, 4, 4) % 3 == 0
    found = ClassImages.from_arrays(masks, [0, 1])
    assert np.array_equal(found.images[:, 0].numpy(), masks * np.uint8(255))


def test_a_rounding_beyond_one_is_no_other_unit():
    images = torch.rand(4, 1, 8, 8)
    images[0, 0, 0, :2] = torch.tensor([-1e-7, 1 + 2e-7])
    found = ClassImages.from_arrays(images, [0, 1, 0, 1])
    assert found.spec.pixels
    assert (float(found.images.min()), float(found.images.max())) == (0, 1)


@pytest.mark.parametrize("value", [300, -1, 65535])
def test_integers_beyond_bytes_are_refused(value):
    with pytest.raises(DataError, match=f"got torch.int64 in {min(0, value)}..{max(0, value)}: scale them to 0..255"):
        as_numbers(as_tensor(np.array([[[0, value]]])))


def test_sparse_and_quantised_tensors_are_refused_with_the_way_out():
    images = torch.rand(2, 1, 4, 4)
    for tensor, way_out in (
        (images.to_sparse(), "to_dense"),
        (torch.quantize_per_tensor(images, 0.1, 0, torch.quint8), "dequantize"),
    ):
        with pytest.raises(DataError, match=rf"images must be a dense tensor, .*: pass images.{way_out}\(\)"):
            as_tensor(tensor)
