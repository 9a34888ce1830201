import json
import logging
import os

import pytest
import torch

from condensekit.errors import ConfigError, DataError, StoreError
from condensekit.runs.files import read_json
from condensekit.runs.folder import FORMAT, RunDir, environment

CONFIG = {"method": {"type": "DistributionMatching", "lr": 1.0}, "ipc": 10, "name": "digits"}
TENSORS = {"images": torch.arange(6.0)}


def create(path, config=None, resume=False, data="abc"):
    return RunDir.create(path, config or CONFIG, resume, data)


def checkpoints(path):
    return sorted(p.name for p in (path / "checkpoints").iterdir())


def test_a_new_run_records_what_was_asked_and_where_it_ran(tmp_path):
    with create(tmp_path / "a" / "run") as run:
        assert run.path == tmp_path / "a" / "run"
    config = {**CONFIG, "format": FORMAT, "data_fingerprint": "abc"}
    assert RunDir.read(run.path).config == read_json(run.path / "config.json") == config
    assert json.loads((run.path / "env.json").read_text())["torch"] == str(torch.__version__)


def test_environment_names_versions_and_machine():
    found = environment()
    for name in ("python", "torch", "torchvision", "numpy", "device", "cpu", "platform"):
        assert isinstance(found[name], str), name
    assert found["threads"] == torch.get_num_threads()
    assert isinstance(found["argv"], list)
    json.dumps(found)


def test_an_empty_folder_is_taken(tmp_path):
    with create(tmp_path):
        assert (tmp_path / "config.json").exists()


