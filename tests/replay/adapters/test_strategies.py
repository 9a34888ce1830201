"""ER, ER-ACE and DER++ with any storage policy, on every kind of stream."""

import pytest
import torch
from avalanche.checkpointing import maybe_load_checkpoint, save_checkpoint
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics, forgetting_metrics, timing_metrics
from avalanche.models import IncrementalClassifier, as_multitask
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.storage_policy import ClassBalancedBuffer, ReservoirSamplingBuffer
from torch import nn

from condensekit.errors import ConfigError
from condensekit.methods.encoders import Fresh
from condensekit.replay import ERACE, Bytes, CondensedBuffer, CondensedReplay, DERpp, Images, LearnerEncoder
from condensekit.replay.adapters.full_batches import Replay
from condensekit.replay.memory.fillers import Selecting
from condensekit.selection.classic import Random
from condensekit.training.augment import Augmentation
from condensekit.training.train import TrainProtocol
from tests.replay.worlds import DM, accuracy, buffer, network, quick, stream

KINDS = ("nc", "ci", "tasked")
CUT = Augmentation(ops=("crop", "cutout"))


def learn(kind, policy, *, model=None, metrics=(), **options):
    model = model or network()
    return kind(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05),
        storage_policy=policy,
        train_mb_size=8,
        train_epochs=3,
        eval_mb_size=32,
        evaluator=EvaluationPlugin(accuracy_metrics(stream=True), *metrics, loggers=[]),
        **options,
    )


def trained(strategy, benchmark):
    for exp in benchmark.train_stream:
        strategy.train(exp)
    return strategy


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", [CondensedReplay, ERACE, DERpp])
@pytest.mark.parametrize("augmentation", [None, CUT], ids=["plain", "augmented"])
def test_all_on_every_stream(strategy, kind, augmentation):
    benchmark, memory = stream(kind), buffer(Images(12), classes=6)
    learner = learn(
        strategy,
        memory,
        batch_size_mem=16,  # more than the memory ever holds
        augmentation=augmentation,
        metrics=(forgetting_metrics(stream=True), timing_metrics(epoch=True)),
    )
    trained(learner, benchmark)
    assert accuracy(learner, benchmark) > 0.6
    assert len(memory.memory) == 12
    assert len(memory.condense_s) == 3


@pytest.mark.parametrize("policy", [lambda: ClassBalancedBuffer(12), lambda: ReservoirSamplingBuffer(12)])
@pytest.mark.parametrize("strategy", [CondensedReplay, ERACE])
def test_stock_policies_fit(strategy, policy):
    benchmark = stream("nc")
    assert accuracy(trained(learn(strategy, policy(), batch_size_mem=8), benchmark), benchmark) > 0.5


def test_condensed_replay_with_all_its_terms():
    benchmark, memory = stream("ci"), buffer(Bytes(per_class=300), Random())
    tune = TrainProtocol("tune", epochs=1, full_epochs=1, steps=4, batch=8, augmentation=None)
    learner = learn(CondensedReplay, memory, distillation=0.5, fine_tune=tune, augmentation=CUT)
    trained(learner, benchmark)
    assert accuracy(learner, benchmark) > 0.6
    assert memory.nbytes <= 6 * 300


def encoder_of(memory):
    """How the recipe of a memory embeds."""
    return memory.core.rules.filler.recipe.encoder


def test_the_learners_weights_are_the_default_encoder_of_distribution_matching_alone():
    for recipe, keep in (("dm", 1), ("m3d", 5), (DM, 1)):
        own = CondensedBuffer(Images(per_class=2), recipe)
        learn(CondensedReplay, own)
        assert isinstance(encoder_of(own), LearnerEncoder)
        assert encoder_of(own).keep == keep
    for recipe in (quick(), "dm encoder=kept", "dc", "krr"):
        given = CondensedBuffer(Images(per_class=2), recipe)
        before = given.core.rules
        learn(CondensedReplay, given)
        assert given.core.rules is before
    chosen = buffer(Images(per_class=2), Random())
    learn(CondensedReplay, chosen)
    assert chosen.core.rules.filler.recipe is None
    left = CondensedBuffer(Images(per_class=2), "dm")
    learn(CondensedReplay, left, learner_encoder=False)
    learn(DERpp, left, learner_encoder=False)
    assert encoder_of(left) == Fresh()


