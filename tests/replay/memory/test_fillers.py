import os
import pickle
import signal
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
import torch

from condensekit.data.images import ImageSpec
from condensekit.errors import ConfigError, DataError
from condensekit.methods import DistributionMatching
from condensekit.methods.encoders import Fresh
from condensekit.methods.recipe import Recipe
from condensekit.methods.trained_encoders import Trained
from condensekit.networks.convnet import ConvNet
from condensekit.progress import Progress, Stage
from condensekit.replay import Bytes, Images
from condensekit.replay.memory.base import DivergedError, Filler, Interrupted
from condensekit.replay.memory.fillers import Condensing, Selecting
from condensekit.replay.memory.names import as_filler
from condensekit.selection.base import Noise
from condensekit.selection.classic import Herding, Random
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import Formation
from tests.replay.worlds import DM, MEAN, SPEC, STD, Pictures, buffer, quick, stream


class Counting(Progress):
    """Counts matching steps; at one of them it does something."""

    def __init__(self, at=None, then=None):
        self.steps, self.at, self.then = 0, at, then

    @contextmanager
    def stage(self, name, total, done=0):
        yield _Counted(self) if name.startswith("condense") else Stage()


class _Counted(Stage):
    def __init__(self, owner):
        self.owner = owner

    def advance(self, steps=1, values=None):
        self.owner.steps += steps
        if self.owner.steps == self.owner.at:
            self.owner.then()


def taken(memory, *steps, **options):
    for step in steps:
        memory.post_adapt(None, stream(**options).train_stream[step])
    return memory


def spent_on(memory, *labels):
    """Seconds of the one condensation of these classes, as it was recorded."""
    first = memory.core.content.parts[0, labels[0]].provenance
    assert all(memory.core.content.parts[0, label].provenance["elapsed_s"] == first["elapsed_s"] for label in labels)
    return first["elapsed_s"] + first["preparation_s"]


def test_what_a_buffer_takes():
    assert as_filler(DM) == Condensing(Recipe(DM))
    assert as_filler(Herding()) == Selecting(Herding())
    assert isinstance(as_filler(DM), Filler)
    assert as_filler(as_filler(DM)) == Condensing(Recipe(DM))
    assert as_filler(lambda data, ipc, draw, compute: None).name == "<lambda>"
    for unusable in (3, None, DistributionMatching, Herding):
        with pytest.raises(ConfigError, match="recipe must be a text"):
            as_filler(unusable)
    for wrong in (DM, Condensing(Recipe(DM)), Recipe):
        with pytest.raises(ConfigError, match=r"recipe must be a Recipe, got .*: pass recipes.m3d\(\)"):
            Condensing(wrong)
    with pytest.raises(ConfigError, match="recipe must be a Recipe, got None"):
        Condensing()


@dataclass(frozen=True)
class Means(Filler):
    """A filler of one's own: the mean image of every class, again and again."""

    spec: ImageSpec | None = None
    shift: int = 0
    formation: Formation = Formation()  # noqa: RUF009 - frozen
    name: str = "means"

    def fill(self, data, ipc, job):
        images = torch.stack([data.gather(data.indices_of(label)).mean(0) for label in data.classes])
        labels = torch.tensor(data.classes).repeat_interleave(ipc) + self.shift
        spec = self.spec or data.spec
        return CondensedSet.from_images(images.repeat_interleave(ipc, 0), labels, spec, formation=self.formation)


def test_a_filler_of_ones_own():
    memory = taken(buffer(Images(12), Means(), storage="float32"), 0, 1)
    images, labels, _ = memory.core.images()
    assert labels.tolist() == [label for label in range(4) for _ in range(3)]
    dataset = stream().train_stream[1].dataset.eval()
    torch.testing.assert_close(images[-1], torch.stack([x for x, y, _ in dataset if y == 3]).mean(0))


@pytest.mark.parametrize("wrong", [Means(shift=1), Means(spec=replace(SPEC, class_names={}))])
def test_a_filler_that_makes_something_else(wrong):
    with pytest.raises(DataError, match=r"means made classes .* asked for \[0, 1\]"):
        taken(buffer(Images(12), wrong), 0)


