"""Ranks without torchrun, and what one process can show of several."""

import fcntl
import os
import threading
from dataclasses import replace

import pytest
import torch

import condensekit as ck
from benchmarks import record
from condensekit.compute import Machine, of_rank
from condensekit.errors import ConfigError, DataError, RankError
from condensekit.methods.shares import machine_of
from condensekit.progress import SILENT
from condensekit.ranks import ALONE, Ranks, alone, joined, launched, present, tells
from condensekit.testing import shapes
from condensekit.training.train import SHORT


@pytest.fixture
def second(monkeypatch):
    """Be the second of two ranks, on a computer of its own."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def first(second, monkeypatch):
    monkeypatch.setenv("RANK", "0")


def test_without_torchrun_there_is_one_rank():
    with joined() as ranks:
        assert ranks is launched() is present() is ALONE
    assert (ALONE.first, ALONE.several) == (True, False)
    values = torch.ones(2)
    assert ALONE.rows(values, 2) is values
    assert (ALONE.objects(3), ALONE.most(1, 2), ALONE.from_first(lambda: 4)) == ([3], [1, 2], 4)
    assert ALONE.combined({"loss": values[0]}) == {"loss": 1}


@pytest.mark.parametrize("changed", [{"RANK": ""}, {"WORLD_SIZE": "two"}, {"MASTER_ADDR": None}, {"WORLD_SIZE": "1"}])
def test_an_environment_that_is_not_of_torchrun_gives_one_rank(first, changed, monkeypatch):
    for name, value in changed.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    assert launched() is ALONE


def test_alone_and_in_other_threads_no_rank_is_joined(first):
    assert launched() == Ranks(0, 2, 0)
    with alone(), joined() as ranks:
        assert ranks is launched() is ALONE
    found = []

    def run():
        with joined() as ranks:
            found.append(ranks)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [ALONE]


@pytest.mark.parametrize(("total", "count"), [(10, 3), (4, 4), (7, 2), (1000, 64)])
def test_parts_are_all_rows_and_nearly_equal(total, count):
    ranks = Ranks(0, count)
    parts = [range(total)[ranks.part(total, number)] for number in range(count)]
    assert [row for part in parts for row in part] == list(range(total))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_rank_says_what_is_wrong(second):
    agreed = DataError("no images")
    assert tells(agreed)  # before they have joined, a rank of each computer
    agreed.of_all = True
    assert not tells(agreed)
    assert not tells(RankError("gone"))


def test_the_first_rank_says_everything(first):
    assert tells(RankError("gone"))


def test_each_rank_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [of_rank(Machine("cuda"), local).device for local in (0, 1)] == ["cuda:0", "cuda:1"]
    assert of_rank(Machine("cpu"), 1).device == "cpu"
    with pytest.raises(ConfigError, match="computer with 2: start one rank for each GPU"):
        of_rank(Machine("cuda"), 2)


def test_a_run_goes_on_on_the_gpu_of_its_rank(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    plan = {**Machine("cpu", workers=1).resolved().to_json(), "device": "cuda:1"}
    assert machine_of(ALONE, Machine("cuda"), plan).device == "cuda"
    assert machine_of(Ranks(1, 2, 0), Machine("auto"), plan).device == "cuda:0"
    assert machine_of(ALONE, Machine("cuda"), {**plan, "device": "cpu"}).device == "cpu"


def test_other_commands_run_in_one_process(first, cli, tmp_path):
    for name in ("select", "code", "demo", "report", "export", "inspect", "search"):
        code, out, errors = cli(name, "--out", tmp_path / "x")
        assert (code, out) == (2, "")
        assert f"{name} runs in one process: start it without torchrun" in errors
        assert (", with --workers N" in errors) == (name == "search")
    assert not list(tmp_path.iterdir())


def test_a_script_that_ranks_do_not_share_is_refused(first, monkeypatch):
    with pytest.raises(SystemExit, match="this script runs in one process: start it without torchrun"):
        record.start(lambda: None)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as end:
        record.start(lambda: None)
    assert end.value.code == 1
    record.start(lambda: None, shared=True)


def test_another_rank_is_silent(second, cli, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    code, out, errors = cli("condense", "--data", "nowhere")
    assert (code, out, errors) == (2, "", "")


def test_a_training_of_a_rank_that_ended_is_made_by_another(first, tmp_path):
    data, test = shapes().split(0.5)
    made = {"random": ck.select(data, "random", ipc=1)}

    def run():
        network, protocol = "ConvNet-w8-d1", replace(SHORT, steps=2)
        given = {"network": network, "networks": 2, "protocol": protocol, "against": None, "progress": SILENT}
        return ck.evaluate(made, test, **given, machine=Machine("cpu", workers=1), out=tmp_path)

    before = run()
    (tmp_path / "evaluation.json").unlink()
    file, kept = sorted((tmp_path / "trainings").iterdir())
    was, lock = kept.stat().st_mtime_ns, file.with_suffix(".lock")
    file.unlink()
    other = os.open(lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_EX)
    ended = threading.Timer(1.0, os.close, [other])  # as the system does for a process that ends
    ended.start()
    after = run()
    ended.join()
    assert [row.accuracies for row in after.rows] == [row.accuracies for row in before.rows]
    assert kept.stat().st_mtime_ns == was
    assert sorted((tmp_path / "trainings").iterdir()) == [file, kept]
    assert (tmp_path / "evaluation.json").exists()


def test_only_the_first_rank_writes_the_evaluation(second, tmp_path):
    data, test = shapes().split(0.5)
    chosen = {"random": ck.select(data, "random", ipc=1)}
    given = {"networks": 1, "protocol": replace(SHORT, steps=1), "against": None, "progress": SILENT}
    found = ck.evaluate(chosen, test, network="ConvNet-w8-d1", **given, out=tmp_path)
    assert len(found.rows) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["trainings"]
