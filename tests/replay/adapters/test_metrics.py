import zlib

import pytest
import torch
from avalanche.training.plugins import ReplayPlugin

from condensekit.replay import (
    Images,
    condense_seconds_metrics,
    memory_bytes_metrics,
    old_new_accuracy_metrics,
)
from condensekit.replay.adapters.metrics import coded_bytes
from condensekit.selection.classic import Random
from tests.replay.worlds import buffer, naive, network, stream


def named(found, name):
    values = [value for key, value in found.items() if key.split("/")[0] == name]
    assert len(values) <= 1
    return values[0] if values else None


def test_bytes_and_seconds_of_each_experience():
    memory = buffer(Images(12), Random(), classes=6)
    plugins = [ReplayPlugin(12, storage_policy=memory)] * 2
    strategy = naive(*plugins, metrics=[memory_bytes_metrics(), condense_seconds_metrics()])
    found = strategy.train(stream().train_stream)
    for i in range(3):
        end = f"/train_phase/train_stream/Exp00{i}"
        assert found["MemoryBytes" + end] == 4 * (i + 1) * (64 + 8 + 8)
        assert found["CondenseSeconds" + end] == memory.condense_s[i] > 0
    assert found["MemoryBytes_Coded/train_phase/train_stream/Exp002"] == coded_bytes(memory.memory)


def test_strategies_without_a_condensed_memory_emit_nothing():
    strategy = naive(ReplayPlugin(12), metrics=[memory_bytes_metrics(), condense_seconds_metrics()])
    assert strategy.train(stream().train_stream[0]) == {}


def test_coded_bytes_are_those_of_zlib():
    memory = buffer(Images(4), Random(), storage="float32")
    memory.post_adapt(None, stream().train_stream[0])
    held = memory.memory
    parts = [held.images.numpy().tobytes(), held.labels.numpy().tobytes()]
    assert coded_bytes(held) == sum(len(zlib.compress(part, 9)) for part in parts)


class Oracle(torch.nn.Module):
    """Knows the label of each test image, and takes some for others."""

    def __init__(self, benchmark, taken):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        rows = [(x, y) for part in benchmark.test_stream for x, y, _ in part.dataset]
        self.known, self.labels = torch.stack([x for x, _ in rows]), torch.tensor([int(y) for _, y in rows])
        self.taken = taken

    def forward(self, images):
        if self.training:
            return self.weight * torch.ones(len(images), 6)
        label = self.labels[(images[:, None] - self.known).flatten(2).abs().amax(2).argmin(1)]
        taken = torch.tensor([self.taken.get(int(k), int(k)) for k in label])
        return torch.nn.functional.one_hot(taken, 6).float()


NAMES = ("Accuracy_Old", "Accuracy_New", "Confusion_OldToNew", "Confusion_NewToOld")


@pytest.mark.parametrize(
    ("step", "taken", "wanted"),
    [
        (0, {0: 1}, [None, 0.5, None, 0]),
        (1, {0: 2, 3: 1}, [0.5, 0.5, 0.5, 0.5]),
        (1, {0: 1, 1: 5}, [0, 1, 0, 0]),
        (2, {0: 4, 4: 5}, [0.75, 0.5, 0.25, 0]),
    ],
)
def test_old_and_new_classes_apart(step, taken, wanted):
    benchmark = stream()
    strategy = naive(model=Oracle(benchmark, taken), metrics=[old_new_accuracy_metrics()])
    for experience in benchmark.train_stream[: step + 1]:
        strategy.train(experience)
    found = strategy.eval(benchmark.test_stream)
    assert [named(found, name) for name in NAMES] == wanted


def test_nothing_is_known_before_training():
    strategy = naive(model=network(), metrics=[old_new_accuracy_metrics()])
    assert strategy.eval(stream().test_stream) == {}
