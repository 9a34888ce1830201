import csv
import dataclasses
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from condensekit.catalog import recipes
from condensekit.compute import Machine
from condensekit.data.images import ClassImages
from condensekit.driver import CondenseResult, Saving, Status, condense
from condensekit.errors import ConfigError, DataError, StoreError
from condensekit.methods import DistributionMatching, GradientMatching
from condensekit.methods.discrepancy import mean
from condensekit.methods.encoders import Fresh
from condensekit.methods.kernel import KernelRidge
from condensekit.methods.recipe import Recipe
from condensekit.methods.sampling import Clustered, Uniform
from condensekit.methods.trained_encoders import Trained
from condensekit.networks.convnet import ConvNet
from condensekit.progress import Progress, Stage
from condensekit.runs.files import load_tensors, read_json, save_tensors
from condensekit.selection.base import Chosen, Noise, Selection
from condensekit.selection.classic import Herding, KMeans, Random
from condensekit.selection.embeddings import Pixels
from condensekit.selection.importance import ImportanceKMeans
from condensekit.sets import grid
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import Formation
from condensekit.testing import LABELS, shapes
from condensekit.training.networks import Shelf

DM = DistributionMatching(batch_real=8)


def run(data=None, method=DM, **options):
    """Four steps in a narrow network on one worker; options are those of the recipe, the machine or the driver."""
    given = {"ipc": 2, "steps": 4, "encoder": Fresh(ConvNet(width=8)), "device": "cpu", "workers": 1, **options}
    parts = [
        {field.name: given.pop(field.name) for field in dataclasses.fields(kind) if field.name in given}
        for kind in (Recipe, Machine)
    ]
    return condense(data or shapes(), Recipe(method, **parts[0]), machine=Machine(**parts[1]), **given)


def steps_of(folder):
    with (folder / "metrics.csv").open() as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def test_result_holds_a_labelled_set_and_history():
    result = run()
    assert result.status is Status.FINISHED
    assert result.set.labels.tolist() == [label for label in LABELS for _ in range(2)]
    assert [row["step"] for row in result.history] == [1, 2, 3, 4]
    assert result.set.provenance["config"]["method"]["name"] == "dm"
    assert result.set.provenance["status"] == "finished"


def test_a_caller_may_stop_it_and_go_on(tmp_path):
    asked = iter([False, False, True])
    saving = Saving(tmp_path / "run", resume=True)
    cut = run(saving=saving, stop=lambda: next(asked))
    assert (cut.status, cut.signum) == (Status.INTERRUPTED, None)
    assert cut.message == "interrupted by its caller after step 3 of 4: continue with resume=True"
    whole = run(saving=saving)
    assert [row["step"] for row in whole.history] == [4]
    assert torch.equal(whole.set.images, run().set.images)


def test_the_loss_falls():
    losses = [row["loss"] for row in run(steps=60, init=Noise(), augmentation=None).history]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_images_start_as_the_chosen_real_ones():
    still = DistributionMatching(batch_real=4, lr=1e-30)
    data = shapes()
    images, labels = run(data, still, steps=1, init=Random()).set.decode()
    for image, label in zip(images, labels, strict=True):
        own = data.gather(data.indices_of(int(label)))
        assert (own - image).abs().flatten(1).amax(1).min() < 1e-5


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        (torch.arange(8), "mine returned a Tensor, expected a Chosen"),
        (Chosen(torch.arange(7)), r"mine chose \(7,\) torch.int64, expected \(8,\) source indices, 2 of each class"),
        (Chosen(torch.arange(8).reshape(4, 2)), r"mine chose \(4, 2\) torch.int64, expected \(8,\)"),
        (Chosen(torch.zeros(8)), r"mine chose \(8,\) torch.float32, expected \(8,\)"),
        (Chosen(torch.tensor([0, 1, 12, 13, 25, 26, 99, 41])), "mine chose image 99, which is not among the data"),
        (Chosen(torch.tensor([0, 1, 12, 13, 25, 26, -1, 41])), "mine chose image -1, which is not among the data"),
        (
            Chosen(torch.tensor([0, 1, 12, 25, 13, 26, 40, 41])),
            "image 3 that mine chose is of class 7, not of class 0",
        ),
        (Chosen(torch.arange(8), codes=[]), "mine images are stored as JPEG, .* Random"),
    ],
)
def test_a_start_of_other_images_than_asked_for_is_refused(chosen, says):
    class Mine(Selection):
        name = "mine"

        def __call__(self, *_):
            return chosen

    with pytest.raises(ConfigError, match=says):
        run(init=Mine())


