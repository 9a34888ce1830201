import io

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.checkpointing import maybe_load_checkpoint, save_checkpoint
from avalanche.models import FeCAMClassifier, NCMClassifier, TrainEvalModel
from avalanche.training.determinism.rng_manager import RNGManager
from avalanche.training.plugins import ReplayPlugin
from avalanche.training.plugins.update_fecam import MemoryFeCAMUpdate
from avalanche.training.plugins.update_ncm import MemoryNCMUpdate

from condensekit.errors import ConfigError, DataError
from condensekit.progress import Progress
from condensekit.replay import Bytes, CondensedBuffer, Images
from condensekit.rng import isolated
from condensekit.selection.classic import Random
from tests.cases.streams.digits import digits
from tests.replay.worlds import DM, Pictures, accuracy, buffer, naive, network, replaying, stream
from tests.targeted import Targeted

FILLERS = pytest.mark.parametrize("filler", [DM, Random()], ids=["dm", "random"])


def run(steps, folder, filler, kind, resume):
    """Accuracies after training on the experiences numbered ``steps``, with a checkpoint after the last."""
    benchmark, found = stream(kind), []
    strategy = replaying(buffer(Images(12), filler), model=network(6), epochs=2)
    if resume:
        strategy, start = maybe_load_checkpoint(strategy, folder / "checkpoint")
        assert start == steps[0]
    else:
        RNGManager.set_random_seeds(3)
    for i in steps:
        strategy.train(benchmark.train_stream[i])
        found.append(accuracy(strategy, benchmark))
    save_checkpoint(strategy, folder / "checkpoint")
    return found, strategy


def images_of(strategy):
    """What the memory of a strategy holds."""
    content = CondensedBuffer.of(strategy).memory
    assert content is not None
    return content.images


@FILLERS
@pytest.mark.parametrize("kind", ["nc", "ci"])
def test_a_restored_run_goes_on_as_if_nothing_had_been(tmp_path, filler, kind):
    with isolated(0):
        whole, first = run([0, 1, 2], tmp_path, filler, kind, resume=False)
        head, _ = run([0, 1], tmp_path, filler, kind, resume=False)
        tail, second = run([2], tmp_path, filler, kind, resume=True)
    assert head + tail == whole
    assert torch.equal(images_of(first), images_of(second))
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


class Bar(Progress):
    """What no checkpoint can hold."""

    def __reduce__(self):
        raise TypeError("not to be pickled")


def test_what_a_checkpoint_leaves_out(tmp_path):
    memory = buffer(Images(12), progress=Bar(), cache={})
    strategy, benchmark = replaying(memory), stream()
    strategy.train(benchmark.train_stream[0])
    assert len(memory.buffer) == len(memory.core.images()[0])
    save_checkpoint(strategy, tmp_path / "checkpoint")
    again, _ = maybe_load_checkpoint(replaying(buffer(Images(12))), tmp_path / "checkpoint")
    restored = CondensedBuffer.of(again)
    assert restored is again.plugins[0].storage_policy
    assert restored is not memory
    assert torch.equal(restored.memory.images, memory.memory.images)
    assert not isinstance(restored.core.rules.job.progress, Bar)
    assert restored.core.cache is None
    strategy.train(benchmark.train_stream[1])
    with pytest.raises(DataError, match="nor a plugin of it has a CondensedBuffer"):
        CondensedBuffer.of(naive())


def test_a_checkpoint_is_written_after_a_network_was_compiled(tmp_path):
    torch.compile(network())  # imports torch's compiler, to which dill follows the class of an optimiser
    memory = buffer(Images(12))
    strategy, benchmark = replaying(memory), stream()
    strategy.train(benchmark.train_stream[0])
    save_checkpoint(strategy, tmp_path / "checkpoint")
    again, start = maybe_load_checkpoint(replaying(buffer(Images(12))), tmp_path / "checkpoint")
    assert (start, type(again.optimizer)) == (1, torch.optim.SGD)
    assert torch.equal(images_of(again), memory.memory.images)


@pytest.mark.parametrize(
    "other", [{"data": Pictures(seed=9)}, {"order": [5, 4, 3, 2, 1, 0]}], ids=["other data", "other order"]
)
@pytest.mark.parametrize("kind", ["nc", "ci"])
def test_a_restored_buffer_goes_on_with_later_data(tmp_path, other, kind):
    strategy = replaying(buffer(Images(12)))
    strategy.train(stream(kind).train_stream[0])
    save_checkpoint(strategy, tmp_path / "checkpoint")
    again, _ = maybe_load_checkpoint(replaying(buffer(Images(12))), tmp_path / "checkpoint")
    memory, later = CondensedBuffer.of(again), stream(kind, **other).train_stream[0]
    memory.post_adapt(None, later)
    assert len(memory.condense_s) == 2
    assert {label for _, label in memory.core.groups} == {0, 1} | set(later.classes_in_this_experience)
    memory.post_adapt(None, stream(kind).train_stream[0])  # the same images as those of the checkpoint
    assert len(memory.condense_s) == 2


