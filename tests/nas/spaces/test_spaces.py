import json
import math
import os
import subprocess
import sys
from pathlib import Path

import nni
import pytest
import torch
from nni.nas.nn.pytorch import ModelSpace, MutableLinear

from condensekit.errors import ConfigError, DataError
from condensekit.nas import build, convnet_space, enumerate_architectures, key, sample_architectures, space
from condensekit.nas.spaces.nasbench201 import computation, from_table, to_table
from condensekit.nas.spaces.spaces import check_architecture, fingerprint, size


@pytest.mark.parametrize(("name", "count"), [("convnet", 720), ("convnet-small", 405), ("nasbench201", 15625)])
def test_the_spaces_have_the_sizes_of_their_papers(name, count):
    made = space(name, (1, 28, 28))
    assert size(made) == count
    assert len({key(a) for a in enumerate_architectures(made)}) == count


def test_a_depth_without_a_map_is_dropped_and_said(caplog):
    made = space("convnet", (1, 8, 8))
    assert size(made) == 540
    assert {a["depth"] for a in enumerate_architectures(made)} == {1, 2, 3}
    assert made.notes[0].startswith("dropped depth 4")
    assert "dropped depth 4" in caplog.text


def test_without_pooling_no_depth_is_dropped():
    assert size(convnet_space((1, 8, 8), 10, depths=(4,), poolings=("none",))) == 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": (9,)}, "no depth"),
        ({"widths": ()}, "widths must name"),
        ({"norms": ("weird",)}, "unknown norm"),
        ({"widths": (6,), "norms": ("group",)}, "divisible by 4"),
        ({"activations": ("relu", "reluu")}, "Did you mean 'relu'"),
        ({"depths": (1, 0)}, "depth must be an integer of at least 1, got 0"),
        ({"depth": 3}, "cannot be built"),
    ],
)
def test_convnets_that_cannot_be_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        space("convnet", (1, 8, 8), **options)


@pytest.mark.parametrize("name", ["convnet", "nasbench201"])
def test_sampled_architectures_are_distinct_seeded_and_can_be_built(name):
    made = space(name, (1, 8, 8), 5)
    drawn = sample_architectures(made, 6, seed=1)
    assert len({key(a) for a in drawn}) == 6
    assert drawn == sample_architectures(made, 6, seed=1) != sample_architectures(made, 6, seed=2)
    for architecture in drawn:
        module = build(made, architecture, seed=3)
        assert module(torch.zeros(2, 1, 8, 8)).shape == (2, 5)
    same = build(made, drawn[0], seed=3), build(made, drawn[0], seed=3), build(made, drawn[0], seed=4)
    first, second, other = (torch.cat([p.flatten() for p in m.parameters()]) for m in same)
    assert first.equal(second)
    assert not first.equal(other)


def test_a_sample_larger_than_the_space_is_the_space():
    made = convnet_space((1, 8, 8), 3, depths=(1,), widths=(4,), norms=("none",))
    assert len(sample_architectures(made, 100, seed=0)) == size(made) == 9


def test_architectures_of_a_constrained_space_satisfy_it_and_do_not_name_it():
    made = space("tests.nas.toy:Constrained")
    every = sample_architectures(made, 99, seed=0)
    assert len(every) == len({key(a) for a in enumerate_architectures(made)}) == 10
    assert all(a["width"] * a["deep"] <= 64 and set(a) == {"width", "deep"} for a in every)
    check_architecture(made, every[0])
    assert key({**every[0], "small": None}) == key(every[0])  # as NNI's own grid search has it


def test_constraints_that_let_no_draw_pass_are_refused(monkeypatch):
    made = space("tests.nas.toy:Constrained")
    monkeypatch.setattr("condensekit.nas.spaces.spaces.MAX_LISTED", 1)
    assert len(sample_architectures(made, 99, seed=0)) == 10
    monkeypatch.setattr("condensekit.nas.spaces.spaces.MAX_DRAWS", 0)
    with pytest.raises(ConfigError, match="none of 0 random draws satisfies the constraints of this space: loosen"):
        sample_architectures(made, 4, seed=0)


def test_a_large_space_is_drawn_from_by_seed_and_its_constraint_kept():
    made = space("nni.nas.hub.pytorch:NasBench101")
    drawn = sample_architectures(made, 5, seed=1)
    assert len({key(a) for a in drawn}) == 5
    assert drawn == sample_architectures(made, 5, seed=1) != sample_architectures(made, 5, seed=2)