def test_a_start_with_an_image_twice_is_warned_of(caplog):
    assert run(init=ImportanceKMeans(replacement=True), ipc=10, steps=1).status is Status.FINISHED
    assert "importance-kmeans chose images twice" in caplog.text


def test_workers_change_nothing_and_threads_little():
    one = run(workers=1, steps=20).set.images
    assert torch.equal(one, run(workers=2, steps=20).set.images)
    torch.testing.assert_close(one, run(workers=0, steps=20).set.images, rtol=1e-5, atol=1e-5)


def test_same_images_in_another_process_whatever_the_hash_seed(tmp_path):
    code = (
        "import torch; torch.rand(3)\n"
        "from tests.test_driver import run\n"
        "import hashlib; print(hashlib.sha256(run().set.images.numpy().tobytes()).hexdigest())"
    )
    seen = set()
    for hash_seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        seen.add(out.stdout)
    assert len(seen) == 1


def test_the_first_images_are_kept_if_they_are_small(tmp_path, monkeypatch):
    run(saving=Saving(tmp_path / "small"))
    assert [p.name for p in (tmp_path / "small" / "snapshots").iterdir()] == ["step-000000.png"]
    monkeypatch.setattr(grid, "PICTURED", 100)
    run(saving=Saving(tmp_path / "large"))
    assert not (tmp_path / "large" / "snapshots").exists()


def test_checkpoints_metrics_snapshots_and_set_are_written(tmp_path):
    out = tmp_path / "run"
    result = run(saving=Saving(out, every=2, snapshot_every=2), record={"made_for": "a test"})
    assert steps_of(out) == [1, 2, 3, 4]
    assert sorted(p.stem for p in (out / "checkpoints").iterdir()) == ["step-000002", "step-000004"]
    assert sorted(p.name for p in (out / "snapshots").iterdir()) == [
        "step-000000.png",
        "step-000002.png",
        "step-000004.png",
    ]
    assert torch.equal(CondensedSet.load(out / "set.safetensors").images, result.set.images)
    assert read_json(out / "config.json")["made_for"] == result.set.provenance["config"]["made_for"] == "a test"


def test_a_finished_run_resumes_to_the_same_outputs(tmp_path):
    first = run(saving=Saving(tmp_path / "run"))
    (tmp_path / "run" / "set.safetensors").unlink()
    again = run(saving=Saving(tmp_path / "run", resume=True))
    assert again.status is Status.FINISHED
    assert torch.equal(first.set.images, again.set.images)
    assert (tmp_path / "run" / "set.safetensors").exists()
    assert steps_of(tmp_path / "run") == [1, 2, 3, 4]


def test_resume_without_a_checkpoint_starts_from_the_start(tmp_path):
    (tmp_path / "run").mkdir()
    assert run(saving=Saving(tmp_path / "run", resume=True)).status is Status.FINISHED


