"""What candidates may do to a search: nothing; and that those which cannot be trained are told before hours are spent.

Sources: NNI runs every model of its sequential engine in the process of the search, and counts with profilers there
(issues 4473 and 5513 of microsoft/nni: a candidate ends the experiment); candidates with auxiliary heads are those of
NNI's own DARTS space.
"""

import json
import logging
import shlex
from dataclasses import replace

import pytest
import torch

from condensekit.compute import Machine
from condensekit.data import datasets
from condensekit.errors import CondensekitError, ConfigError, StoreError
from condensekit.nas.rankers.base import Setting
from condensekit.nas.rankers.by_name import ranker
from condensekit.nas.rankers.sets import Maker
from condensekit.nas.rankers.training import ProxyProtocol
from condensekit.nas.spaces.architecture import key
from condensekit.nas.study.building import built
from condensekit.nas.study.candidates import Candidates
from condensekit.nas.study.contest import Contest
from condensekit.nas.study.full_training import FullTraining
from condensekit.nas.study.truth import Truth
from condensekit.nas.study.winner import retrained
from condensekit.nas.trials.log import TrialLog
from condensekit.nas.trials.settings import Running
from condensekit.nas.trials.time_budget import TimeBudget
from condensekit.rng import Draw
from tests.cases.command import condensekit
from tests.nas.unruly import FAULTS, FINE, Unruly

pytestmark = pytest.mark.nni
WHOLE, TEST = datasets.load("digits")
TRAIN, HELD = WHOLE.split(0.2, Draw(0))
PROTOCOL = ProxyProtocol(steps=2, batch=32, augmentation=None)
SETTING = Setting(Maker(TRAIN, steps=2, machine=Machine("cpu")), HELD, PROTOCOL, ipc=2)
FULL = FullTraining(WHOLE, TEST, ProxyProtocol(1, batch=128, augmentation=None), machine=Machine("cpu"))


def named(kind, width=4):
    return {"kind": kind, "width": width}


def contest(kinds, names="random", widths=(4,), **options):
    rankers = [ranker(name) for name in names.split(",")]
    return Contest(Unruly(kinds, widths), rankers, SETTING, strategy="grid", **{"trials": 12, **options})


@pytest.mark.slow  # ten seconds
@pytest.mark.kill
def test_what_candidates_do_fails_them_alone(server, tmp_path):
    running = Running("pool", 1, trial_limit_s=1.0, folder=tmp_path)
    some = [named(kind) for kind in (*FAULTS, *FINE)]
    candidates = Candidates(Unruly([*FAULTS, *FINE]), SETTING, running, server, TimeBudget())
    candidates.inspect(some)
    for kind, reason in FAULTS.items():
        assert reason in candidates.fault(named(kind)), kind
        assert "\n" not in candidates.fault(named(kind))
    assert [candidates.fault(named(kind)) for kind in FINE] == [""] * len(FINE)
    candidates.refuse(some)  # some can be trained
    written = (tmp_path / "candidates.jsonl").read_bytes()
    again = Candidates(Unruly([*FAULTS, *FINE]), SETTING, running, server, TimeBudget())
    again.inspect(some)
    assert (tmp_path / "candidates.jsonl").read_bytes() == written, "inspected again"


ELSEWHERE = ("worker", "limit", "KeyboardInterrupt")
HERE = [kind for kind, why in FAULTS.items() if not any(word in why for word in ELSEWHERE)]


@pytest.mark.parametrize("kind", HERE)
def test_a_space_without_a_fit_candidate_is_refused_at_once(kind, tmp_path):
    made = contest([kind], "params,random", widths=(4, 8, 16))
    with pytest.raises(ConfigError) as refused:
        made.run(Running("sequential", folder=tmp_path))
    assert str(refused.value).startswith("no candidate of this space can be trained: ")
    assert FAULTS[kind] in str(refused.value)
    assert not (tmp_path / "trials.jsonl").exists()
    assert not (tmp_path / "candidates.jsonl").exists(), "a mended space would be refused again"


