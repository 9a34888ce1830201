"""Files of other codes: written here as those codes write them, and read as sets."""

import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

import condensekit as ck
from condensekit.data.datasets import STATISTICS
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, DataError, StoreError
from condensekit.sets import found as found_sets
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.export import to_pair, to_pt
from condensekit.sets.packing import unpack
from condensekit.sets.public import read_sets

MEAN, STD = STATISTICS["cifar10"]
GIVEN = {"values": (MEAN, STD)}
NAME = "res_DM_CIFAR10_ConvNet_2ipc.pt"
LABELS = torch.arange(4).repeat_interleave(2)


def pixels(count=8, seed=0, shape=(3, 8, 8)):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def normal(images):
    """Normalised by the constants of CIFAR-10 as the public codes have them."""
    return (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


@pytest.fixture
def like():
    """Images as those of CIFAR-10, of four classes."""
    images = (pixels(40, 9) * 255).to(torch.uint8)
    names = {0: "airplane", 1: "automobile", 2: "bird", 3: "cat"}
    data = ClassImages.from_arrays(images, torch.arange(4).repeat(10), mean=MEAN, std=STD, class_names=names)
    data.source = {"name": "cifar10"}
    return data


@pytest.fixture
def file(tmp_path):
    """A function that saves something with torch.save; it returns the path."""

    def saved(content, name="set.pt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)
        return path

    return saved


# what each code writes


def test_every_experiment_of_dc_dsa_and_dm_is_a_set(file, like, caplog):
    first, second = normal(pixels()), normal(pixels(seed=1))
    accuracies = {"ConvNet": [np.float64(0.5), np.float64(0.25)], "MLP": [np.float32(0.125)]}
    path = file({"data": [[first, LABELS], [second, LABELS]], "accs_all_exps": accuracies}, NAME)
    sets = read_sets(path, like)
    assert [made.provenance["config"]["seed"] for made in sets] == [0, 1]
    assert {made.name for made in sets} == {"res_DM_CIFAR10_ConvNet_2ipc"}
    for made, images in zip(sets, (first, second), strict=True):
        assert torch.equal(made.images, images)
        assert torch.equal(made.labels, LABELS)
        assert (made.spec.mean, made.spec.std, made.spec.class_names[1]) == (MEAN, STD, "automobile")
    assert "normalised by mean (0.4914, 0.4822, 0.4465)" in caplog.text
    assert "noted an accuracy of 37.5 % (ConvNet), 12.5 % (MLP)" in caplog.text


def test_the_name_of_the_file_tells_the_data_set(file):
    (made,) = read_sets(file({"data": [[normal(pixels()), LABELS]], "accs_all_exps": {}}, NAME))
    assert (made.spec.mean, made.spec.class_names[3]) == (MEAN, "3")


def test_mtt_writes_two_files_and_has_one_normalisation_for_both_cifars(file, like):
    like.source = {"name": "cifar100"}
    path = file(normal(pixels()).requires_grad_(), "images_best.pt")
    with pytest.raises(
        DataError, match=r"images without labels: put the file of their labels, labels_best\.pt, beside"
    ):
        read_sets(path, like)
    labels = file(LABELS, "labels_best.pt")
    (made,) = read_sets(path, like)
    assert torch.equal(made.images, normal(pixels()))
    assert made.spec.mean == MEAN
    assert made.name == f"{path.parent.name}/images_best"
    with pytest.raises(DataError, match=r"one tensor of shape \(8,\): give the file of the images"):
        read_sets(labels, like)


def test_whitened_images_are_refused_and_those_turned_back_are_pixels(file, like):
    path = file(normal(pixels()), "images_best.pt")
    for name in ("labels_best.pt", "labels_100.pt"):
        file(LABELS, name)
    back = file(pixels(), "images_zca_100.pt")
    with pytest.raises(DataError, match=r"images_zca_100\.pt beside it tells of ZCA whitening, .*: give that file"):
        read_sets(path, like)
    (made,) = read_sets(back, like)
    torch.testing.assert_close(made.images, normal(pixels()))


@pytest.mark.parametrize("name", ["data.pt", "data_best.pt"])
def test_lists_of_images_and_labels_are_pixels_whose_packing_must_be_told(file, like, caplog, name):
    images = pixels() * 1.02 - 0.01  # a few values leave [0, 1]
    path = file([images, LABELS], name)
    with pytest.raises(DataError, match=r"mostly pack 2 x 2 smaller images into each: give factor=2, or factor=1"):
        read_sets(path, like)
    (made,) = read_sets(path, like, factor=2)
    torch.testing.assert_close(made.decode()[0], unpack(normal(images), 2))
    assert len(made.decode()[1]) == 32
    told = file([images, LABELS], f"convnet3_factor2_ipc2/{name}")
    assert torch.equal(read_sets(told, like)[0].images, made.images)
    assert "factor=2 is taken from its path" in caplog.text


def test_pixels_without_data_are_normalised_by_their_own_mean_and_std(file):
    (made,) = read_sets(file({"images": pixels(), "labels": LABELS}))
    images = made.decode()[0]
    assert images.mean().abs() < 1e-5
    assert (images.std() - 1).abs() < 0.01
    torch.testing.assert_close(made.spec.to_pixels(images), pixels())


@pytest.mark.parametrize(
    "content",
    [
        {"images": normal(pixels()), "labels": LABELS},
        {"data": normal(pixels()), "targets": LABELS},
        ((normal(pixels()), LABELS), (normal(pixels(seed=1)), LABELS)),
        {"images": normal(pixels()).permute(0, 2, 3, 1), "labels": LABELS},
        {"images": normal(pixels()), "labels": LABELS.double()},
        {"images": normal(pixels()), "labels": LABELS.int()[:, None]},
        {"images": normal(pixels()), "labels": torch.eye(4)[LABELS]},
        {"images": torch.nn.Parameter(normal(pixels())), "labels": LABELS.to(torch.uint8)},
    ],
)
def test_plain_files_of_tensors(file, like, content):
    made = read_sets(file(content), like, **GIVEN)[0]
    torch.testing.assert_close(made.images, normal(pixels()))
    assert torch.equal(made.labels, LABELS)
    assert made.soft_labels is None


def test_images_are_grouped_by_class_and_may_be_half_or_bytes(file, like):
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    (made,) = read_sets(file({"images": normal(pixels())[order].half(), "labels": LABELS[order]}), like, **GIVEN)
    assert made.labels.tolist() == LABELS.tolist()
    whole = (pixels() * 255).round()
    for images in (whole, whole.to(torch.uint8)):
        (made,) = read_sets(file({"images": images, "labels": LABELS}), like)
        torch.testing.assert_close(made.images, normal(whole / 255))


def test_parts_of_other_classes_are_one_set(file, like, caplog):
    images = normal(pixels())
    path = file({"data": [[images[:4], LABELS[:4]], [images[4:], LABELS[4:]]]}, NAME)
    (made,) = read_sets(path, like)
    assert torch.equal(made.images, images)
    assert "its 2 parts have different classes, and are taken as one set" in caplog.text


def test_fewer_classes_than_the_data_are_told(file, like, caplog):
    read_sets(file({"data": [[normal(pixels())[:4], LABELS[:4]]]}), like)
    assert "it has 2 of the 4 classes" in caplog.text


def test_learned_labels_become_soft_labels_of_each_decoded_image(file, like):
    soft = torch.softmax(torch.randn(8, 4) + 9 * torch.eye(4)[LABELS], 1)
    (made,) = read_sets(file({"images": normal(pixels()), "labels": soft}), like, factor=2, **GIVEN)
    assert torch.equal(made.soft_labels, soft.repeat_interleave(4, 0))
    assert torch.equal(made.labels, LABELS)


def test_a_tensor_saved_on_a_gpu_is_read_on_the_cpu(file, like):
    path = file({"images": normal(pixels()), "labels": LABELS})
    path.write_bytes(path.read_bytes().replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"))
    with pytest.raises(StoreError):  # the changed file has another checksum
        read_sets(path, like, **GIVEN)


# what is refused


class Code:
    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return os.mkdir, (self.place,)


@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_code_is_not_run(tmp_path, like, form):
    path, place = tmp_path / "set.pt", tmp_path / "ran"
    content = {"data": [[normal(pixels()), LABELS]], "accs_all_exps": Code(place)}
    if form == "plain":
        path.write_bytes(pickle.dumps(Code(place), protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises((DataError, StoreError)) as caught:
        read_sets(path, like)
    assert not place.exists()
    assert "\n" not in str(caught.value)
    if form == "zip":
        assert "holds more than tensors (posix.mkdir), which may be code and is not run" in str(caught.value)


def test_foreign_classes_are_refused_by_name(file, like):
    path = file({"data": [[normal(pixels()), LABELS]], "args": np.random.RandomState(0)})
    with pytest.raises(
        DataError, match=r"holds more than tensors \(numpy.*: where the file was made, save its tensors"
    ):
        read_sets(path, like)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"net": 1, "epoch": 3}, "holds no images with labels \\(dict with 'net', 'epoch'\\)"),
        ([], "holds no images with labels \\(list\\)"),
        ({"data": []}, "holds no images with labels \\(dict with 'data'\\)"),
        ([torch.zeros(2, 2)], "holds no images with labels \\(list\\)"),
        (3, "holds no images with labels \\(int\\)"),
        ({"images": torch.zeros(0, 3, 8, 8), "labels": LABELS[:0]}, r"it holds no images, but a tensor of shape \(0,"),
        ({"images": normal(pixels()), "labels": LABELS[:7]}, r"it has 8 images, and labels of shape \(7,\)"),
        (
            {"images": normal(pixels()), "labels": LABELS + 1},
            r"it has label 4, and the data have 4 classes, labelled 0 to 3",
        ),
        ({"images": normal(pixels()), "labels": LABELS + 0.5}, "label"),
        ({"images": normal(pixels()), "labels": torch.randn(8, 4)}, r"no probabilities .* torch.softmax\(labels, 1\)"),
        ({"images": normal(pixels()), "labels": torch.full((8, 5), 0.2)}, "soft labels are of 5 classes, .* have 4"),
        (
            {"images": pixels(shape=(3, 16, 16)), "labels": LABELS},
            r"\(3 x 16 x 16 and 3 x 8 x 8\): read data with image_s",
        ),
        ({"images": pixels(shape=(1, 8, 8)), "labels": LABELS}, r"differ in shape"),
        ({"images": pixels().reshape(8, -1), "labels": LABELS}, "flat rows"),
        ({"images": normal(pixels()) / 0, "labels": LABELS}, "image 0 has a pixel that is not finite"),
        ({"images": pixels() * 100, "labels": LABELS}, "divided by their highest possible value"),
        ({"images": torch.zeros(1).expand(8, 3, 8, 8), "labels": LABELS}, "holds fewer values"),
        ({"images": normal(pixels()), "labels": LABELS}, r"values=\(\(0.4914, 0.4822, 0.4465\), \(0.2023, "),
        (
            {"images": normal(pixels()), "labels": LABELS, "spec": {"shape": 1}},
            "what it states of its images is damaged",
        ),
    ],
)
def test_other_content_is_refused_in_one_line(file, like, content, says):
    with pytest.raises(DataError, match=says) as caught:
        read_sets(file(content), like)
    assert "set.pt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_name_of_the_file_and_the_data_must_agree(file, like):
    path = file({"data": [[normal(pixels()), LABELS]]}, "res_DM_CIFAR100_ConvNet_2ipc.pt")
    with pytest.raises(DataError, match="its name says cifar100, and the data are cifar10"):
        read_sets(path, like)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"values": "pixel"}, r"values must be 'pixels' or \(mean, std\), got 'pixel'"),
        ({"values": (0.5, 0.5)}, "values must be"),
        ({"factor": 0}, "factor must be an integer of at least 1, got 0"),
        ({"layout": "CHWN"}, "unknown layout"),
        ({"like": "cifar10"}, "like must be a ClassImages"),
    ],
)
def test_wrong_arguments(file, options, like, says):
    with pytest.raises(ConfigError, match=says):
        read_sets(file({"images": pixels(), "labels": LABELS}), **{"like": like, **options})


