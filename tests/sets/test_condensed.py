import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from condensekit.data.images import ImageSpec
from condensekit.errors import ConfigError, DataError, StoreError
from condensekit.sets.checks import escaped
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import DTYPES, Formation
from condensekit.sets.packing import pack, unpack
from tests.reference import packing_twin

SPEC = ImageSpec((3, 4, 6), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), {0: "cat", 7: "horse", 42: "ship"})
LABELS = torch.tensor([0, 0, 7, 42, 42])


def make(seed=0, labels=LABELS, spec=SPEC, **formation):
    images = torch.randn(len(labels), *spec.shape, generator=torch.Generator().manual_seed(seed))
    return CondensedSet.from_images(images, labels, spec, formation=Formation(**formation), provenance={"seed": seed})


def with_soft_labels(condensed):
    rows = len(condensed) * condensed.formation.factor**2
    soft = torch.rand(rows, 3, generator=torch.Generator().manual_seed(1))
    return dataclasses.replace(condensed, soft_labels=soft)


@given(
    values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=16, max_size=16),
)
def test_quantisation_error_is_at_most_half_a_level(values):
    images = torch.tensor(values).reshape(1, 1, 4, 4)
    condensed = CondensedSet.from_images(
        images,
        torch.zeros(1, dtype=torch.int64),
        ImageSpec((1, 4, 4), (0.0,), (1.0,)),
        formation=Formation(dtype="uint8"),
    )
    level = (images.max() - images.min()) / 255
    error = (condensed.decode()[0] - images).abs().max()
    assert error <= 0.5 * level + 4e-7 * images.abs().max()


def test_a_constant_image_survives_quantisation():
    images = torch.full((1, *SPEC.shape), 0.7)
    stored = CondensedSet.from_images(images, LABELS[:1], SPEC, formation=Formation(dtype="uint8"))
    assert torch.equal(stored.decode()[0], images)


@pytest.mark.parametrize(("dtype", "per_value"), [("float32", 4), ("float16", 2), ("uint8", 1)])
def test_nbytes_counts_every_stored_byte(dtype, per_value):
    condensed = make(dtype=dtype)
    ranges = 5 * 3 * 2 * 4 if dtype == "uint8" else 0
    assert condensed.images.dtype == DTYPES[dtype]
    assert condensed.nbytes == 5 * 3 * 4 * 6 * per_value + ranges + 5 * 8
    assert with_soft_labels(condensed).nbytes == condensed.nbytes + 5 * 3 * 4


def test_decode_gives_normalised_float32_and_labels():
    images, labels = make().decode()
    assert images.dtype == torch.float32
    assert torch.equal(images, make().images)
    assert torch.equal(labels, LABELS)
    assert make().classes == (0, 7, 42)
    assert make().ipc == 2
    assert len(make()) == 5


@pytest.mark.parametrize(("factor", "size"), [(2, (4, 6)), (2, (16, 16)), (3, (9, 6)), (4, (8, 16))])
def test_packing_equals_the_twin(factor, size):
    images = torch.randn(2 * factor**2, 3, *size, generator=torch.Generator().manual_seed(0))
    packed = pack(images, factor)
    torch.testing.assert_close(packed.double(), packing_twin.pack(images, factor), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        unpack(packed, factor).double(), packing_twin.unpack(packed, factor), rtol=1e-5, atol=1e-6
    )


def test_unpack_cuts_a_grid_and_enlarges_the_cells():
    images = torch.zeros(1, 1, 4, 4)
    images[0, 0, :2, 2:] = 1.0  # the upper right cell
    cells = unpack(images, 2)
    assert cells.shape == (4, 1, 4, 4)
    assert [float(c.mean()) for c in cells] == [0.0, 1.0, 0.0, 0.0]
    assert unpack(images, 1) is images


def test_a_factor_multiplies_decoded_images_and_labels():
    condensed = make(factor=2)
    images, labels = condensed.decode()
    assert images.shape == (20, 3, 4, 6)
    assert torch.equal(labels, LABELS.repeat_interleave(4))
    assert torch.equal(condensed.targets(), labels)
    assert with_soft_labels(condensed).targets().shape == (20, 3)


@given(chosen=st.sets(st.sampled_from([0, 7, 42]), min_size=1), factor=st.sampled_from([1, 2]), soft=st.booleans())
def test_select_takes_the_rows_of_the_classes(chosen, factor, soft):
    condensed = make(factor=factor, dtype="uint8")
    condensed = with_soft_labels(condensed) if soft else condensed
    part = condensed.select(sorted(chosen))
    images, labels = condensed.decode()
    rows = torch.isin(labels, torch.tensor(sorted(chosen)))
    assert part.classes == tuple(sorted(chosen))
    assert torch.equal(part.decode()[0], images[rows])
    assert torch.equal(part.targets(), condensed.targets()[rows])
    assert part.spec == condensed.spec


