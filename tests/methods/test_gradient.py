import dataclasses

import pytest
import torch

from condensekit.catalog import recipes
from condensekit.compute import Compute, Machine
from condensekit.driver import Status, condense
from condensekit.errors import ConfigError
from condensekit.methods import GradientMatching
from condensekit.methods.encoders import Fresh
from condensekit.methods.gradient import DISTANCES, NET, loops
from condensekit.methods.recipe import Recipe
from condensekit.methods.sampling import Sampler
from condensekit.methods.trained_encoders import Trained
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw
from condensekit.selection.base import Noise
from condensekit.sets.formation import Formation
from condensekit.testing import LABELS, MethodContract, context, shapes
from condensekit.training.augment import OPS, Augmentation
from tests.reference import gradient_twin as twin

DATA = shapes(size=16)
WHOLE, CHUNKED = Machine("cpu", workers=0, chunk=0), Machine("cpu", workers=2, chunk=4)
KINDS = {"instance": ConvNet(width=8), "batch": ConvNet(width=8, norm="batch"), "max": ConvNet(width=8, pooling="max")}


class TestContract(MethodContract):
    def make(self):
        return GradientMatching(batch_real=8, outer=3, inner=2)


def prepared(compute, network=KINDS["instance"], **changes):
    """A context with a network of its own and whatever else is changed."""
    ctx = context(DATA, compute, step=changes.pop("step", 1))
    module = network.new(DATA.spec.shape, len(DATA.classes), ctx.draw).requires_grad_(False)
    return dataclasses.replace(ctx, module=module, **changes)


def check_against_twin(ctx, images, distance="layerwise"):
    """One matching step, from rest, beside the twin's loss and gradient."""
    loss, gradient = twin.loss_and_gradient(ctx, images, 8, getattr(twin, distance))
    method = GradientMatching(DISTANCES[distance], batch_real=8, outer=1)
    after, metrics = method.step(method.init(images, ctx), ctx)
    assert abs(metrics["loss"] - loss) <= 1e-5 * loss
    assert (after["momentum"] - gradient).norm() <= 1e-5 * gradient.norm()


@pytest.mark.parametrize("machine", [WHOLE, CHUNKED])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("network", KINDS.values(), ids=KINDS)
def test_step_equals_the_blackboard_twin(machine, distance, network):
    with Compute(machine) as compute:
        check_against_twin(prepared(compute, network), Noise().images(DATA, 6, Draw(1)), distance)


@pytest.mark.parametrize("op", OPS)
def test_gradients_pass_every_augmentation(op):
    """The sampling behind scale and rotate has no second derivative in torch: none must be asked of it."""
    with Compute(CHUNKED) as compute:
        check_against_twin(prepared(compute, augmentation=Augmentation(ops=(op,))), Noise().images(DATA, 6, Draw(1)))


class Weighted(Sampler):
    """The first images of each class, with unequal weights."""

    def draw(self, data, labels, n, draw):
        weights = torch.arange(1.0, n + 1).repeat(len(labels), 1)
        return torch.stack([data.indices_of(label)[:n] for label in labels]), weights / weights.mean()


@pytest.mark.parametrize("changes", [{"factor": 2}, {"prefix": 2}, {"sampling": Weighted()}])
def test_packed_nested_and_weighted_steps_equal_the_twin(changes):
    with Compute(CHUNKED) as compute:
        check_against_twin(prepared(compute, augmentation=Augmentation(), **changes), Noise().images(DATA, 3, Draw(1)))


@pytest.mark.parametrize("augmentation", [None, Augmentation()])
@pytest.mark.parametrize("network", KINDS.values(), ids=KINDS)
def test_training_between_steps_equals_the_twin(network, augmentation):
    method = GradientMatching(batch_real=8, outer=2, inner=3, batch_net=9)
    with Compute(CHUNKED) as compute:
        ctx = prepared(compute, network, augmentation=augmentation, factor=2, prefix=2)
        state = method.init(Noise().images(DATA, 3, Draw(1)), ctx)
        before = dataclasses.replace(ctx, module=network.new(DATA.spec.shape, len(LABELS), ctx.draw))
        after, _ = method.step(state, ctx)
        net = twin.trained(before, after["images"], epochs=3, lr=0.01, batch=9)
    for name, expected in net.state_dict().items():
        torch.testing.assert_close(after[NET + name].double(), expected.double(), rtol=1e-4, atol=1e-6)


def test_the_network_is_kept_and_trained_for_one_outer_loop():
    """Steps 1 and 4 take the context's network, 2 and 3 that of the state; none is trained after the last."""
    method = GradientMatching(batch_real=8, outer=3, inner=1)
    with Compute(WHOLE) as compute:
        state = method.init(Noise().images(DATA, 2, Draw(1)), prepared(compute))
        for step in range(1, 5):
            ctx = prepared(compute, step=step)
            start = ctx.module.body[0].weight.clone() if step in (1, 4) else state[NET + "body.0.weight"]
            state, _ = method.step(state, ctx)
            change = (state[NET + "body.0.weight"] - start).abs().max()
            assert change == 0 if step == 3 else 0 < change < 0.01
            assert not any(p.requires_grad or p.grad is not None for p in ctx.module.parameters())


