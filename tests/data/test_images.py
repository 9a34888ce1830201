import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from condensekit.data.images import ClassImages, ImageSpec, as_labels, channel_statistics
from condensekit.errors import DataError
from condensekit.rng import Draw


def numbered(sizes, size=2):
    """Grey images whose every pixel is their index modulo 256; class k has sizes[k] images, labels mixed."""
    labels = torch.cat([torch.full((n,), label) for label, n in sizes.items()])
    labels = labels[Draw(3).permutation("mix", len(labels))]
    images = (torch.arange(len(labels)) % 256).to(torch.uint8)[:, None, None, None].expand(-1, 1, size, size)
    return ClassImages.from_arrays(images.contiguous(), labels, mean=[0.0], std=[1.0])


def test_groups_by_class_and_keeps_gaps_and_negative_labels():
    data = numbered({42: 3, -5: 2, 7: 1})
    assert data.classes == (-5, 7, 42)
    assert [data.count(label) for label in data.classes] == [2, 1, 3]
    for label in data.classes:
        indices = data.indices_of(label)
        assert (data.labels[indices] == label).all()
        assert torch.equal(indices, indices.sort().values)


def test_strings_become_class_names():
    data = ClassImages.from_arrays(np.zeros((3, 4, 4), np.uint8), ["horse", "cat", "horse"])
    assert data.spec.class_names == {0: "cat", 1: "horse"}
    assert data.labels.tolist() == [1, 0, 1]
    assert data.spec.name_of(1) == "1 ('horse')"
    assert data.spec.name_of(9) == "9"


def test_labels_may_be_a_column_or_objects_that_are_strings():
    images = np.zeros((3, 4, 4), np.uint8)
    for column in (np.array([[7], [2], [7]]), torch.tensor([[7], [2], [7]])):
        assert ClassImages.from_arrays(images, column).labels.tolist() == [7, 2, 7]
    for names in (np.array(["horse", "cat", "horse"], dtype=object), np.array([["horse"], ["cat"], ["horse"]])):
        assert ClassImages.from_arrays(images, names).spec.class_names == {0: "cat", 1: "horse"}


def test_known_names_number_strings():
    labels, names = as_labels(np.array([b"b", b"a"]), {4: "a", 9: "b"})
    assert labels.tolist() == [9, 4]
    assert names == {4: "a", 9: "b"}
    with pytest.raises(DataError, match="unknown class 'c'; known: a, b"):
        as_labels(["c"], {4: "a", 9: "b"})


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.dictionaries(st.integers(-9, 99), st.integers(1, 12), min_size=1, max_size=4),
    n=st.integers(1, 30),
    seed=st.integers(0, 2**40),
)
def test_draws_stay_in_their_class_and_repeat_only_after_a_whole_pass(sizes, n, seed):
    data = numbered(sizes)
    picked = data.draw_indices(data.classes, n, Draw(seed))
    assert picked.shape == (len(sizes), n)
    for label, row in zip(data.classes, picked, strict=True):
        assert (data.labels[row] == label).all()
        times = torch.bincount(row, minlength=len(data.labels))[data.indices_of(label)]
        assert times.max() - times.min() <= 1


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**40), n=st.integers(1, 7))
def test_a_class_draws_the_same_alone_and_beside_others(seed, n):
    data, draw = numbered({0: 5, 7: 9, 42: 3}), Draw(seed, 2)
    whole = data.draw_indices([0, 7, 42], n, draw)
    assert torch.equal(whole[1:2], data.draw_indices([7], n, draw))
    assert torch.equal(whole[1:2], data.select([7]).draw_indices([7], n, draw))


@pytest.mark.parametrize("n", [1, 3, 6, 9])
def test_every_image_is_equally_likely(n):
    data, trials = numbered({1: 7}), 4000
    counts = torch.zeros(7)
    for step in range(trials):
        counts += torch.bincount(data.draw_indices([1], n, Draw(11, step))[0], minlength=7)
    expected = trials * n / 7
    spread = (trials * (n % 7 / 7) * (1 - n % 7 / 7)) ** 0.5
    assert ((counts - expected).abs() < 4.5 * spread).all(), counts


