"""Tables: the one writer of Markdown, HTML and data frames."""

import sys
from dataclasses import dataclass

import pytest

from condensekit.errors import ConfigError
from condensekit.tables import as_frame, markdown, signed


@dataclass(frozen=True)
class Row:
    set: str
    accuracy: float | None


def test_markdown():
    assert markdown(["set", "n"], [["dm", 5], ["m3d", None]]) == ("| set | n |\n|---|---|\n| dm | 5 |\n| m3d | None |")
    assert markdown(["set"], []) == "| set |\n|---|"


def test_a_bar_in_a_cell_ends_no_column():
    line = markdown(["a|b"], [["c|d"]]).splitlines()[-1]
    assert line == "| c\\|d |"


def test_rows_may_be_a_generator():
    assert markdown(["n"], ([n] for n in range(2))).count("\n") == 3


@pytest.mark.parametrize(
    ("value", "bounds", "text"),
    [
        (0.0123, None, "+1.2"),
        (-0.05, (-0.0812, -0.0211), "-5.0 [-8.1, -2.1]"),
        (0.0, [0.0, 0.01], "+0.0 [+0.0, +1.0]"),
        (None, None, ""),
        (None, (0.1, 0.2), ""),
    ],
)
def test_differences_are_signed_and_in_points(value, bounds, text):
    assert signed(value, bounds) == text


def test_a_data_frame_has_a_line_for_each_row():
    pytest.importorskip("pandas")
    frame = as_frame([Row("dm", 0.5), Row("m3d", 0.75)])
    assert list(frame.columns) == ["set", "accuracy"]
    assert frame.accuracy.tolist() == [0.5, 0.75]


def test_without_pandas_the_way_out_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=r"to_pandas\(\) needs pandas: pip install pandas, or use to_json\(\)"):
        as_frame([Row("dm", 0.5)])
