import contextlib

import pytest
import torch

from condensekit.compute import Compute, Machine
from condensekit.errors import ConfigError
from condensekit.methods import DistributionMatching
from condensekit.methods.discrepancy import (
    MMD,
    Discrepancy,
    Gaussian,
    Kernel,
    Laplace,
    Moments,
    bandwidth,
    linear,
    mean,
    polynomial,
    spreads,
)
from condensekit.rng import Draw
from condensekit.selection.base import Noise
from condensekit.testing import MethodContract, context, shapes
from tests.reference import mmd_twin

KERNELS: dict[str, Kernel] = {"gaussian": Gaussian(), "laplace": Laplace(), "linear": linear, "polynomial": polynomial}
ALL: list[Discrepancy] = [mean, Moments(2), Moments(4), *(MMD(kernel) for kernel in KERNELS.values())]
NAMES = ["mean", "moments-2", "moments-4", *KERNELS]


def features(real=6, synthetic=4, classes=3, dim=5, dtype=torch.float64, seed=0):
    """Real (classes, real, dim) and synthetic features, a little apart, and weights with mean 1."""
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(classes, n, dim, generator=generator, dtype=dtype) for n in (real, synthetic))
    weights = torch.rand(classes, real, generator=generator, dtype=dtype) + 0.1
    return x, 0.5 * y + 0.3, weights / weights.mean(1, keepdim=True)


def value_and_gradient(discrepancy, real, synthetic, weights=None):
    synthetic = synthetic.clone().requires_grad_()
    values = discrepancy(real, synthetic, weights)
    return values.detach(), torch.autograd.grad(values.sum(), synthetic)[0]


class TestGaussian(MethodContract):
    def make(self):
        return DistributionMatching(discrepancy=MMD(), lr=10.0, batch_real=8)


class TestPolynomialOnPixels(MethodContract):
    def make(self):
        return DistributionMatching(discrepancy=MMD(polynomial, value=False), batch_real=8, space="pixel", lr=1e-4)


class TestMoments(MethodContract):
    def make(self):
        return DistributionMatching(discrepancy=Moments(3), batch_real=8)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("real_count", "synthetic_count"), [(6, 4), (1, 3), (5, 1), (1, 1)])
def test_mmd_equals_the_double_loop(kernel, weighted, real_count, synthetic_count):
    real, synthetic, weights = features(real_count, synthetic_count)
    ours = MMD(KERNELS[kernel])(real, synthetic, weights if weighted else None)
    for row in range(len(real)):
        w = weights[row].tolist() if weighted else None
        expected = mmd_twin.mmd(kernel, real[row].tolist(), synthetic[row].tolist(), w)
        assert abs(ours[row] - expected) < 1e-10 * max(1, abs(expected))


def test_bandwidth_is_the_mean_squared_distance_of_different_rows():
    real, synthetic, _ = features()
    for row, h in enumerate(bandwidth(real, synthetic).tolist()):
        assert h == pytest.approx(mmd_twin.bandwidth([*synthetic[row].tolist(), *real[row].tolist()]), rel=1e-12)
    assert not bandwidth(real, synthetic.requires_grad_()).requires_grad


