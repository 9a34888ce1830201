"""Memories of JPEG codes: what they keep is what they count, and a class fills only what it has images for."""

import io
from types import SimpleNamespace

import pytest
import torch
from avalanche.benchmarks import nc_benchmark

from condensekit.compute import Machine
from condensekit.data.images import ImageSpec
from condensekit.replay import Bytes, Coded, CondensedBuffer
from condensekit.replay.memory.fillers import Selecting
from condensekit.selection.classic import Random
from tests.cases.streams.digits import smooth

CPU = Machine("cpu")
CLASSES, PLAIN = 4, 3 * 32 * 32 + 8  # bytes of an image of 8-bit pixels and of its label
SPEC = ImageSpec((3, 32, 32), (0.5,) * 3, (0.25,) * 3, {label: str(label) for label in range(CLASSES)})
LEARNER = SimpleNamespace(model=None, plugins=[], device="cpu")


def stream(each):
    data = smooth(CLASSES, each)
    return nc_benchmark(data, data, 2, task_labels=False, seed=0).train_stream


def written(value):
    """Bytes of a value in a file of torch.save."""
    file = io.BytesIO()
    torch.save(value, file)
    return len(file.getvalue())


@pytest.mark.parametrize("kept", [lambda memory: memory, CondensedBuffer.state_dict], ids=["pickled", "state_dict"])
def test_what_is_kept_is_about_as_large_as_what_is_counted(kept):
    memory = CondensedBuffer(Bytes(per_class=6 * PLAIN), Coded(Selecting(Random()), 3), spec=SPEC, machine=CPU)
    for experience in stream(24):
        memory.post_adapt(LEARNER, experience)
    assert len(memory.memory) == CLASSES * 6 * 3
    assert written(kept(memory)) < 2 * memory.nbytes + 32 * 1024


def test_a_class_with_fewer_images_than_there_is_room_for_stores_what_it_has():
    memory = CondensedBuffer(Bytes(20 * PLAIN), Coded(Selecting(Random()), 9), spec=SPEC, machine=CPU)
    memory.post_adapt(LEARNER, stream(12)[0])
    assert 0 < len(memory.memory) <= 2 * 12