@pytest.mark.parametrize("scale", [lambda x: (x - 0.5) / 0.25, lambda x: 255 * x, lambda x: (x - 0.1307) / 0.3081])
def test_later_data_of_another_normalisation_are_refused(tmp_path, scale):
    memory = buffer(Images(12))
    memory.post_adapt(None, benchmark_of(lambda x: x).train_stream[0])
    restored = buffer(Images(12))
    restored.load_state_dict(through_a_file(memory.state_dict()))
    before = restored.memory.images
    with pytest.raises(DataError, match="normalised"):
        restored.post_adapt(None, benchmark_of(scale).train_stream[0])
    assert torch.equal(restored.memory.images, before)
    restored.post_adapt(None, benchmark_of(lambda x: (11 * x).round() / 16).train_stream[0])  # darker


def benchmark_of(scale):
    """Digits in [0, 1], scaled."""
    images, labels = digits()
    data = Targeted(scale(images[:100]), labels[:100])
    return nc_benchmark(data, data, 1, task_labels=False)


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("options", [{}, {"storage": "float16", "factor": 2}])
def test_state_dict(options):
    benchmark = stream("tasked", tensor_targets=True)
    memory, other = buffer(Images(12), **options), buffer(Images(12), **options)
    for experience in benchmark.train_stream[:2]:
        memory.post_adapt(None, experience)
    other.load_state_dict(through_a_file(memory.state_dict()))
    assert torch.equal(other.memory.images, memory.memory.images)
    assert other.condense_s == memory.condense_s
    assert [type(v) for v in other.buffer[0]] == [type(v) for v in memory.buffer[0]]
    for one in (memory, other):
        one.post_adapt(None, benchmark.train_stream[1])
        one.post_adapt(None, benchmark.train_stream[2])
        assert len(one.condense_s) == 3
    assert torch.equal(other.memory.images, memory.memory.images)


def test_state_dict_of_an_empty_or_resized_memory():
    memory, other = buffer(Images(12)), buffer(Images(12))
    other.load_state_dict(through_a_file(memory.state_dict()))
    assert other.memory is None
    memory.post_adapt(None, stream().train_stream[0])
    memory.resize(None, 4)
    other.load_state_dict(memory.state_dict())
    assert (other.max_size, len(other.memory)) == (4, 4)


def test_a_state_is_cut_to_the_budget_at_hand():
    memory = buffer(Images(12))
    memory.post_adapt(None, stream().train_stream[0])
    small = buffer(Bytes(400))
    small.load_state_dict(memory.state_dict())
    assert len(small.memory) == 5
    with pytest.raises(ConfigError, match="less than one image"):
        buffer(Bytes(100)).load_state_dict(memory.state_dict())


def test_a_state_of_version_0_1():
    memory, other = buffer(Images(12)), buffer(Images(12))
    memory.post_adapt(None, stream().train_stream[0])
    state = memory.state_dict()
    former = {**state, "memory": [{**part, "formation": [1, "uint8"], "coded": None} for part in state["memory"]]}
    del former["work"]
    other.load_state_dict(through_a_file(former))
    assert torch.equal(other.memory.images, memory.memory.images)


def test_states_that_do_not_fit():
    memory = buffer(Images(12))
    memory.post_adapt(None, stream().train_stream[0])
    state = memory.state_dict()
    with pytest.raises(ConfigError, match=r"the state holds Formation.*uint8.*the memory stores Formation.*float32"):
        buffer(Images(12), storage="float32").load_state_dict(state)
    for broken in ({}, {**state, "memory": [{}]}, {**state, "layout": 3}, {**state, "taken": [["train"]]}):
        with pytest.raises(DataError, match="not the state of a"):
            buffer(Images(12)).load_state_dict(broken)
    part = {**state["memory"][0], "label": 3}
    with pytest.raises(DataError, match="class 3 holds images of"):
        buffer(Images(12)).load_state_dict({**state, "memory": [part]})


class Features(torch.nn.Module):
    """Pixels as they are; FeCAM needs them positive."""

    def forward(self, images):
        return images.flatten(1)[:, :16].abs()


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning")  # in Avalanche's FeCAM
@pytest.mark.parametrize(
    ("plugin", "classifier"), [(MemoryNCMUpdate, NCMClassifier), (MemoryFeCAMUpdate, FeCAMClassifier)]
)
@pytest.mark.parametrize("shared", [False, True])
def test_plugins_that_classify_by_the_memory(plugin, classifier, shared):
    memory, benchmark = buffer(Images(per_class=6), Random(), classes=6), stream()
    model = TrainEvalModel(Features(), train_classifier=torch.nn.Linear(16, 6), eval_classifier=classifier())
    plugins = [plugin(storage_policy=memory)]
    if shared:
        plugins.insert(0, ReplayPlugin(memory.max_size, storage_policy=memory))
    strategy = naive(*plugins, model=model)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert len(memory.condense_s) == 3
    assert set(model.eval_classifier.class_means_dict) == set(range(6))
    assert accuracy(strategy, benchmark) > 0.3


def test_the_mean_of_the_memory_is_what_nearest_means_classify_by():
    memory, benchmark = buffer(Images(per_class=6), Random(), classes=6), stream()
    model = TrainEvalModel(
        Features(), train_classifier=torch.nn.Linear(16, 6), eval_classifier=NCMClassifier(normalize=False)
    )
    strategy = naive(MemoryNCMUpdate(storage_policy=memory), model=model)
    strategy.train(benchmark.train_stream)
    images, labels, _ = memory.core.images()
    for label, mean in model.eval_classifier.class_means_dict.items():
        torch.testing.assert_close(mean, Features()(images[labels == label]).mean(0))