@pytest.mark.parametrize(
    ("options", "says"), [({"factor": 3}, "factor 3 does not"), ({"values": ((0.5,), (0.2,))}, "3 ch")]
)
def test_arguments_that_do_not_fit_the_images(file, like, options, says):
    with pytest.raises(DataError, match=says):
        read_sets(file({"images": pixels(), "labels": LABELS}), like, **options)


def test_a_damaged_or_missing_file(file, like, tmp_path):
    path = file({"images": pixels(), "labels": LABELS})
    whole = path.read_bytes()
    for part in (b"", b"PK\x03\x04", whole[:100], whole[: len(whole) // 2], b"hello"):
        path.write_bytes(part)
        with pytest.raises(StoreError, match=r"set\.pt: cannot read: it is damaged, or no tensors") as caught:
            read_sets(path, like)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no such file"):
        read_sets(tmp_path / "none.pt", like)
    with pytest.raises(ConfigError, match=r"is a set of condensekit: CondensedSet\.load reads it"):
        read_sets(tmp_path / "set.safetensors", like)


def test_another_normalisation_than_that_of_the_data_is_converted(file, like):
    path = file({"images": (pixels() - 0.5) / 0.25, "labels": LABELS})
    (made,) = read_sets(path, like, values=((0.5,) * 3, (0.25,) * 3))
    assert made.spec.alike(like.spec)
    torch.testing.assert_close(made.images, normal(pixels()))


def test_values_that_cannot_be_right_are_told(file, like, caplog):
    read_sets(file({"images": 10 * normal(pixels()), "labels": LABELS}), like, **GIVEN)
    assert "far from pixels" in caplog.text


# what is written


@pytest.mark.parametrize("writer", [to_pt, to_pair])
@pytest.mark.parametrize("soft", [False, True])
def test_exported_files_give_the_same_images(tmp_path, like, writer, soft):
    made = ck.select(like, "random", ipc=1, formation=ck.Formation(factor=2))
    if soft:
        made = made.with_soft_labels(torch.softmax(torch.randn(16, 4), 1), range(4))
    path = tmp_path / ("set.pt" if writer is to_pt else "set")
    writer(made, path)
    (back,) = read_sets(path if writer is to_pt else path / "images_best.pt")
    images, labels = made.decode()
    order = torch.argsort(back.labels, stable=True)
    assert torch.equal(back.images, images if writer is to_pt or not soft else images[_order(made)])
    assert back.spec == made.spec
    if not soft or writer is to_pt:
        assert torch.equal(back.labels[order], labels)
    else:
        assert back.soft_labels is not None
        assert torch.equal(back.soft_labels, made.targets()[_order(made)])


def _order(made):
    """The order of images whose labels are the most likely ones."""
    return torch.argsort(made.targets().argmax(1), stable=True)


def test_an_exported_file_is_read_as_the_other_codes_do(tmp_path, like):
    made = ck.select(like, "random", ipc=2)
    to_pt(made, tmp_path / "set.pt")
    images, labels = torch.load(tmp_path / "set.pt", weights_only=True)["data"][-1]
    assert torch.equal(images, made.images)
    assert torch.equal(labels, made.labels)
    to_pair(made, tmp_path / "pair")
    assert torch.equal(torch.load(tmp_path / "pair/images_best.pt", weights_only=True), made.images)
    assert torch.equal(torch.load(tmp_path / "pair/labels_best.pt", weights_only=True), made.labels)
    for again in (lambda: to_pt(made, tmp_path / "set.pt"), lambda: to_pair(made, tmp_path / "pair")):
        with pytest.raises(ConfigError, match="exists"):
            again()


def test_values_that_are_no_pixels_stay_as_they_are(tmp_path, like):
    made = ck.select(like, "random", ipc=2)
    made = replace(made, spec=replace(made.spec, mean=(0.0,) * 3, std=(1.0,) * 3, pixels=False))
    to_pt(made, tmp_path / "set.pt")
    (back,) = read_sets(tmp_path / "set.pt", like)
    assert torch.equal(back.images, made.images)
    assert not back.spec.pixels


# and judged


def test_sets_of_a_file_are_one_row_beside_random(file, like):
    path = file({"data": [[normal(pixels(seed=s)), LABELS] for s in range(3)], "accs_all_exps": {}}, NAME)
    protocol = replace(ck.catalog.protocol("short"), steps=2)
    options = {"train": like, "network": "ConvNet-w8-d1", "networks": 1, "protocol": protocol}
    found = ck.evaluate(read_sets(path, like), like, **options)
    assert [(row.set, row.sets, row.ipc) for row in found.rows] == [(path.stem, 3, 2), ("random", 3, 2)]
    for door in (
        lambda: ck.evaluate(path, like, **options),
        lambda: CondensedSet.load(path),
        lambda: found_sets.find(path),
    ):
        with pytest.raises(ConfigError, match=r"is a file of another code: read it with condensekit\.read_sets"):
            door()


def test_a_read_set_is_saved_like_any_other(file, like, tmp_path):
    (made,) = read_sets(file({"data": [[normal(pixels()), LABELS]]}, NAME), like)
    made.save(tmp_path / "set.safetensors")
    back = CondensedSet.load(tmp_path / "set.safetensors")
    assert torch.equal(back.images, made.images)
    assert back.provenance["config"]["read"]["written by"] == "DC, DSA or DM"
