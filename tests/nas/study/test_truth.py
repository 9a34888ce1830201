"""Truths: tables with their mistakes named, cells that compute the same, repeats of full trainings."""

import itertools
import os

import nni
import numpy as np
import pytest
from nni.nas.nn.pytorch import InputChoice, ModelSpace, MutableDropout

from condensekit.errors import DataError
from condensekit.nas.spaces.architecture import key
from condensekit.nas.spaces.equivalence import canonical
from condensekit.nas.spaces.spaces import convnet_space, space
from condensekit.nas.study.truth import Truth, from_trials, read_table
from condensekit.nas.trials.log import FAILED, Trial

GRID = convnet_space(
    (3, 8, 8), 4, depths=(1, 2), widths=(4, 8), activations=("relu",), norms=("none",), poolings=("avg",)
)
CELLS = space("nasbench201", (3, 8, 8), 4, stem=4, cells=1)
OPERATIONS = ("none", "skip_connect", "conv_1x1", "conv_3x3", "avg_pool_3x3")
LINES = ["depth,width,activation,norm,pooling,accuracy_0,accuracy_1,note"] + [
    f"{d},{w},relu,none,avg,{10 * d + w},{11 * d + w},x" for d, w in itertools.product((1, 2), (4, 8))
]


def grid(depth, width):
    return {"depth": depth, "width": width, "activation": "relu", "norm": "none", "pooling": "avg"}


@pytest.fixture
def table(tmp_path):
    def write(lines):
        path = tmp_path / "truth.csv"
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


def test_a_table_with_a_column_for_each_label(table):
    truth = read_table(table(LINES), GRID)
    assert truth.of(GRID, [grid(2, 4), grid(1, 8)]).tolist() == [[24, 26], [18, 19]]
    assert truth.name == "truth.csv"
    assert truth.seconds(GRID, [grid(1, 4)]) is None


def test_a_missing_architecture_is_named(table):
    truth = read_table(table(LINES[:3]), GRID)
    with pytest.raises(DataError, match=r"truth.csv lacks 2 of 3 architectures, the first is .*\"depth\":2"):
        truth.of(GRID, [grid(1, 4), grid(2, 4), grid(2, 8)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [*lines, lines[1]], r"line 6: .*stands here a second time"),
        (lambda lines: [*lines, "3,4,relu,none,avg,1,1,x"], "line 6: depth is '3', expected one of 1, 2"),
        (lambda lines: [*lines[:4], "2,8,relu,none,avg,nan,1,x"], "line 5: accuracy 'nan' is no number from 0 to 100"),
        (lambda lines: [*lines[:4], "2,8,relu,none,avg,,1,x"], "line 5: accuracy '' is no number"),
        (lambda lines: ["depth,width", "1,2"], "has columns depth, width: expected net_str"),
        (lambda lines: [""], "has columns nothing"),
        (lambda lines: [lines[0], "1,4,relu,none,avg,0.5,0.6,x"], "expected percent, not fractions"),
        (lambda lines: ["net_str,val_accs", "|none~0|,3"], "names cells of NAS-Bench-201: use its space"),
        (lambda lines: [*lines[:3], "", "", *lines[3:], lines[1]], r"line 8: .*stands here a second time"),
    ],
    ids=["duplicate", "stranger", "nan", "empty", "columns", "nothing", "fractions", "cells", "blank"],
)
def test_mistakes_in_a_table_are_named(table, change, message):
    with pytest.raises(DataError, match=message):
        read_table(table(change(LINES)), GRID)


def test_a_mark_at_the_start_of_the_file_is_no_part_of_a_name(table):
    assert read_table(table(["\ufeff" + LINES[0], *LINES[1:]]), GRID).values == read_table(table(LINES), GRID).values


@pytest.mark.parametrize(
    "mutable", [lambda: InputChoice(3, 2, label="odd"), lambda: MutableDropout(nni.uniform("odd", 0, 1))]
)
def test_labels_that_no_table_can_hold_are_named(table, mutable):
    class Odd(ModelSpace):
        def __init__(self):
            super().__init__()
            self.layer = mutable()

    with pytest.raises(DataError, match="odd is no single choice, which a truth table cannot hold"):
        read_table(table(["odd,accuracy", "1,50"]), Odd())


def test_no_table(tmp_path):
    with pytest.raises(DataError, match="cannot read the truth table"):
        read_table(tmp_path / "none.csv", GRID)


def test_nasbench201_has_9445_cells_that_differ():
    labels = list(CELLS.simplify())
    found = {
        key(canonical(CELLS, dict(zip(labels, values, strict=True))))
        for values in itertools.product(OPERATIONS, repeat=6)
    }
    assert len(found) == 9445


def test_an_edge_that_leads_nowhere_does_not_count(table):
    truth = read_table(
        table(
            [
                "net,net_str,val_accs",
                '"(1, 2)",|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|nor_conv_1x1~1|none~2|,90.5',
            ]
        ),
        CELLS,
    )
    cell = {
        "cell/0_1": "conv_3x3",
        "cell/0_2": "none",
        "cell/1_2": "none",
        "cell/0_3": "skip_connect",
        "cell/1_3": "conv_1x1",
        "cell/2_3": "avg_pool_3x3",
    }
    assert truth.of(CELLS, [cell]).tolist() == [[90.5]]
    assert not truth.holds(CELLS, {**cell, "cell/0_3": "none"})


def test_full_trainings_become_a_truth():
    def trial(seed, width, accuracy):
        scores = {} if accuracy is None else {"accuracy": accuracy}
        return Trial(f"full-{seed}", grid(1, width), accuracy, FAILED if accuracy is None else "finished", scores, 2.0)

    truth = from_trials("full", GRID, [[trial(0, 4, 0.5), trial(0, 8, 0.25)], [trial(1, 4, 0.75), trial(1, 8, None)]])
    assert truth.values == {key(grid(1, 4)): (50.0, 75.0)}
    assert truth.seconds(GRID, [grid(1, 4)]) == 4.0
    assert from_trials("full", GRID, []) == Truth("full", {}, {})
    assert np.shape(truth.of(GRID, [grid(1, 4)])) == (1, 2)


@pytest.mark.timeout(60)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "truth.csv")
    with pytest.raises(DataError, match=r"cannot read the truth table .*truth\.csv.* named pipe, not a regular file"):
        read_table(tmp_path / "truth.csv", GRID)
