import gc
import os
import random
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from condensekit.errors import DataError
from condensekit.replay.adapters import reading
from condensekit.replay.adapters.reading import differs, empty, in_blocks, same, workers_of
from condensekit.replay.adapters.stream import class_images
from tests.replay.worlds import SPEC, Pictures, naive, stream


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("spec", [None, SPEC])
def test_images_are_the_same_with_workers_and_without(workers, spec):
    dataset = stream(pil=True, each=90, experiences=1).train_stream[0].dataset
    found = class_images(dataset, spec, workers)
    for i in (0, 63, 64, 300, 539):
        sample = dataset.eval()[i]
        torch.testing.assert_close(found.gather(torch.tensor([i]))[0], sample[0])
        assert found.labels[i] == sample[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_a_worker_is_one_line(workers):
    class Growing(Pictures):
        def __getitem__(self, i):
            image, label = super().__getitem__(i)
            return (image if i < 100 else image[..., :4]), label

    dataset = stream("ci", data=Growing(each=30), experiences=1).train_stream[0].dataset
    with pytest.raises(
        DataError, match=r"^image \d+ of the stream has shape \(1, 8, 4\), those before it \(1, 8, 8\)$"
    ):
        class_images(dataset, None, workers)


def test_each_row_is_read_once_and_in_order():
    rows = [row for _, found in in_blocks(list, 150) for row in found]
    assert rows == list(range(150))
    assert list(in_blocks(list, 0)) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_large_data_lie_in_a_file_without_a_name(monkeypatch, tmp_path):
    monkeypatch.setattr(reading, "MAPPED", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dataset = stream(each=40, experiences=1).train_stream[0].dataset
    found = class_images(dataset)
    assert str(tmp_path) in Path("/proc/self/maps").read_text()
    assert os.listdir(tmp_path) == []
    assert torch.equal(found.images[5], dataset.eval()[5][0])
    del found
    gc.collect()
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    with pytest.raises(DataError):
        class_images(stream(data=Pictures(dtype=torch.float64)).train_stream[0].dataset)
    assert os.listdir(tmp_path) == []


def test_small_data_stay_in_memory():
    assert empty((3, 2), torch.uint8).shape == (3, 2)


def test_workers_of_a_strategy():
    strategy = naive()
    assert workers_of(strategy) == 0
    strategy.dataloader = DataLoader(Pictures(), num_workers=2)
    assert workers_of(strategy) == 2


SYMMETRIC = torch.ones(1, 8, 8)
PICTURES = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
DRAWS = {
    "random": random.random,
    "numpy": np.random.rand,
    "torch": lambda: float(torch.rand(())),
}


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("share", [0.5, 0.05])
def test_rare_effects_are_found_although_some_images_are_symmetric(draw, share):
    def read(i):
        image = SYMMETRIC if i % 2 else PICTURES[i]
        return image.flip(-1) if DRAWS[draw]() < share else image

    assert differs(read, 64)


def test_fixed_samples_do_not_differ():
    assert not differs(lambda i: (PICTURES[i], i), 64)
    assert not differs(lambda i: torch.full((2,), torch.nan), 3)
    assert not differs(PICTURES.__getitem__, 0)


def test_what_counts_as_the_same():
    assert same([1, torch.ones(2)], (1, torch.ones(2)))
    assert not same(torch.ones(2), torch.ones(2, dtype=torch.int64))
    assert not same([1], [1, 2])