def test_a_failed_training_changes_nothing():
    method = GradientMatching(batch_real=8, outer=2, inner=200, lr_net=1e30)
    with Compute(WHOLE) as compute:
        ctx = prepared(compute)
        state = method.init(Noise().images(DATA, 2, Draw(1)), ctx)
        after, metrics = method.step(state, ctx)
    assert not metrics["finite"]
    assert all(torch.equal(after[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("ipc", "expected"),
    [(1, (1, 1)), (10, (10, 50)), (20, (20, 25)), (30, (30, 20)), (40, (40, 15)), (50, (50, 10)), (100, (100, 2))],
)
def test_the_authors_schedule(ipc, expected):
    assert loops(ipc) == expected
    assert GradientMatching().loops_of(ipc) == expected


def test_any_other_schedule():
    assert [loops(ipc) for ipc in (2, 5, 15, 200)] == [(2, 250), (5, 100), (15, 33), (200, 1)]
    assert GradientMatching(outer=7).loops_of(10) == (7, 50)
    assert GradientMatching(inner=0).loops_of(10) == (10, 0)


def test_pixels_stay_in_range():
    method = GradientMatching(batch_real=8, outer=2, inner=1, lr=5.0, space="pixel")
    recipe = Recipe(method, Fresh(KINDS["batch"]), formation=Formation(factor=2), nested=True)
    result = condense(DATA, recipe, ipc=2, steps=3, machine=Machine("cpu", "bf16", workers=2))
    assert result.status is Status.FINISHED
    pixels = DATA.spec.normalise(torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 3, 1, 1))
    assert (result.set.images >= pixels[0] - 1e-4).all()
    assert (result.set.images <= pixels[1] + 1e-4).all()


def test_low_precision_is_near():
    gradients = {}
    for precision in ("fp32", "mixed", "bf16"):
        with Compute(dataclasses.replace(CHUNKED, precision=precision)) as compute:
            ctx, method = prepared(compute), GradientMatching(batch_real=8, outer=1)
            after, _ = method.step(method.init(Noise().images(DATA, 6, Draw(1)), ctx), ctx)
            gradients[precision] = after["momentum"].flatten()
    for precision, least in (("mixed", 0.999), ("bf16", 0.95)):
        assert torch.cosine_similarity(gradients[precision], gradients["fp32"], dim=0) > least


@pytest.mark.parametrize(
    "bad",
    [
        {"lr": 0},
        {"momentum": 1},
        {"batch_real": 0},
        {"batch_real": 2.5},
        {"outer": 0},
        {"outer": 1.5},
        {"inner": -1},
        {"inner": False},
        {"lr_net": float("nan")},
        {"batch_net": 0},
        {"batch_net": 8.0},
        {"space": "rgb"},
    ],
)
def test_bad_hyper_parameters_are_named(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        GradientMatching(**bad)


def test_after_a_loop_began_with_a_bad_value_a_fresh_network_goes_on():
    """As where the driver does not retry a step: on a GPU, whose values are looked at later."""
    method = GradientMatching(batch_real=8, outer=2, inner=0)
    bad = dataclasses.replace(method, distance=lambda synthetic, real: synthetic[0].sum() * float("nan"))
    with Compute(WHOLE) as compute:
        state = method.init(Noise().images(DATA, 1, Draw(1)), prepared(compute))
        for step in (1, 2):
            state, _ = method.step(state, prepared(compute, step=step))
        state, metrics = bad.step(state, prepared(compute, step=3))
        assert not metrics["finite"]
        fresh = prepared(compute, step=4)
        expected = {NET + name: value.clone() for name, value in fresh.module.state_dict().items()}
        state, _ = method.step(state, fresh)
    assert all(torch.equal(state[name], value) for name, value in expected.items())
    assert state["loop"] == 1


def test_one_class_is_refused():
    with pytest.raises(ConfigError, match="at least 2 classes"):
        condense(DATA.select(LABELS[:1]), Recipe(GradientMatching(), Fresh(ConvNet(width=8))), ipc=1, steps=1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"encoder": Trained()}, "dsa needs the encoder Fresh.*, got Trained, keep=1: it trains the networks"),
        ({"encoder": Fresh(keep=50)}, "got Fresh, keep=50: it trains the networks it matches gradients of"),
        ({"encoder": Trained(), "soft_labels": True}, "dsa takes no soft_labels: its networks are trained on the cond"),
    ],
)
def test_other_networks_than_its_own_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        condense(DATA, Recipe(GradientMatching(), **options), ipc=1, steps=1)


def test_dc_and_dsa_are_told_apart_by_the_augmentation():
    with pytest.raises(ConfigError, match="dc takes no augmentation, with which it is dsa: give augmentation=None"):
        condense(DATA, recipes.dc().method, ipc=1, steps=1)
    with pytest.raises(ConfigError, match=r"dsa needs an augmentation .without it, it is dc"):
        condense(DATA, recipes.dsa(augmentation=None), ipc=1, steps=1)


def test_a_compiled_network_is_refused():
    with pytest.raises(ConfigError, match="second derivative"):
        condense(DATA, GradientMatching(), ipc=1, steps=1, machine=Machine("cpu", compiled=True))
