"""Training from scratch on the memory, distillation and fine-tuning, as plugins of real Avalanche strategies."""

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from avalanche.checkpointing import maybe_load_checkpoint, save_checkpoint
from avalanche.evaluation.metrics import accuracy_metrics, loss_metrics
from avalanche.training.plugins import SupervisedPlugin
from avalanche.training.storage_policy import ClassBalancedBuffer, ReservoirSamplingBuffer

from condensekit.compute import Compute, Machine
from condensekit.errors import ConfigError, DataError
from condensekit.networks.convnet import ConvNet
from condensekit.replay import Distillation, FineTuneOnMemory, FromScratchOnMemory, Images
from condensekit.replay.adapters.seeds import network_draw
from condensekit.replay.adapters.sources import source_of, targets_of
from condensekit.replay.memory.fillers import Selecting
from condensekit.rng import Draw
from condensekit.selection.base import Selection
from condensekit.selection.classic import Random
from condensekit.training.train import DC, train_network
from tests.replay.worlds import accuracy, buffer, naive, network, replaying, stream

NET = ConvNet(width=8, depth=2)
QUICK = replace(DC, epochs=6, batch=4, lr=0.05)


def fresh():
    return NET.new((1, 8, 8), 6, Draw(99))


def twin(x, y, classes_seen, protocol, seed=0):
    """What the engine trains on the same memory."""
    with Compute(Machine("cpu", workers=0, chunk=0), (8, 8)) as compute:
        return train_network(x, y, NET, protocol, network_draw(seed, classes_seen), compute, 6)


def close(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.allclose(a, b, atol=1e-4) for a, b in pairs)


@pytest.mark.parametrize("kind", ["nc", "ci", "tasked"])
@pytest.mark.parametrize("protocol", [QUICK, replace(QUICK, steps=7, cutmix=0.5)], ids=["epochs", "steps"])
def test_from_scratch_is_the_engines_training(kind, protocol):
    memory = buffer(Images(per_class=3))
    strategy = naive(FromScratchOnMemory(memory, protocol=protocol, network=NET), model=fresh(), epochs=2)
    benchmark = stream(kind)
    for seen, exp in enumerate(benchmark.train_stream, 1):
        strategy.train(exp)
        images, labels, _ = memory.core.images()
        assert close(strategy.model, twin(images, labels, 2 * seen, protocol))
        assert strategy.train_epochs == 2


class Watch(SupervisedPlugin):
    """Counts epochs, steps, and images of a batch that do not come from the memory."""

    def __init__(self, memory):
        super().__init__()
        self.memory, self.steps, self.epochs, self.weights = memory, [], [], []

    def before_training_epoch(self, strategy, **kwargs):
        self.epochs[-1] += 1

    def before_training_exp(self, strategy, **kwargs):
        self.epochs.append(0)
        self.steps.append(0)
        source = source_of(self.memory)
        self.known = source.at(torch.arange(len(source)))
        self.weights.append(next(strategy.model.parameters()).detach().clone())

    def before_training_iteration(self, strategy, **kwargs):
        self.steps[-1] += 1
        for image in strategy.mb_x:
            assert (self.known == image).flatten(1).all(1).any()


@pytest.mark.parametrize(
    ("kind", "policy"),
    [("nc", lambda: ClassBalancedBuffer(12)), ("ci", lambda: ReservoirSamplingBuffer(12))],
)
def test_any_policy_and_any_model_on_the_memory_alone(kind, policy):
    memory = policy()
    watch = Watch(memory)
    protocol = replace(QUICK, augmentation=None, steps=10)
    strategy = naive(
        FromScratchOnMemory(memory, protocol=protocol),
        watch,
        epochs=1,
        metrics=(accuracy_metrics(minibatch=True, epoch=True, stream=True), loss_metrics(epoch=True)),
    )
    benchmark = stream(kind)
    for exp in benchmark.train_stream:
        strategy.train(exp)
    assert watch.steps == [10, 10, 10]
    assert watch.epochs == [4, 4, 4]  # of 3 steps each
    assert not torch.equal(watch.weights[0], watch.weights[1])
    assert not torch.equal(watch.weights[1], watch.weights[2])
    assert accuracy(strategy, benchmark) > 0.4