@pytest.mark.parametrize("dtype", DTYPES)
def test_merging_the_parts_gives_the_whole_bit_for_bit(dtype):
    condensed = with_soft_labels(make(dtype=dtype))
    merged = condensed.select([42]).merge(condensed.select([0, 7]))
    for name in ("images", "labels", "ranges", "soft_labels"):
        mine, theirs = getattr(condensed, name), getattr(merged, name)
        assert mine is theirs is None or torch.equal(mine, theirs)
    assert merged.provenance == {"merged": [{"seed": 0}, {"seed": 0}]}


def test_merge_joins_sets_of_different_classes():
    other = dataclasses.replace(SPEC, class_names={9: "truck"})
    merged = make().merge(make(labels=torch.tensor([9, 9]), spec=other))
    assert merged.classes == (0, 7, 9, 42)
    assert merged.labels.tolist() == [0, 0, 7, 9, 9, 42, 42]
    assert merged.spec.class_names[9] == "truck"


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (lambda: make(dtype="uint8"), "stored_as"),
        (lambda: with_soft_labels(make()), "soft labels"),
        (lambda: make(spec=dataclasses.replace(SPEC, mean=(0.0, 0.0, 0.0))), "normalisation"),
        (lambda: make(spec=dataclasses.replace(SPEC, class_names={7: "mare"})), "horse.*mare"),
    ],
)
def test_merge_refuses_what_does_not_fit(other, named):
    with pytest.raises(DataError, match=named):
        make().merge(other())


def test_merge_refuses_soft_labels_over_different_classes():
    fewer = dataclasses.replace(SPEC, class_names={0: "cat", 7: "horse"})
    with pytest.raises(DataError, match="soft labels over different classes"):
        with_soft_labels(make()).merge(with_soft_labels(make(spec=fewer)))


def test_stored_as_changes_the_dtype_only_where_it_differs():
    condensed = make()
    small = condensed.stored_as("uint8")
    assert condensed.stored_as("float32") is condensed
    assert small.formation.dtype == "uint8"
    assert torch.equal(small.stored_as("float32").images, small.decode()[0])


def test_as_dataset_yields_images_and_targets():
    dataset = make().as_dataset()
    image, target = dataset[3]
    assert torch.equal(image, make().images[3])
    assert int(target) == 42
    assert dataset.targets == LABELS.tolist()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"images": torch.zeros(5, 3, 4, 5)}, r"\(M, 3, 4, 6\).*\(5, 3, 4, 5\)"),
        ({"images": torch.zeros(0, 3, 4, 6)}, "M >= 1"),
        ({"images": torch.zeros(7)}, r"\(7,\)"),
        ({"images": torch.zeros(5, 3, 4, 6, dtype=torch.float64)}, "float64"),
        ({"labels": torch.zeros(4, dtype=torch.int64)}, r"\(5,\) int64"),
        ({"labels": torch.zeros(5)}, "int64"),
        ({"ranges": torch.zeros(5, 3, 2)}, "ranges"),
        ({"soft_labels": torch.zeros(4, 3)}, "5 rows"),
    ],
)
def test_shapes_and_types_that_do_not_fit_are_named(change, named):
    with pytest.raises(DataError, match=named):
        dataclasses.replace(make(), **change)


def test_uint8_needs_ranges_of_the_right_shape():
    with pytest.raises(DataError, match="ranges"):
        dataclasses.replace(make(dtype="uint8"), ranges=None)
    with pytest.raises(DataError, match=r"\(5, 3, 2\)"):
        dataclasses.replace(make(dtype="uint8"), ranges=torch.zeros(5, 2))


@pytest.mark.parametrize(
    ("images", "labels", "named"),
    [
        (torch.zeros(7), LABELS, r"\(7,\)"),
        (torch.zeros(5, 3, 4, 6), LABELS.float(), "float32"),
        (torch.zeros(5, 3, 4, 6), torch.eye(5, dtype=torch.int64), r"\(5, 5\)"),
        (torch.full((5, 3, 4, 6), torch.nan), LABELS, "image 0 .* not finite"),
    ],
)
def test_from_images_names_what_is_wrong(images, labels, named):
    with pytest.raises(DataError, match=named):
        CondensedSet.from_images(images, labels, SPEC)