def test_a_folder_with_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="resume=True, or choose another folder"):
        create(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_former_run_is_refused_without_resume(tmp_path):
    create(tmp_path / "run").close()
    with pytest.raises(ConfigError, match="resume=True"):
        create(tmp_path / "run")
    create(tmp_path / "run", resume=True).close()  # the refusal has given the lock back


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    for resume in (False, True):
        with pytest.raises((ConfigError, StoreError), match="file"):
            create(tmp_path / "file", resume=resume)


def test_a_folder_whose_first_start_was_killed_can_be_started_again(tmp_path):
    (tmp_path / ".lock").write_text("123\n")
    (tmp_path / ".config.json.0a1b2c3d.tmp").write_text("{")
    create(tmp_path).close()
    assert sorted(os.listdir(tmp_path)) == [".lock", "config.json", "env.json"]


def test_resume_with_other_options_shows_each_difference(tmp_path):
    create(tmp_path / "run").close()
    other = {"method": {"type": "DistributionMatching", "lr": 2.0}, "ipc": 10, "seed": 1}
    with pytest.raises(ConfigError) as caught:
        create(tmp_path / "run", other, resume=True)
    text = str(caught.value)
    assert "method.lr: 1.0 there, 2.0 here" in text
    assert 'name: "digits" there, nothing here' in text
    assert "seed: nothing there, 1 here" in text
    assert "ipc" not in text
    assert "\n" not in text


def test_resume_with_other_data_is_refused(tmp_path):
    create(tmp_path / "run").close()
    with pytest.raises(ConfigError, match='data_fingerprint: "abc" there, "xyz" here'):
        create(tmp_path / "run", resume=True, data="xyz")


def test_resume_compares_values_as_json_has_them(tmp_path):
    create(tmp_path / "run", {"sizes": (1, 2), "lr": 0.1}).close()
    create(tmp_path / "run", {"lr": 0.1, "sizes": [1, 2]}, resume=True).close()


def test_read_refuses_what_is_no_run(tmp_path):
    with pytest.raises(DataError, match=r"no config\.json"):
        RunDir.read(tmp_path)
    (tmp_path / "config.json").write_text("{half")
    with pytest.raises(StoreError, match=r"config\.json.*damaged"):
        RunDir.read(tmp_path)


def test_metrics_are_one_row_a_step_with_step_first(tmp_path):
    with create(tmp_path / "run") as run:
        run.log(1, {"loss": 0.5, "seconds": 0.25})
        assert (run.path / "metrics.csv").read_text() == "step,loss,seconds\n1,0.5,0.25\n"  # flushed
        run.log(2, {"seconds": 1e-9, "other": 3.0})
        assert run.metrics() == [{"step": 1, "loss": 0.5, "seconds": 0.25}, {"step": 2, "seconds": 1e-9}]


def test_metrics_are_cut_back_on_resume(tmp_path):
    with create(tmp_path / "run") as run:
        for step in range(1, 6):
            run.log(step, {"loss": step / 2})
    with (run.path / "metrics.csv").open("a") as file:
        file.write("6,3")  # a kill in the middle of a row
    with create(tmp_path / "run", resume=True) as run:
        run.log(3, {"loss": -1.0})
        assert [(r["step"], r["loss"]) for r in run.metrics()] == [(1, 0.5), (2, 1.0), (3, -1.0)]


@pytest.mark.parametrize(
    "damage", ["", "st", "step,loss\n", "step,loss\n1,0.5\n2,0.", "step,loss\n1,0.5\n\x00\n,\n2\n"]
)
def test_half_written_metrics_do_no_harm(tmp_path, damage):
    create(tmp_path / "run").close()
    (tmp_path / "run" / "metrics.csv").write_text(damage)
    with create(tmp_path / "run", resume=True) as run:
        whole = len(run.metrics())
        run.log(9, {"loss": 1.0})
        assert len(run.metrics()) == whole + 1


def rot(text):
    """Metrics after a fault of the disk, or an editor."""
    lines = text.splitlines(keepends=True)
    return {
        "truncated": text[:-7],
        "a row less": "".join(lines[:2] + lines[3:]),
        "another digit": text.replace("1.5", "1.6"),
        "swapped rows": "".join([lines[0], lines[2], lines[1], *lines[3:]]),
        "an empty first line": "\n" + text,
        "a huge number": text.replace("\n3,", "\n3" + "0" * 5_000 + ","),
        "empty": "",
    }


@pytest.mark.parametrize("damage", rot("step\n1\n2\n"))
def test_damaged_metrics_are_noticed(tmp_path, damage):
    with create(tmp_path / "run") as run:
        for step in range(1, 5):
            run.log(step, {"loss": step / 2})
        run.save_checkpoint(4, TENSORS, {})
        run.log(5, {"loss": 3.0})  # after the checkpoint: written again by a resumed run
        assert len(run.metrics()) == 5
    path = tmp_path / "run" / "metrics.csv"
    whole = path.read_text()
    path.write_text(rot(whole.removesuffix("5,3.0\n"))[damage])
    for resume in (True, False):
        reading = create(tmp_path / "run", resume=True) if resume else RunDir.read(tmp_path / "run")
        with pytest.raises(StoreError, match=r"metrics\.csv.*damaged.*delete it"), reading as run:
            run.latest_checkpoint() if resume else run.metrics()
    path.unlink()
    with create(tmp_path / "run", resume=True) as run:
        assert run.latest_checkpoint()[0] == 4
        run.log(5, {"loss": 1.0})
        run.save_checkpoint(5, TENSORS, {})
        assert [row["step"] for row in run.metrics()] == [5]


@pytest.mark.parametrize("row", ["2,1.0", "3,1.0"])
@pytest.mark.parametrize("finished", [True, False])
def test_rows_beyond_those_of_a_run_are_noticed(tmp_path, row, finished):
    with create(tmp_path / "run") as run:
        run.log(1, {"loss": 0.5})
        run.log(2, {"loss": 1.0})
        run.save_checkpoint(2, TENSORS, {"finished": finished})
    with (tmp_path / "run" / "metrics.csv").open("a") as file:
        file.write(f"{row}\n")
    run = RunDir.read(tmp_path / "run")
    if row == "3,1.0" and not finished:  # as of a run that was killed after its checkpoint
        assert len(run.metrics()) == 3
    else:
        with pytest.raises(StoreError, match=r"metrics\.csv.*damaged.*delete it"):
            run.metrics()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("elsewhere", path)])
def test_metrics_that_are_no_file_are_refused(tmp_path, make):
    create(tmp_path / "run").close()
    make(tmp_path / "run" / "metrics.csv")
    with create(tmp_path / "run", resume=True) as run:
        for call in (run.metrics, lambda: run.log(1, {"loss": 0.5})):
            with pytest.raises(StoreError, match=r"metrics\.csv: cannot open"):
                call()


