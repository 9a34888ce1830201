"""Whether the learner can embed is known before anything is trained."""

import pytest
import torch
import torch.nn.functional as F
from avalanche.benchmarks import nc_benchmark
from avalanche.models import IncrementalClassifier, as_multitask
from avalanche.training.plugins import SupervisedPlugin
from torch import nn

from condensekit.compute import Machine
from condensekit.errors import ConfigError
from condensekit.replay import CondensedBuffer, CondensedReplay, Images
from condensekit.rng import isolated
from tests.cases.streams.digits import Net, dataset, digits, training


class Auxiliary(Net):
    """A last linear layer that the output does not use."""

    def __init__(self):
        super().__init__()
        self.rotation = nn.Linear(128, 4)


class Cosine(Net):
    """Weights of classes that are no linear layer."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Identity()
        self.weights = nn.Parameter(torch.randn(10, 128))

    def forward(self, x):
        return 10 * F.normalize(self.features(x), dim=1) @ F.normalize(self.weights, dim=1).T


def growing():
    """A head that gets outputs with new classes."""
    net = Net()
    net.classifier = IncrementalClassifier(128, 2)
    return net


def several():
    """A head for each task."""
    return as_multitask(Net(), "classifier")


class Steps(SupervisedPlugin):
    """Counts the steps of training."""

    count = 0

    def after_training_iteration(self, strategy, **kwargs):
        self.count += 1


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="a head that cannot embed is found after the training")
@pytest.mark.parametrize("make", [growing, several, Auxiliary, Cosine])
def test_a_head_that_cannot_embed_is_found_before_any_step(make):
    images, labels = digits()
    data, steps = dataset(images[:300], labels[:300]), Steps()
    memory = CondensedBuffer(Images(20), "dm batch_real=8", classes=10, steps=3, machine=Machine("cpu"))
    refusal = None
    with isolated(0):
        benchmark = nc_benchmark(data, data, 5, task_labels=make is several, seed=0)
        strategy = CondensedReplay(storage_policy=memory, batch_size_mem=8, plugins=[steps], **training(make()))
        try:
            for experience in benchmark.train_stream[:2]:
                strategy.train(experience)
        except ConfigError as error:
            refusal = error
    assert refusal is None or (steps.count == 0 and "learner_encoder" in str(refusal))
