import pytest
import torch
from avalanche.training.plugins import ReplayPlugin

from condensekit.catalog import method
from condensekit.replay import Bytes, CondensedBuffer, Images
from tests.replay.worlds import DM, buffer, naive, network, replaying, stream


def test_the_line_of_the_readme_in_a_stock_naive():
    memory = CondensedBuffer(Images(20), method("dm"), classes=10)
    strategy = naive(ReplayPlugin(20, storage_policy=memory), model=network(10))
    benchmark = stream(classes=10, steps=5)
    memory.rules.how.__dict__["iterations"] = 2
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert len(memory.memory) == 20
