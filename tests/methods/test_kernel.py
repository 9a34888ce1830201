import dataclasses

import pytest
import torch
from torch import nn

from condensekit.compute import Compute, Machine
from condensekit.driver import Status, condense
from condensekit.errors import ConfigError
from condensekit.methods import KernelRidge
from condensekit.methods.encoders import Fresh
from condensekit.methods.kernel import JITTERS, centred_one_hot, ridge_predict
from condensekit.methods.recipe import Recipe
from condensekit.methods.trained_encoders import Trained
from condensekit.networks.base import FeatureNetwork
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw
from condensekit.selection.base import Noise
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import Formation
from condensekit.testing import MethodContract, context, shapes
from condensekit.training.augment import Augmentation
from tests.reference.krr_twin import krr_loss_and_gradients, networks_of

ONE = Machine("cpu", workers=1)


def small(method, **changes):
    """The method from noise, in a narrow network."""
    return Recipe(method, **{"encoder": Fresh(ConvNet(width=8)), "init": Noise(), **changes})


class TestContract(MethodContract):
    def make(self):
        return KernelRidge(batch_real=8)


class TestContractWithEverything(MethodContract):
    def make(self):
        return KernelRidge(batch_real=6, networks=2, labels="learned")


def pixels_are_features(ctx):
    """The same context with a network that embeds an image as its pixels: linear ridge regression."""
    body, classifier = nn.Sequential(nn.Identity()), nn.Linear(3 * 8 * 8, 4)
    module = FeatureNetwork(body, classifier, (3, 8, 8)).requires_grad_(False)
    return dataclasses.replace(ctx, module=module)


def full_model(ctx, batch_real):
    """W (K, D): the least-squares fit, of smallest norm, of the centred labels on this step's real batch."""
    real = ctx.real(ctx.data.classes, batch_real)[0].flatten(0, 1).flatten(1).double()
    wanted = centred_one_hot(torch.arange(4).repeat_interleave(batch_real), 4).double()
    return (torch.linalg.pinv(real) @ wanted).T, real, wanted


def numbers(*shape, role="x"):
    return Draw(3).normal(role, torch.arange(shape[0]), shape[1]).double()


@pytest.mark.parametrize("machine", [Machine("cpu", workers=0, chunk=0), Machine("cpu", workers=2, chunk=4)])
@pytest.mark.parametrize("networks", [1, 3])
def test_step_equals_the_blackboard_twin(machine, networks):
    data, method = shapes(), KernelRidge(batch_real=5, networks=networks, labels="learned", ridge=1e-3)
    images = Noise().images(data, 3, Draw(1))
    with Compute(machine) as compute:
        ctx = dataclasses.replace(context(data, compute), augmentation=Augmentation())
        ctx.load(0)
        twins = networks_of(ctx, networks)
        state = method.init(images, ctx)
        after, metrics = method.step(state, ctx)
        labels = state["labels"].flatten(0, 2)
        loss, image_slope, label_slope = krr_loss_and_gradients(ctx, images, labels, twins, 5, 1e-3)
    assert bool(metrics["finite"])
    assert metrics["jitter"] == 0
    assert abs(metrics["loss"] - loss) <= 1e-5 * loss
    ours = after["images/first"] / 0.1  # Adam's first moment after one step is a tenth of the gradient
    assert (ours - image_slope).norm() <= 1e-4 * image_slope.norm()
    assert (after["labels/first"].flatten(0, 2) / 0.1 - label_slope).norm() <= 1e-4 * label_slope.norm()


def test_updates_are_those_of_torch_adam():
    data, method = shapes(), KernelRidge(batch_real=5, lr=0.05, ridge=1e-2)
    parameter = nn.Parameter(Noise().images(data, 2, Draw(1)))
    labels = torch.eye(4).repeat_interleave(2, 0) - 0.25
    optimiser = torch.optim.Adam([parameter], lr=0.05)
    with Compute(Machine("cpu", workers=0)) as compute:
        state = method.init(parameter.detach().clone(), context(data, compute))
        for step in range(1, 5):
            ctx = context(data, compute, step=step)
            slope = krr_loss_and_gradients(ctx, parameter.detach(), labels, networks_of(ctx, 1), 5, 1e-2)[1]
            parameter.grad = slope.float()
            optimiser.step()
            state, _ = method.step(state, ctx)
    torch.testing.assert_close(state["images"], parameter.detach(), rtol=1e-3, atol=1e-3)