@pytest.mark.parametrize("kind", ["nc", "ci"])
def test_from_scratch_resumes_from_a_checkpoint(kind, tmp_path):
    def made():
        return naive(
            FromScratchOnMemory(buffer(Images(per_class=3)), protocol=QUICK, network=NET), model=fresh(), epochs=1
        )

    benchmark, whole = stream(kind), made()
    for exp in benchmark.train_stream:
        whole.train(exp)
    first = made()
    for exp in list(benchmark.train_stream)[:2]:
        first.train(exp)
    save_checkpoint(first, tmp_path / "state")
    second, at = maybe_load_checkpoint(made(), tmp_path / "state")
    for exp in list(benchmark.train_stream)[at:]:
        second.train(exp)
    assert at == 2
    assert accuracy(second, benchmark) == accuracy(whole, benchmark)
    assert close(second.model, whole.model)


def test_layers_without_fresh_weights_and_foreign_models_are_refused():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))
            self.net = network()

        def forward(self, x):
            return self.net(x) * self.scale

    exp = stream().train_stream[0]
    with pytest.raises(ConfigError, match="reset_parameters"):
        naive(FromScratchOnMemory(buffer(Images(per_class=2)), protocol=QUICK), model=Odd()).train(exp)
    with pytest.raises(ConfigError, match="needs a model that this network made, got a Sequential"):
        naive(FromScratchOnMemory(buffer(Images(per_class=2)), protocol=QUICK, network=NET)).train(exp)


class Terms(SupervisedPlugin):
    """Notes how much the plugins between its two hooks add to the loss."""

    def __init__(self):
        super().__init__()
        self.added, self.teachers = [], []

    def after_forward(self, strategy, **kwargs):
        self.plain = F.cross_entropy(strategy.mb_output, strategy.mb_y)

    def after_backward(self, strategy, **kwargs):
        self.added.append((strategy.loss - self.plain).item())
        self.last = strategy.mb_x.clone(), strategy.mb_output.detach().clone()


@pytest.mark.parametrize("kind", ["nc", "ci"])
def test_distillation_adds_its_term_from_the_second_experience(kind):
    terms, distillation = Terms(), Distillation(0.5, 3.0)
    strategy = naive(distillation, terms)
    exps = list(stream(kind).train_stream)
    strategy.train(exps[0])
    assert all(abs(value) < 1e-6 for value in terms.added)
    assert distillation.known == {0: {0, 1}}
    assert distillation.teacher is None
    before = strategy.model.state_dict()
    teacher = network()
    teacher.load_state_dict({name: value.clone() for name, value in before.items()})
    terms.added.clear()
    strategy.train(exps[1])
    images, outputs = terms.last
    wanted = F.softmax(teacher(images)[:, :2] / 3, 1)
    given = F.log_softmax(outputs[:, :2] / 3, 1)
    by_hand = 0.5 * 9 * F.kl_div(given, wanted, reduction="batchmean").item()
    assert terms.added[0] == pytest.approx(0, abs=1e-6)  # the learner is its own teacher still
    assert terms.added[-1] == pytest.approx(by_hand, rel=1e-3)
    assert distillation.known == {0: {0, 1, 2, 3}}


@pytest.mark.parametrize(("weight", "temperature"), [(0, 2), (1, 0), (float("nan"), 1)])
def test_distillation_refuses_bad_values(weight, temperature):
    with pytest.raises(ConfigError):
        Distillation(weight, temperature)