def test_constant_outputs_of_a_whole_space_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="its outputs are the same for all images"):
        contest(["blind"], widths=(4, 8)).run(Running("sequential", folder=tmp_path))
    found = contest(["blind", "fine"]).run(Running("sequential"))  # as cells of NAS-Bench-201 without a path
    assert [t.status for t in found.trials] == ["finished"] * 2


NAMES = "params,flops,synflow,random,early-stop,random-equal"


def test_unfit_candidates_are_failed_trials_of_every_ranker_and_of_the_truth(tmp_path, caplog, capfd):
    caplog.set_level(logging.WARNING)
    kinds = ["fine", "prints", "doubles", "reseeds", "wide", "uncounted", "short", "heads", "ungraded", "leaves"]
    asked, state = contest(kinds, NAMES, truth=FULL), torch.get_rng_state()
    found = asked.run(Running("sequential", folder=tmp_path))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() is torch.float32
    assert torch.is_grad_enabled()
    assert capfd.readouterr().out == ""  # an output in JSON stays one
    unfit = [kind for kind in kinds if kind in FAULTS]
    for name in NAMES.split(","):
        failed = {t.architecture["kind"]: t.reason for t in found.trials if t.ranker == name and t.status == "failed"}
        uncounted = {"uncounted"} if name in ("params", "flops", "synflow") else set()
        assert set(failed) == {*unfit, *uncounted}, name
        assert all(FAULTS[kind] in failed[kind] for kind in unfit)
        assert all("one image is too few" in failed[kind] for kind in uncounted)
    assert set(found.values) == {key(named(kind)) for kind in kinds if kind not in unfit}
    assert len(TrialLog(tmp_path / "truth.jsonl")) == len(kinds)
    told = [record.getMessage() for record in caplog.records if "cannot be trained" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("4 of 10 candidates cannot be trained and are failed trials: ")
    json.dumps(found.to_json(), allow_nan=False)


def test_a_candidate_that_cannot_be_counted_has_no_size_instead_of_0():
    kinds, widths = ["uncounted"], (2, 4, 8)
    table = Truth("table", {key(named("uncounted", width)): (10.0 * width,) for width in widths})
    found = contest(kinds, "random,params,early-stop", widths, truth=table).run(Running("sequential"))
    assert found.best is not None
    assert found.best["params"] is None
    assert found.best["flops"] is None
    rows = {row.ranker: row for row in found.rows}
    assert rows["random"].flops is None
    assert rows["random"].work["images"] > 0
    assert rows["random"].partial is None
    assert rows["params"].failed == 3
    assert any("early-stop failed: equal cost needs candidates" in note for note in found.notes)
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.kill
def test_the_winner_is_retrained_apart_from_the_search(tmp_path):
    running, file = Running("pool", 1, trial_limit_s=20.0), tmp_path / "winner.safetensors"
    space = Unruly(["fine", "ends"])
    with pytest.raises(CondensekitError, match="retraining the winner: its worker ended with exit code 9"):
        retrained(space, named("ends"), FULL, 0, file, running)
    assert not file.exists()


def test_the_winner_is_retrained(tmp_path):
    file, running = tmp_path / "winner.safetensors", Running("sequential", trial_limit_s=20.0)
    assert 0.05 < retrained(Unruly(["fine"]), named("fine"), FULL, 0, file, running) <= 1
    assert file.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"winner\.safetensors"):
        retrained(Unruly(["fine"]), named("fine"), FULL, 0, tmp_path / "file" / "winner.safetensors", running)
    wild = replace(FULL, protocol=replace(FULL.protocol, lr=1e30))
    with pytest.raises(CondensekitError, match=r"^retraining the winner: diverged"):
        retrained(Unruly(["fine"]), named("fine"), wild, 0, file, running)


UNSCORED = {"params": ["uncounted"], "synflow": ["uncounted", "whole tensors", "on meta"]}
"""Candidates that can be trained, by the ranker that cannot score them."""


