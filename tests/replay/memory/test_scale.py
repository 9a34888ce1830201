"""Whether images were normalised in the same way, seen from their values."""

import pytest
import torch

from condensekit.replay.memory.scale import Channel
from condensekit.rng import isolated
from tests.cases.streams.digits import digits

DIGITS, LABELS = digits()
with isolated(0):
    BYTES = torch.randint(256, (100, 8, 8)) / 255
    PLAIN = torch.rand(100, 8, 8)
    SPARSE = BYTES * (torch.rand(100, 8, 8) < 0.1)
OTHER = {
    "mnist": lambda x: (x - 0.1307) / 0.3081,
    "halves": lambda x: (x - 0.5) / 0.5,
    "quarters": lambda x: (x - 0.5) / 0.25,
    "bytes": lambda x: 255 * x,
    "cifar10": lambda x: (x - 0.4914) / 0.247,
}


@pytest.mark.parametrize("name", OTHER)
@pytest.mark.parametrize("images", [DIGITS[:300, 0], BYTES, SPARSE], ids=["digits", "bytes", "sparse"])
def test_another_normalisation_is_seen_and_the_same_fits(name, images):
    first, second = images[:50], images[50:]
    scale = OTHER[name]
    assert Channel.of(first).fits(Channel.of(second))
    assert Channel.of(scale(first)).fits(Channel.of(scale(second)))
    assert not Channel.of(first).fits(Channel.of(scale(second)))
    assert not Channel.of(scale(first)).fits(Channel.of(second))
    both = Channel.of(first).joined(Channel.of(second))
    assert (both.mean, both.std) == pytest.approx((float(images.mean()), float(images.std(correction=0))), rel=1e-3)
    assert both.fits(Channel.of(first))
    assert not both.fits(Channel.of(scale(second)))


def test_other_classes_of_the_same_normalisation_fit():
    dark = (0.3 * BYTES * 255).round() / 255
    drawing = (BYTES > 0.5).float()
    for other in (dark, drawing, BYTES[:1], torch.zeros(20, 8, 8), BYTES.round(decimals=0)):
        assert Channel.of(BYTES).fits(Channel.of(other))
        assert Channel.of(other).fits(Channel.of(BYTES))
    assert Channel.of(DIGITS[LABELS < 5, 0]).fits(Channel.of(DIGITS[LABELS >= 5, 0]))


def test_values_without_levels_are_compared_by_their_spread():
    assert Channel.of(PLAIN).fits(Channel.of(0.5 * PLAIN))
    assert not Channel.of(PLAIN).fits(Channel.of((PLAIN - 0.5) / 0.25))
    assert Channel.of(PLAIN).fits(Channel.of(10 * PLAIN[:3]))  # too few images to tell
