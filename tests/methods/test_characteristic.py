"""The discrepancy of NCFM: its formula, its random numbers, and the method around it."""

import dataclasses

import pytest
import torch

from condensekit.catalog import recipes
from condensekit.compute import Compute, Machine
from condensekit.driver import condense
from condensekit.errors import ConfigError
from condensekit.methods import DistributionMatching, discrepancy
from condensekit.methods.discrepancy import CharacteristicFunction, Drawn, mean, with_draw
from condensekit.methods.encoders import Fresh
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw
from condensekit.selection.base import Noise
from condensekit.testing import MethodContract, context, shapes
from tests.methods.test_discrepancy import features, value_and_gradient
from tests.reference import ncfm_twin

FEW = CharacteristicFunction(frequencies=64)


class TestContract(MethodContract):
    def make(self):
        return DistributionMatching(FEW, lr=0.01, batch_real=8, space="pixel", optimiser="adamw", weight_decay=0.1)


def frequencies(measure, draw, dim):
    """(T, D) frequencies of a step as lists."""
    made = torch.randn((dim, measure.frequencies), generator=draw.generator("discrepancy"))
    return made.double().T.tolist()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("amplitude", "phase"), [(0.5, 0.5), (0.9, 0.1), (0.0, 1.0)])
@pytest.mark.parametrize(("real_count", "synthetic_count"), [(6, 4), (1, 3), (5, 1)])
def test_it_equals_the_blackboard_twin(weighted, amplitude, phase, real_count, synthetic_count):
    real, synthetic, weights = features(real_count, synthetic_count)
    measure, draw = CharacteristicFunction(16, amplitude, phase, scale=7.0), Draw(3, step=5)
    ours = measure.at(draw)(real, synthetic, weights if weighted else None)
    for row in range(len(real)):
        w = weights[row].tolist() if weighted else None
        drawn = frequencies(measure, draw, real.shape[-1])
        wanted = ncfm_twin.ncfm(real[row].tolist(), synthetic[row].tolist(), drawn, w, amplitude, phase, 7.0)
        assert ours[row] == pytest.approx(wanted, rel=1e-9)


def test_with_equal_weights_it_is_the_l1_distance():
    real, synthetic, _ = features()
    draw = Draw(1, step=2)
    ours = FEW.at(draw)(real, synthetic, None)
    for row in range(len(real)):
        wanted = ncfm_twin.as_l1(real[row].tolist(), synthetic[row].tolist(), frequencies(FEW, draw, real.shape[-1]))
        assert ours[row] == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.8, 0.2)])
def test_gradient(weights):
    real, synthetic, importance = features(classes=2, dim=3)
    measure = CharacteristicFunction(8, *weights).at(Draw(0))
    assert torch.autograd.gradcheck(lambda s: measure(real, s, importance), synthetic.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rows_and_rows_of_zeros_have_finite_gradients(dtype):
    real, _, _ = features(dtype=dtype)
    for rows in (real, torch.zeros_like(real)):
        value, slope = value_and_gradient(CharacteristicFunction(32, 0.9, 0.1), rows, rows)
        assert (value < 1e-2).all()
        assert torch.isfinite(slope).all()


def test_float32_is_close_where_both_are_close():
    """The authors' form loses its digits there."""
    real, _, _ = features(dim=64)
    synthetic = real + 1e-3 * features(6, 6, dim=64, seed=1)[1]
    exact, rough = FEW(real, synthetic), FEW(real.float(), synthetic.float())
    torch.testing.assert_close(rough.double(), exact, rtol=1e-3, atol=0)


def test_no_class_depends_on_the_others_or_on_how_many_are_at_once(monkeypatch):
    real, synthetic, weights = features(classes=5, dim=32, dtype=torch.float32)
    measure = FEW.at(Draw(2))
    whole = measure(real, synthetic, weights)
    monkeypatch.setattr(discrepancy, "PHASES", 2 * real.shape[1] * FEW.frequencies)
    assert torch.equal(measure(real, synthetic, weights), whole)
    monkeypatch.undo()
    apart = [measure(real[k : k + 1], synthetic[k : k + 1], weights[k : k + 1]) for k in range(5)]
    assert torch.equal(torch.cat(apart), whole)


def test_each_step_has_its_own_frequencies_which_are_made_once(monkeypatch):
    seen, make = [], CharacteristicFunction._frequencies

    def watched(self, draw, like):
        seen.append(draw)
        return make(self, draw, like)

    monkeypatch.setattr(CharacteristicFunction, "_frequencies", watched)
    monkeypatch.setattr("condensekit.methods.base.GROUP_PIXELS", {"cpu": 1})  # a group for each class
    method = DistributionMatching(FEW, batch_real=4)
    condense(shapes(), recipes.dm(encoder=ConvNet(width=8)).replace(method=method), ipc=1, steps=3)
    assert [draw.step for draw in seen] == [1, 2, 3]
    real, synthetic, _ = features()
    values = [FEW.at(Draw(0, step))(real, synthetic, None) for step in (1, 2)]
    assert not torch.equal(*values)
    assert torch.equal(values[0], FEW.at(Draw(0, 1))(real, synthetic, None))
    assert with_draw(mean, Draw(0)) is mean
    assert torch.equal(with_draw(FEW, Draw(0, 2))(real, synthetic, None), values[1])


def test_an_own_discrepancy_may_draw_random_numbers():
    @dataclasses.dataclass(frozen=True)
    class Projected(Drawn):
        def at(self, draw):
            seen.append(draw.step)
            return mean

    seen: list[int] = []
    method = DistributionMatching(Projected(), batch_real=4)
    with Compute(Machine("cpu", workers=0)) as compute:
        ctx = context(shapes(), compute, step=7)
        method.step(method.init(Noise().images(shapes(), 1, Draw(0)), ctx), ctx)
    assert seen == [7]


def test_its_loss_falls_and_images_stay_pixels():
    method = dataclasses.replace(TestContract().make(), weight_decay=0.0)
    made = condense(
        shapes(), recipes.dm(encoder=Fresh(ConvNet(width=8)), init="noise").replace(method=method), ipc=2, steps=60
    )
    losses = [row["loss"] for row in made.history]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    mean_, std = shapes().spec.constants()
    pixels = made.set.images * std + mean_
    assert -1e-5 <= pixels.min() < 0.1
    assert pixels.max() <= 1 + 1e-5


@pytest.mark.parametrize(
    "bad", [{"frequencies": 0}, {"frequencies": 2.5}, {"frequencies": 1 << 20}, {"amplitude": -1}, {"phase": 0}]
)
def test_bad_values_are_named(bad):
    with pytest.raises(ConfigError, match=f"{next(iter(bad))} must be"):
        CharacteristicFunction(**bad)