def test_resume_with_other_options_or_data_is_refused(tmp_path):
    run(saving=Saving(tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"lr.*1.0.*2.0|lr.*2.0.*1.0"):
        run(method=dataclasses.replace(DM, lr=2.0), saving=Saving(tmp_path / "run", resume=True))
    with pytest.raises(ConfigError, match="data"):
        run(shapes(seed=1), saving=Saving(tmp_path / "run", resume=True))


def test_an_existing_run_is_not_overwritten(tmp_path):
    run(saving=Saving(tmp_path / "run"))
    with pytest.raises(ConfigError, match="resume"):
        run(saving=Saving(tmp_path / "run"))


def test_resume_keeps_the_machine_of_the_checkpoint(tmp_path):
    run(saving=Saving(tmp_path / "run"))
    again = run(saving=Saving(tmp_path / "run", resume=True), workers=2)
    assert again.set.provenance["plan"]["workers"] == 1


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        ({"device": "cuda:99"}, "the run was made on cuda:99, which is not here: resume it there, or start anew"),
        ({"compiled": True}, "made with a compiled network, and there is no C\\+\\+ compiler here: resume it there"),
    ],
)
def test_a_run_made_elsewhere_goes_on_only_there(tmp_path, monkeypatch, machine, says):
    run(saving=Saving(tmp_path / "run"))
    checkpoint = tmp_path / "run" / "checkpoints" / "step-000004.safetensors"
    tensors, manifest = load_tensors(checkpoint, "checkpoint")
    save_tensors(checkpoint, tensors, {**manifest, "plan": {**manifest["plan"], **machine}}, "checkpoint")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=says):
        run(saving=Saving(tmp_path / "run", resume=True))


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless told otherwise: [seconds]."""
    seconds = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: seconds[0])
    return seconds


def test_what_is_made_again_on_resume_is_not_charged_to_the_steps(tmp_path, clock):
    class Slow(Uniform):
        def sampler(self, data, draw, compute, before=None, progress=None):
            clock[0] += 100 if before is None else 0
            return self

    options = {"sampling": Slow(), "saving": Saving(tmp_path / "run", resume=True)}
    assert run(stop=lambda: True, **options).status is Status.INTERRUPTED
    for _ in range(2):  # the second time the run is finished, and nothing is made
        told = run(**options).set.provenance
        assert (told["steps"], told["preparation_s"], told["elapsed_s"]) == (4, 200.0, 0.0)


def test_preparation_before_a_kill_counts(tmp_path, clock):
    class Slow(Trained):
        def prepare(self, *arguments):
            clock[0] += 100
            return super().prepare(*arguments)

    @dataclasses.dataclass(frozen=True)
    class Cut(Random):
        def __call__(self, *arguments):
            if pulled:
                raise RuntimeError("plug pulled")
            return super().__call__(*arguments)

    encoder, pulled = Slow(ConvNet(width=8), count=1, steps=1), [True]
    options = {"encoder": encoder, "init": Cut(), "saving": Saving(tmp_path / "run", resume=True)}
    with pytest.raises(RuntimeError, match="plug pulled"):
        run(**options)
    assert [path.name for path in (tmp_path / "run").glob("*.safetensors")] == ["prepared.safetensors"]
    pulled.clear()
    assert run(**options).set.provenance["preparation_s"] == 100.0


def slowly(clock, data=None, **options):
    """A run on a clock: 20 s for the first images, 7 s for each step, 10 s more for step 1, as a compiler takes."""

    class Slow(DistributionMatching):
        def step(self, state, ctx):
            clock[0] += 17 if ctx.draw.step == 1 else 7
            return super().step(state, ctx)

    class SlowStart(Random):
        def __call__(self, *arguments):
            clock[0] += 20
            return super().__call__(*arguments)

    return run(data, **{"method": Slow(batch_real=8), "init": SlowStart(), "steps": None, **options})


def test_minutes_count_everything(clock):
    """Friction 19: one minute with a start by k-means took five."""
    result = slowly(clock, minutes=1)
    assert result.status is Status.FINISHED
    assert clock[0] == 58  # 20 + 17 + 3 * 7: another step would end after the minute
    assert result.message.startswith("finished 4 steps in 58.0 s (20.0 s of it before the first step)")
    short = slowly(clock, minutes=0.1)
    assert short.message.startswith("finished 1 step in 37.0 s (20.0 s of it before the first step)")


def test_minutes_used_before_an_interruption_count(tmp_path, clock):
    saving = Saving(tmp_path / "run", resume=True)
    asked = iter([False, True])
    assert slowly(clock, minutes=1, saving=saving, stop=lambda: next(asked)).status is Status.INTERRUPTED
    assert slowly(clock, minutes=1, saving=saving).message.startswith("finished 4 steps in 58.0 s")
    assert clock[0] == 58
    assert slowly(clock, minutes=1, saving=saving).message.startswith("finished 4 steps in 58.0 s")


def test_a_start_that_would_take_too_long_chooses_among_fewer_images(clock):
    class Told(Progress):
        def tell(self, text):
            said.append(text)

    @dataclasses.dataclass(frozen=True)
    class SlowPixels(Pixels):
        def prepare(self, data, draw, compute):
            def embed(indices):
                clock[0] += len(indices)
                return data.gather(indices).flatten(1)

            return embed

    said: list[str] = []
    data = shapes(per_class=40)
    options = {"init": KMeans(SlowPixels()), "progress": Told()}
    result = slowly(clock, data, minutes=4, **options)
    assert result.message.endswith(f"chosen among 60 of {len(data)} images")  # 60 s, a quarter, at a second an image
    assert said[0].startswith("the first images (kmeans) are chosen among 60 of")
    assert result.set.provenance["shortened"] == [said[0].partition(":")[0]]
    assert slowly(clock, data, minutes=0.01, **options).set.counts == (2, 2, 2, 2)  # always as many as are asked for
    assert "shortened" not in slowly(clock, data, minutes=100, stop=lambda: True, **options).set.provenance


def test_encoders_that_would_train_too_long_train_for_fewer_steps(tmp_path, clock, monkeypatch):
    train = Shelf.networks

    def slow(self, *arguments):
        clock[0] += 10 * self.steps()
        return train(self, *arguments)

    monkeypatch.setattr(Shelf, "networks", slow)
    encoder = Trained(ConvNet(width=8), count=1, steps=50)
    saving = Saving(tmp_path / "run", resume=True)
    made = slowly(clock, encoder=encoder, minutes=4, saving=saving)
    assert made.set.provenance["shortened"] == ["encoders are trained for 8 steps"]
    again = slowly(clock, encoder=encoder, minutes=4, saving=saving)
    assert again.set.provenance["shortened"] == made.set.provenance["shortened"]
    assert torch.equal(again.set.images, made.set.images)


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"method": GradientMatching(batch_real=8, outer=2, inner=1, batch_net=8)},
        {"method": KernelRidge(labels="soft"), "augmentation": None},
        {"encoder": Fresh(ConvNet(width=8), keep=3), "sampling": Clustered(clusters=3, refresh=2)},
        {"encoder": Trained(ConvNet(width=8), count=2, steps=3), "soft_labels": True, "nested": True},
    ],
)
def test_a_finished_run_goes_on_as_if_it_had_never_ended(tmp_path, parts):
    """Friction 15: a finished run could not be trained longer."""
    saving = Saving(tmp_path / "run", resume=True)
    run(steps=3, saving=saving, **parts)
    longer = run(steps=7, saving=saving, **parts)
    straight = run(steps=7, **parts)
    assert longer.status is Status.FINISHED
    assert torch.equal(longer.set.images, straight.set.images)
    assert longer.set.soft_labels is None or torch.equal(longer.set.soft_labels, straight.set.soft_labels)
    assert longer.work["condensing"] == straight.work["condensing"]
    assert steps_of(tmp_path / "run") == [1, 2, 3, 4, 5, 6, 7]
    assert read_json(tmp_path / "run" / "config.json")["steps"] == 7
    assert longer.set.provenance["extended"] == [3]
    assert "extended" not in straight.set.provenance


def test_an_extended_run_may_be_killed_before_its_next_checkpoint(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Cut(DistributionMatching):
        def step(self, state, ctx):
            if pulled and ctx.draw.step == 6:
                raise RuntimeError("plug pulled")
            return super().step(state, ctx)

    pulled, options = [True], {"method": Cut(batch_real=8), "saving": Saving(tmp_path / "run", resume=True)}
    run(**options)
    with pytest.raises(RuntimeError, match="plug pulled"):
        run(steps=8, **options)
    assert steps_of(tmp_path / "run") == [1, 2, 3, 4, 5]
    pulled.clear()
    assert torch.equal(run(steps=8, **options).set.images, run(steps=8).set.images)
    assert steps_of(tmp_path / "run") == list(range(1, 9))


def test_a_run_that_is_cut_may_end_sooner_or_later(tmp_path):
    saving = Saving(tmp_path / "run", resume=True)
    asked = iter([False, True])
    run(steps=8, saving=saving, stop=lambda: next(asked))
    made = run(steps=3, saving=saving)
    assert (made.status, made.set.provenance["steps"]) == (Status.FINISHED, 3)
    assert torch.equal(run(steps=6, saving=saving).set.images, run(steps=6).set.images)


def test_a_run_goes_on_for_more_minutes(tmp_path, clock):
    saving = Saving(tmp_path / "run", resume=True)
    assert slowly(clock, minutes=1, saving=saving).message.startswith("finished 4 steps in 58.0 s")
    longer = slowly(clock, minutes=2, saving=saving)
    assert longer.message.startswith("finished 12 steps in 114.0 s (20.0 s of it before the first step)")
    with pytest.raises(
        ConfigError, match=r"run has used 1 min 54 s, got minutes=1: give at least as many, or use anot"
    ):
        slowly(clock, minutes=1, saving=saving)


def test_fewer_steps_than_were_made_are_refused(tmp_path):
    saving = Saving(tmp_path / "run", resume=True)
    run(steps=4, saving=saving)
    with pytest.raises(
        ConfigError, match=r"run has made 4 steps, got steps=3: give at least as many, or use another f"
    ):
        run(steps=3, saving=saving)
    assert read_json(tmp_path / "run" / "config.json")["steps"] == 4
    with pytest.raises(ConfigError, match=r"minutes: null there, 1\.0 here"):
        run(steps=None, minutes=1.0, saving=saving)


def test_the_cost_is_told_after_two_steps(clock):
    """Friction 18: 42 CPU seconds for two steps, and nothing warned."""

    class Told(Progress):
        def tell(self, text):
            said.append(text)

    said: list[str] = []
    slowly(clock, steps=30, workers=2, progress=Told())
    passes = 28 * (4 * 8 + 4 * 2)  # 8 real and 2 synthetic images of each of 4 classes
    assert passes == 1120
    assert said == ["28 more steps: about 1,100 image passes, about 3 min 16 s on this machine (2 workers)"]
    said.clear()
    slowly(clock, minutes=3, progress=Told())
    assert said == ["19 more steps: about 780 image passes, about 2 min 16 s on this machine (1 worker)"]
    said.clear()
    run(progress=Told())  # little work needs no sentence
    assert said == []


@dataclasses.dataclass(frozen=True)
class Failing(DistributionMatching):
    """Gives NaN at step 7: always, or on the first attempt only."""

    always: bool = True

    def step(self, state, ctx):
        broken = ctx.draw.step == 7 and (self.always or ctx.draw.attempt == 0)
        method = dataclasses.replace(self, discrepancy=nan_mean if broken else mean)
        return DistributionMatching.step(method, state, ctx)


def nan_mean(real, synthetic, weights):
    return mean(real, synthetic, weights) * float("nan")


def test_two_failures_in_a_row_end_diverged_with_the_last_finite_images(tmp_path):
    result = run(method=Failing(batch_real=8), steps=9, saving=Saving(tmp_path / "run"))
    assert result.status is Status.DIVERGED
    assert "step 7" in result.message
    assert "lr" in result.message
    assert torch.equal(result.set.images, run(steps=6).set.images)
    assert torch.equal(CondensedSet.load(tmp_path / "run" / "set.safetensors").images, result.set.images)


def test_one_failure_is_retried_with_a_new_draw():
    result = run(method=Failing(batch_real=8, always=False), steps=9)
    assert result.status is Status.FINISHED
    assert [row["attempt"] for row in result.history] == [0] * 6 + [1, 0, 0]
    assert torch.isfinite(result.set.images).all()


class Signalling(Progress):
    """Sends this process a signal when a given step is done."""

    def __init__(self, step, signum):
        self.step, self.signum = step, signum

    def stage(self, name, total, done=0):
        import contextlib

        outer = self

        class Counting(Stage):
            count = done

            def advance(self, steps=1, values=None):
                Counting.count += steps
                if name.startswith("condense") and Counting.count == outer.step:
                    os.kill(os.getpid(), outer.signum)

        return contextlib.nullcontext(Counting())


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_a_checkpoint_and_resume_goes_on(tmp_path, signum):
    before = signal.getsignal(signum)
    result = run(steps=8, saving=Saving(tmp_path / "run"), progress=Signalling(3, signum))
    assert result.status is Status.INTERRUPTED
    assert result.signum == signum
    assert len(result.history) <= 4
    assert "resume=True" in result.message
    assert signal.getsignal(signum) is before
    resumed = run(steps=8, saving=Saving(tmp_path / "run", resume=True))
    assert torch.equal(resumed.set.images, run(steps=8).set.images)
    assert steps_of(tmp_path / "run") == list(range(1, 9))


def test_a_signal_before_the_first_step_has_its_usual_effect(tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent may have had it ignored

    class Slow(Random):
        def __call__(self, *arguments):
            os.kill(os.getpid(), signal.SIGINT)
            return super().__call__(*arguments)

    try:
        with pytest.raises(KeyboardInterrupt):
            run(init=Slow(), saving=Saving(tmp_path / "run"))
    finally:
        signal.signal(signal.SIGINT, before)
    assert run(saving=Saving(tmp_path / "other")).status is Status.FINISHED


def test_condense_works_outside_the_main_thread():
    results = []
    thread = threading.Thread(target=lambda: results.append(run()))
    thread.start()
    thread.join()
    assert results[0].status is Status.FINISHED


def test_a_full_disk_returns_what_was_learnt(tmp_path, monkeypatch):
    from condensekit.runs import folder as run_module

    def full(*_, **__):
        raise StoreError("no space left")

    monkeypatch.setattr(run_module, "save_tensors", full)
    with pytest.raises(StoreError, match="no space") as caught:
        run(saving=Saving(tmp_path / "run"))
    assert isinstance(caught.value.result, CondenseResult)
    assert torch.equal(caught.value.result.set.images, run().set.images)


def test_small_and_unequal_classes():
    data = shapes(per_class=1)  # classes of 1, 2, 3 and 4 images
    assert len(run(data, ipc=1).set) == 4
    for method, parts in itertools.product(
        (DistributionMatching(per_image=True), GradientMatching(inner=1), KernelRidge(labels="soft")),
        ({}, {"init": Noise()}, {"nested": True}, {"encoder": Fresh(ConvNet(width=8, norm="batch"))}),
    ):
        made = run(data, method=method, ipc=3, **parts)
        assert made.set.counts == (1, 2, 3, 3)
        assert "2 of 4 classes have fewer images than 3, the smallest 1" in made.message
    assert run(data, ipc=1, formation=Formation(factor=2)).set.counts == (1, 1, 1, 1)  # the first three repeat images
    for init in (Random(), Noise()):
        with pytest.raises(DataError, match=r"largest class 42 has 4 images but ipc=5: lower ipc"):
            run(data, ipc=5, init=init)


def test_a_small_class_is_learnt_as_one_that_repeats_its_images():
    """Where the number divides ipc, the class's share of the loss is that of its own images alone."""
    small, large = shapes(per_class=2).select([-3]), shapes(per_class=6).select([0])
    data = ClassImages.from_arrays(
        torch.cat([small.images[small.order], large.images[large.order]]), torch.tensor([-3] * 2 + [0] * 7)
    )
    together, alone = run(data, ipc=6, steps=3).set, run(data.select([-3]), ipc=2, steps=3).set
    assert torch.allclose(together.select([-3]).images, alone.images, atol=1e-4)