def test_metrics_are_known_to_a_checkpoint_without_new_rows(tmp_path):
    with create(tmp_path / "run") as run:
        run.log(1, {"a,b": 0.5})
        run.save_checkpoint(1, TENSORS, {})
    for _ in range(2):
        with create(tmp_path / "run", resume=True) as run:
            run.latest_checkpoint()
            run.save_checkpoint(1, TENSORS, {})
            assert run.metrics() == [{"step": 1, "a,b": 0.5}]
    (tmp_path / "run" / "metrics.csv").write_text("")
    with pytest.raises(StoreError, match=r"metrics\.csv"):
        RunDir.read(tmp_path / "run").metrics()


def test_resuming_removes_what_condensekit_left_and_nothing_else(tmp_path):
    create(tmp_path / "run").close()
    left = [
        "checkpoints/.step-000001.safetensors.0123abcd.tmp",
        "cells/a/.x.json.00000000.tmp",
        ".set.01234567.tmp/0/1.png",
    ]
    mine = ["notes/.draft.tmp", ".draft.tmp", "notes/.x.0123abcd.tmp", "checkpoints/.x.tmp", ".x.0123abc.tmp/a"]
    for name in (*left, *mine):
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("x")
    create(tmp_path / "run", resume=True).close()
    assert not any((tmp_path / "run" / name).exists() for name in left)
    assert all((tmp_path / "run" / name).exists() for name in mine)


def test_a_folder_without_a_run_is_not_continued(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/step-000001.safetensors").write_text("of another program")
    with pytest.raises(ConfigError, match=r"no run to continue .*another folder"):
        create(tmp_path, resume=True)
    assert os.listdir(tmp_path) == ["checkpoints"]


def test_a_run_without_metrics_has_no_rows(tmp_path):
    with create(tmp_path / "run") as run:
        assert run.metrics() == []


def test_the_last_two_checkpoints_are_kept(tmp_path):
    with create(tmp_path / "run") as run:
        assert run.latest_checkpoint() is None
        for step in (5, 10, 15, 15, 1_000_000):
            run.save_checkpoint(step, {"images": TENSORS["images"] + step}, {"elapsed_s": float(step)})
        assert checkpoints(run.path) == ["step-000015.safetensors", "step-1000000.safetensors"]
    with create(tmp_path / "run", resume=True) as run:
        step, tensors, manifest = run.latest_checkpoint()
        assert (step, manifest["elapsed_s"], manifest["step"]) == (1_000_000, 1e6, 1_000_000)
        assert torch.equal(tensors["images"], TENSORS["images"] + 1_000_000)
        run.save_checkpoint(1_000_001, TENSORS, {})
    assert checkpoints(run.path) == ["step-1000000.safetensors", "step-1000001.safetensors"]


def test_a_damaged_checkpoint_is_passed_over_and_in_the_end_removed(tmp_path, caplog):
    with create(tmp_path / "run") as run:
        run.save_checkpoint(5, TENSORS, {})
        run.save_checkpoint(10, TENSORS, {})
    (run.path / "checkpoints" / "step-000010.safetensors").write_bytes(b"half")
    with create(tmp_path / "run", resume=True) as run, caplog.at_level(logging.WARNING):
        assert run.latest_checkpoint()[0] == 5
        assert "step-000010.safetensors" in caplog.text
        run.save_checkpoint(7, TENSORS, {})
        assert checkpoints(run.path) == ["step-000005.safetensors", "step-000007.safetensors"]


def test_only_damaged_checkpoints_are_an_error(tmp_path, caplog):
    with create(tmp_path / "run") as run:
        run.save_checkpoint(5, TENSORS, {})
        (run.path / "checkpoints" / "step-000005.safetensors").write_bytes(b"half")
        with pytest.raises(StoreError, match=r"step-000005.*in another folder"):
            run.latest_checkpoint()


def test_a_checkpoint_of_another_run_is_not_taken(tmp_path, caplog):
    for name in ("a", "b"):
        with create(tmp_path / name, {"name": name}) as run:
            run.save_checkpoint(5, TENSORS, {})
    part = "checkpoints/step-000005.safetensors"
    (tmp_path / "a" / part).write_bytes((tmp_path / "b" / part).read_bytes())
    with pytest.raises(StoreError, match="another run"), create(tmp_path / "a", {"name": "a"}, resume=True) as run:
        run.latest_checkpoint()
