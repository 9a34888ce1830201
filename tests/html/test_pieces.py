"""Pieces of pages: numbers, axes, charts, tables, grids; escaping, limits and edge cases."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from condensekit.html import standalone
from condensekit.html.charts import MAX_POINTS, Axis, Series, chart, thinned
from condensekit.html.numbers import log_ticks, percent, seconds, short, size, ticks
from condensekit.html.strips import Strip, strips
from condensekit.html.tables import bar, facts, matrix, table

values = st.floats(-1e12, 1e12).filter(lambda v: v == 0 or abs(v) > 1e-9)


@given(values, st.floats(1e-6, 1e9))
def test_ticks_hold_the_values(low, width):
    high = low + max(width, abs(low) * 1e-6)
    found = ticks(low, high)
    slack = (found[1] - found[0]) * 1e-6
    assert found[0] <= low + slack
    assert found[-1] >= high - slack
    assert 2 <= len(found) <= 8
    assert found == sorted(found)


@given(st.floats(1e-9, 1e9), st.floats(1.0, 1e9))
def test_logarithmic_ticks_hold_the_values(low, factor):
    found = log_ticks(low, low * factor)
    assert found[0] <= low * (1 + 1e-6)
    assert found[-1] >= low * factor * (1 - 1e-6)
    assert 2 <= len(found) <= 12


@given(st.lists(values, min_size=1))
def test_an_axis_places_its_values(some):
    axis = Axis.over("x", some)
    assert all(-1e-6 <= axis.place(value) <= 1 + 1e-6 for value in some)


@pytest.mark.parametrize(("low", "high"), [(1e-15, 3e-15), (1e-200, 5e-200), (-1e200, 1e200), (0.1, 0.1000001)])
def test_tiny_and_huge_values_have_ticks(low, high):
    found = ticks(low, high)
    assert len(set(found)) == len(found) >= 2


def test_whole_ticks_are_integers():
    assert ticks(1, 3, whole=True) == [1, 2, 3]
    assert Axis.over("experience", [1.0], whole=True).ticks == (0, 1, 2)


def test_numbers():
    assert [percent(None), percent(0.5)] == ["-", "50.0 %"]
    assert [short(0), short(999), short(1e6), short(-0.00012)] == ["0", "999", "1 M", "-0.00012"]
    assert [seconds(0.012), seconds(90), seconds(7200)] == ["0.01 s", "90 s", "2 h"]
    assert [size(0), size(9999), size(3 << 20)] == ["0 bytes", "9,999 bytes", "3 MiB"]


def test_long_lines_are_thinned_to_means():
    found = thinned([(i, i % 2) for i in range(100 * MAX_POINTS)])
    assert len(found) == MAX_POINTS
    assert {y for _, y in found} == {0.5}
    assert thinned([(1, math.nan), (2, math.inf), (3, 4.0)]) == [(3, 4.0)]


def drawn(**more):
    series = [Series("a", [(1, 2.0), (2, 3.0)], [(1, 1.5, 2.5), (2, 2.5, 3.5)]), Series("<b>", [(1, 1.0)], look=9)]
    axes = Axis.over("x", [1, 2]), Axis.over("y", [1, 3.5])
    return chart("what it shows", *axes, series, **more)


def test_a_chart_has_a_text_and_a_legend():
    found = drawn(caption="below")
    assert 'role="img" aria-label="what it shows"' in found
    assert found.count('class="band c0 d0"') == 1
    assert found.count('class="line c0 d0"') == 2  # in the picture and in the legend
    assert "&lt;b&gt;" in found
    assert "<b>" not in found
    assert found.count('aria-hidden="true"') == 2
    assert not re.search(r"nan|inf\b", found.replace("info", ""))


def test_points_have_texts():
    axes = Axis.over("x", [1, 2]), Axis.over("y", [1, 2])
    found = chart("cloud", *axes, [Series("", [(1, 1), (2, 2)], line=False, texts=["one & two", ""])])
    assert "<title>one &amp; two</title>" in found
    assert "legend" not in found


def test_a_table_is_cut_and_escaped():
    found = table(["name", "n"], [["<i>", i] for i in range(5)], "caption", most=3)
    assert found.count("<tr>") == 4
    assert "2 further rows are left out." in found
    assert "&lt;i&gt;" in found
    assert '<th scope="col" class="number">n</th>' in found
    assert table(["n"], [], "empty").count("<tr>") == 1


def test_facts_are_cut():
    found = facts({"a.b_c": "x" * 2000, "none": None, "last": "<"}, most=1)
    assert "a.<wbr>b_<wbr>c" in found
    assert "(2,000 characters)" in found
    assert "1 are left out" in found
    assert "none" not in found


def test_a_matrix_shades_its_cells():
    found = matrix([[1.0, None], [0.0, 0.55]], ["after 1", "after 2"], ["on 1", "on 2"], "accuracies")
    assert '<td class="h10">100.0</td>' in found
    assert '<td class="h0">0.0</td>' in found
    assert "<td></td></tr>" in found


def test_a_bar_stays_inside():
    assert "M0.0,6 H100" in bar(-0.2, 0.5, 1.4)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3), (300, 200, 3), (1, 1)])
def test_strips(shape):
    image = np.zeros(shape, np.uint8)
    found = strips([Strip("cat & dog", [[image] * 12, []])], ["start", "end"], "caption.")
    assert 'alt="10 images of class cat &amp; dog, start"' in found
    assert found.count("<img") == 1
    assert "10 of up to 12 images of each class are shown." in found


def test_strips_keep_a_budget():
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3)).astype(np.uint8)
    found = strips([Strip(str(k), [[noise] * 10]) for k in range(100)], ["images"], "noise.", budget=500_000)
    assert 100_000 < len(found) < 500_000


def test_a_piece_alone_has_its_style():
    found = standalone(Markup("<p>x</p>"))
    assert found.startswith('<div class="ck"><style>')
    assert "prefers-color-scheme: dark" in found
