"""Classes of each step: which they are, and that a step changes these alone."""

from dataclasses import dataclass, replace

import pytest
import torch

from condensekit.catalog import recipes
from condensekit.compute import Machine
from condensekit.data.images import ClassImages
from condensekit.driver import Saving, condense
from condensekit.errors import ConfigError
from condensekit.methods import DistributionMatching, GradientMatching
from condensekit.methods.base import keep_if
from condensekit.methods.encoders import Fresh
from condensekit.methods.recipe import Recipe
from condensekit.methods.sampling import Clustered, Importance
from condensekit.methods.scorer import LIGHT
from condensekit.methods.shares import turn
from condensekit.methods.trained_encoders import Trained
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw
from condensekit.sets.formation import Formation
from condensekit.testing import shapes

TINY = ConvNet(width=8, depth=1)


@dataclass(frozen=True)
class Kept(DistributionMatching):
    """DM whose steps compute all classes, and then put back those whose turn it is not: the slow twin."""

    batch_real: int = 4
    most: int = 4

    def step(self, state, ctx):
        before = {name: value.clone() for name, value in state.items()}
        new, metrics = super().step(state, ctx)
        rows = turn(len(ctx.data.classes), self.most, ctx.draw)
        return {name: value.index_copy(0, rows, new[name][rows]) for name, value in before.items()}, metrics


@dataclass(frozen=True)
class Counted(DistributionMatching):
    """DM that counts, in its state, the steps of each class and of all."""

    batch_real: int = 4

    def init(self, synthetic, ctx):
        zeros = torch.zeros(len(synthetic), dtype=torch.int64)
        return {**super().init(synthetic, ctx), "visits": zeros, "steps": torch.zeros((), dtype=torch.int64)}

    def step(self, state, ctx):
        new, metrics = super().step(state, ctx)
        return {**new, "visits": state["visits"] + 1, "steps": state["steps"] + 1}, metrics


def run(data=None, most=None, method=None, steps=6, ipc=2, saving=None, stop=lambda: False, **parts):
    recipe = Recipe(method or DistributionMatching(batch_real=4), **{"encoder": Fresh(TINY), **parts})
    recipe = recipe.replace(classes_per_step=most)
    machine = Machine("cpu", workers=1)
    return condense(data or shapes(), recipe, ipc=ipc, steps=steps, machine=machine, saving=saving, stop=stop)


@pytest.mark.parametrize(("total", "most"), [(10, 3), (10, 10), (4, 1), (1000, 50), (7, 6), (1000, 64)])
def test_each_class_has_one_turn_in_each_round(total, most):
    turns = -(-total // most)
    rounds = [[turn(total, most, Draw(5, 1 + turns * number + step)) for step in range(turns)] for number in range(3)]
    for steps in rounds:
        assert torch.equal(torch.cat(steps).sort().values, torch.arange(total))
        assert all(0 < len(rows) <= most and torch.equal(rows, rows.unique()) for rows in steps)
    if turns > 1:
        assert not all(map(torch.equal, rounds[0], rounds[1]))  # in a new order


def test_the_classes_of_a_step_are_spread_over_ranks():
    for step in range(1, 21):
        rows = turn(1000, 50, Draw(0, step))
        owned = [int(((rows >= start) & (rows < start + 250)).sum()) for start in range(0, 1000, 250)]
        assert max(owned) - min(owned) <= 1


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"init": recipes.dm(init="kmeans").init, "sampling": Clustered(clusters=3, refresh=2)},
        {"sampling": Importance(network=TINY, protocol=replace(LIGHT, steps=2), refresh=3)},
        {"encoder": Fresh(TINY, keep=3), "nested": True, "formation": Formation(factor=2)},
        {"encoder": Trained(TINY, count=2, steps=2), "soft_labels": True},
    ],
)
def test_a_step_changes_its_classes_alone(parts):
    """Bit for bit the images of a run that computes all classes and keeps those of the step.

    But for calibration, where a product of matrices of one class may be rounded otherwise.
    """
    calibration, error = (0.1, 1e-6) if "soft_labels" in parts else (0.0, 0.0)
    for most in (1, 3):
        made = run(most=most, method=DistributionMatching(batch_real=4, calibration=calibration), **parts).set.images
        twin = run(method=Kept(most=most, calibration=calibration), **parts).set.images
        assert torch.allclose(made, twin, rtol=0, atol=error)


def test_small_classes_take_their_turn():
    data = shapes(per_class=1)  # classes of 1, 2, 3 and 4 images
    made = run(data, most=2, ipc=3)
    assert made.set.counts == (1, 2, 3, 3)
    assert torch.equal(made.set.images, run(data, method=Kept(most=2), ipc=3).set.images)


def test_as_many_as_there_are_is_all():
    whole = run()
    for most in (4, 5, 1000):
        assert torch.equal(run(most=most).set.images, whole.set.images)
    assert not torch.equal(run(most=3).set.images, whole.set.images)