def check_trials(trials):
    """Candidates with faults have failed for their own reason, whatever ran before, and all others are scored."""
    for trial in trials:
        kind, ranker = trial["architecture"]["kind"], trial["ranker"]
        assert FAULTS.get(kind, "") in trial["reason"]
        assert (trial["status"] == "failed") == (kind in FAULTS or kind in UNSCORED.get(ranker, ())), (ranker, kind)


def asked(space, out, *more):
    words = shlex.split("search --data digits --ipc 2 --train-steps 2 --strategy grid --trials 50 --json")
    return (*words, "--space", f"tests.nas.unruly:{space}", "--out", out, *more)


def test_a_search_in_this_process_goes_on_as_well(cli, tmp_path):
    more = (
        "--rankers",
        "random,random-equal",
        "--engine",
        "sequential",
        "--trial-limit",
        "3s",
        "--retrain",
        "--full-epochs",
        "1",
    )
    code, text, err = cli(*asked("Here", tmp_path / "out", *more))
    assert code == 0, err
    failed = {t["architecture"]["kind"]: t["reason"] for t in json.loads(text)["trials"] if t["status"] == "failed"}
    assert set(failed) == {kind for kind in failed if kind in FAULTS}
    assert len(failed) == 7
    assert all(FAULTS[kind] in why for kind, why in failed.items())


@pytest.mark.slow
@pytest.mark.kill
def test_a_search_survives_whatever_its_candidates_do(tmp_path):
    more = ("--rankers", "random,early-stop,synflow", "--trial-limit", "3s", "--retrain", "--full-epochs", "1")
    words = asked("Apart", tmp_path / "out", *more)
    done = condensekit(*words, cwd=tmp_path, limit=300)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert "a candidate prints" in done.err
    assert found["retrained"]["accuracy"] > 0
    check_trials(found["trials"])
    again = condensekit(*words, "--resume", cwd=tmp_path, limit=300)
    assert json.loads(again.out)["trials"] == found["trials"]


@pytest.mark.slow
@pytest.mark.kill
def test_a_search_with_its_own_candidates_survives_them(tmp_path):
    more = ("--strategy", "evolution", "--rankers", "params,random-equal", "--trial-limit", "3s")
    done = condensekit(*asked("Apart", tmp_path / "out", *more), cwd=tmp_path, limit=300)
    assert done.code == 0, done.err
    found = json.loads(done.out)["trials"]
    assert {t["ranker"] for t in found if t["status"] == "finished"} == {"params", "random-equal"}
    assert any(t["status"] == "failed" for t in found)
    check_trials(found)
    assert "has no metric" not in done.err


@pytest.mark.slow
@pytest.mark.kill
def test_a_thread_of_a_candidate_does_not_keep_the_command_alive(tmp_path):
    words = asked("Threads", tmp_path / "out", "--rankers", "params", "--engine", "sequential")
    done = condensekit(*words, cwd=tmp_path, limit=120)
    assert done.code == 0, done.err
    assert len(json.loads(done.out)["trials"]) == 2


@pytest.mark.kill
def test_a_space_whose_first_candidate_ends_its_process_is_refused(server):
    with pytest.raises(ConfigError, match=r"Stillborn' cannot be built: its worker ended with exit code 9; .* first$"):
        built("tests.nas.unruly:Stillborn", (1, 8, 8), 10, server)
    with pytest.raises(ConfigError, match="cannot be imported and built: AttributeError"):
        built("tests.nas.unruly:Missing", (1, 8, 8), 10, server)
    assert isinstance(built("tests.nas.unruly:Here", (1, 8, 8), 10, server), Unruly)


def test_a_full_training_has_more_time_as_it_has_more_images():
    assert FULL.limit_s(None, SETTING) is None
    steps = -(-len(WHOLE) // 128)  # of 128 images; a trial has 2 of 32
    assert FULL.limit_s(3.0, SETTING) == pytest.approx(3 * steps * 128 / 64)
    assert FULL.limit_s(3.0, replace(SETTING, seeds=100)) == 3.0