def test_ridge_predict_is_primal_ridge_regression():
    x, y, new = numbers(7, 5), numbers(7, 3, role="y"), numbers(4, 5, role="new")
    penalty = 0.3 * x.square().sum() / 7
    weights = torch.linalg.solve(x.T @ x + penalty * torch.eye(5), x.T @ y)
    torch.testing.assert_close(ridge_predict(x, y, new, 0.3)[0], new @ weights)


def test_ridge_predict_has_the_right_gradient():
    tensors = [numbers(4, 6), numbers(4, 2, role="y"), numbers(3, 6, role="new")]
    torch.autograd.gradcheck(lambda x, y, new: ridge_predict(x, y, new, 0.01)[0], [t.requires_grad_() for t in tensors])


def test_oracle_as_many_points_as_classes_reproduce_the_full_model():
    """X_S = pinv(W) Y_S gives W back, exactly, without regularisation (closed form of linear ridge distillation)."""
    full = numbers(4, 12, role="w")
    values = numbers(4, 4, role="y")
    points = (torch.linalg.pinv(full) @ values.T).T
    predicted, jitter = ridge_predict(points, values, numbers(30, 12, role="new"), 0.0)
    assert jitter == 0
    torch.testing.assert_close(predicted, numbers(30, 12, role="new") @ full.T)


def test_oracle_is_where_the_method_stops_and_where_it_goes():
    """At the oracle the loss is the full model's on its own data and both gradients vanish; elsewhere it is larger."""
    data, method = shapes(), KernelRidge(batch_real=12, ridge=1e-8, labels="learned")
    with Compute(Machine("cpu", workers=0)) as compute:
        ctx = pixels_are_features(context(data, compute))
        full, real, wanted = full_model(ctx, 12)
        points = torch.linalg.pinv(full).T  # Y_S = I - 1/K: pinv(W) Y_S = pinv(W), as W has no constant part
        start = method.init(points.float().reshape(4, 1, 3, 8, 8), ctx)
        after, metrics = method.step(start, ctx)
        elsewhere = method.step(method.init(Noise().images(data, 1, Draw(1)), ctx), ctx)[1]
    best = 0.5 * (real @ full.T - wanted).square().sum(1).mean()
    assert metrics["jitter"] == 0  # the ridge stands in for it: centred labels leave a Gram matrix of rank 3
    assert abs(metrics["loss"] - best) <= 1e-4 + 1e-3 * best
    assert metrics["loss"] < 0.5 * elsewhere["loss"]
    assert metrics["gradient_norm"] < 1e-2 * elsewhere["gradient_norm"]
    assert bool(torch.isfinite(after["images"]).all())


def test_learning_lowers_the_loss():
    recipe = small(KernelRidge(lr=0.05, batch_real=12), augmentation=None)
    result = condense(shapes(), recipe, ipc=2, steps=60, machine=ONE)
    losses = [row["loss"] for row in result.history]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


@pytest.mark.parametrize(
    "x",
    [
        torch.ones(5, 3),  # equal rows
        torch.cat([numbers(3, 6), numbers(3, 6)]),  # every row twice
        numbers(9, 4),  # more points than features
        1e-30 * numbers(9, 4),  # as small as float32 features get
    ],
)
def test_a_singular_gram_gets_the_smallest_jitter_that_helps(x):
    x, values, new = x.double(), numbers(len(x), 2, role="y"), numbers(5, x.shape[1], role="new")
    predicted, jitter = ridge_predict(x, values, new, 0.0)
    assert 0 < jitter <= JITTERS[-1]
    assert torch.isfinite(predicted).all()
    assert ridge_predict(x, values, new, 1e-3)[1] == 0


def test_features_of_zero_predict_zero():
    predicted, _ = ridge_predict(torch.zeros(3, 4), torch.ones(3, 2), torch.ones(5, 4), 0.0)
    assert torch.equal(predicted, torch.zeros(5, 2, dtype=torch.float64))


def test_a_gram_that_nothing_helps_is_reported_as_nan():
    x = torch.ones(3, 4)
    x[1, 1] = torch.inf
    assert ridge_predict(x, torch.ones(3, 2), torch.ones(5, 4), 1.0)[0].isnan().all()


