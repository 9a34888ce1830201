"""Avalanche's own memories, as the protocol uses them."""

import pytest
import torch
from avalanche.training.storage_policy import HerdingSelectionStrategy
from torch import nn

from condensekit.replay.study.baselines import Herded


@pytest.mark.parametrize("most", [1, 40, 400])
def test_herded_images_are_the_first_of_avalanches_order(most):
    body = nn.Sequential(nn.Identity(), nn.Flatten())
    features = torch.rand(300, 32, generator=torch.Generator().manual_seed(0)).square()
    theirs = HerdingSelectionStrategy(body, "1").make_sorted_indices_from_features(features)
    assert Herded(body, "1", most).make_sorted_indices_from_features(features) == theirs[:most]
