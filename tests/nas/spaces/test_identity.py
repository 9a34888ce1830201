"""Which architectures are the same network. Spaces are of the kinds of NNI's own tutorials and hub."""

from functools import partial
from itertools import pairwise
from typing import Any

import nni
import pytest
import torch
from nni.mutable import ensure_frozen
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace, MutableLinear, Repeat
from torch import nn
from torch.nn import functional

from condensekit.errors import DataError
from condensekit.nas import Truth, build, enumerate_architectures, key, search
from condensekit.nas.spaces.distinct import distinct, listed, others
from condensekit.nas.spaces.equivalence import counted, identified_by, networks, unlike
from condensekit.nas.spaces.identity import identity, identity_of
from tests.nas import toy

pytestmark = pytest.mark.nni


class Loop(ModelSpace):
    """Choices that are frozen whether or not their block is built: 2 + 4 + 8 networks of 24."""

    def __init__(self):
        super().__init__()
        depth = ensure_frozen(self.add_mutable(nni.choice("depth", [1, 2, 3])))
        widths = [ensure_frozen(self.add_mutable(nni.choice(f"width{i}", [4, 8]))) for i in range(3)]
        sizes = [64, *widths[:depth], 3]
        self.layers = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)))

    def forward(self, x):
        return self.layers(x.flatten(1))


class Nested(ModelSpace):
    """A choice, drawn with random weights, inside an operation that may not be chosen: 1 + 3 networks of 6."""

    def __init__(self):
        super().__init__()
        inner = LayerChoice({"a": nn.Linear(64, 64), "b": nn.Tanh(), "c": nn.Identity()}, label="inner")
        wide = nn.Sequential(inner, MutableLinear(64, 64))
        self.first = LayerChoice({"plain": nn.Linear(64, 64), "nested": wide}, label="outer")
        self.last = nn.Linear(64, 3)

    def forward(self, x):
        return self.last(self.first(x.flatten(1)))


class Prefix(ModelSpace):
    """Blocks that are made beforehand, of which a prefix is taken: 2 + 4 networks of 8."""

    def __init__(self):
        super().__init__()
        blocks = [LayerChoice([nn.ReLU(), nn.Linear(64, 64)], label=f"block{i}") for i in range(2)]
        self.blocks = Repeat(blocks, (1, 2), label="depth")
        self.last = nn.Linear(64, 3)

    def forward(self, x):
        return self.last(self.blocks(x.flatten(1)))


