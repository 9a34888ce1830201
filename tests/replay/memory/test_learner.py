"""Encoders taken from the learner."""

import pytest
import torch
from avalanche.models import IncrementalClassifier, SimpleMLP

from condensekit.compute import Compute, Machine
from condensekit.data.images import ClassImages
from condensekit.driver import condense
from condensekit.errors import ConfigError, DataError
from condensekit.methods import DistributionMatching
from condensekit.methods.recipe import Recipe
from condensekit.networks.adaptor import as_feature_network
from condensekit.networks.convnet import ConvNet
from condensekit.replay import CondensedBuffer, CondensedReplay, Images, LearnerEncoder
from condensekit.replay.memory.learner import LearnerEmbedding, by_learner
from condensekit.rng import Draw, isolated
from condensekit.selection.base import Noise
from condensekit.selection.classic import Herding, KMeans, Random
from condensekit.selection.embeddings import Pixels
from tests.replay.worlds import CPU, DM, buffer, network, quick, stream


class Agent:
    """What an encoder looks at of a strategy."""

    def __init__(self, model):
        self.model = model


class Experience:
    def __init__(self, number):
        self.current_experience = number


def images(labels=(1, 3)):
    pixels = torch.randint(0, 255, (16, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ClassImages.from_arrays(pixels, torch.tensor(labels).repeat(8), mean=(0.4,), std=(0.3,))


def conv(seed):
    return ConvNet(width=8, depth=2).new((1, 8, 8), 6, Draw(seed))


def mlp(seed):
    with isolated(seed):
        return SimpleMLP(num_classes=6, input_size=64, hidden_size=12)


def prepared_by(encoder, data):
    with Compute(Machine("cpu", workers=0), (8, 8)) as compute:
        return encoder.prepare(data, Draw(0), compute)


@pytest.mark.parametrize("make", [conv, mlp, lambda seed: network(seed=seed)], ids=["ConvNet", "SimpleMLP", "linear"])
def test_weights_lie_between_before_and_after(make):
    data, encoder = images(), LearnerEncoder()
    start, end = make(1), make(2)
    encoder.observe(Agent(start), Experience(0))
    encoder.observe(Agent(end), Experience(0))
    prepared = prepared_by(encoder, data)
    module = encoder.network.new(data.spec.shape, 2, Draw(0))
    ways = set()
    for step in range(1, 6):
        encoder.load(module, Draw(0, step), prepared)
        a, b = (as_feature_network(m, data.spec.shape).classifier.weight[[1, 3]] for m in (start, end))
        way = ((module.classifier.weight - a) / (b - a)).mean().item()
        assert 0 <= way <= 1
        torch.testing.assert_close(module.classifier.weight, torch.lerp(a, b, way), atol=1e-4, rtol=1e-3)
        ways.add(round(way, 3))
    assert len(ways) == 5
    encoder.load_trained(module, Draw(0, 1), prepared)
    x = data.gather(data.order)
    end.eval(), module.eval()
    with torch.no_grad():
        torch.testing.assert_close(module(x), end(x)[:, [1, 3]], atol=1e-5, rtol=1e-4)


def test_a_start_is_chosen_by_the_learners_features_after_the_experience():
    data, how = images(), by_learner(Recipe(DM, init=Herding()))
    assert isinstance(how.init, Herding)
    for learner in (conv(1), conv(2)):
        how.encoder.observe(Agent(learner), Experience(0))
    with Compute(Machine("cpu", workers=0), (8, 8)) as compute:
        embed = how.init.embedding.prepare(data, Draw(0), compute)
        chosen = how.init(data, 2, Draw(0), compute)
    with torch.no_grad():
        wanted = conv(2).features(data.gather(data.order))
    torch.testing.assert_close(embed(data.order), wanted, atol=1e-5, rtol=1e-4)
    assert data.labels[chosen.indices].tolist() == [1, 1, 3, 3]


def test_only_starts_by_untrained_networks_are_chosen_anew():
    for start in (Noise(), Random(), KMeans(embedding=Pixels())):
        assert by_learner(Recipe(DM, init=start)).init == start
    how = by_learner(Recipe(DM, init=KMeans(candidates=9)))
    assert isinstance(how.encoder, LearnerEncoder)
    assert how.init == KMeans(LearnerEmbedding(how.encoder), 9)


def test_a_new_experience_starts_anew_and_one_look_gives_both_ends():
    encoder, data = LearnerEncoder(), images()
    encoder.observe(Agent(conv(1)), Experience(0))
    encoder.observe(Agent(conv(2)), Experience(0))
    encoder.observe(Agent(conv(3)), Experience(1))
    found = prepared_by(encoder, data)
    for name, value in conv(3).state_dict().items():
        wanted = value[[1, 3]] if name.startswith("classifier") else value
        assert torch.equal(found["initial/" + name][0], wanted)
        assert torch.equal(found["final/" + name][0], wanted)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_condensed_replay_leaves_out_a_learner_with_batch_norm(norm):
    model, memory = ConvNet(width=8, depth=2, norm=norm).new((1, 8, 8), 6, Draw(0)), CondensedBuffer(Images(2), DM)
    CondensedReplay(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.05), storage_policy=memory)
    recipe = memory.core.rules.filler.recipe
    assert recipe is not None
    assert isinstance(recipe.encoder, LearnerEncoder) is (norm == "instance")


def test_the_learner_is_not_touched():
    learner, encoder, data = conv(1), LearnerEncoder(), images()
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    encoder.observe(Agent(learner), Experience(0))
    method = DistributionMatching(batch_real=4, calibration=0.1)
    result = condense(data, quick(method, encoder=encoder), ipc=1, steps=2, machine=CPU)
    assert result.set.provenance["separable"] is False
    assert all(torch.equal(before[name], value) for name, value in learner.state_dict().items())
    assert all(p.requires_grad for p in learner.parameters())


def test_bad_learners_are_refused():
    with pytest.raises(ConfigError, match="has seen no learner"):
        condense(images(), quick(encoder=LearnerEncoder()), ipc=1, steps=1, machine=CPU)
    with pytest.raises(ConfigError, match="no linear layer"):
        as_feature_network(torch.nn.Conv2d(1, 1, 1), (1, 8, 8))
    headed = torch.nn.Sequential(torch.nn.Flatten(), IncrementalClassifier(64, 6))
    with pytest.raises(ConfigError, match="does not end in its linear layer"):
        as_feature_network(torch.nn.Sequential(headed, torch.nn.Unflatten(1, (6, 1))), (1, 8, 8))
    encoder = LearnerEncoder()
    encoder.observe(Agent(conv(0)), Experience(0))
    with pytest.raises(DataError, match="class 7 is beyond the learner's 6 outputs"):
        prepared_by(encoder, images((1, 7)))
    with pytest.raises(ConfigError, match="keep"):
        LearnerEncoder(keep=0)


def test_condensed_replay_embeds_with_the_learner_before_and_after():
    seen = []

    class Spy(LearnerEncoder):
        def prepare(self, data, draw, compute, progress=None, steps=None):
            seen.append((data.classes, len(self._learners)))
            return super().prepare(data, draw, compute)

    memory = buffer(Images(per_class=2), own={"encoder": Spy()})
    model = conv(0)
    strategy = CondensedReplay(
        model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.05), storage_policy=memory, train_mb_size=8
    )
    for exp in stream().train_stream:
        strategy.train(exp)
    assert seen == [((0, 1), 2), ((2, 3), 2), ((4, 5), 2)]  # its own classes only, the learner twice


