"""Which candidates are the same network is found in workers: a candidate that hangs or dies there ends nothing."""

import os
import time

import nni
import pytest
from nni.mutable import ensure_frozen
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import current_model
from torch import nn

from condensekit.nas import Running, enumerate_architectures
from condensekit.nas.spaces.equivalence import identified_by, networks
from condensekit.nas.study.networks import identifying

pytestmark = pytest.mark.nni


class Deadly(ModelSpace):
    """Four architectures of two networks, one that hangs and one that ends its process while it is built."""

    def __init__(self):
        super().__init__()
        depth = ensure_frozen(self.add_mutable(nni.choice("depth", [1, 2, 3, 4])))
        self.add_mutable(nni.choice("unused", [1, 2]))
        if current_model() is not None and depth == 3:
            time.sleep(3600)
        if current_model() is not None and depth == 4:
            os._exit(9)
        self.layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(depth)))


@pytest.mark.kill
@pytest.mark.slow
def test_a_candidate_that_cannot_be_built_is_a_network_of_its_own(monkeypatch):
    monkeypatch.setattr("condensekit.nas.study.checks.LIMIT_S", 3.0)
    space = Deadly()
    identified_by(space, identifying(Running("pool", workers=1)))
    every = list(enumerate_architectures(space))
    names = networks(space, every)
    depths = [len({n for n, a in zip(names, every, strict=True) if a["depth"] == depth}) for depth in (1, 2, 3, 4)]
    assert depths == [1, 1, 2, 2]
    assert len(set(names)) == 6


def test_workers_and_this_process_find_the_same_networks():
    space, other = Deadly(), Deadly()
    identified_by(space, identifying(Running("sequential")))
    some = [{"depth": depth, "unused": unused} for depth in (1, 2) for unused in (1, 2)]
    assert networks(space, some) == networks(other, some)
