"""Tables: the one writer of Markdown, HTML and data frames."""

import sys
from dataclasses import dataclass

import pytest

from condensekit.errors import ConfigError
from condensekit.tables import as_frame, markdown, signed, text


@dataclass(frozen=True)
class Row:
    set: str
    accuracy: float | None


def test_markdown():
    assert markdown(["set", "n"], [["dm", 5], ["m3d", None]]) == ("| set | n |\n|---|---|\n| dm | 5 |\n| m3d | None |")
    assert markdown(["set"], []) == "| set |\n|---|"


WIDE = (
    ["memory", "regime", "final accuracy %", "difference to random", "average %", "forgetting %", "bytes", "train s"],
    [
        ["hybrid-m3d-25", "from-scratch", "90.3 ± 1.2", "+17.5 [+16.1, +18.9]", "88.1", "10.2", "24,000", "12"],
        ["random", "from-scratch", "72.8 ± 2.0", "-", "70.0", "20.1", "23,760", "12"],
    ],
)


@pytest.mark.parametrize("width", [24, 40, 60, 80, 100])
def test_no_line_is_wider_than_the_terminal(width, monkeypatch):
    """A table of 16 columns was 230 characters wide."""
    told = {
        "caption": "Accuracy in % after the last experience, on the test images.",
        "notes": ["- random: real images."],
    }
    shown = text(*WIDE, **told, width=width)
    monkeypatch.setenv("COLUMNS", str(width))
    assert text(*WIDE, **told) == shown
    assert max(map(len, shown.splitlines())) <= width
    for cell in (cell for row in WIDE[1] for cell in row):
        assert all(word in shown for word in cell.split())


def test_a_wide_table_becomes_tables_with_the_first_column():
    blocks = text(*WIDE, width=80).split("\n\n")
    assert len(blocks) == 2
    assert all(block.startswith("| memory        |") for block in blocks)
    assert {len(line) for line in blocks[0].splitlines()} == {len(blocks[0].splitlines()[0])}


def test_where_no_two_columns_fit_rows_are_lists():
    assert text(*WIDE, width=30).splitlines()[:4] == [
        "hybrid-m3d-25",
        "  regime: from-scratch",
        "  final accuracy %: 90.3 ± 1.2",
        "  difference to random: +17.5",
    ]


def test_settings_that_all_rows_share_are_told_once():
    shown = text(*WIDE, settings=("regime", "bytes"), width=200)
    assert shown.startswith("In all rows: regime from-scratch.\n\n| memory ")
    assert "24,000" in shown
    assert text(["set"], [], settings=("set",)) == "| set |\n|-----|"


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