def test_the_copies_of_the_learner_are_let_go_of_once_the_memory_is_filled():
    encoder = LearnerEncoder()
    memory = buffer(Images(per_class=2), own={"encoder": encoder})
    exps = stream().train_stream
    memory.pre_adapt(Agent(conv(1)), exps[0])
    assert encoder.network.module is not None
    memory.post_adapt(Agent(conv(2)), exps[0])
    assert encoder._learners == []
    with pytest.raises(ConfigError, match="has seen no learner"):
        memory.update_from_dataset(exps[1].dataset)
    memory.update_from_dataset(exps[1].dataset, Agent(conv(3)))  # shown to the encoder
    assert memory.memory.classes == (0, 1, 2, 3)
    assert encoder._learners == []


def test_copies_stay_where_filling_failed():
    encoder = LearnerEncoder()
    memory = buffer(Images(per_class=2), own={"encoder": encoder}, classes=1)
    exp = stream().train_stream[0]
    memory.pre_adapt(Agent(conv(1)), exp)
    with pytest.raises(ConfigError, match="classes=1 were announced"):
        memory.post_adapt(Agent(conv(2)), exp)
    assert len(encoder._learners) == 2


def test_a_folder_does_not_give_one_learner_the_images_of_another(tmp_path):
    def condensed(seed, out):
        memory, exp = buffer(Images(per_class=2), own={"encoder": LearnerEncoder()}, out=out), stream().train_stream[0]
        memory.pre_adapt(Agent(conv(seed)), exp)
        memory.post_adapt(Agent(conv(seed + 1)), exp)
        return memory.memory.images

    first = condensed(1, tmp_path)
    assert torch.equal(condensed(1, tmp_path), first)
    other = condensed(5, tmp_path)
    assert torch.equal(other, condensed(5, None))
    assert not torch.equal(other, first)
    assert len(list(tmp_path.iterdir())) == 2
    same, moved = LearnerEncoder(), LearnerEncoder()
    for encoder, end in ((same, 2), (moved, 3)):
        encoder.observe(Agent(conv(1)), Experience(0))
        encoder.observe(Agent(conv(end)), Experience(0))
    assert same.fingerprint() != moved.fingerprint()