def test_float16_refuses_what_it_cannot_hold():
    with pytest.raises(DataError, match="float16"):
        CondensedSet.from_images(
            torch.full((1, *SPEC.shape), 1e6), LABELS[:1], SPEC, formation=Formation(dtype="float16")
        )


def test_formation_names_bad_values():
    with pytest.raises(ConfigError, match="int4"):
        Formation(dtype="int4")
    for factor in (0, 2.0, True):
        with pytest.raises(ConfigError, match=f"factor must be an integer of at least 1, got {factor}"):
            Formation(factor=factor)
    with pytest.raises(ConfigError, match="factor 3 does not divide"):
        make(factor=3)


def test_select_names_a_class_that_is_not_there():
    with pytest.raises(DataError, match="class 5"):
        make().select([0, 5])


def changed(made, **state):
    """The set read from a file that holds other values."""
    return CondensedSet.from_state({**made.to_state(), **state})


def soft(row, value):
    labels = torch.full((4, 2), 0.5)
    labels[row] = torch.tensor(value)
    return labels


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ({"soft_labels": torch.full((4, 3), 1 / 3)}, r"2 columns.*got \(4, 3\)"),
        ({"soft_labels": torch.full((4, 2), 0.5).double()}, "float32"),
        ({"soft_labels": soft(2, [float("nan"), 1.0])}, "image 2 has soft labels"),
        ({"soft_labels": soft(3, [-0.5, 1.5])}, "image 3 has soft labels"),
        ({"soft_labels": soft(1, [0.9, 0.9])}, "image 1 has soft labels"),
        ({"labels": torch.tensor([0, 0, 5, 1])}, "image 2 has a label"),
        ({"coded": torch.tensor([9, 9, 9, -1])}, "image 3 has a coded size"),
        ({"provenance": [1]}, "provenance"),
        ({"formation": {"factor": 10**30, "dtype": "float32"}}, "factor"),
    ],
)
def test_values_that_no_set_can_have_are_refused_with_their_image(state, problem):
    spec = ImageSpec((1, 4, 4), (0.0,), (1.0,), {0: "a", 1: "b"})
    made = CondensedSet.from_images(torch.zeros(4, 1, 4, 4), torch.tensor([0, 0, 1, 1]), spec)
    with pytest.raises(DataError, match=problem):
        changed(made, **state)


def test_a_file_with_an_image_that_is_not_finite_is_refused_with_its_index(tmp_path):
    spec = ImageSpec((1, 4, 4), (0.0,), (1.0,), {0: "a"})
    made = CondensedSet.from_images(torch.zeros(6, 1, 4, 4), torch.zeros(6, dtype=torch.int64), spec)
    made.images[4, 0, 1, 1] = float("inf")
    made.save(tmp_path / "set.safetensors")
    with pytest.raises(StoreError, match="image 4 has a value that is not finite"):
        CondensedSet.load(tmp_path / "set.safetensors")


@pytest.mark.parametrize(("factor", "good"), [(16, True), (32, False), (512, False)])
def test_a_small_set_may_not_claim_a_factor_that_decodes_to_gigabytes(factor, good):
    """One image of 256 KiB that claims factor 512 would decode to 256 GiB."""
    spec = ImageSpec((1, 512, 512), (0.0,), (1.0,), {0: "a"})
    codes, ranges = torch.zeros(4, 1, 512, 512, dtype=torch.uint8), torch.zeros(4, 1, 2)
    arguments = (codes, torch.zeros(4, dtype=torch.int64), spec, Formation(factor, "uint8"), ranges)
    if good:
        assert len(CondensedSet(*arguments)) == 4
    else:
        with pytest.raises(ConfigError, match=f"factor {factor} decodes 4 stored images to"):
            CondensedSet(*arguments)


def test_a_path_that_is_none_is_refused():
    with pytest.raises(ConfigError, match=r"path must be a path, got 3"):
        CondensedSet.load(3)


def test_images_far_from_pixels_are_told():
    """A run with batch norm as its encoder left noise of 37 standard deviations, and was "finished"."""
    spec = ImageSpec((1, 2, 2), (0.5,), (0.25,))
    assert escaped(torch.full((1, 1, 2, 2), 3.0), spec) is None  # 1.25 times white
    assert "100 % of the values are far from pixels (9.75 to 9.75" in str(escaped(torch.full((1, 1, 2, 2), 37.0), spec))
    assert escaped(torch.full((1, 1, 2, 2), 37.0), dataclasses.replace(spec, pixels=False)) is None
