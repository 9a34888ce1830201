"""Descent of images: AdamW as torch's own, in both spaces, for every method that moves images."""

import dataclasses
from dataclasses import replace

import pytest
import torch

from condensekit.catalog import recipes
from condensekit.compute import Compute, Machine
from condensekit.data.images import ClassImages
from condensekit.driver import Saving, condense
from condensekit.errors import ConfigError
from condensekit.methods import DistributionMatching, GradientMatching, KernelRidge
from condensekit.methods.descent import LR, Descent
from condensekit.methods.recipe import Recipe
from condensekit.rng import Draw
from condensekit.testing import NARROW, MethodContract, context, shapes

ADAMW = {"optimiser": "adamw", "weight_decay": 0.1, "lr": 0.02}
METHODS = (
    DistributionMatching(batch_real=8, **ADAMW),
    GradientMatching(batch_real=8, outer=2, inner=1, batch_net=8, **ADAMW),
    KernelRidge(batch_real=5, labels="learned", **ADAMW),
    KernelRidge(batch_real=5, labels="learned", optimiser="sgd", lr=0.1, space="pixel"),
)


class TestAdamWOfGradientMatching(MethodContract):
    def make(self):
        return METHODS[1]


class TestKernelRidgeBySgdOnPixels(MethodContract):
    def make(self):
        return METHODS[3]


def floats():
    """Images that are no pixels."""
    data = shapes()
    return ClassImages.from_arrays(data.images.float() / 50 - 2, data.labels)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("space", ["normalised", "pixel"])
@pytest.mark.parametrize("data", [shapes(), floats()], ids=["pixels", "floats"])
def test_adamw_is_that_of_torch(data, space, weight_decay):
    """On pixels, by automatic differentiation through the normalisation, clamped after each step."""
    start = data.gather(data.draw_indices(data.classes, 2, Draw(3)))
    low, high = data.ends
    mean, std = data.spec.constants() if data.spec.pixels else (-low / (high - low), 1 / (high - low))
    mean, std = (mean, std) if space == "pixel" else (0.0, 1.0)
    parameter = torch.nn.Parameter((start * std + mean).double())
    optimiser = torch.optim.AdamW([parameter], lr=0.05, weight_decay=weight_decay)
    descent = Descent(0.05, space=space, optimiser="adamw", weight_decay=weight_decay)
    state = {"images": start, **descent.start(start)}
    with Compute(Machine("cpu", workers=0)) as compute:
        for step in range(1, 8):
            slope = Draw(0, step).normal("slope", torch.arange(len(start)), start[0].numel()).reshape(start.shape)
            before = slope.clone()
            optimiser.zero_grad()
            ((parameter - mean) / std * slope.double()).sum().backward()
            optimiser.step()
            if space == "pixel":
                with torch.no_grad():
                    parameter.clamp_(0, 1)
            state |= descent.step(state, slope, context(data, compute, step=step))
            assert torch.equal(slope, before)
    torch.testing.assert_close(state["images"].double(), ((parameter - mean) / std).detach(), rtol=1e-4, atol=1e-5)
    assert state["updates"].tolist() == [7.0] * len(data.classes)
    if space == "pixel":
        assert ((parameter == 0) | (parameter == 1)).any()


@pytest.mark.parametrize("rate", [0.25, torch.tensor(0.25)])
@pytest.mark.parametrize("options", [{"space": "pixel"}, {"optimiser": "adamw", "weight_decay": 0.1}])
def test_the_rate_multiplies_the_step_size(options, rate):
    data, descent = shapes(), Descent(0.4, **options)
    images = data.gather(data.draw_indices(data.classes, 2, Draw(3)))
    state = {"images": images, **descent.start(images)}
    with Compute(Machine("cpu", workers=0)) as compute:
        slower = descent.step(state, 0.1 * images, replace(context(data, compute), rate=rate))
        lower = replace(descent, lr=0.1).step(state, 0.1 * images, context(data, compute))
    torch.testing.assert_close(slower["images"], lower["images"])


@pytest.mark.parametrize("method", METHODS)
def test_a_step_that_is_not_finite_changes_nothing(method):
    data = shapes()
    with Compute(Machine("cpu", workers=0)) as compute:
        ctx = context(data, compute)
        state = method.init(data.gather(data.draw_indices(data.classes, 2, Draw(3))), ctx)
        state, _ = method.step(state, context(data, compute))
        before = {name: value.clone() for name, value in state.items()}
        broken = context(data, compute)
        next(iter(broken.module.parameters())).data.fill_(float("nan"))
        after, metrics = method.step(state, broken)
    assert not metrics["finite"]
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_has_the_bits_of_an_undisturbed_one(method, tmp_path):
    augmentation = None if isinstance(method, KernelRidge) else Recipe(method).augmentation
    recipe, one = Recipe(method, encoder=NARROW, augmentation=augmentation), Machine("cpu", workers=1)
    left, saving = iter([False, False, True]), Saving(tmp_path / "run", resume=True)
    condense(shapes(), recipe, ipc=2, steps=5, machine=one, saving=saving, stop=lambda: next(left))
    again = condense(shapes(), recipe, ipc=2, steps=5, machine=one, saving=saving)
    assert torch.equal(again.set.images, condense(shapes(), recipe, ipc=2, steps=5, machine=one).set.images)


def test_classes_that_take_turns_count_their_own_updates():
    """AdamW of a class whose turn is every other step is that of a class which is alone."""
    seen = []

    @dataclasses.dataclass(frozen=True)
    class Watched(DistributionMatching):
        def step(self, state, ctx):
            seen.append(state["updates"].tolist())
            return super().step(state, ctx)

    recipe = Recipe(Watched(batch_real=4, **ADAMW), encoder=NARROW, classes_per_step=2)
    condense(shapes(), recipe, ipc=1, steps=6, machine=Machine("cpu", workers=1))
    assert seen == [[0, 0], [0, 0], [1, 1], [1, 1], [2, 2], [2, 2]]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"optimiser": "adam"}, "optimiser must be one of sgd, adamw, got 'adam'"),
        ({"optimiser": "adamw"}, r"adamw moves each value by about lr in a step, got lr=1.0: .* such as 0.001"),
        ({"weight_decay": 0.1}, "weight_decay=0.1 is an option of optimiser='adamw': leave it out"),
        ({"weight_decay": -0.1, "optimiser": "adamw", "lr": 0.1}, "weight_decay must be finite and at least 0"),
    ],
)
def test_bad_options_are_named(options, says):
    with pytest.raises(ConfigError, match=says) as caught:
        DistributionMatching(**options)
    assert len(caught.value.problems) == 1
    with pytest.raises(ConfigError, match=says):
        Descent(**{"lr": 1.0, **options})


def test_an_optimiser_by_name_brings_its_step_size():
    made = recipes.m3d(optimiser="adamw")
    assert made == recipes.m3d(optimiser="adamw", lr=LR["adamw"])
    assert recipes.parse("dm optimiser=adamw lr=0.01") == Recipe(DistributionMatching(lr=0.01, optimiser="adamw"))
    assert recipes.krr(optimiser="adamw") == recipes.krr()
    assert recipes.name_of(made) == "m3d lr=0.001 optimiser=adamw"
    assert recipes.parse(recipes.name_of(made)) == made
