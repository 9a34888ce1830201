import pytest
import torch
from avalanche.benchmarks import nc_benchmark, split_online_stream
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute

from condensekit.data.images import ImageSpec
from condensekit.errors import DataError
from condensekit.replay.adapters.stream import Layout, check_head, class_images, key_of, task_labels
from tests.replay.worlds import MEAN, SPEC, STD, Pictures, stream


def plain(samples, targets=None):
    """A data set of any samples."""
    return AvalancheDataset([samples], data_attributes=[DataAttribute(targets or [0] * len(samples), "targets")])


@pytest.mark.parametrize("kind", ["nc", "ci", "tasked"])
@pytest.mark.parametrize("pil", [False, True])
@pytest.mark.parametrize("tensor_targets", [False, True])
def test_images_of_an_experience(kind, pil, tensor_targets):
    experience = stream(kind, pil=pil, tensor_targets=tensor_targets).train_stream[1]
    found = class_images(experience.dataset)
    assert found.classes == (2, 3)
    assert found.images.shape == (24, 1, 8, 8)
    for i in (0, 7, 23):
        sample = experience.dataset.eval()[i]
        assert torch.equal(found.images[i], sample[0])
        assert found.labels[i] == int(sample[1])


@pytest.mark.parametrize("kind", ["nc", "ci"])
def test_training_transforms_and_random_state_stay_out(kind):
    noisy = stream(kind, train_transform=lambda x: x + torch.randn_like(x))
    before = torch.get_rng_state()
    found = class_images(noisy.train_stream[0].dataset)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found.images, class_images(stream(kind).train_stream[0].dataset).images)


def test_pixels_come_back_exactly_under_the_spec():
    experience = stream(pil=True).train_stream[0]
    found, floats = class_images(experience.dataset, SPEC), class_images(experience.dataset)
    assert found.images.dtype == torch.uint8
    torch.testing.assert_close(found.gather(torch.arange(24)), floats.images)
    assert (found.spec.mean, found.spec.std) == ((MEAN,), (STD,))


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (ImageSpec((1, 8, 8), (0.0,), (1.0,)), "not an 8-bit image under mean"),
        (ImageSpec((1, 8, 9), (MEAN,), (STD,)), "the spec says"),
    ],
)
def test_a_wrong_spec(spec, text):
    with pytest.raises(DataError, match=text):
        class_images(stream().train_stream[0].dataset, spec)


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        ([(torch.zeros(1, 4, 4, dtype=torch.float64), 0)], "float64.*silently"),
        ([(torch.zeros(1, 4, 4, dtype=torch.uint8), 0)], "uint8.*silently"),
        ([(torch.zeros(1, 4, 4, dtype=torch.float16), 0)], "expected normalised float32"),
        ([(torch.zeros(16), 0)], r"expected \(C, H, W\)"),
        (
            [(torch.zeros(1, 4, 4), 0), (torch.zeros(1, 4, 5), 0)],
            r"image 1 .* \(1, 4, 5\), those before it \(1, 4, 4\)",
        ),
        ([(torch.full((1, 4, 4), torch.nan), 0)], "image 0 has a pixel that is not finite"),
        ([(torch.zeros(1, 4, 4), torch.tensor([0.5, 0.5]))], "give class labels, not soft labels"),
        ([(torch.zeros(1, 4, 4), 0.5 + 0j)], "expected an integer"),
        ([(torch.zeros(1, 4, 4), -1)], "target 0 of the stream is -1, expected at least 0: leave out"),
        ([(torch.zeros(16, 16, 3), 0)], r"has shape \(16, 16, 3\), expected \(C, H, W\): add permute\(2, 0, 1\)"),
        ([torch.zeros(1, 4, 4)], r"expected \(x, y\)"),
        ([], "empty"),
    ],
)
def test_streams_that_cannot_be_condensed(samples, text):
    with pytest.raises(DataError, match=text):
        class_images(plain(samples))


def test_a_picture_without_to_tensor():
    with pytest.raises(DataError, match="a Image after its transforms, expected a tensor: add ToTensor"):
        class_images(plain(Pictures(1, 1, pil=True)))


@pytest.mark.parametrize(
    ("kind", "tensor_targets", "tasked", "dtype"),
    [
        ("nc", False, True, None),
        ("nc", True, True, None),  # Avalanche turns them into integers
        ("ci", False, False, None),
        ("ci", True, False, torch.int64),
        ("tasked", False, True, None),
        ("tasked", True, True, torch.int64),
    ],
)
def test_layout(kind, tensor_targets, tasked, dtype):
    assert Layout.of(stream(kind, tensor_targets=tensor_targets).train_stream[0].dataset) == Layout(tasked, dtype)


def test_fields_that_a_memory_cannot_have():
    soft = DataAttribute([[0.5, 0.5]] * 4, "soft", use_in_getitem=True)
    with pytest.raises(DataError, match="have the fields soft"):
        Layout.of(plain(Pictures(2, 2)).update_data_attribute("soft", soft))
    with pytest.raises(DataError, match="have 4 values"):
        Layout.of(plain([(torch.zeros(1, 4, 4), 0, 0, 0)]))


def test_task_labels():
    for kind in ("nc", "ci", "tasked"):
        dataset = stream(kind).train_stream[1].dataset
        assert task_labels(dataset).tolist() == [0] * len(dataset)
    data = Pictures()
    tasks = nc_benchmark(data, data, 3, task_labels=True).train_stream
    assert [set(task_labels(exp.dataset).tolist()) for exp in tasks] == [{0}, {1}, {2}]


@pytest.mark.parametrize("kind", ["nc", "ci"])
def test_experiences_are_told_apart_in_any_mode_and_process(kind):
    keys = [key_of(experience) for experience in stream(kind).train_stream]
    assert len(set(keys)) == 3
    assert [key_of(experience.train()) for experience in stream(kind).train_stream] == keys
    assert [key_of(experience) for experience in stream(kind).train_stream] == keys
    other = stream(kind, data=Pictures(seed=5)).train_stream[0]
    assert key_of(other) != keys[0]


def test_parts_of_an_online_experience_are_told_apart():
    online = split_online_stream(stream().train_stream, experience_size=8, seed=0)
    keys = [key_of(part) for part in online]
    assert len(set(keys)) == len(keys) == 9


def test_a_label_beyond_the_head():
    check_head(10, torch.tensor([0, 4, 9]))
    with pytest.raises(DataError, match="label 10 is beyond the network's head, which has 10 outputs"):
        check_head(10, torch.tensor([0, 10, 9]))