def test_many_classes_stay_small():
    labels = torch.arange(1000)
    pixels = torch.randint(0, 256, (1000, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    result = run(ClassImages.from_arrays(pixels, labels), ipc=1, steps=1)
    assert len(result.set) == 1000


def test_batch_norm_networks_mix_all_classes():
    result = run(encoder=Fresh(ConvNet(width=8, norm="batch")))
    assert result.status is Status.FINISHED
    assert result.set.provenance["separable"] is False


def test_storage_dtype_is_that_of_the_formation():
    assert run(formation=Formation(dtype="uint8")).set.images.dtype == torch.uint8


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"ipc": 0}, "ipc"),
        ({"ipc": -1}, "ipc"),
        ({"ipc": 2.5}, "2.5"),
        ({"ipc": True}, "ipc must be an integer of at least 1, got True"),
        ({"steps": 1.5}, "steps must be an integer of at least 1, got 1.5"),
        ({"seed": 1.5}, "seed must be an integer, got 1.5"),
        ({"seed": "0"}, "seed must be an integer, got '0'"),
        ({"steps": 0}, "steps"),
        ({"steps": None}, "exactly one"),
        ({"minutes": 1.0}, "exactly one"),
        ({"steps": None, "minutes": 0.0}, "minutes"),
        ({"steps": None, "minutes": float("nan")}, "minutes"),
        ({"precision": "fp64"}, "fp64"),
        ({"device": "tpu9"}, "tpu9"),
        ({"device": "meta"}, "unknown device 'meta'"),
        ({"workers": -1}, "workers"),
        ({"workers": 1.5}, "workers must be an integer of at least 0, got 1.5"),
        ({"formation": Formation(factor=3)}, "factor 3 does not divide"),
        ({"init": KMeans(candidates=1)}, "2 images per class cannot be chosen among 1 candidates"),
        ({"init": Herding(candidates=7), "formation": Formation(factor=2)}, "8 images per class cannot be chosen"),
    ],
)
def test_bad_options_are_named_and_nothing_is_made(tmp_path, bad, named):
    with pytest.raises(ConfigError, match=named):
        run(**bad, saving=Saving(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_integers_may_be_those_of_numpy(tmp_path):
    one, two, three, six = np.array([1, 2, 3, 6], np.int32)
    options = {"seed": three, "nested": True, "saving": Saving(tmp_path / "run", every=1)}
    same = {"encoder": Fresh(ConvNet(width=6, depth=1), keep=2), "sampling": Clustered(clusters=3, refresh=2)}
    ours = {"encoder": Fresh(ConvNet(width=six, depth=one), keep=two), "sampling": Clustered(three, refresh=two)}
    made = run(method=DistributionMatching(batch_real=six), ipc=two, steps=three, **options, **ours, workers=one)
    expected = run(method=DistributionMatching(batch_real=6), steps=3, seed=3, nested=True, **same)
    assert torch.equal(made.set.images, expected.set.images)
    assert made.set.provenance["config"] == expected.set.provenance["config"]
    dsa = run(method=GradientMatching(batch_real=six, outer=two, inner=one, batch_net=six), steps=two)
    assert dsa.status is Status.FINISHED
    packed = run(formation=Formation(factor=two), steps=one).set
    packed.save(tmp_path / "set.safetensors")
    assert CondensedSet.load(tmp_path / "set.safetensors").formation == Formation(factor=2)


def test_data_that_do_not_fit_are_refused_before_a_folder_is_made(tmp_path):
    with pytest.raises(DataError, match="ipc=20"):
        run(ipc=20, saving=Saving(tmp_path / "run"))
    with pytest.raises(ConfigError, match="depth"):
        run(encoder=Fresh(ConvNet(depth=9)), saving=Saving(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["m3d", "echo", "dsa"])
def test_in_pixel_space_the_ends_of_normalised_floats_stand_for_black_and_white(name):
    images = shapes()
    pixels = images.images.float() / 255
    pixels[0, 0, 0, 0], pixels[0, 0, 0, 1] = 0, 1
    method = recipes.recipe(name, space="pixel", batch_real=4, lr=20.0).method
    spec = replace(images.spec, mean=(0.5,) * 3, std=(0.25,) * 3)
    known = ClassImages(pixels, images.labels, spec)
    floats = ClassImages(spec.normalise(pixels), images.labels, replace(spec, mean=(0.0,) * 3, std=(1.0,) * 3))
    assert list(floats.ends) == [-2, 2]
    moved, wanted = (run(data, method, steps=3).set.images for data in (floats, known))
    torch.testing.assert_close(moved, wanted, atol=1e-3, rtol=1e-3)
    assert float(moved.min()) >= -2
    assert float(moved.max()) <= 2
    plain = ClassImages.from_arrays(images.images / 255, images.labels)  # floats that are pixels stay pixels
    moved = run(plain, method, steps=1).set
    low, high = (plain.spec.normalise(torch.full((1, *plain.spec.shape), value)) for value in (0.0, 1.0))
    assert (moved.images >= low - 1e-5).all()
    assert (moved.images <= high + 1e-5).all()


def test_all_problems_are_listed_at_once():
    with pytest.raises(ConfigError) as caught:
        run(ipc=0, steps=0)
    assert len(caught.value.problems) == 2