def test_ctrl_c_ends_training_with_the_memory_as_it_was(tmp_path):
    bar = Counting()
    options = {"steps": 30, "out": tmp_path / "run"}
    memory = taken(buffer(Images(12), progress=bar, **options), 0)
    before = memory.memory.images
    bar.at, bar.then = bar.steps + 5, lambda: os.kill(os.getpid(), signal.SIGINT)
    way_out = "memory: interrupted by SIGINT after step 5 of 30: run the same again with the same out= to go on"
    with pytest.raises(Interrupted, match=f"^{way_out}$") as caught:
        taken(memory, 1)
    assert str(pickle.loads(pickle.dumps(caught.value))) == way_out
    assert caught.value.signum == signal.SIGINT
    assert isinstance(caught.value, KeyboardInterrupt)
    assert torch.equal(memory.memory.images, before)
    assert len(memory.condense_s) == 1
    done = bar.steps
    taken(memory, 1)
    assert bar.steps - done == 25
    assert memory.condense_s[1] >= spent_on(memory, 2, 3)  # before the interruption as well
    whole = taken(buffer(Images(12), steps=30), 0, 1)
    assert torch.equal(memory.memory.images, whole.memory.images)


def test_ctrl_c_without_a_folder_says_that_nothing_was_saved():
    bar = Counting()
    bar.at, bar.then = 5, lambda: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(Interrupted, match="after step 5 of 30: nothing was saved, for want of out="):
        taken(buffer(Images(12), progress=bar, steps=30), 0)


def test_a_folder_is_read_again_at_no_cost(tmp_path):
    first, second = Counting(), Counting()
    options = {"steps": 3, "out": tmp_path / "run"}
    a = taken(buffer(Images(12), progress=first, **options), 0, 1)
    b = taken(buffer(Images(12), progress=second, **options), 0, 1)
    assert (first.steps, second.steps) == (6, 0)
    assert torch.equal(a.memory.images, b.memory.images)
    assert b.condense_s[1] >= spent_on(b, 2, 3) == spent_on(a, 2, 3)
    with pytest.raises(ConfigError, match="holds a run of other options"):
        taken(buffer(Images(12), **options), 0, seed=5)


def test_a_condensation_that_diverges_changes_nothing():
    memory = taken(buffer(Images(12)), 0)
    before = memory.memory.images
    wild = DistributionMatching(batch_real=8, lr=1e38)
    memory.core.rules = replace(memory.core.rules, filler=Condensing(quick(wild)))
    with pytest.raises(DivergedError, match=r"filling the memory with dm: .* not finite") as caught:
        taken(memory, 1)
    assert caught.value.exit_code == 3
    assert torch.equal(memory.memory.images, before)


def test_methods_on_pixels_stay_between_the_ends_of_the_pixels():
    pixel = DistributionMatching(batch_real=8, space="pixel", lr=1e-3)
    found = taken(buffer(Images(12), pixel, storage="float32"), 0).core  # without the normalisation: of the data
    assert found.scale.channels[0].low <= float(found.images()[0].min())
    assert float(found.images()[0].max()) <= found.scale.channels[0].high
    images = taken(buffer(Images(12), pixel, spec=SPEC, storage="float32"), 0).core.images()[0] * STD + MEAN
    assert images.min() >= -1e-6
    assert images.max() <= 1 + 1e-6


