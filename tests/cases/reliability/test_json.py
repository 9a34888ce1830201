"""JSON files of a run that are damaged or of another shape: found, or made anew; never figures that are wrong."""

import json
import re

import pytest

from tests.cases.command import CONDENSE, EVALUATE, REPLAY, SEARCH


@pytest.fixture
def folder(cli, tmp_path):
    """Make a run by its words; its folder."""

    def make(words):
        code, _, err = cli(*words, "--out", tmp_path / "out")
        if code != 0:
            raise RuntimeError(err)
        return tmp_path / "out"

    return make


def test_a_flipped_digit_of_a_cell_changes_no_figure(cli, folder):
    def final():
        return json.loads((study / "replay.json").read_text())["rows"][0]["final_accuracy_mean"]

    study = folder(REPLAY)
    before = final()
    cell = next(study.rglob("experience-5*.json"))
    text = cell.read_text()
    found = re.search(r'"right": \[\s*\d*(\d)', text)
    assert found is not None
    place = found.start(1)
    cell.write_text(text[:place] + str((int(text[place]) + 5) % 10) + text[place + 1 :])
    code, _, _ = cli(*REPLAY, "--out", study, "--resume")
    assert code == 4 or (code == 0 and final() == before)


def test_a_flipped_digit_of_a_trial_changes_no_figure(cli, folder):
    def best():
        return json.loads((search / "search.json").read_text())["best"]["score"]

    search = folder(SEARCH)
    before = best()
    log = search / "trials.jsonl"
    text, flipped = re.subn(r'("score": ?)0\.\d', r"\g<1>0.9", log.read_text(), count=1)
    if not flipped:
        raise RuntimeError(text)
    log.write_text(text)
    code, _, _ = cli(*SEARCH, "--out", search, "--resume")
    assert code == 4 or (code == 0 and best() == before)


def as_list(run):
    (run / "config.json").write_text("[]")


def without_fingerprint(run):
    config = json.loads((run / "config.json").read_text())
    del config["data_fingerprint"]
    (run / "config.json").write_text(json.dumps(config))


def empty(study):
    if not (study / "replay.json").exists():
        raise RuntimeError("no replay.json")
    (study / "replay.json").write_text("{}")


def deep(search):
    if not (search / "trials.jsonl").exists():
        raise RuntimeError("no trials.jsonl")
    with (search / "trials.jsonl").open("a") as log:
        log.write("[" * 100_000 + "\n")


@pytest.mark.parametrize(
    ("words", "damage"), [(CONDENSE, as_list), (CONDENSE, without_fingerprint), (REPLAY, empty), (SEARCH, deep)]
)
def test_json_of_another_shape_is_refused_in_one_line_or_made_anew(cli, folder, words, damage):
    out = folder(words)
    damage(out)
    again = (*EVALUATE, out) if words is CONDENSE else (*words, "--out", out, "--resume")
    try:
        code, _, _ = cli(*again)
    except (AttributeError, KeyError, RecursionError) as error:
        raise AssertionError(repr(error)) from error
    assert code in (0, 4)
