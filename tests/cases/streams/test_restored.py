"""A restored memory goes on with data that arrived since."""

from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.checkpointing import maybe_load_checkpoint, save_checkpoint
from avalanche.training.plugins import ReplayPlugin
from avalanche.training.supervised import Naive
from torch import nn

from condensekit.replay import CondensedBuffer, Images
from condensekit.rng import isolated
from tests.cases.streams.digits import dataset, digits, training


def month(number):
    """Digits 0 to 4, then 5 to 9: what came in that month, as a benchmark of its own."""
    images, labels = digits()
    rows = labels // 5 == number
    data = as_classification_dataset(dataset(images[rows], labels[rows]))
    return benchmark_from_datasets(train=[data]).train_stream


def strategy_of(memory):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    plugins = [ReplayPlugin(40, storage_policy=memory)]
    return Naive(criterion=nn.CrossEntropyLoss(), plugins=plugins, **training(net, train_epochs=1))


def empty():
    return CondensedBuffer(Images(40), "random")


def test_a_restored_memory_holds_the_classes_of_both_months(tmp_path):
    with isolated(0):
        strategy = strategy_of(empty())
        for experience in month(0):
            strategy.train(experience)
        save_checkpoint(strategy, tmp_path / "checkpoint")
        strategy, _ = maybe_load_checkpoint(strategy_of(empty()), tmp_path / "checkpoint")
        for experience in month(1):
            strategy.train(experience)
    memory = strategy.plugins[0].storage_policy
    assert {int(row[1]) for row in memory.buffer} == set(range(10))