def test_equal_images_condense_through_the_jitter():
    class Same(Noise):
        def images(self, data, ipc, draw):
            return super().images(data, 1, draw).repeat(1, ipc, 1, 1, 1)

    method = KernelRidge(batch_real=6, ridge=0.0)
    result = condense(shapes(), small(method, init=Same()), ipc=2, steps=3, machine=ONE)
    assert result.status is Status.FINISHED
    assert result.history[0]["jitter"] > 0


@pytest.mark.parametrize("labels", ["fixed", "learned", "soft"])
def test_only_soft_labels_are_stored(labels, tmp_path):
    method = KernelRidge(batch_real=6, labels=labels, lr=0.05)
    data = shapes().select([0, 42])
    recipe = small(method, formation=Formation(factor=2), nested=True)
    result = condense(data, recipe, ipc=2, steps=5, machine=ONE)
    plain = dataclasses.replace(result.set, soft_labels=None)
    if labels != "soft":
        assert result.set.soft_labels is None
        return
    soft = result.set.soft_labels
    assert soft is not None
    assert soft.shape == (2 * 2 * 4, 4)  # over all four classes of the spec
    torch.testing.assert_close(soft.sum(1), torch.ones(16))
    assert (soft[:, [0, 2]] == 0).all()
    assert (soft.argmax(1) == torch.tensor([1] * 8 + [3] * 8)).all()
    assert len(torch.unique(soft[:, 1])) > 2  # they have moved
    assert result.set.nbytes == plain.nbytes + 4 * 16 * 4
    result.set.save(tmp_path / "set.safetensors")
    assert torch.equal(CondensedSet.load(tmp_path / "set.safetensors").targets(), soft)


def test_a_prefix_leaves_the_other_images_and_labels_alone():
    data, method = shapes(), KernelRidge(batch_real=6, labels="learned")
    with Compute(Machine("cpu", workers=0)) as compute:
        ctx = dataclasses.replace(context(data, compute), prefix=1)
        start = method.init(Noise().images(data, 3, Draw(1)), ctx)
        after, _ = method.step(start, ctx)
    for name in ("images", "labels"):
        assert torch.equal(start[name][:, 1:], after[name][:, 1:])
        assert not torch.equal(start[name][:, :1], after[name][:, :1])


def test_batch_norm_networks_work():
    recipe = small(KernelRidge(batch_real=6, networks=2), encoder=Fresh(ConvNet(width=8, norm="batch")))
    result = condense(shapes(), recipe, ipc=2, steps=3, machine=ONE)
    assert result.status is Status.FINISHED


def test_importance_weights_scale_the_errors():
    class OnlyTheFirst:
        def draw(self, data, labels, n, draw):
            weights = torch.zeros(len(labels), n)
            weights[:, 0] = n
            return data.draw_indices(labels, n, draw), weights

    class Firsts(OnlyTheFirst):
        def draw(self, data, labels, n, draw):
            return data.draw_indices(labels, 6, draw)[:, :1], None

    data = shapes()
    with Compute(Machine("cpu", workers=0)) as compute:
        losses = []
        for sampling, n in ((OnlyTheFirst(), 6), (Firsts(), 1)):
            ctx = dataclasses.replace(context(data, compute), sampling=sampling)
            method = KernelRidge(batch_real=n)
            losses.append(method.step(method.init(Noise().images(data, 2, Draw(1)), ctx), ctx)[1]["loss"])
    torch.testing.assert_close(*losses)


def test_learned_soft_labels_are_not_overwritten():
    options = {"encoder": Trained(ConvNet(width=8), count=1, steps=1), "soft_labels": True}
    with pytest.raises(ConfigError, match="krr with labels='soft' takes no soft_labels: it learns its own"):
        condense(shapes(), small(KernelRidge(labels="soft"), **options), ipc=1, steps=1, machine=ONE)
    made = condense(shapes(), small(KernelRidge(batch_real=4), **options), ipc=1, steps=1, machine=ONE).set
    assert made.provenance["soft_labels"]["type"] == "Trained"


def test_one_class_is_refused():
    with pytest.raises(ConfigError, match="at least 2 classes"):
        condense(shapes().select([7]), small(KernelRidge()), ipc=1, steps=1, machine=ONE)


@pytest.mark.parametrize(
    "bad",
    [
        {"lr": 0},
        {"lr": float("nan")},
        {"ridge": -1},
        {"networks": 0},
        {"networks": True},
        {"batch_real": 0},
        {"batch_real": 2.5},
        {"labels": "hard"},
    ],
)
def test_bad_hyper_parameters_are_named(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        KernelRidge(**bad)
