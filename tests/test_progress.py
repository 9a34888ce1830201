"""Reports of long work where there is no terminal."""

import re
import sys
from itertools import count
from types import SimpleNamespace

import pytest

from condensekit.cli import show
from condensekit.progress import FIRST_LINE, NEXT_LINE, Bar, Bars, Line, Lines, Part, cost, duration, in_notebook


def test_a_line_after_some_seconds_and_then_each_minute():
    ticks, told = count(0.0, 5.0), list[str]()
    line = Line("condense (dm)", 100, 0, told.append, lambda: next(ticks))
    for _ in range(100):
        line.advance(1, {"loss": 1.23456, "accuracy": 0.9})
    wanted = 1 + int((500 - FIRST_LINE) / NEXT_LINE)
    assert wanted - 1 <= len(told) <= wanted + 1
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d condense \(dm\): \d+ of 100, loss 1.235, accuracy 90.0 %, 7 min \d+ s left", told[1]
    )


def test_no_time_left_before_half_of_few_steps():
    """A study of 8 memories foretold 29 minutes after the first, which alone was condensed."""
    ticks, told = iter([0.0, 240.0, 240.0, 300.0, 360.0, 420.0, 480.0]), list[str]()
    line = Line("memories", 8, 0, told.append, lambda: next(ticks))
    for _ in range(5):
        line.advance()
    assert [text[9:] for text in told] == [
        "memories: 1 of 8",
        "memories: 2 of 8",
        "memories: 3 of 8",
        "memories: 4 of 8, 4 min 0 s left",
        "memories: 5 of 8, 3 min 0 s left",
    ]


def test_a_slow_first_step_does_not_count():
    """The first of 1,000 steps compiles for 9 s; the others take 10 ms each."""
    now, told = 0.0, list[str]()
    line = Line("condense (dm)", 1000, 0, told.append, lambda: now)
    for step in range(120):
        now += 9.0 if step == 0 else 0.01
        line.advance()
    assert told[0].endswith("condense (dm): 102 of 1000, 9 s left")


def test_a_bar_shows_no_time_left_before_it_is_known(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Bars().stage("evaluate", 100, 20) as stage:
        assert isinstance(stage, Bar)
        stage.advance(9)
        assert "<" not in str(stage.bar)
        stage.advance(1)
        assert "<" in str(stage.bar)
    with Bars().stage("search", None) as stage:
        assert isinstance(stage, Bar)
        stage.advance(1)
        assert "1it" in str(stage.bar)


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


def test_a_line_also_where_no_step_ends():
    """Friction 3 and 17: a start by k-means on a whole data set is one long step."""
    ticks, told = count(0.0, 5.0), list[str]()
    line = Line("initialise (kmeans)", 1, 0, told.append, lambda: next(ticks))
    for _ in range(15):
        line.tick()
    assert [text[9:] for text in told] == [
        "initialise (kmeans): 0 of 1, for 10 s",
        "initialise (kmeans): 0 of 1, for 1 min 10 s",
    ]


def test_a_part_names_its_stages():
    """Friction 6: five identical bars."""
    told = list[str]()
    part = Part(Lines(told.append), "set 2 of 5")
    part.tell("about 3 min")
    with part.stage("condense (dm)", 10) as stage:
        assert isinstance(stage, Line)
        assert stage.name == "set 2 of 5: condense (dm)"
    assert told == ["set 2 of 5: about 3 min"]
    with part.whole.stage("other", None, 3) as stage:
        assert isinstance(stage, Line)
        assert (stage.name, stage.done) == ("other", 3)


def test_a_notebook_shows_bars_though_it_is_no_terminal(monkeypatch, capsys):
    assert not in_notebook()
    with Bars().stage("hidden", 2) as stage:
        stage.advance()
    Bars().tell("hidden")
    assert capsys.readouterr().err == ""
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert in_notebook()
    with Bars().stage("shown", 2) as stage:
        stage.advance()
    Bars().tell("said")
    shown = capsys.readouterr().err
    assert "shown" in shown
    assert "said" in shown


def test_costs_for_people():
    assert (
        cost(5_234_567, 200, "2 workers")
        == "about 5,200,000 image passes, about 3 min 20 s on this machine (2 workers)"
    )
    assert cost(7, 3600, "cuda") == "about 7 image passes, about 1 h 0 min on this machine (cuda)"
