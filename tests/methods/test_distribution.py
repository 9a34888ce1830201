import dataclasses

import pytest
import torch

from condensekit.compute import Compute, Machine
from condensekit.errors import ConfigError
from condensekit.methods import DistributionMatching
from condensekit.methods.discrepancy import mean
from condensekit.rng import Draw
from condensekit.selection.base import Noise
from condensekit.testing import MethodContract, context, shapes
from condensekit.training.augment import Augmentation
from tests.reference.dm_twin import dm_loss_and_gradient


class TestContract(MethodContract):
    def make(self):
        return DistributionMatching(batch_real=8)


@pytest.mark.parametrize("machine", [Machine("cpu", workers=0, chunk=0), Machine("cpu", workers=2, chunk=4)])
@pytest.mark.parametrize("step", range(1, 5))
def test_step_equals_the_blackboard_twin(machine, step):
    data = shapes(size=16)
    images = Noise().images(data, 3, Draw(1))
    with Compute(machine) as compute:
        ctx = dataclasses.replace(context(data, compute, step=step), augmentation=Augmentation())
        method = DistributionMatching(batch_real=8, lr=0.5)
        after, metrics = method.step(method.init(images, ctx), ctx)
        loss, gradient = dm_loss_and_gradient(ctx, images, 8)
    ours = (images - after["images"]) / 0.5
    assert abs(metrics["loss"] - loss) <= 1e-5 * loss
    assert (ours - gradient).norm() <= 1e-5 * gradient.norm()


def test_momentum_is_that_of_torch_sgd():
    data = shapes()
    images = Noise().images(data, 2, Draw(1))
    method = DistributionMatching(batch_real=8, lr=0.7, momentum=0.5)
    with Compute(Machine("cpu", workers=0)) as compute:
        parameter = torch.nn.Parameter(images.clone())
        optimiser = torch.optim.SGD([parameter], lr=0.7, momentum=0.5)
        state = method.init(images, context(data, compute))
        for step in range(1, 5):
            ctx = context(data, compute, step=step)
            _, gradient = dm_loss_and_gradient(ctx, parameter.detach(), 8)
            parameter.grad = gradient.float()
            optimiser.step()
            state, _ = method.step(state, ctx)
    torch.testing.assert_close(state["images"], parameter.detach(), rtol=1e-4, atol=1e-5)


def test_weights_move_the_mean():
    real, synthetic = torch.randn(2, 5, 3), torch.randn(2, 4, 3)
    weights = torch.tensor([[5.0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    expected = (real[0, 0] - synthetic[0].mean(0)).square().sum()
    torch.testing.assert_close(mean(real, synthetic, weights)[0], expected)
    torch.testing.assert_close(mean(real, synthetic, weights)[1], mean(real, synthetic)[1])


@pytest.mark.parametrize(
    "bad", [{"lr": 0}, {"lr": float("nan")}, {"momentum": 1}, {"batch_real": 0}, {"batch_real": 2.5}]
)
def test_bad_hyper_parameters_are_named(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        DistributionMatching(**bad)


@pytest.mark.parametrize("prefix", [None, 2])
def test_per_image_steps_grow_with_the_images_that_take_part(prefix):
    data = shapes()
    images = Noise().images(data, 3, Draw(1))
    with Compute(Machine("cpu", workers=0)) as compute:
        ctx = dataclasses.replace(context(data, compute), prefix=prefix)
        moved = []
        for method in (DistributionMatching(batch_real=8, per_image=True), DistributionMatching(batch_real=8)):
            moved.append(method.step(method.init(images, ctx), ctx)[0]["images"] - images)
    torch.testing.assert_close(moved[0], moved[1] * (prefix or 3))


def test_pixel_space_is_sgd_on_clamped_pixels():
    """As torch's own optimiser does it on pixels, by automatic differentiation through the normalisation."""
    data = shapes()
    mean_, std = data.spec.constants("cpu")
    pixels = torch.nn.Parameter(data.gather(data.draw_indices(data.classes, 2, Draw(3))) * std + mean_)
    method = DistributionMatching(batch_real=8, lr=30.0, momentum=0.5, space="pixel", per_image=True)
    optimiser = torch.optim.SGD([pixels], lr=30.0, momentum=0.5)
    with Compute(Machine("cpu", workers=0)) as compute:
        state = method.init(((pixels - mean_) / std).detach(), context(data, compute))
        for step in range(1, 5):
            ctx = context(data, compute, step=step)
            normalised = (pixels - mean_) / std
            _, gradient = dm_loss_and_gradient(ctx, normalised.detach(), 8)
            optimiser.zero_grad()
            (2 * gradient.float() * normalised).sum().backward()
            optimiser.step()
            with torch.no_grad():
                pixels.clamp_(0, 1)
            state, _ = method.step(state, ctx)
    assert ((pixels == 0) | (pixels == 1)).any()
    torch.testing.assert_close(state["images"], ((pixels - mean_) / std).detach(), rtol=1e-3, atol=1e-3)