def test_building_touches_no_global_generator():
    made = space("convnet-small", (1, 8, 8))
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    build(made, next(enumerate_architectures(made)))
    assert torch.rand(1) == expected


def test_an_own_space_by_import_path():
    assert size(space("tests.nas.toy:Toy", classes=7)) == 12
    module = build(space("tests.nas.toy:Toy", (1, 8, 8), 7), {"width": 2, "act": "relu"})
    assert module(torch.zeros(1, 1, 8, 8)).shape == (1, 3)  # it is not told shape and classes


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("convnett", "Did you mean 'convnet'"),
        ("no.such.module:Space", "cannot be imported"),
        ("tests.nas.toy:Missing", "cannot be imported"),
        ("tests.nas.toy:scoring", "expected an nni.nas.nn.pytorch.ModelSpace"),
    ],
)
def test_a_space_that_is_not_there(name, message):
    with pytest.raises(ConfigError, match=message):
        space(name)


def test_a_foreign_architecture_is_refused():
    made = space("tests.nas.toy:Toy")
    check_architecture(made, {"width": 2, "act": "relu"})
    for wrong in ({"width": 9, "act": "relu"}, {"width": 2}, {"width": 2, "act": "relu", "depth": 1}):
        with pytest.raises(DataError, match="not an architecture of this space"):
            check_architecture(made, wrong)


def test_fingerprints_tell_spaces_apart():
    shapes = [space("convnet", shape) for shape in ((1, 8, 8), (1, 8, 8), (3, 8, 8))]
    first, same, other = map(fingerprint, shapes)
    assert first == same != other


def test_a_space_that_a_worker_gets_has_the_same_fingerprint():
    made = space("convnet-small", (1, 8, 8))
    sent = nni.load(nni.dump(made))
    assert (made.trace_kwargs["shape"], sent.trace_kwargs["shape"]) == ((1, 8, 8), [1, 8, 8])
    assert fingerprint(made) == fingerprint(sent)


class Given(ModelSpace):
    """A space that takes a function, which Python shows with its address."""

    def __init__(self, act):
        super().__init__()
        self.act, self.layer = act, MutableLinear(2, nni.choice("width", [1, 2]))


def test_a_space_that_takes_a_function_has_one_fingerprint():
    def made():
        def act(x):
            return x

        return Given(act)

    first, second = made(), made()
    assert repr(first.trace_kwargs) != repr(second.trace_kwargs)
    assert fingerprint(first) == fingerprint(second)


def test_cells_and_their_names_in_tables():
    text = "|nor_conv_3x3~0|+|avg_pool_3x3~0|skip_connect~1|+|none~0|nor_conv_1x1~1|nor_conv_3x3~2|"
    cell = from_table(text)
    assert cell["cell/0_1"] == "conv_3x3"
    assert cell["cell/1_2"] == "skip_connect"
    assert to_table(cell) == text
    check_architecture(space("nasbench201"), cell)
    for wrong in ("", "|nor_conv_3x3~0|", text.replace("none", "zero"), text + "|x~3|"):
        with pytest.raises(DataError, match="not a NAS-Bench-201 cell"):
            from_table(wrong)


def test_cells_are_one_group_where_they_compute_the_same_number():
    functions = {
        "none": lambda x: 0.0,
        "skip_connect": lambda x: x,
        "conv_1x1": lambda x: math.sin(1.3 * x),
        "conv_3x3": lambda x: math.tanh(0.7 * x),
        "avg_pool_3x3": lambda x: math.atan(1.9 * x),
    }

    def output(cell):
        nodes = [0.6]
        for node in (1, 2, 3):
            nodes.append(sum(functions[cell[f"cell/{i}_{node}"]](x) for i, x in enumerate(nodes)))
        return round(nodes[3], 9)

    pairs = {(output(cell), computation(cell)) for cell in enumerate_architectures(space("nasbench201"))}
    assert len(pairs) == len({number for number, _ in pairs}) == len({name for _, name in pairs}) == 4930


def test_nasbench201_sizes_are_checked():
    with pytest.raises(ConfigError, match="stem must be an integer of at least 1"):
        space("nasbench201", stem=0)


def test_the_grid_that_the_benchmark_lists_without_nni_is_the_space():
    code = (
        "import sys; sys.modules['nni'] = None; import json; from benchmarks.nas import grid; "
        "print(json.dumps(grid.architectures()))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONWARNINGS": "ignore"}
    listed = json.loads(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout)
    assert {key(a) for a in listed} == {key(a) for a in enumerate_architectures(space("convnet", (3, 32, 32), 10))}
    assert len(listed) == 720
