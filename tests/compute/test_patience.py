"""Waiting for the compiler: it ends with the run, with its time, and with whoever waits for it."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from condensekit.compute import Abandoned, Compute, Machine, compute, library
from condensekit.compute.graph import Unfit
from condensekit.compute.library import Patience
from condensekit.driver import Saving, Status, condense
from condensekit.methods import DistributionMatching
from condensekit.methods.encoders import Fresh
from condensekit.methods.recipe import Recipe
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw
from condensekit.testing import shapes

RECIPE = Recipe(DistributionMatching(batch_real=8), Fresh(ConvNet(width=4)))
CPU = Machine("cpu", workers=1)


@pytest.fixture
def endless(tmp_path, monkeypatch):
    """The cache folder of a compiler that never ends; every run is long enough for it."""
    script = tmp_path / "endless.py"
    script.write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("CONDENSEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "_BUILDER", script)
    monkeypatch.setattr(library, "can_compile", lambda: True)
    monkeypatch.setattr("condensekit.compute.machine.can_compile", lambda: True)
    monkeypatch.setattr(compute, "WORTH", 1)
    return tmp_path / "cache" / "compiled"


def begun(cache):
    """Whether the compiler works."""
    return any(cache.glob(".*/log"))


def test_a_run_that_is_stopped_while_the_compiler_works_ends_without_the_step(endless, tmp_path):
    run = tmp_path / "run"
    first = condense(shapes(), RECIPE, ipc=1, steps=5, machine=CPU, saving=Saving(run), stop=lambda: begun(endless))
    assert first.status is Status.INTERRUPTED
    assert "after step 2 of 5" in first.message
    assert not begun(endless)


def test_the_resumed_run_has_the_images_of_an_undisturbed_one(endless, tmp_path, monkeypatch):
    run = tmp_path / "run"
    condense(shapes(), RECIPE, ipc=1, steps=5, machine=CPU, saving=Saving(run), stop=lambda: begun(endless))
    library._BUILDER.write_text("raise SystemExit(1)")  # from now on, the network stays as it is
    resumed = condense(shapes(), RECIPE, ipc=1, steps=5, machine=CPU, saving=Saving(run, resume=True))
    once = condense(shapes(), RECIPE, ipc=1, steps=5, machine=CPU)
    assert resumed.status is Status.FINISHED
    assert torch.equal(resumed.set.images, once.set.images)


def test_a_run_stopped_in_its_first_step_can_be_resumed(endless, tmp_path):
    machine, run = Machine("cpu", workers=1, compiled=True), tmp_path / "run"
    first = condense(shapes(), RECIPE, ipc=1, steps=2, machine=machine, saving=Saving(run), stop=lambda: begun(endless))
    assert "after step 0 of 2" in first.message
    library._BUILDER.write_text("raise SystemExit(1)")
    again = condense(shapes(), RECIPE, ipc=1, steps=2, machine=machine, saving=Saving(run, resume=True))
    assert again.status is Status.FINISHED


def test_the_compiler_has_a_quarter_of_the_minutes(endless, caplog):
    made = condense(shapes(), RECIPE, ipc=1, minutes=0.05, machine=CPU)
    assert made.status is Status.FINISHED
    assert len(made.history) > 3
    assert "the network is not compiled, because the compiler needs more than " in caplog.text
    assert not begun(endless)


def test_the_end_of_the_compute_ends_the_compiler_of_a_worker(endless):
    net = ConvNet(width=4).new((3, 8, 8), 2, Draw(0)).requires_grad_(False)
    with ThreadPoolExecutor(1) as worker, Compute(Machine("cpu", workers=2, compiled=True)) as running:
        work = worker.submit(running.features, net, torch.zeros(4, 3, 8, 8))
        while not begun(endless):
            time.sleep(0.01)
    with pytest.raises(Abandoned):
        work.result()


def test_a_build_that_is_given_up_leaves_no_process(endless, monkeypatch):
    started = []
    kept = subprocess.Popen

    def popen(*args, **options):
        started.append(kept(*args, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    net = ConvNet(width=4).new((3, 8, 8), 2, Draw(0)).requires_grad_(False)
    with Compute(Machine("cpu", workers=0, compiled=True)) as running:
        running.patience.asked = lambda: True
        with pytest.raises(Abandoned):
            running.features(net, torch.zeros(4, 3, 8, 8))
    assert len(started) == 1
    assert started[0].returncode is not None


def test_patience_counts_all_builds():
    patience = Patience()
    patience.seconds = 0.3
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
            with pytest.raises(Unfit, match="needs more than"):
                patience.wait(process)
            process.kill()
    assert patience.used >= 0.3


def test_a_library_that_nobody_uses_is_removed(tmp_path):
    for name, age in (("used", 0), ("unused", library.UNUSED + 60)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.so").write_bytes(b"")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    library._tidy(tmp_path)
    assert [folder.name for folder in tmp_path.iterdir()] == ["used"]