@pytest.mark.parametrize("strategy", [CondensedReplay, ERACE, DERpp])
@pytest.mark.parametrize("kind", ["nc", "ci"])
def test_resume_from_a_checkpoint_is_exact(strategy, kind, tmp_path):
    benchmark = stream(kind)

    def run(exps, learner):
        for exp in exps:
            torch.manual_seed(exp.current_experience)
            learner.train(exp)
        return learner

    def made():
        return learn(
            strategy, buffer(Images(per_class=2), own={"encoder": Fresh()}), batch_size_mem=4, augmentation=CUT
        )

    exps = list(benchmark.train_stream)
    whole = run(exps, made())
    save_checkpoint(run(exps[:2], made()), tmp_path / "state")
    second, at = maybe_load_checkpoint(made(), tmp_path / "state")
    run(exps[at:], second)
    assert accuracy(second, benchmark) == accuracy(whole, benchmark)
    for a, b in zip(second.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_er_ace_replays_current_classes_from_the_second_experience():
    benchmark, memory = stream("nc"), buffer(Images(per_class=2))
    labels = []

    class Spy(ERACE):
        def _before_forward(self, **kwargs):
            labels.append(set() if self.replay_loader is None else set(self.mb_buffer_y.tolist()))
            super()._before_forward(**kwargs)

    trained(learn(Spy, memory, batch_size_mem=12), benchmark)
    assert labels[0] == set()
    assert set().union(*labels) == {0, 1, 2, 3, 4, 5}
    assert labels[-1] == {0, 1, 2, 3, 4, 5}


def test_der_keeps_the_logits_of_a_classs_own_experience():
    benchmark, memory = stream("ci"), buffer(Images(per_class=2))
    strategy = learn(DERpp, memory, batch_size_mem=4)
    exps = list(benchmark.train_stream)
    strategy.train(exps[0])
    first = {label: value.clone() for label, value in strategy.logits.items()}
    images, labels, _ = memory.core.images()
    with torch.no_grad():
        torch.testing.assert_close(first[0, 0], strategy.model.eval()(images[labels == 0]))
    strategy.train(exps[1])
    assert set(strategy.logits) == {(0, label) for label in range(4)}
    assert torch.equal(strategy.logits[0, 0], first[0, 0])
    assert strategy.nbytes == memory.nbytes + 8 * 6 * 4


def test_der_shortens_logits_with_a_memory_that_shrinks():
    memory = buffer(Images(12))
    strategy = learn(DERpp, memory, batch_size_mem=4)
    for exp in stream("nc").train_stream:
        strategy.train(exp)
        assert {label: len(value) for label, value in strategy.logits.items()} == {
            group: int((memory.core.images()[1] == group[1]).sum()) for group in strategy.logits
        }
    assert {len(value) for value in strategy.logits.values()} == {2}


def test_der_cuts_the_logits_of_a_memory_that_was_resized_in_between():
    memory = buffer(Images(12))
    strategy = learn(DERpp, memory, batch_size_mem=4)
    first, second, third = stream("nc").train_stream
    strategy.train(first)
    strategy.train(second)
    kept = {label: value[:1].clone() for label, value in strategy.logits.items()}
    memory.resize(strategy, 6)
    seen = Logits()
    strategy.plugins.append(seen)
    strategy.train(third)
    assert seen.first.keys() == kept.keys()
    assert all(torch.equal(seen.first[label][:1], kept[label]) for label in kept)


def test_der_replays_a_memory_that_came_from_elsewhere():
    memory, exps = buffer(Images(per_class=2)), list(stream("nc").train_stream)
    learn(DERpp, memory, batch_size_mem=4).train(exps[0])
    other = buffer(Images(per_class=2))
    other.load_state_dict(memory.state_dict())
    strategy = learn(DERpp, other, batch_size_mem=4)
    seen = Logits()
    strategy.plugins.append(seen)
    strategy.train(exps[1])
    assert set(seen.first) == {(0, 0), (0, 1)}
    images, labels, _ = memory.core.images()
    for label, value in seen.first.items():
        torch.testing.assert_close(value, network()(images[labels == label[1]]).detach())
    assert set(strategy.logits) == {(0, label) for label in range(4)}


def test_der_gives_targets_to_classes_that_were_added_outside():
    memory, exps = buffer(Images(per_class=2)), list(stream("nc").train_stream)
    strategy = learn(DERpp, memory, batch_size_mem=4)
    strategy.train(exps[0])
    before = [p.detach().clone() for p in strategy.model.parameters()]
    memory.update_from_dataset(exps[2].dataset)
    seen = Logits()
    strategy.plugins.append(seen)
    strategy.train(exps[1])
    assert set(seen.first) == {(0, label) for label in (0, 1, 4, 5)}
    images, labels, _ = memory.core.images()
    wanted = images[labels == 5].flatten(1) @ before[0].T + before[1]
    torch.testing.assert_close(seen.first[0, 5], wanted)


class Logits(SupervisedPlugin):
    """The logits that the next experience begins with."""

    def before_training_exp(self, strategy, **kwargs):
        self.first = {label: value.clone() for label, value in strategy.logits.items()}


def test_memory_batches_balanced_by_task_are_refused():
    memory = buffer(Images(6), classes=6)
    with pytest.raises(ConfigError, match="task_balanced_dataloader=True: memory batches are full"):
        Replay(mem_size=6, storage_policy=memory, task_balanced_dataloader=True)


def test_bad_input():
    with pytest.raises(ConfigError, match="DERpp keeps logits of a CondensedBuffer, got a ReservoirSamplingBuffer"):
        learn(DERpp, ReservoirSamplingBuffer(4))
    with pytest.raises(ConfigError, match="batch_size_mem must be an integer of at least 1"):
        learn(ERACE, buffer(Images(6), classes=6), batch_size_mem=0)


class Sizes(SupervisedPlugin):
    """How many images each step has, and how often each replayed one was used in each epoch."""

    def __init__(self, mine):
        super().__init__()
        self.mine, self.steps, self.uses = mine, [], []

    def before_training_epoch(self, strategy, **kwargs):
        self.steps.append([])
        self.uses.append({})

    def before_training_iteration(self, strategy, **kwargs):
        self.steps[-1].append(len(strategy.mb_x))
        for image in strategy.mb_x[self.mine :]:
            key = image.numpy().tobytes()
            self.uses[-1][key] = self.uses[-1].get(key, 0) + 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "policy",
    [
        lambda: buffer(Images(per_class=3)),  # 6 and 12 images, in steps of 10
        lambda: buffer(Images(per_class=2), Random(), factor=2),  # 16 and 32 decoded ones
        lambda: ReservoirSamplingBuffer(7),
        lambda: ReservoirSamplingBuffer(40),
    ],
    ids=["condensed", "packed", "stock", "stock-large"],
)
def test_every_step_has_full_batches_whatever_the_memory_holds(kind, policy):
    sizes, memory = Sizes(8), policy()
    strategy = learn(CondensedReplay, memory, batch_size_mem=10, plugins=[sizes])
    for i, exp in enumerate(stream(kind).train_stream):
        held = len(memory.buffer)
        strategy.train(exp)
        for epoch, uses in zip(sizes.steps[-3:], sizes.uses[-3:], strict=True):
            assert epoch == [18 if i else 8] * 3  # 24 new images in batches of 8, beside 10 replayed ones
            if i:
                assert sum(uses.values()) == 30
                assert len(uses) == min(held, 30)
                assert max(uses.values()) - min(uses.values()) <= 1