@pytest.mark.parametrize("weighted", [False, True])
def test_the_linear_kernel_gives_dms_loss_and_gradient(weighted):
    real, synthetic, weights = features()
    w = weights if weighted else None
    for ours, theirs in zip(
        value_and_gradient(MMD(linear), real, synthetic, w), value_and_gradient(mean, real, synthetic, w), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_the_linear_kernel_gives_a_step_of_dm():
    data = shapes(size=16)
    images = Noise().images(data, 3, Draw(1))
    after = []
    with Compute(Machine("cpu", workers=0)) as compute:
        for discrepancy in (mean, MMD(linear)):
            method = DistributionMatching(discrepancy=discrepancy, batch_real=8)
            ctx = context(data, compute)
            after.append(method.step(method.init(images, ctx), ctx)[0]["images"])
    assert (after[0] - after[1]).norm() <= 1e-4 * (after[0] - images).norm()


@contextlib.contextmanager
def held_still(real, synthetic, weights):
    """What is measured from the rows is what it is now."""
    centre = (real if weights is None else real * weights[..., None]).mean(1, keepdim=True)
    fixed = bandwidth(real, synthetic), spreads(torch.cat([real, synthetic], 1) - centre, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("condensekit.methods.discrepancy.bandwidth", lambda *_: fixed[0])
        patch.setattr("condensekit.methods.discrepancy.spreads", lambda *_: fixed[1])
        yield


@pytest.mark.parametrize("discrepancy", ALL, ids=NAMES)
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient(discrepancy, weighted):
    """Bandwidth and spreads are detached on purpose, so they are held still while the finite differences are taken."""
    real, synthetic, weights = features(classes=2, dim=3)
    with held_still(real, synthetic, weights if weighted else None):
        assert torch.autograd.gradcheck(
            lambda s: discrepancy(real, s, weights if weighted else None), synthetic.requires_grad_()
        )


@pytest.mark.parametrize("discrepancy", ALL, ids=NAMES)
def test_a_batch_of_classes_is_its_classes_one_by_one(discrepancy):
    real, synthetic, weights = features()
    together = discrepancy(real, synthetic, weights)
    apart = [discrepancy(real[k : k + 1], synthetic[k : k + 1], weights[k : k + 1]) for k in range(len(real))]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("discrepancy", ALL, ids=NAMES)
def test_equal_weights_are_no_weights(discrepancy):
    real, synthetic, weights = features()
    torch.testing.assert_close(
        discrepancy(real, synthetic, torch.ones_like(weights)), discrepancy(real, synthetic, None)
    )


@pytest.mark.parametrize("discrepancy", ALL, ids=NAMES)
def test_weights_stand_for_repeated_images(discrepancy):
    """An image of weight 2 and two of weight 1/2 count as the first twice and the others once in four.

    Bandwidth and spreads come from the images that are there, whatever their weights: they are held still.
    """
    real, synthetic, _ = features(real=3)
    weights = torch.tensor([[1.5, 0.75, 0.75]] * len(real), dtype=real.dtype)
    with held_still(real, synthetic, weights):
        repeated = discrepancy(real[:, [0, 0, 1, 2]], synthetic, None)
        torch.testing.assert_close(discrepancy(real, synthetic, weights), repeated)


@pytest.mark.parametrize("kernel", KERNELS)
def test_without_its_value_only_a_constant_is_missing(kernel):
    real, synthetic, weights = features()
    whole, gradient = value_and_gradient(MMD(KERNELS[kernel]), real, synthetic, weights)
    part, same = value_and_gradient(MMD(KERNELS[kernel], value=False), real, synthetic, weights)
    assert torch.equal(gradient, same)
    assert (whole >= part - 1e-9).all()  # the linear kernel's constant is 0, for it is centred


def test_without_its_value_the_real_rows_are_not_paired():
    calls = []

    def counted(x, y, h):
        calls.append((x.shape[1], y.shape[1]))
        return polynomial(x, y, h)

    real, synthetic, _ = features(real=6, synthetic=4)
    MMD(counted, value=False)(real, synthetic)
    assert sorted(calls) == [(4, 4), (4, 6)]


@pytest.mark.parametrize("discrepancy", ALL, ids=NAMES)
@pytest.mark.parametrize("level", [0.0, 0.1, 1000.3])
@pytest.mark.parametrize("real_count", [1, 7])
def test_equal_features_give_nothing(discrepancy, level, real_count):
    """Bandwidth zero: no discrepancy, and a gradient that is finite and as good as none."""
    real, synthetic = torch.full((2, real_count, 50), level), torch.full((2, 3, 50), level)
    value, gradient = value_and_gradient(discrepancy, real, synthetic)
    scale = max(1.0, float((real[0, 0].square().sum() + 1).square()))
    assert value.abs().max() < 1e-5 * scale
    assert gradient.abs().max() < 1e-4 * scale


@pytest.mark.parametrize("discrepancy", ALL, ids=NAMES)
@pytest.mark.parametrize("counts", [(1, 1), (1, 5), (5, 1)])
def test_one_image_on_either_side_is_finite(discrepancy, counts):
    real, synthetic, _ = features(counts[0], counts[1], dtype=torch.float32)
    value, gradient = value_and_gradient(discrepancy, real, synthetic)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0 or (discrepancy == MMD() and counts[1] == 1)


@pytest.mark.parametrize("discrepancy", [d for d in ALL if d != MMD(polynomial)])
def test_float32_far_from_the_origin(discrepancy):
    """Features around 1,000 that differ by about 1: float64 is the judge."""
    real, synthetic, weights = (t.float() for t in features(real=32, synthetic=8, dim=64))
    real, synthetic = real + 1000, synthetic + 1000
    value, gradient = value_and_gradient(discrepancy, real, synthetic, weights)
    wanted, slope = value_and_gradient(discrepancy, real.double(), synthetic.double(), weights.double())
    torch.testing.assert_close(value.double(), wanted, rtol=2e-3, atol=1e-5)
    assert (gradient.double() - slope).norm() <= 2e-3 * slope.norm()


def test_the_same_images_are_no_distance_apart():
    real, _, _ = features()
    for discrepancy in ALL:
        torch.testing.assert_close(discrepancy(real, real.clone(), None), torch.zeros(3, dtype=real.dtype))


def test_moments_match_powers_one_feature_at_a_time():
    real, synthetic, weights = features()
    for row in range(len(real)):
        w = weights[row, :, None]
        centre = (w * real[row]).mean(0)
        both = torch.cat([real[row], synthetic[row]]) - centre
        variance = ((both - both.mean(0)) ** 2).mean(0)
        expected = (centre - synthetic[row].mean(0)).square().sum()
        for order in (2, 3, 4):
            powers = [((x - centre) / variance.sqrt()) ** order for x in (real[row], synthetic[row])]
            gap = (w * powers[0]).mean(0) - powers[1].mean(0)
            all_powers = torch.cat(powers)
            noise = ((all_powers - all_powers.mean(0)) ** 2).mean(0)
            expected = expected + (variance * gap**2 / noise).sum()
            torch.testing.assert_close(Moments(order)(real, synthetic, weights)[row], expected)


def test_every_order_of_heavy_tails_weighs_about_the_same():
    """Squared normals, as features behind a ReLU: what orders 2 to 4 add is within a factor 2 of the first."""
    draw = torch.Generator().manual_seed(0)
    real, synthetic = (torch.randn(4, n, 200, generator=draw, dtype=torch.float64) ** 2 for n in (64, 10))
    sums = torch.stack([Moments(order)(real, synthetic).sum() for order in (1, 2, 3, 4)])
    added = sums.diff() / sums[0]
    assert ((added > 0.5) & (added < 2)).all()


def test_the_first_moment_is_the_mean_and_the_second_sees_the_spread():
    real, synthetic, _ = features()
    assert torch.equal(Moments(1)(real, synthetic), mean(real, synthetic))
    wider = real.mean(1, keepdim=True) + 3 * (real - real.mean(1, keepdim=True))
    assert mean(real, wider).max() < 1e-20
    assert Moments(2)(real, wider).min() > 0.1
    assert MMD()(real, wider).min() > 0.01


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Moments(0), "order must be an integer in 1 to 8, got 0"),
        (lambda: Moments(2.5), "order must be an integer in 1 to 8, got 2.5"),
        (lambda: Moments(9), "got 9"),
        (lambda: Gaussian(()), "scales must be positive"),
        (lambda: Gaussian((1.0, -1.0)), "scales must be positive"),
        (lambda: Laplace((0.0,)), "rates must be positive"),
    ],
)
def test_bad_options_are_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()
