"""Schedules and averaging: the step size and the images of the last steps, in every kind of run."""

import dataclasses
import math
import time
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from condensekit.catalog import recipes
from condensekit.compute import Machine
from condensekit.driver import Saving, Status, condense
from condensekit.errors import ConfigError
from condensekit.methods import DistributionMatching, GradientMatching, KernelRidge
from condensekit.methods.base import keep_if
from condensekit.methods.recipe import Recipe
from condensekit.methods.schedule import COUNT, Constant, Cosine, Course, Plateau, Schedule, averaged
from condensekit.runs.files import load_tensors
from condensekit.selection.base import Noise
from condensekit.sets.formation import Formation
from condensekit.testing import NARROW, shapes

ONE = Machine("cpu", workers=1)
CPU = torch.device("cpu")
SOON = Plateau(patience=0, factor=0.5)


@dataclasses.dataclass(frozen=True)
class Seen(DistributionMatching):
    """DM that keeps the images after each step; for classes that take turns, only of those."""

    batch_real: int = 4

    def step(self, state, ctx):
        new, metrics = super().step(state, ctx)
        IMAGES.append(new["images"].clone())
        RATES.append(float(ctx.rate))
        return new, metrics


IMAGES: list[torch.Tensor] = []
RATES: list[float] = []


@pytest.fixture(autouse=True)
def forgotten():
    IMAGES.clear()
    RATES.clear()


def run(method=None, steps=8, ipc=2, saving=None, minutes=None, stop=lambda: False, **parts):
    recipe = Recipe(method or Seen(), **{"encoder": NARROW, **parts})
    return condense(
        shapes(), recipe, ipc=ipc, steps=steps, minutes=minutes, machine=ONE, saving=saving, stop=stop, seed=1
    )


def stops_after(count):
    left = iter([*[False] * (count - 1), *[True] * 99])
    return lambda: next(left)


# the factor of the step size


def test_cosine_is_that_of_torch():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=8, eta_min=0.1)
    wanted = []
    for _ in range(8):
        wanted.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    made = run(schedule=Cosine(floor=0.1))
    assert pytest.approx(wanted) == RATES
    assert [row["rate"] for row in made.history] == pytest.approx(wanted)
    assert "rate" not in run(steps=1).history[0]


@pytest.mark.parametrize(("patience", "factor"), [(0, 0.5), (2, 0.5), (3, 0.1)])
def test_plateau_is_that_of_torch(patience, factor):
    losses = [5, 4, 4, 4, 4, 4, 4, 4, 3, 3, 3, 3.0001, 2.9999, 2, 2, 2, 2, 2, 2, -1, -1, -1, -1, -1, -1, -1.5]
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=factor, patience=patience, threshold_mode="rel", eps=0.0
    )
    ours, state, found = Plateau(patience, factor), Plateau().start(CPU), []
    for loss in losses[:19]:  # torch's rule takes every negative loss for a better one
        theirs.step(loss)
        state = ours.after(state, torch.tensor(loss), 1, True)
        found.append((float(ours.rate(0.0, state)), optimiser.param_groups[0]["lr"]))
    assert all(one == pytest.approx(other) for one, other in found)
    assert len({one for one, _ in found}) > 1
    before = float(ours.rate(0.0, state))
    for loss in losses[19:]:
        state = ours.after(state, torch.tensor(loss), 1, True)
    assert (float(ours.rate(0.0, state)) < before) == (patience < 5)


def test_plateau_lowers_the_rate_of_a_run():
    made = run(schedule=SOON, steps=20)
    assert [row["rate"] for row in made.history] == RATES
    assert RATES[0] == 1
    assert RATES[-1] < 1
    losses, best, rate = [row["loss"] for row in made.history], math.inf, 1.0
    for loss, told in zip(losses, RATES, strict=True):
        assert told == rate
        rate, best = (rate, loss) if loss < best * (1 - 1e-4) else (rate / 2, best)


def test_a_constant_schedule_has_the_bits_of_none():
    plain = run().set.images
    assert torch.equal(run(schedule=Cosine(floor=1.0)).set.images, plain)
    assert torch.equal(run(schedule=Plateau()).set.images, plain)
    assert not torch.equal(run(schedule=Cosine()).set.images, plain)


