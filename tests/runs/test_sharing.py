"""Tasks that several processes share, and the locks that say which process makes which."""

import fcntl
import os

from condensekit.ranks import ALONE
from condensekit.runs import sharing
from condensekit.runs.lock import trying
from condensekit.runs.sharing import check_alike, each_once


def test_tasks_of_others_come_last_and_results_are_in_order(monkeypatch):
    monkeypatch.setattr(sharing, "PAUSE", 0)
    others, calls = {"b": 2, "d": 1}, []

    def attempt(task):
        calls.append(task)
        others[task] = others.get(task, 0) - 1
        return None if others[task] >= 0 else task.upper()

    assert each_once("abcd", attempt) == ["A", "B", "C", "D"]
    assert calls == ["a", "b", "c", "d", "b", "d", "b"]
    assert each_once([], attempt) == []


def test_one_rank_is_like_itself():
    check_alike(ALONE, {"ipc": 1})


def test_a_lock_is_held_by_one_and_removed_in_the_end(tmp_path):
    path = tmp_path / "new" / "cell.lock"
    with trying(path) as first, trying(path) as second:
        assert (first, second) == (True, False)
    assert not path.exists()


def test_a_lock_that_its_holder_has_removed_is_not_held_by_who_opened_it_before(tmp_path, monkeypatch):
    path, real = tmp_path / "cell.lock", fcntl.flock

    def late(lock, how):
        """Lock the file after its holder has removed it, and a third one has made it again."""
        path.unlink()
        path.touch()
        real(lock, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with trying(path) as held:
        assert not held
    assert path.exists()
    assert os.listdir(tmp_path) == ["cell.lock"]
