"""A story tells its chapters, how far it is, and what each found."""

import io
import sys

import pytest

from condensekit.cli import story as module
from condensekit.cli.story import Chapter, Story

CHAPTERS = (Chapter("reading", 2), Chapter("training networks, to compare them", 8, {"train": 3, "test": 1}))


@pytest.fixture
def said():
    return []


def test_chapters_are_numbered_and_end_with_a_verdict(said, capsys):
    story = Story(CHAPTERS, False, said.append)
    with story.told():
        story.begin()
        story.verdict("100 images.")
        story.begin()
        story.verdict("90 %.")
    err = capsys.readouterr().err.splitlines()
    assert err[0] == "1 of 2: reading; about 2 s"
    assert err[1].startswith("2 of 2: training networks, to compare them; about ")
    assert said == ["   100 images.", "   90 %."]
    assert story.verdicts == ["100 images.", "90 %."]


def test_stages_count_as_their_chapter_says(said):
    story = Story(CHAPTERS, True, said.append)
    with story.told():
        story.begin()
        assert story.done == 0
        with story.stage("hidden", 1) as stage:
            stage.advance()
            assert story.done == 0
        story.verdict("")
        assert story.done == 2
        story.begin()
        with story.stage("train, order 0", 4) as stage:
            stage.advance()
            assert story.done == 2 + 0.75
            with story.stage("unknown", 2) as inner:
                inner.advance(2)
            assert story.done == 2 + 0.75
            stage.advance(10)
        assert story.done == 2 + 3
        with story.stage("test", None) as stage:
            stage.advance()
        for _ in range(9):
            with story.stage("train", 1) as stage:
                stage.advance()
        assert story.done == 2 + 8  # never more than the chapter has
        story.verdict("")
        assert story.done == 10


def test_the_first_chapters_tell_the_pace_of_the_machine(said, capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    story = Story([Chapter("a", 4), Chapter("b", 10)], False, said.append)
    with story.told():
        story.begin()
        clock[0] = 12.0  # three times as long as expected
        story.verdict("")
        story.begin()
    assert "2 of 2: b; about 30 s" in capsys.readouterr().err


def test_a_quiet_story_says_the_verdicts_only(said, capsys):
    story = Story(CHAPTERS[:1], True, said.append)
    with story.told():
        story.begin()
        story.verdict("100 images.")
    assert capsys.readouterr().err == ""
    assert said == ["   100 images."]


def test_without_a_terminal_lines_are_told(said, monkeypatch):
    monkeypatch.setattr(module, "LINE", 0.01)
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    story = Story(CHAPTERS, False, said.append)
    with story.told():
        story.begin()
        while " of all" not in err.getvalue():
            pass
    assert " 1 of 2, 0 % of all" in err.getvalue()


def test_with_a_terminal_a_bar_is_shown(said, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(module, "REFRESH", 0.01)
    story = Story(CHAPTERS, False, said.append)
    with story.told():
        story.begin()
        while "1 of 2" not in err.getvalue().rpartition("about 2 s")[2]:
            pass
        story.verdict("100 images.")
    assert "%|" in err.getvalue()


def test_an_error_ends_the_display(said):
    story = Story(CHAPTERS, True, said.append)
    with pytest.raises(ValueError, match="x"), story.told():
        raise ValueError("x")
    assert story._over.is_set()