def test_with_turns_a_plateau_compares_rounds():
    """Four classes, three a step: a step of two classes and one of two, whose losses differ."""
    schedule, state = Plateau(patience=2), Plateau().start(CPU)
    for step, loss in enumerate([9.0, 1.0] * 3, 1):
        state = schedule.after(state, torch.tensor(loss), 2, step % 2 == 0)
    assert state["course/best"] == 10
    assert state["course/bad"] == 0  # 4 steps without a better loss are more than 2: the rate has fallen
    assert state["course/rate"] == 0.5
    made = run(schedule=SOON, classes_per_step=3, steps=12)
    rates = [row["rate"] for row in made.history]
    assert rates[0::2] == rates[1::2]  # which change between rounds only
    assert min(rates) < 1


def test_a_step_that_is_not_finite_leaves_a_plateau_as_it_was():
    before = Plateau().after(Plateau().start(CPU), torch.tensor(3.0), 1, True)
    for turns, losses in ((1, [math.nan]), (2, [math.nan, 0.5]), (2, [0.5, math.nan])):
        state = before
        for step, loss in enumerate(losses, 1):
            state = Plateau(0).after(state, torch.tensor(loss), turns, step == turns)
        assert all(torch.equal(state[name], value) for name, value in before.items())


@pytest.mark.parametrize("parts", [{"schedule": SOON}, {"schedule": Cosine(), "average": 0.5}, {"average": 0.9}])
@pytest.mark.parametrize("cut", [2, 6])
def test_a_resumed_run_has_the_bits_of_an_undisturbed_one(parts, cut, tmp_path):
    saving = Saving(tmp_path / "run", resume=True)
    assert run(saving=saving, stop=stops_after(cut), **parts).status is Status.INTERRUPTED
    again, whole = run(saving=saving, **parts), run(**parts)
    assert torch.equal(again.set.images, whole.set.images)
    assert [row.get("rate") for row in again.history] == [row.get("rate") for row in whole.history[cut:]]
    assert torch.equal(run(saving=saving, **parts).set.images, whole.set.images)  # finished: read again


# the mean of the last images


@pytest.mark.parametrize(
    ("average", "steps", "count"), [(0.25, 8, 2), (0.3, 10, 3), (1.0, 4, 4), (0.25, 3, 0), (0.7, 10, 7), (1, 1, 1)]
)
def test_the_set_is_the_mean_of_the_last_images(average, steps, count):
    made = run(steps=steps, average=average).set.images
    wanted = torch.stack(IMAGES[-max(1, count) :]).double().mean(0).flatten(0, 1)
    torch.testing.assert_close(made.double(), wanted, rtol=0, atol=1e-6)
    assert torch.equal(made, IMAGES[-1].flatten(0, 1)) == (count <= 1)


def test_the_run_goes_on_from_its_own_images():
    plain = run()
    losses = [row["loss"] for row in plain.history]
    assert [row["loss"] for row in run(average=0.5).history] == losses


def test_an_interrupted_run_has_its_last_images_until_averaging_begins(tmp_path):
    for cut, count in ((5, 1), (6, 1), (7, 1), (8, 2)):
        IMAGES.clear()
        made = run(average=0.25, stop=stops_after(cut))
        wanted = torch.stack(IMAGES[-count:]).mean(0).flatten(0, 1)
        torch.testing.assert_close(made.set.images, wanted, rtol=0, atol=1e-6)


def test_classes_that_take_turns_count_in_each_step():
    """The images of a class whose turn it is not are those of its last turn."""
    seen = []

    class Watched(Course):
        def _average(self, state, finite):
            seen.append(state["images"].clone())
            super()._average(state, finite)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("condensekit.driver.Course", Watched)
        made = run(average=0.5, classes_per_step=1).set.images
    assert len(seen) == 4
    torch.testing.assert_close(made, torch.stack(seen).mean(0).flatten(0, 1), rtol=0, atol=1e-6)
    assert all(sum(not torch.equal(a, b) for a, b in zip(*pair, strict=True)) == 1 for pair in pairwise(seen))