def test_sets_of_separable_methods_go_from_order_to_order():
    cache: dict[str, CondensedSet] = {}
    first, second = Counting(), Counting()
    orders = [[0, 1, 2, 3, 4, 5], [5, 1, 4, 2, 3, 0]]
    data = Pictures()
    memories, seconds = [], []
    for order, bar in zip(orders, (first, second), strict=True):
        memory = buffer(Images(12), classes=6, cache=cache, progress=bar)
        for step in range(3):
            memory.post_adapt(None, stream("ci", data=data, order=order).train_stream[step])
        memories.append(memory.memory)
        seconds.append(memory.condense_s)
    assert len(cache) == 6
    assert (first.steps, second.steps) == (6, 0)
    made = {k: part.provenance["class_s"] for part in cache.values() for k in part.classes}
    for found, (a, b) in zip(seconds[1], [(5, 1), (4, 2), (3, 0)], strict=True):
        assert found >= made[a] + made[b] > 0
    assert sum(made.values()) <= sum(seconds[0])
    apart = buffer(Images(12), classes=6)
    for step in range(3):
        apart.post_adapt(None, stream("ci", data=data, order=orders[1]).train_stream[step])
    torch.testing.assert_close(memories[1].decode()[0], apart.core.images()[0], atol=0.02, rtol=0)
    other = buffer(Images(12), classes=6, cache=cache, seed=1)
    other.post_adapt(None, stream("ci", data=data).train_stream[0])
    assert len(cache) == 8


class Killed(Exception):  # noqa: N818
    """Stands for a kill."""


@dataclass
class Torn(dict):
    """A cache that can be killed between two files."""

    left: int = 99

    def update(self, found):  # type: ignore[override]
        for key, value in found.items():
            if not self.left:
                raise Killed
            self[key] = value
            self.left -= 1


def test_a_kill_between_two_files_of_the_cache_does_not_block_the_resume(tmp_path):
    cache = Torn(left=1)
    options = {"cache": cache, "out": tmp_path / "run", "steps": 3}
    with pytest.raises(Killed):
        taken(buffer(Images(per_class=2), **options), 0)
    assert len(cache) == 1
    cache.left, bar = 99, Counting()
    memory = taken(buffer(Images(per_class=2), progress=bar, **options), 0, 1)
    assert bar.steps == 6  # the class that is left, then both of the next experience
    assert len(cache) == 4
    whole = taken(buffer(Images(per_class=2), steps=3), 0, 1)
    torch.testing.assert_close(memory.core.images()[0], whole.core.images()[0], atol=0.02, rtol=0)


def test_sets_that_depend_on_other_classes_are_not_kept():
    cache: dict[str, CondensedSet] = {}
    trained = Trained(ConvNet(width=8, depth=2), count=1, steps=2)
    taken(buffer(Images(12), cache=cache, own={"encoder": trained}), 0)
    taken(buffer(Images(12), Random(), cache=cache), 0)
    assert cache == {}


def test_noise_starts_and_other_encoders():
    memory = taken(buffer(Images(12), own={"init": Noise(), "encoder": Fresh(ConvNet(width=4, depth=1), keep=2)}), 0, 1)
    assert len(memory.memory) == 12


class Watching(Fresh):
    """An encoder that wants to see the learner."""

    seen: list[tuple[str, int]]

    def observe(self, agent, exp):
        self.seen.append((agent, exp.logging().current_experience))


def test_an_encoder_is_shown_the_learner_before_and_after():
    encoder = Watching(ConvNet(width=8, depth=2))
    object.__setattr__(encoder, "seen", [])
    memory, benchmark = buffer(Images(12), own={"encoder": encoder}), stream()
    memory.pre_adapt("before", benchmark.train_stream[0])
    memory.post_adapt("after", benchmark.train_stream[0])
    memory.post_adapt("again", benchmark.train_stream[0])
    assert encoder.seen == [("before", 0), ("after", 0)]


def test_soft_labels_stay_within_a_budget_in_bytes():
    @dataclass(frozen=True)
    class Soft(Means):
        def fill(self, data, ipc, job):
            made = super().fill(data, ipc, job)
            return made.with_soft_labels(torch.full((len(made), len(data.classes)), 0.5), data.classes)

    memory = taken(buffer(Bytes(700), Soft()), 0, 1, 2)
    assert memory.nbytes <= 700
    assert memory.memory.soft_labels.shape == (7, 6)  # one class has an image more
    assert memory.memory.soft_labels.sum(1).tolist() == [1] * 7