def test_sample_gives_normalised_pixels_of_the_drawn_images():
    data = ClassImages.from_arrays(
        torch.arange(0, 240, 2, dtype=torch.uint8).reshape(10, 3, 2, 2), [0, 1] * 5, mean=[0.1, 0.2, 0.3], std=[1, 2, 4]
    )
    drawn = data.sample([1, 0], 3, Draw(1))
    assert drawn.shape == (2, 3, 3, 2, 2)
    assert drawn.dtype == torch.float32
    source = data.images[data.draw_indices([1, 0], 3, Draw(1))].double() / 255
    expected = (source - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([1.0, 2.0, 4.0])[:, None, None]
    torch.testing.assert_close(drawn.double(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(data.spec.to_pixels(drawn).double(), source, rtol=0, atol=1e-6)


def test_select_subset_and_split_keep_source_indices():
    data = numbered({0: 10, 3: 20, 5: 4})
    part = data.select([5, 3])
    assert part.classes == (3, 5)
    assert len(part) == 24
    assert torch.equal(part.indices_of(5), data.indices_of(5))
    rest, held = data.split(0.25, Draw(0))
    assert {label: held.count(label) for label in held.classes} == {0: 2, 3: 5, 5: 1}
    assert sorted(torch.cat([rest.order, held.order]).tolist()) == list(range(34))
    assert rest.images is data.images
    again, _ = data.split(0.25, Draw(0))
    assert torch.equal(rest.order, again.order)
    few = data.subset(torch.tensor([8, 1]))
    assert sorted(few.order.tolist()) == [1, 8]
    assert few.to("cpu").order.tolist() == few.order.tolist()


def test_absent_class_and_bad_fraction_are_refused():
    data = numbered({0: 2, 3: 2})
    with pytest.raises(DataError, match=r"no images of class 9; classes here: \[0, 3\]"):
        data.select([9])
    with pytest.raises(DataError, match=r"between 0 and 1, got 1.5"):
        data.split(1.5, Draw(0))


def test_a_split_leaves_something_of_each_class():
    data = numbered({0: 9, 4: 1, 6: 2})
    with pytest.raises(DataError, match=r"class 4 has 1 images, and holding out 0.2 of them leaves none: .*select"):
        data.split(0.2, Draw(0))
    with pytest.raises(DataError, match=r"class 6 has 2 images, and holding out 0.9 of them leaves none"):
        data.select([0, 6]).split(0.9, Draw(0))
    assert [part.classes for part in data.select([0, 6]).split(0.2, Draw(0))] == [(0, 6), (0, 6)]


def test_floats_that_are_no_pixels_show_it():
    pixels, labels = torch.rand(3, 1, 2, 2), [0, 1, 2]
    floats = ClassImages.from_arrays(pixels, labels).spec
    assert floats.pixels
    assert floats.range == ((0.0,), (1.0,))
    whole = ClassImages.from_arrays((255 * pixels).byte(), labels)
    assert whole.spec.range is not None
    low, high = whole.spec.range
    ends = whole.spec.normalise(torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1)).flatten()
    torch.testing.assert_close(torch.tensor([*low, *high]), ends)
    beyond = ClassImages.from_arrays(torch.tensor([-1.5, 0.5, 3.0]).reshape(3, 1, 1, 1), labels).spec
    assert not beyond.pixels
    assert beyond.range is None


def test_statistics_are_those_of_the_pixels():
    pixels = torch.randint(0, 256, (20, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels[:, 2] = 51
    mean, std = channel_statistics(pixels)
    values = pixels.double() / 255
    assert mean == pytest.approx(values.mean((0, 2, 3)).tolist())
    assert std[:2] == pytest.approx(values.std((0, 2, 3), correction=0).tolist()[:2])
    assert std[2] == 1.0  # a constant channel must not divide by zero
    kept = ClassImages.from_arrays(pixels, [0] * 20, mean=np.array([0.5, 0.5, 0.5]))
    assert kept.spec.mean == (0.5, 0.5, 0.5)
    assert kept.spec.std == std


def test_fingerprint_tells_sets_apart():
    data = numbered({0: 5, 1: 5})
    images = data.images.clone()
    images[3, 0, 1, 1] += 1
    others = [
        ClassImages(images, data.labels, data.spec),
        ClassImages(data.images, 1 - data.labels, data.spec),
        data.select([0]),
    ]
    prints = {one.fingerprint() for one in [data, *others]}
    assert len(prints) == 4
    assert numbered({0: 5, 1: 5}).fingerprint() == data.fingerprint()


def test_float_images_are_taken_as_they_are():
    images = torch.linspace(-2, 2, 2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    data = ClassImages.from_arrays(images, [0, 1])
    assert data.spec.mean == (0.0, 0.0, 0.0)
    assert torch.equal(data.gather(torch.tensor([1])), images[1:])


def test_spec_survives_json():
    spec = ImageSpec((3, 4, 5), (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), {-1: "a", 42: "b"})
    assert ImageSpec.from_json(spec.to_json()) == spec
    assert spec.classes == (-1, 42)


GREY = np.zeros((4, 8, 8), np.uint8)


def test_specs_of_version_0_1_are_flippable_pixels():
    record = ImageSpec((1, 8, 8), (0.5,), (0.25,), {0: "cat"}, flippable=False, pixels=False).to_json()
    assert not ImageSpec.from_json(record).flippable
    assert not ImageSpec.from_json(record).pixels
    del record["flippable"], record["pixels"]
    assert ImageSpec.from_json(record) == ImageSpec((1, 8, 8), (0.5,), (0.25,), {0: "cat"})


def test_specs_that_fit_in_one_batch():
    spec = ImageSpec((1, 8, 8), (0.5,), (0.25,), {0: "cat"})
    assert spec.alike(ImageSpec((1, 8, 8), (0.5,), (0.25,), {7: "horse"}, flippable=False))
    for other in (ImageSpec((1, 9, 8), (0.5,), (0.25,)), ImageSpec((1, 8, 8), (0.4,), (0.25,))):
        assert not spec.alike(other)


def test_the_same_images_with_another_spec():
    data = numbered({0: 9, 4: 5})
    part = data.split(0.2, seed=0)[0]
    upright = part.with_spec(flippable=False, class_names={0: "zero", 4: "four"})
    assert (upright.spec.flippable, part.spec.flippable) == (False, True)
    assert upright.spec.name_of(4) == "4 ('four')"
    assert torch.equal(upright.order, part.order)
    assert upright.images is part.images
    assert upright.fingerprint() == part.fingerprint()
    assert all(not half.spec.flippable for half in upright.split(0.5))


@pytest.mark.parametrize(
    ("images", "labels", "reason"),
    [
        (np.zeros((4, 8, 8, 3), np.uint8), [0] * 4, r"look like \(N, H, W, C\)"),
        (np.zeros((4, 8), np.uint8), [0] * 4, r"must be \(N, C, H, W\) or \(N, H, W\), got shape \(4, 8\)"),
        (GREY.astype(np.float64), [0] * 4, r"got torch.float64: convert with astype\('float32'\)"),
        (GREY.astype(np.int64), [0] * 4, r"got torch.int64: convert with astype\('uint8'\)"),
        (GREY.astype(np.uint16) + 256, [0] * 4, r"got torch.uint16: scale them to 0..255 first, 16 bits by .*// 257"),
        (GREY.astype(np.int64) - 1, [0] * 4, "got torch.int64: scale them"),
        (GREY > 0, [0] * 4, r"got torch.bool: pass images.astype\('uint8'\) \* 255"),
        (GREY, [0] * 3, r"expected 4 labels, one for each image, got shape \(3,\)"),
        (GREY, np.zeros(4), r"labels must be integers or strings, got float64: convert with astype\(int\)"),
        (GREY, [0, 1, np.nan, 1], "got float64: correct the labels that are neither"),
        (GREY, np.array(["a", None, "b", "a"]), "got object: correct the labels that are neither"),
        (GREY, np.full((4, 2), "a"), r"must be \(N,\) integers or strings, got shape \(4, 2\)"),
        (GREY, np.eye(4, dtype=int), r"got shape \(4, 4\); one-hot rows: pass labels.argmax\(1\)"),
        (GREY, np.zeros(4, bool), "got bool"),
        (GREY[:0], [], "the set is empty"),
        (np.array(["a.png"] * 4), [0] * 4, "images must be an array of uint8 or float32, got <U5: can't convert"),
        (np.ma.masked_equal(GREY, 0), [0] * 4, r"images have masked values: fill them, say with images.filled\(0\)"),
    ],
)
def test_ill_fitting_arrays_are_refused(images, labels, reason):
    with pytest.raises(DataError, match=reason):
        ClassImages.from_arrays(images, np.array(labels, dtype=int) if len(labels) == 0 else labels)


def test_reversed_axes_graphs_and_single_numbers_are_taken():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 5)).astype(np.uint8)
    data = ClassImages.from_arrays(pixels[:, ::-1], [0] * 4)
    assert torch.equal(data.images.flip(1), torch.from_numpy(pixels))
    learnt = torch.rand(4, 1, 5, 5, requires_grad=True)
    data = ClassImages.from_arrays(learnt, [0] * 4)
    assert ClassImages(learnt, data.labels, data.spec).fingerprint() == data.fingerprint()
    assert ClassImages.from_arrays(GREY, [0] * 4, mean=0.5, std=np.float32(0.25)).spec.std == (0.25,)
    with pytest.raises(DataError, match="mean and std need one value for each of the 3 channels, got 1 and 1"):
        ClassImages.from_arrays(pixels, [0] * 4, mean=0.5, std=0.25)


def test_spec_must_fit():
    images, labels = torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(DataError, match=r"images must be \(N, 3, 4, 4\), got shape \(1, 1, 4, 4\)"):
        ClassImages(images, labels, ImageSpec((3, 4, 4), (0.0,) * 3, (1.0,) * 3))
    with pytest.raises(DataError, match="must be normalised already"):
        ClassImages(images.float(), labels, ImageSpec((1, 4, 4), (0.5,), (1.0,)))
    for shape, mean, std in [((3, 4), (0,), (1,)), ((1, 4, 4), (0, 0), (1,)), ((1, 4, 4), (0,), (0,)), ((), (), ())]:
        with pytest.raises(DataError):
            ImageSpec(shape, mean, std)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_pixel_is_named_by_index(value):
    images = torch.zeros(9, 1, 4, 4)
    images[5, 0, 2, 2] = value
    with pytest.raises(DataError, match="image 5 has a pixel that is not finite"):
        ClassImages.from_arrays(images, [0] * 9)


@pytest.mark.parametrize("high", [16, 255])
def test_floats_that_are_bytes_are_refused(high):
    images = torch.linspace(0, high, 17).round().reshape(17, 1, 1, 1).expand(-1, 1, 2, 2)
    reason = rf"these are whole numbers in 0..{high}: pass them with astype\('uint8'\), or divide"
    with pytest.raises(DataError, match=reason):
        ClassImages.from_arrays(images.numpy(), [0] * 17)
    for fine in (images / 255, images - 1, images * 2.5, (images > 3).float()):
        assert len(ClassImages.from_arrays(fine, [0] * 17)) == 17


def test_a_thousand_classes():
    labels = torch.arange(5000) % 1000
    data = ClassImages.from_arrays(torch.zeros(5000, 3, 8, 8, dtype=torch.uint8), labels)
    data.sample(data.classes, 4, Draw(0))
    started = time.perf_counter()
    drawn = data.sample(data.classes, 4, Draw(1))
    assert drawn.shape == (1000, 4, 3, 8, 8)
    assert time.perf_counter() - started < 1