@pytest.mark.parametrize(
    "parts",
    [
        {"nested": True, "ipc": 3},
        {"formation": Formation(factor=2, dtype="uint8")},
        {"ipc": 14},  # more than three of the classes have
        {"method": GradientMatching(batch_real=8, outer=2, inner=1, batch_net=8)},
    ],
    ids=["nested", "packed", "small classes", "dsa"],
)
def test_every_kind_of_run_can_be_averaged(parts):
    last, made = run(**parts), run(schedule=Cosine(floor=1.0), average=0.5, **parts)
    assert made.status is Status.FINISHED
    assert made.set.images.shape == last.set.images.shape
    assert made.set.formation == last.set.formation
    assert not torch.equal(made.set.images, last.set.images)
    pairs = zip(made.history, last.history, strict=True)
    assert all(one["loss"] == other["loss"] for one, other in pairs)


def test_learned_soft_labels_are_averaged_with_the_images():
    method = KernelRidge(labels="soft", batch_real=4)
    made = [run(method, augmentation=None, average=average).set for average in (0.0, 0.5)]
    assert not torch.equal(*(one.soft_labels for one in made))
    torch.testing.assert_close(made[1].soft_labels.sum(1), torch.ones(8))


def test_a_step_that_is_not_finite_does_not_count():
    state = {"images": torch.zeros(2, 1, 1, 1, 1)}
    course = Course(Constant(), 1.0, ("images",), 1, CPU)
    for step, (value, finite) in enumerate([(9.0, False), (1.0, True), (1.0, False), (4.0, True)], 1):
        state["images"].fill_(value)
        course.after(step, 0.5, state, {"finite": torch.tensor(finite)})
        if step == 1:
            assert averaged(state | course.state)["images"].unique() == 9  # none counts: the last ones
    assert course.state[COUNT] == 2
    assert averaged(state | course.state)["images"].unique() == 2.5


def test_a_run_that_diverges_keeps_finite_images():
    @dataclasses.dataclass(frozen=True)
    class Bad(Seen):
        def step(self, state, ctx):
            new, metrics = super().step(state, ctx)
            finite = torch.tensor(ctx.draw.step < 7)
            return keep_if(finite, new, state), {**metrics, "loss": metrics["loss"] / finite, "finite": finite}

    made = run(Bad(), average=0.5, schedule=Plateau())
    assert made.status is Status.DIVERGED
    torch.testing.assert_close(made.set.images, torch.stack(IMAGES[4:6]).mean(0).flatten(0, 1), rtol=0, atol=1e-6)


# the length of a run


@pytest.mark.parametrize(
    ("parts", "why"), [({"schedule": Cosine()}, "schedule='cosine'"), ({"average": 0.25}, r"average=0\.25")]
)
@pytest.mark.parametrize("cut", [2, 99])
def test_a_run_whose_images_depend_on_its_length_keeps_it(parts, why, cut, tmp_path):
    saving = Saving(tmp_path / "run", resume=True)
    first = run(saving=saving, stop=stops_after(cut), **parts)
    says = f"has steps=8, on which its images depend by {why}, got steps=12: give the same, or use another folder"
    with pytest.raises(ConfigError, match=says) as caught:
        run(saving=saving, steps=12, **parts)
    assert len(caught.value.problems) == 1
    again = run(saving=saving, **parts)
    assert (first.status is Status.FINISHED) == (cut > 8)
    assert torch.equal(again.set.images, run(**parts).set.images)


def test_a_plateau_may_go_on_for_longer(tmp_path):
    saving = Saving(tmp_path / "run", resume=True)
    run(saving=saving, schedule=SOON)
    longer = run(saving=saving, schedule=SOON, steps=12)
    assert torch.equal(longer.set.images, run(schedule=SOON, steps=12).set.images)


def test_of_minutes_those_after_the_preparation_count(tmp_path, monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: seconds[0])

    @dataclasses.dataclass(frozen=True)
    class Slow(Seen):
        def step(self, state, ctx):
            seconds[0] += 5
            return super().step(state, ctx)

    class Start(Noise):
        def images(self, *arguments):
            seconds[0] += 10
            return super().images(*arguments)

    saving = Saving(tmp_path / "run", resume=True)
    options = {"steps": None, "minutes": 1, "init": Start(), "schedule": Cosine(), "average": 0.3, "saving": saving}
    run(Slow(), stop=stops_after(4), **options)
    made = run(Slow(), **options)
    wanted = [(1 + math.cos(math.pi * 5 * step / 50)) / 2 for step in range(9)]
    assert pytest.approx(wanted) == RATES  # also after the interruption
    torch.testing.assert_close(made.set.images, torch.stack(IMAGES[-2:]).mean(0).flatten(0, 1), rtol=0, atol=1e-6)
    with pytest.raises(ConfigError, match=r"has minutes=1, on which its images depend by schedule='cosine' and av"):
        run(Slow(), **{**options, "minutes": 2})


