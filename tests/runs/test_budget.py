"""How long a run goes on, and the pace of its steps, without a run."""

import time
from pathlib import Path

import pytest

from condensekit.errors import ConfigError
from condensekit.progress import Progress
from condensekit.runs.budget import Budget, Pace, Seconds


class Told(Progress):
    def __init__(self):
        self.said = []

    def tell(self, text):
        self.said.append(text)


def test_steps_end_a_run_whatever_time_they_take():
    made = Budget(3, None)
    assert [made.over(step, Seconds(steps=1e9)) for step in (0, 2, 3)] == [False, False, True]
    assert made.share == float("inf")


def test_minutes_leave_room_for_the_next_step_and_its_checkpoint():
    made = Budget(None, 1.0)
    assert not made.over(4, Seconds(10, 30, 4, last_step=10, last_file=5))
    assert made.over(4, Seconds(10, 30, 5, last_step=10, last_file=5))
    assert not made.over(0, Seconds(preparation=100))  # one step at least


def test_seconds_go_through_a_checkpoint():
    used = Seconds(1.5, 2.5, 3.5, last_step=9, last_file=9)
    assert Seconds.of(used.told()) == Seconds(1.5, 2.5, 3.5)
    assert Seconds.of({"preparation_s": 1, "elapsed_s": 2}).used == 3  # a checkpoint of an earlier version
    assert str(used) == "7.5 s (1.5 s of it before the first step)"
    assert str(Seconds(0.5, 2.5)) == "3.0 s"


def test_less_than_was_used_is_refused():
    former = {"preparation_s": 30.0, "elapsed_s": 60.0, "minutes": 1.0}
    Budget(None, 1.0).check(Path("run"), 7, former)  # the same budget: the last step may have taken longer
    Budget(7, None).check(Path("run"), 7, former)
    with pytest.raises(ConfigError, match=r"the run in run has used 1 min 30 s, got minutes=1\.2: "):
        Budget(None, 1.2).check(Path("run"), 7, former)
    with pytest.raises(ConfigError, match="the run in run has made 7 steps, got steps=6: give at least as many, or"):
        Budget(6, None).check(Path("run"), 7, former)


def test_a_slow_second_step_is_enough(monkeypatch):
    times = iter([100.0, 103.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    pace, told = Pace(), Told()
    assert [pace.mark(images) for images in (5000, 5200, 5400)] == [False, True, False]
    pace.tell(Budget(1002, None), 2, Seconds(), "2 workers", told)
    pace.tell(Budget(2, None), 2, Seconds(), "2 workers", told)  # nothing is left
    assert told.said == ["1,000 more steps: about 200,000 image passes, about 50 min 0 s on this machine (2 workers)"]


def test_the_pace_of_quick_steps_is_their_median(monkeypatch):
    """A second step that still warms up, and a step with a checkpoint, do not make a run of 10 s one of minutes."""
    times = iter([0.0, 0.9, 0.91, 0.92, 0.93, 1.43, 1.44, 1.45, 1.46, 1.47])
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    pace, told = Pace(), Told()
    assert [pace.mark(100 * step) for step in range(1, 12)] == [False] * 9 + [True, False]
    pace.tell(Budget(1010, None), 10, Seconds(), "cuda", told)
    assert told.said == ["1,000 more steps: about 100,000 image passes, about 10 s on this machine (cuda)"]