def test_a_resumed_run_goes_on_with_the_same_turns(tmp_path):
    saving, left = Saving(tmp_path / "run", resume=True), iter([False, False, True])
    run(most=3, saving=saving, stop=lambda: next(left))
    assert torch.equal(run(most=3, saving=saving).set.images, run(most=3).set.images)


def test_a_thousand_classes():
    """After whole rounds, each class has had as many steps; steps cost what their classes cost."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3000, 1, 8, 8), dtype=torch.uint8, generator=generator)
    data = ClassImages.from_arrays(pixels, torch.arange(3000) % 1000)
    seen = []

    @dataclass(frozen=True)
    class Watched(Counted):
        def step(self, state, ctx):
            seen.append((len(ctx.data), len(state["images"]), state["visits"].tolist(), int(state["steps"])))
            return super().step(state, ctx)

    made = run(data, most=50, method=Watched(), steps=41, ipc=1)
    assert len(made.set) == 1000
    assert [entry[:2] for entry in seen] == [(150, 50)] * 41
    assert [entry[2] for entry in seen] == [[0] * 50] * 20 + [[1] * 50] * 20 + [[2] * 50]
    assert [entry[3] for entry in seen] == list(range(41))
    whole = run(data, method=Counted(), steps=1, ipc=1)
    assert made.work["condensing"]["images"] * 20 == whole.work["condensing"]["images"] * 41


def test_a_step_that_is_not_finite_changes_nothing():
    states = []

    @dataclass(frozen=True)
    class Bad(Counted):
        def step(self, state, ctx):
            states.append({name: value.clone() for name, value in state.items()})
            new, metrics = super().step(state, ctx)
            finite = metrics["finite"] & (ctx.draw.attempt > 0)
            return keep_if(finite, new, state), {**metrics, "finite": finite}

    made = run(most=2, method=Bad(), steps=2)
    assert [row["attempt"] for row in made.history] == [1, 1]
    for first, again in ((0, 1), (2, 3)):
        assert all(torch.equal(value, states[again][name]) for name, value in states[first].items())


def test_a_method_may_give_one_tensor_two_names():
    @dataclass(frozen=True)
    class Twice(Counted):
        def init(self, synthetic, ctx):
            return {**super().init(synthetic, ctx), "first": synthetic}

        def step(self, state, ctx):
            moved = (state["images"] - state["first"]).abs().amax()
            new, metrics = super().step(state, ctx)
            return {**new, "first": state["first"]}, {**metrics, "moved": moved}

    first, *_, last = run(most=2, method=Twice(), steps=4).history
    assert first["moved"] == 0 < last["moved"]


def test_normalised_images_in_pixel_space_keep_their_ends():
    """The least and the greatest value are those of all classes, and are not looked for in each step."""
    data = shapes()
    floats = ClassImages.from_arrays(data.images.float() / 50 - 2, data.labels)
    assert not floats.spec.pixels
    assert floats.select(floats.classes[:1]).__dict__["ends"] == floats.ends
    method = DistributionMatching(batch_real=4, space="pixel")
    made = run(floats, most=2, method=method).set.images
    assert torch.equal(made, run(floats, method=Kept(most=2, space="pixel")).set.images)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"classes_per_step": 0}, "classes_per_step must be an integer of at least 1, got 0"),
        ({"classes_per_step": "2"}, "classes_per_step must be an integer of at least 1, got '2'"),
        ({"method": GradientMatching(), "classes_per_step": 2}, "dsa takes no classes_per_step: its step takes all"),
        (
            {"encoder": Fresh(replace(TINY, norm="batch")), "classes_per_step": 2},
            "dm with batch norm, which mixes the classes, takes no classes_per_step: leave it out, or use norm=",
        ),
    ],
)
def test_what_cannot_take_turns_is_refused(changes, says):
    with pytest.raises(ConfigError, match=says) as caught:
        Recipe(**{"method": DistributionMatching(), **changes}).check(shapes(), 1, Machine("cpu"))
    assert len(caught.value.problems) == 1


def test_a_state_without_classes_is_refused():
    @dataclass(frozen=True)
    class Loose(Counted):
        def init(self, synthetic, ctx):
            return {**super().init(synthetic, ctx), "loose": torch.zeros(7)}

    with pytest.raises(ConfigError, match="classes_per_step does not fit dm: the first axis of 'loose' in its state"):
        run(most=2, method=Loose())


def test_it_is_an_option_of_text():
    made = recipes.parse("m3d classes_per_step=50")
    assert made.classes_per_step == 50
    assert recipes.name_of(made) == "m3d classes_per_step=50"
    assert recipes.parse("krr").classes_per_step is recipes.krr(classes_per_step=None).classes_per_step is None
    assert not made.separable  # a class alone would have all turns
    for name, reason in (("krr", "it predicts the labels"), ("dc", "it trains a network on the images of all")):
        with pytest.raises(ConfigError, match=f"{name} takes no classes_per_step: {reason}"):
            recipes.parse(f"{name} classes_per_step=5")
    with pytest.raises(ConfigError, match="classes_per_step must be a whole number, got 'few'"):
        recipes.parse("dm classes_per_step=few")
