"""Streams with task labels: each image of the memory belongs to a task, and is replayed to that task's head."""

import pytest
import torch
from avalanche.benchmarks import nc_benchmark, ni_benchmark
from avalanche.models import as_multitask
from avalanche.training.plugins import ReplayPlugin
from avalanche.training.supervised import Naive
from torch import nn

from condensekit import catalog
from condensekit.replay import ERACE, CondensedBuffer, DERpp, FineTuneOnMemory, FromScratchOnMemory, Images
from condensekit.rng import isolated
from tests.cases.streams.digits import Net, accuracy, dataset, digits, training


def restarting():
    """Five tasks of two digits, labelled 0 and 1 in each."""
    data = dataset(*digits())
    return nc_benchmark(data, data, 5, task_labels=True, seed=0, class_ids_from_zero_in_each_exp=True)


def returning():
    """Three tasks that all have all ten digits, as domains have."""
    data = dataset(*digits())
    return ni_benchmark(data, data, 3, task_labels=True, seed=0)


def naive(net, *plugins):
    return Naive(criterion=nn.CrossEntropyLoss(), plugins=list(plugins), **training(net))


def distance(image, rows):
    """How far an image is from the nearest of the rows."""
    return float((torch.stack([row[0] for row in rows]) - image).abs().flatten(1).amax(1).min())


@pytest.mark.parametrize(("benchmark", "outputs"), [(restarting, 2), (returning, 10)])
def test_each_replayed_image_has_the_task_that_it_came_from(benchmark, outputs):
    memory = CondensedBuffer(Images(40), "random")
    with isolated(0):
        stream = benchmark().train_stream
        net = as_multitask(Net(outputs), "classifier")
        strategy = naive(net, ReplayPlugin(40, storage_policy=memory))
        for experience in stream:
            strategy.train(experience)
    assert {int(task) for _, _, task in memory.buffer} == set(range(len(stream)))
    for image, label, task in memory.buffer:
        own = [row for row in stream[int(task)].dataset if int(row[1]) == int(label)]
        assert distance(image, own) < 0.03


def fine_tuned(net, memory):
    protocol = catalog.protocol("short")
    return naive(net, ReplayPlugin(40, storage_policy=memory), FineTuneOnMemory(memory, protocol=protocol))


def from_scratch(net, memory):
    return naive(net, FromScratchOnMemory(memory, protocol=catalog.protocol("short")))


def er_ace(net, memory):
    return ERACE(storage_policy=memory, batch_size_mem=16, **training(net))


def der(net, memory):
    return DERpp(storage_policy=memory, batch_size_mem=16, **training(net))


def accuracies(make):
    """Accuracy on each of five tasks of two digits after the last; no digit is in two tasks."""
    memory = CondensedBuffer(Images(40), "random")
    with isolated(0):
        data = dataset(*digits())
        benchmark = nc_benchmark(data, data, 5, task_labels=True, seed=0)
        net = as_multitask(Net(), "classifier")
        strategy = make(net, memory)
        for experience in benchmark.train_stream:
            strategy.train(experience)
    return [accuracy(net, experience) for experience in benchmark.test_stream]


@pytest.mark.parametrize(
    ("make", "bar"),
    [
        (er_ace, 0.9),
        pytest.param(fine_tuned, 0.9, marks=pytest.mark.slow),
        pytest.param(from_scratch, 0.75, marks=pytest.mark.slow),
    ],
)
def test_the_memory_teaches_the_heads_of_its_tasks(make, bar):
    assert min(accuracies(make)) > bar


def test_dark_experience_replay_teaches_the_heads_of_its_tasks():
    try:
        found = accuracies(der)
    except TypeError as error:
        if "missing 1 required positional argument: 'task_labels'" in str(error):
            raise AssertionError(error) from error
        raise
    assert min(found) > 0.9
