"""Reports of long work where there is no terminal."""

import re
from itertools import count

import pytest

from condensekit.cli import show
from condensekit.progress import FIRST_LINE, NEXT_LINE, Line, Lines, duration


def test_a_line_after_some_seconds_and_then_each_minute():
    ticks, told = count(0.0, 5.0), list[str]()
    line = Line("condense (dm)", 100, 0, told.append, lambda: next(ticks))
    for _ in range(100):
        line.advance(1, {"loss": 1.23456})
    wanted = 1 + int((500 - FIRST_LINE) / NEXT_LINE)
    assert wanted - 1 <= len(told) <= wanted + 1
    assert re.fullmatch(r"\d\d:\d\d:\d\d condense \(dm\): \d+ of 100, loss 1.235, 8 min \d+ s left", told[0])


def test_a_short_stage_and_one_without_a_length():
    told = list[str]()
    with Lines(told.append).stage("quick", 3) as stage:
        stage.advance(3)
    assert told == []
    ticks = count(0.0, 30.0)
    line = Line("search", None, 0, told.append, lambda: next(ticks))
    line.advance()
    assert told[0].endswith("search: 1")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (3600, "1 h 0 min"), (90061, "25 h 1 min")]
)
def test_times_for_people(seconds, text):
    assert duration(seconds) == text


def test_a_command_without_a_terminal_tells_lines(capsys):
    progress = show.progress(quiet=False)
    assert isinstance(progress, Lines)
    progress.tell("here")
    assert capsys.readouterr().err == "here\n"
    assert not isinstance(show.progress(quiet=True), Lines)
