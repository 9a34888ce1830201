import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from condensekit.data.images import ClassImages
from condensekit.data.labels import as_labels
from condensekit.errors import DataError

NUMBERS = st.lists(st.integers(-100, 120), min_size=1, max_size=12)
INTEGERS = ("int8", "int16", "int32", "int64", ">i4", "float16", "float32", "float64", ">f8")


@settings(max_examples=80, deadline=None)
@given(numbers=NUMBERS, dtype=st.sampled_from(INTEGERS), column=st.booleans(), form=st.integers(0, 3))
def test_numbers_of_any_type_stay_what_they_are(numbers, dtype, column, form):
    array = np.array(numbers, dtype)
    array = array[:, None] if column else array
    native = array.astype(array.dtype.newbyteorder("="))
    given_labels = (array, array.tolist(), torch.from_numpy(native), list(native))[form]
    labels, names = as_labels(given_labels)
    assert (labels.tolist(), labels.dtype, names) == (numbers, torch.int64, None)


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(st.sampled_from(["ant", "bee", "Zebu", "été", "猫", "10", "9"]), min_size=1), form=st.integers(0, 4)
)
def test_texts_of_any_type_are_numbered_in_sorted_order(words, form):
    forms = (
        words,
        np.array(words),
        np.array(words, object),
        np.array([word.encode() for word in words]),
        np.array([[word] for word in words]),
    )
    labels, names = as_labels(forms[form])
    assert names == dict(enumerate(sorted(set(words))))
    assert [names[label] for label in labels.tolist()] == words


@settings(max_examples=60, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 6), min_size=1),
    dtype=st.sampled_from(["uint8", "int64", "float32", "bool"]),
    classes=st.integers(7, 9),
)
def test_one_hot_rows_are_their_classes(numbers, dtype, classes):
    rows = np.eye(classes)[numbers].astype(dtype)
    for given_rows in (rows, torch.from_numpy(rows), rows.tolist(), [tuple(row) for row in rows.tolist()]):
        assert as_labels(given_rows)[0].tolist() == numbers


def test_known_names_number_strings():
    labels, names = as_labels(np.array([b"b", b"a"]), {4: "a", 9: "b"})
    assert labels.tolist() == [9, 4]
    assert names == {4: "a", 9: "b"}
    with pytest.raises(DataError, match="unknown class 'c'; known: a, b"):
        as_labels(["c"], {4: "a", 9: "b"})


BIG = np.array([3, 2**63 - 1], np.uint64)


def test_large_numbers_do_not_wrap():
    assert as_labels(BIG)[0].tolist() == [3, 2**63 - 1]
    assert as_labels(np.array([2**62, 5], object))[0].tolist() == [2**62, 5]
    images = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    data = ClassImages.from_arrays(images, BIG)
    with pytest.raises(DataError, match="the label of image 1 is 9223372036854775808"):
        ClassImages(images, torch.from_numpy(BIG + np.array([0, 1], np.uint64)), data.spec)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (BIG + np.uint64(1), "64-bit integers with sign: the label of image 1 is 9223372036854775808"),
        ([1, 2**63], r"the label of image 1 is 9.2\d+e\+18"),
        ([1, 2**70], "labels must be"),
        ([0.0, 1.5], "the label of image 1 is 1.5"),
        ([0.0, 1.0, np.nan], "the label of image 2 is nan"),
        ([0.0, np.inf], "the label of image 1 is inf"),
        ([0.0, 1e300], "the label of image 1 is 1e[+]300"),
        (["a", 1], "all integers or all strings, got 'a' for image 0 and 1 for image 1"),
        ([3, "1"], "got 3 for image 0 and '1' for image 1"),
        ([1, None], "got object: the label of image 1 is None"),
        ([b"\xff", b"a"], "is not UTF-8 text"),
        (np.zeros(4, bool), r"got bool: convert with astype\(int\)"),
        (np.zeros(2, complex), "got complex128"),
        (np.zeros(2, "datetime64[s]"), "got datetime64"),
        (np.full((4, 2), "a"), r"must be \(N,\) integers or strings, got shape \(4, 2\)"),
        (np.zeros((2, 4, 4), int), r"must be \(N,\) integers or strings, got shape \(2, 4, 4\)"),
        (3, r"got shape \(\)"),
        ([[1], [1, 2]], "labels must be"),
        (np.ma.masked_equal([1, 2], 2), "masked values"),
        (np.array([[0, 1, 0], [0, 0, 0]]), "the one-hot label of image 1 has no class"),
        (np.array([[0, 1, 0], [1, 0, 1]]), "multi-label: image 1 has 2 of 3 classes"),
        (np.array([[-1.0, 1.0, 1.0], [1.0, -1.0, -1.0]]), "multi-label: image 0 has 2 of 3 classes"),
        (np.array([[0.3, 0.7], [0.5, 0.5]]), r"got shape \(2, 2\): soft labels cannot be used"),
        (np.array([[5, 0, 3], [4, 1, 2]]), r"got shape \(2, 3\): pass the column of the class, such as labels\[:, 0\]"),
    ],
)
def test_other_labels_are_refused_in_one_line(labels, reason):
    with pytest.raises(DataError, match=reason) as refusal:
        as_labels(labels)
    assert "argmax" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_names_that_differ_in_spelling_only_are_told():
    """A folder unpacked on macOS has decomposed accents (NFD), its copy from elsewhere composed ones (NFC)."""
    for name in ("caf\u0065\u0301", "CAF\u00c9"):
        with pytest.raises(DataError, match="differs from 'caf\u00e9' in upper and lower case or in Unicode form only"):
            as_labels([name], {0: "caf\u00e9", 1: "tea"})


def test_lists_of_labels_are_multi_label():
    """Images of COCO and VOC have a list of classes each."""
    with pytest.raises(DataError, match="some images have several labels, as in multi-label data"):
        as_labels([(1, 2), (3,)])