def test_soft_labels_are_refused_where_hard_ones_are_replayed():
    class Soft(Selecting):
        def fill(self, data, ipc, job):
            made = super().fill(data, ipc, job)
            return made.with_soft_labels(torch.full((len(made), len(data.classes)), 0.5), data.classes)

    for strategy in (CondensedReplay, ERACE, DERpp):
        first, second, *_ = stream("nc").train_stream
        learner = learn(strategy, buffer(Images(per_class=2), Soft(Random())), batch_size_mem=4)
        learner.train(first)
        with pytest.raises(ConfigError, match=f"{strategy.__name__} replays hard labels and the memory has soft"):
            learner.train(second)


def growing():
    """A head that gets outputs with new classes."""
    net = network()
    net[1] = IncrementalClassifier(64, 2)
    return net


class Flat(nn.Module):
    """A learner whose head Avalanche's as_multitask can multiply."""

    def __init__(self):
        super().__init__()
        self.classifier: nn.Module = nn.Linear(64, 6)

    def forward(self, x):
        return self.classifier(x.flatten(1))


@pytest.mark.parametrize("make", [growing, lambda: as_multitask(Flat(), "classifier")], ids=["growing", "multi-head"])
def test_der_leaves_masked_outputs_out(make):
    """A head that masks outputs with -1000 until their class comes gives no target for them."""
    memory = buffer(Images(per_class=2), Random())
    strategy = learn(DERpp, memory, batch_size_mem=4, model=make())
    for exp in stream("nc").train_stream:
        strategy.train(exp)
        assert all(bool((value.nan_to_num().abs() < 100).all()) for value in strategy.logits.values())
    assert all(torch.isfinite(weights).all() for weights in strategy.model.parameters())