class Connected(ModelSpace):
    """Which input is chosen is no name of a block: all 3 networks differ."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(64, 64), nn.Linear(64, 3)
        self.chosen = InputChoice(3, 1, label="input")

    def forward(self, x):
        x = x.flatten(1)
        return self.last(self.chosen([x, self.first(x), x + self.first(x)]))


@pytest.mark.parametrize(("kind", "combinations", "different"), [(Loop, 24, 14), (Nested, 6, 4), (Prefix, 8, 6)])
def test_choices_of_what_is_not_built_make_no_other_network(kind, combinations, different):
    space = kind()
    every = list(enumerate_architectures(space))
    names = networks(space, every)
    printed = [str(build(space, a)) for a in every]
    assert (len(every), len(set(names))) == (combinations, different)
    assert len(set(zip(names, printed, strict=True))) == len(set(printed)) == different
    assert len(unlike(space, every)) == different
    assert counted(space) == (combinations, different)


def test_inputs_are_not_forgotten():
    space = Connected()
    assert len(set(networks(space, list(enumerate_architectures(space))))) == 3


class Scale(nn.Module):
    """It prints nothing of what it does."""

    def __init__(self, **told):
        super().__init__()
        vars(self).update(told)

    def forward(self, x):
        return x


def local(sign):
    class Scale(nn.Module):
        def forward(self, x):
            return sign * x

    return Scale()


def hooked(function):
    module = nn.Identity()
    module.register_forward_hook(function)
    return module


def tied(whether):
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight if whether else second.weight
    return nn.Sequential(first, second)


def buffered(values):
    module = nn.Identity()
    module.register_buffer("mask", torch.tensor(values))
    return module


def frozen():
    return nn.Linear(4, 4).requires_grad_(False)


def starting(value):
    layer = nn.Linear(4, 4)
    nn.init.constant_(layer.bias, value)
    return layer


def flipped(x):
    return x.flip(0)


DIFFERENT: dict[str, list[Any]] = {
    "constants": [partial(Scale, by=0.5), partial(Scale, by=2.0), partial(Scale, by=2), partial(Scale, at=2.0)],
    "functions": [partial(Scale, f=f) for f in (torch.relu, torch.tanh, functional.relu, flipped)],
    "lambdas": [partial(Scale, f=f) for f in (lambda x: x + 1, lambda x: x + 2, lambda x: x - 1)],
    "closures": [lambda: Scale(f=partial(torch.add, alpha=1)), lambda: Scale(f=partial(torch.add, alpha=2))],
    "classes of one name": [Scale, partial(local, 1), partial(local, -1)],
    "hooks": [nn.Identity, lambda: hooked(lambda *a: a[2] + 1), lambda: hooked(lambda *a: a[2] - 1)],
    "shared weights": [partial(tied, True), partial(tied, False)],
    "a module used twice": [lambda: nn.Sequential(*[nn.Linear(4, 4)] * 2), partial(tied, False)],
    "buffers": [partial(buffered, [0.0, 1.0]), partial(buffered, [1.0, 0.0]), partial(buffered, [1, 0])],
    "what is learnt": [partial(nn.Linear, 4, 4), frozen],
    "where it starts": [partial(nn.Linear, 4, 4), partial(starting, 0.0), partial(starting, 1.0)],
    "order": [lambda: nn.Sequential(nn.ReLU(), nn.Tanh()), lambda: nn.Sequential(nn.Tanh(), nn.ReLU())],
    "mode": [lambda: nn.Dropout(0.1), lambda: nn.Dropout(0.2), lambda: nn.Dropout(0.1).eval()],
    "lazy": [partial(nn.LazyLinear, 4), partial(nn.LazyLinear, 8), partial(nn.Linear, 4, 4)],
    "collections": [partial(Scale, at=value) for value in ([1, 2], (1, 2), {1, 2}, {1: 2}, [2, 1], [[1], 2])],
}


@pytest.mark.parametrize("kind", DIFFERENT)
def test_what_prints_alike_and_differs_is_another_network(kind):
    def seeded(make):
        def build(seed):
            torch.manual_seed(seed)
            return make()

        return build

    names = [identity_of(seeded(make)) for make in DIFFERENT[kind]]
    assert names == [identity_of(seeded(make)) for make in DIFFERENT[kind]]
    assert len(set(names)) == len(names)


def test_a_network_that_cannot_be_built_is_another_one():
    space, every = Loop(), [{"depth": 1}, {"depth": 2}, {"depth": 1}]
    assert networks(space, every) == [key(a) for a in every]


def test_networks_are_built_once_by_the_function_that_is_given():
    space, asked = Loop(), []

    def identify(space, architectures):
        asked.append(len(architectures))
        return [identity(space, a) for a in architectures]

    identified_by(space, identify)
    assert len(distinct(space, 8, 0)) == 8
    assert len(distinct(space, 99, 0)) == 14
    assert sum(asked) == 24


def test_lists_hold_each_network_once():
    space = Loop()
    for strategy in ("random", "grid"):
        drawn = listed(space, strategy, 10, 0)
        assert drawn is not None
        assert len(set(networks(space, drawn))) == 10
        assert drawn[:4] == distinct(space, 4, 0)
        rest = others(space, drawn, 4, 0)
        assert len({*networks(space, rest), *networks(space, drawn)}) == 14


def test_a_space_of_many_twins_ends(monkeypatch):
    monkeypatch.setattr("condensekit.nas.spaces.distinct.MAX_KNOWN", 20)

    class Endless(ModelSpace):
        def __init__(self):
            super().__init__()
            for i in range(12):
                self.add_mutable(nni.choice(f"unused{i}", [1, 2, 3]))

    assert len(distinct(Endless(), 3, 0)) == 1


def test_a_truth_of_one_is_that_of_its_twin():
    space = Loop()
    one, twin, other = (
        {"depth": depth, "width0": 4, "width1": 4, "width2": w} for depth, w in ((1, 4), (1, 8), (2, 4))
    )
    truth = Truth("table", {key(one): (50.0,)})
    assert truth.of(space, [twin, one]).tolist() == [[50.0], [50.0]]
    with pytest.raises(DataError, match="table lacks 1 of 2 architectures"):
        truth.of(space, [twin, other])
    both = Truth("table", {key(one): (50.0,), key(twin): (52.0,)})
    assert both.of(space, [twin, one]).tolist() == [[52.0], [50.0]]


@pytest.mark.parametrize("strategy", ["random", "evolution", "tpe"])
def test_a_strategy_runs_each_network_once(strategy):
    found = search(Loop(), toy.valued(), strategy, trials=30, engine="sequential")
    names = networks(Loop(), [trial.architecture for trial in found])
    assert len(set(names)) == len(names) <= 14
    assert len(names) >= 10
