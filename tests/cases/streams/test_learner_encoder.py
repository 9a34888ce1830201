"""Whether the learner can embed is known before anything is trained, and a learner that cannot ends no run."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from avalanche.benchmarks import nc_benchmark
from avalanche.models import IncrementalClassifier, as_multitask
from avalanche.training.plugins import SupervisedPlugin
from torch import nn

from condensekit.compute import Machine
from condensekit.replay import CondensedBuffer, CondensedReplay, DERpp, Images, LearnerEncoder
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


class CosineLayer(nn.Linear):
    """A linear layer with another forward pass."""

    def forward(self, x):
        return 10 * F.linear(F.normalize(x, dim=1), F.normalize(self.weight, dim=1))


class Noisy(Net):
    """Outputs that differ from pass to pass."""

    def forward(self, x):
        return super().forward(x) + torch.randn(10)


class Functional(Net):
    """A head that is a function of the features."""

    def forward(self, x):
        return F.linear(self.features(x), self.classifier.weight, self.classifier.bias)


class Hidden(Net):
    """A linear layer before the head, and a head that is no linear layer."""

    def __init__(self):
        super().__init__()
        self.features.append(nn.Linear(128, 128))
        self.classifier = nn.Conv1d(1, 10, 128)

    def forward(self, x):
        return self.classifier(self.features(x)[:, None]).flatten(1)


class Normalised(Net):
    """Logarithms of probabilities, as a learner with NLLLoss gives them."""

    def forward(self, x):
        return super().forward(x).log_softmax(1)


class Replaced(Net):
    """A head that becomes another layer in the third experience, with the same weights."""

    seen = 0

    def forward(self, x):
        return self.classifier(self.features(x)) * 1.0

    def grow(self):
        self.seen += 1
        if self.seen == 3:
            weights = self.classifier.get_parameter("weight")
            self.classifier = CosineLayer(128, 10)
            self.classifier.register_parameter("weight", weights)


def growing():
    """A head that gets outputs with new classes."""
    net = Net()
    net.classifier = IncrementalClassifier(128, 2)
    return net


def several():
    """A head for each task."""
    return as_multitask(Net(), "classifier")


def lazy():
    """A head whose inputs are counted in the first forward pass."""
    net = Net()
    net.classifier = nn.LazyLinear(10)
    return net


def tied():
    """Two layers with the same weights."""
    net = Net()
    first, second = nn.Linear(128, 128), nn.Linear(128, 128)
    second.weight = first.weight
    net.features.extend([first, nn.ReLU(), second])
    return net


def hooked():
    """A hook that counts, and weights that a hook computes: such a learner cannot be copied after its training."""
    net = Net()
    net.classifier = nn.utils.spectral_norm(nn.Linear(128, 10))
    net.features.register_forward_hook(lambda *_: None)
    return net


def parallel():
    """The wrapper of data parallelism, which does nothing on a CPU."""
    return nn.DataParallel(Net())


def dropping():
    """Dropout, which draws random numbers in training."""
    net = Net()
    net.features.append(nn.Dropout(0.5))
    return net


class Steps(SupervisedPlugin):
    """Counts the steps of training, and changes a model that has a ``grow``."""

    count = 0

    def before_training(self, strategy, **kwargs):
        if hasattr(strategy.model, "grow"):
            strategy.model.grow()

    def after_training_iteration(self, strategy, **kwargs):
        self.count += 1


def trained(make, kind=CondensedReplay, experiences=2):
    """A memory after two experiences; and, for each warning about the encoder, the number of steps before it."""
    images, labels = digits()
    data, steps, found = dataset(images[:300], labels[:300]), Steps(), []
    memory = CondensedBuffer(Images(20), "dm batch_real=8", classes=10, steps=3, machine=Machine("cpu"))

    def note(message, category, *_, **__):
        assert issubclass(category, UserWarning), message
        if "learner_encoder=False" in str(message):
            found.append((steps.count, str(message)))

    with isolated(0), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        benchmark = nc_benchmark(data, data, 5, task_labels=make is several, seed=0)
        strategy = kind(storage_policy=memory, batch_size_mem=8, plugins=[steps], **training(make()))
        for experience in list(benchmark.train_stream)[:experiences]:
            strategy.train(experience)
    assert len(memory.memory) == 4 * experiences
    return memory, found


@pytest.mark.parametrize("make", [Net, growing, Auxiliary, Normalised, lazy, tied, parallel, dropping])
def test_these_learners_embed(make):
    memory, found = trained(make)
    assert found == []
    assert isinstance(memory.core.rules.filler.recipe.encoder, LearnerEncoder)


@pytest.mark.parametrize("make", [several, Cosine, Functional, Hidden, Noisy])
def test_a_head_that_cannot_embed_is_found_before_any_step(make):
    memory, found = trained(make)
    assert [steps for steps, _ in found] == [0]
    assert not isinstance(memory.core.rules.filler.recipe.encoder, LearnerEncoder)


@pytest.mark.parametrize("make", [Replaced, hooked])
def test_a_learner_that_can_embed_no_longer_ends_no_run(make):
    memory, found = trained(make, experiences=3)
    assert len(found) == 1
    assert found[0][0] > 0
    assert not isinstance(memory.core.rules.filler.recipe.encoder, LearnerEncoder)


def test_logits_of_a_memory_whose_learner_cannot_embed():
    assert len(trained(Cosine, DERpp)[1]) == 1