@pytest.mark.parametrize("kind", ["nc", "ci"])
def test_fine_tuning_fits_the_memory_and_fills_it_once(kind):
    memory = buffer(Images(per_class=3))
    tuned = FineTuneOnMemory(memory, protocol=replace(QUICK, steps=40, augmentation=None))
    strategy, plain = naive(tuned), naive()  # no replay plugin: the fine-tune fills the memory itself
    for exp in stream(kind).train_stream:
        strategy.train(exp)
        plain.train(exp)
    assert len(memory.condense_s) == 3
    images, labels, _ = memory.core.images()
    losses = [F.cross_entropy(s.model(images), labels).item() for s in (strategy, plain)]
    assert losses[0] < losses[1]


def test_fine_tuning_behind_a_replay_plugin_uses_its_memory():
    memory = ReservoirSamplingBuffer(9)
    strategy = replaying(memory)
    strategy.plugins.insert(1, FineTuneOnMemory(memory, protocol=replace(QUICK, steps=3)))
    benchmark = stream()
    for exp in benchmark.train_stream:
        strategy.train(exp)
    assert len(memory.buffer) == 9


def test_fine_tuning_counts_its_steps_and_draws_anew_in_each_experience():
    tuned = FineTuneOnMemory(buffer(Images(per_class=3)), protocol=replace(QUICK, steps=5, augmentation=None))
    assert (tuned.steps, tuned.shown) == (0, 0)
    strategy, batches, drawn = naive(tuned), [], []
    strategy.model.register_forward_pre_hook(lambda module, given: batches.append(given[0]))
    first = stream().train_stream[0]
    for _ in range(2):  # the same classes: only the number of the experience differs
        strategy.train(first)
        drawn.append(torch.cat(batches[-5:]))
        assert (tuned.steps, tuned.shown) == (5, len(drawn[-1]))
    assert sorted(map(len, drawn)) == [len(drawn[0])] * 2
    assert not torch.equal(*drawn)


def test_fine_tuning_an_empty_memory_says_what_to_do():
    empty = ReservoirSamplingBuffer(9)
    with pytest.raises(DataError, match=r"the memory of ReservoirSamplingBuffer is empty: put the plugin that fills"):
        naive(FineTuneOnMemory(empty, protocol=QUICK)).train(stream().train_stream[0])


@dataclass(frozen=True)
class Soft(Selecting):
    """Random images whose labels say 3 to 1 for their own class, within their experience."""

    selection: Selection = Random()  # noqa: RUF009 - frozen

    def fill(self, data, ipc, job):
        made = super().fill(data, ipc, job)
        own = torch.eye(len(data.classes)).repeat_interleave(ipc, 0)
        return made.with_soft_labels(0.5 * own + 0.25, data.classes)


def test_soft_labels_go_to_the_outputs_of_their_classes():
    memory = buffer(Images(per_class=2), Soft())
    for exp in stream(order=[4, 1, 3, 0, 5, 2]).train_stream[:2]:
        memory.post_adapt(None, exp)
    labels = memory.core.images()[1]
    assert labels.tolist() == [0, 0, 1, 1, 3, 3, 4, 4]
    found = targets_of(memory, labels, 6)
    partner = {0: 3, 3: 0, 1: 4, 4: 1}
    for row, label in zip(found, labels.tolist(), strict=True):
        wanted = torch.zeros(6)
        wanted[label], wanted[partner[label]] = 0.75, 0.25
        assert torch.equal(row, wanted)
    strategy = naive(
        FromScratchOnMemory(buffer(Images(per_class=2), Soft()), protocol=QUICK, network=NET), model=fresh()
    )
    tuned = naive(FineTuneOnMemory(buffer(Images(per_class=2), Soft()), protocol=QUICK))
    for exp in stream().train_stream:
        strategy.train(exp)
        tuned.train(exp)


def test_labels_beyond_the_head_are_refused_before_training():
    exps = stream().train_stream
    strategy = naive(FromScratchOnMemory(buffer(Images(per_class=2)), protocol=QUICK), model=network(classes=3))
    strategy.train(exps[0])
    with pytest.raises(DataError, match="label 3 is beyond the network's head, which has 3 outputs"):
        strategy.train(exps[1])