# what a recipe takes


def test_text_and_names():
    made = recipes.parse("m3d schedule=cosine schedule.floor=0.1 average=0.25")
    assert (made.schedule, made.average) == (Cosine(0.1), 0.25)
    assert recipes.name_of(made) == "m3d schedule=cosine schedule.floor=0.1 average=0.25"
    assert recipes.parse("ncfm schedule.patience=9").schedule == Plateau(9)
    assert recipes.name_of(recipes.ncfm(schedule="constant")) == "ncfm schedule=constant"
    assert Recipe.parse("ncfm schedule=plateau") == recipes.ncfm()
    for text in (
        "m3d schedule=cosine average=0.5",
        "ncfm schedule=constant",
        "dm schedule=plateau schedule.factor=0.1",
    ):
        assert recipes.parse(recipes.name_of(recipes.parse(text))) == recipes.parse(text)


def test_classes_together_decide_on_a_plateau():
    dm = recipes.dm()
    assert dm.replace(schedule=Cosine(), average=0.5).separable
    assert not dm.replace(schedule=Plateau()).separable


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: recipes.dm(schedule="cosin"), "unknown schedule 'cosin'. Did you mean 'cosine'"),
        (lambda: recipes.parse("dm schedule.floor=0.1"), "unknown option of schedule 'constant' 'floor'"),
        (
            lambda: recipes.dm(schedule=Cosine),
            r"schedule must be a Schedule, got the class Cosine: pass Constant\(\), C",
        ),
        (lambda: recipes.dm(average=1.5), r"average must lie in \[0, 1\], got 1.5"),
        (lambda: Cosine(floor=2), r"floor must lie in \[0, 1\], got 2"),
        (lambda: Plateau(patience=-1), "patience must be an integer of at least 0, got -1"),
        (lambda: Plateau(factor=0), "factor must be positive and finite, got 0"),
        (lambda: Plateau(factor=2), r"factor must lie in \[0, 1\], got 2"),
    ],
)
def test_bad_values_are_named(make, says):
    with pytest.raises(ConfigError, match=says) as caught:
        make()
    assert len(caught.value.problems) == 1


def test_a_method_that_follows_no_rate_takes_no_schedule():
    class Own(Seen):
        scheduled = False

    with pytest.raises(ConfigError, match="dm takes no schedule='cosine': its steps do not follow Step"):
        run(Own(), schedule=Cosine())
    assert run(Own(), average=0.5, steps=2).status is Status.FINISHED


def test_a_plateau_without_a_loss_is_refused():
    class Silent(Seen):
        def step(self, state, ctx):
            new, metrics = super().step(state, ctx)
            return new, {"finite": metrics["finite"]}

    with pytest.raises(ConfigError, match="schedule='plateau' needs the metric loss, which the method does not give"):
        run(Silent(), schedule=Plateau())


def test_a_schedule_of_ones_own():
    @dataclasses.dataclass(frozen=True)
    class Halved(Schedule):
        name = "halved"
        sees_end = True

        def rate(self, done, state):
            return 1.0 if done < 0.5 else 0.5

    run(schedule=Halved(), steps=4)
    assert RATES == [1, 1, 0.5, 0.5]


def test_a_checkpoint_holds_the_course(tmp_path):
    run(saving=Saving(tmp_path / "run"), schedule=Plateau(), average=0.5)
    tensors, manifest = load_tensors(tmp_path / "run" / "checkpoints" / "step-000008.safetensors", "checkpoint")
    assert {name for name in tensors if name.startswith("course/")} == {
        *(f"course/{name}" for name in ("best", "bad", "rate", "loss", "count")),
        "course/mean/images",
    }
    assert manifest["steps"] == 8
    assert replace(Plateau(), patience=1) != Plateau()
