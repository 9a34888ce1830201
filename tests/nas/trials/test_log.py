import json
import os
import stat

import pytest

from condensekit.errors import ConfigError, StoreError
from condensekit.nas import Trial, TrialLog, key

TRIAL = Trial("dm", {"b": 1, "a": "x"}, 0.5, scores={"accuracy": 0.5}, cost_s=1.5, curve=(0.1, {"default": 0.2}))


def test_a_trial_comes_back_from_the_file(tmp_path):
    path = tmp_path / "new" / "trials.jsonl"
    TrialLog(path).append(TRIAL)
    again = TrialLog(path)
    assert again.trials() == [TRIAL]
    assert again.get("dm", {"a": "x", "b": 1}) == TRIAL
    assert again.get("dsa", {"a": "x", "b": 1}) is None
    assert len(again) == 1


@pytest.mark.timeout(60)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "trials.jsonl")
    with pytest.raises(StoreError, match=r"trials\.jsonl: cannot open: it is not a regular file"):
        TrialLog(tmp_path / "trials.jsonl")


def test_the_order_of_labels_does_not_matter():
    assert key({"a": 1, "b": [2]}) == key({"b": [2], "a": 1})


def test_the_first_of_two_counts(tmp_path):
    book = TrialLog(tmp_path / "trials.jsonl")
    book.append(TRIAL)
    book.append(Trial("dm", {"a": "x", "b": 1}, 0.9))
    assert TrialLog(book.path).get("dm", TRIAL.architecture) == book.get("dm", TRIAL.architecture) == TRIAL


def test_every_torn_last_line_is_survived(tmp_path, caplog):
    path = tmp_path / "trials.jsonl"
    TrialLog(path).append(TRIAL)
    whole = path.read_bytes()
    for length in range(1, len(whole)):
        path.write_bytes(whole + whole[:length])
        book = TrialLog(path)
        book.append(Trial("dsa", {"a": "y"}, None, status="failed", reason="why"))
        again = TrialLog(path)
        assert [t.ranker for t in again.trials()] == ["dm", "dsa"]
        assert again.trials("dsa")[0].reason == "why"
    assert "line 2 is unfinished" in caplog.text


def test_a_line_that_could_not_be_finished_spoils_no_later_one(tmp_path, monkeypatch):
    book = TrialLog(tmp_path / "trials.jsonl")
    write = os.write

    def full(file, data):
        if len(data) < 50:
            raise OSError(28, "No space left on device")
        return write(file, data[:50])

    book.append(TRIAL)
    monkeypatch.setattr("os.write", full)
    with pytest.raises(StoreError, match="cannot append: No space left on device"):
        book.append(Trial("dm", {"a": 2}, 0.2))
    monkeypatch.setattr("os.write", write)
    book.append(Trial("dm", {"a": 2}, 0.2))
    book.append(Trial("dm", {"a": 3}, 0.3))
    assert TrialLog(book.path).trials() == book.trials()
    assert [trial.score for trial in book.trials()] == [0.5, 0.2, 0.3]


def test_a_new_file_outlasts_a_power_cut(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def note(file):
        synced.append(stat.S_ISDIR(os.fstat(file).st_mode))
        fsync(file)

    monkeypatch.setattr("os.fsync", note)
    book = TrialLog(tmp_path / "new" / "trials.jsonl")
    book.append(TRIAL)
    book.append(Trial("dsa", {"a": "y"}, 0.1))
    assert synced == [False, True, False]  # its folder once


@pytest.mark.parametrize("line", [b"1", b"[]", b'{"ranker": "dm"}', b"\xff", b"null", b"[" * 100_000, b" "])
def test_lines_of_something_else_are_refused(tmp_path, line):
    path = tmp_path / "trials.jsonl"
    TrialLog(path).append(TRIAL)
    path.write_bytes(b"\n" + path.read_bytes() + line + b"\n")
    with pytest.raises(StoreError, match=r"trials\.jsonl, line 3: cannot read"):
        TrialLog(path)


def test_a_line_without_checksum_is_one_of_version_01(tmp_path, caplog):
    path = tmp_path / "trials.jsonl"
    line = json.dumps(TRIAL.to_json()).encode()
    path.write_bytes(line[:70] + b"\n" + line + b"\n")  # it went on in a new line after a kill
    book = TrialLog(path)
    assert book.trials() == [TRIAL]
    assert "line 1 is unfinished" in caplog.text
    book.append(Trial("dsa", {"a": 1}, 0.1))
    assert len(TrialLog(path)) == 2


def test_in_memory():
    book = TrialLog()
    book.append(TRIAL)
    assert book.get("dm", TRIAL.architecture) == TRIAL


def test_trials_of_another_space_or_recipe_are_refused(tmp_path):
    book = TrialLog(tmp_path / "trials.jsonl")
    book.append(Trial("dm", {"a": 1}, 0.1, space="one", recipe={"score": "tse", "protocol": {"lr": 0.1, "steps": 5}}))
    again = TrialLog(book.path)
    again.check("dm", "one", {"score": "tse", "protocol": {"lr": 0.1, "steps": 5}})
    again.check("other", "two", {})
    with pytest.raises(ConfigError, match="another space"):
        again.check("dm", "two", {})
    named = r"trials of 'dm' .*score: \"tse\" there, \"margin\" here; protocol\.lr: 0\.1 there, 0\.2 here\)"
    with pytest.raises(ConfigError, match=named):
        again.check("dm", "one", {"score": "margin", "protocol": {"lr": 0.2, "steps": 5}})


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"trials\.jsonl: cannot append"):
        TrialLog(tmp_path / "file" / "trials.jsonl").append(TRIAL)


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "trials.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError):
        TrialLog(tmp_path / "trials.jsonl").append(TRIAL)
    assert not (tmp_path / "elsewhere").exists()
