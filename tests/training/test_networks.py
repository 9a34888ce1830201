import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

from condensekit.compute import Compute, Machine
from condensekit.driver import condense
from condensekit.errors import ConfigError, StoreError
from condensekit.methods import DistributionMatching
from condensekit.methods.recipe import Recipe
from condensekit.methods.trained_encoders import PRETRAIN, Trained
from condensekit.networks.convnet import ConvNet
from condensekit.progress import Progress, Stage
from condensekit.rng import Draw
from condensekit.runs.files import load_tensors
from condensekit.runs.lock import trying
from condensekit.testing import shapes
from condensekit.training import networks
from condensekit.training.networks import Shelf, shelves
from condensekit.training.train import Standing, class_indices, train_network

QUICK = dataclasses.replace(PRETRAIN, lr=0.05, batch=16)
ENCODER = Trained(ConvNet(width=8), count=2, protocol=QUICK, epochs=6)
ONE = Machine("cpu", workers=1)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONDENSEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "networks"


class Counting(Progress):
    """Counts the steps, and stops after some of them."""

    def __init__(self, most=10**9):
        self.steps, self.most, self.told = 0, most, []

    def tell(self, text):
        self.told.append(text)

    def stage(self, name, total, done=0):
        outer = self

        class One(Stage):
            def __enter__(self):
                return self

            def __exit__(self, *error):
                return None

            def advance(self, steps=1, values=None):
                outer.steps += steps
                if outer.steps >= outer.most:
                    raise KeyboardInterrupt

        return One()


def prepared(encoder=ENCODER, data=None, progress=None, machine=ONE):
    with Compute(machine) as compute:
        return encoder.prepare(data or shapes(), Draw(3), compute, progress or Counting())


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_second_call_reads_the_networks(cache):
    first, again = prepared(), Counting()
    assert equal(first, prepared(progress=again))
    assert again.steps == 0
    (folder,) = cache.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [
        "about.json",
        "network-0.safetensors",
        "network-1.safetensors",
    ]


def test_more_networks_train_only_those_that_lack(cache):
    two, counted = prepared(), Counting()
    three = prepared(dataclasses.replace(ENCODER, count=3), progress=counted)
    steps = ENCODER.shelf(shapes()).steps()
    assert counted.steps == 3 * steps  # the stage is that of all
    assert all(torch.equal(two[name], values[:2]) for name, values in three.items() if name != "classes")
    assert len(list(cache.glob("*/network-*.safetensors"))) == 3


@pytest.mark.parametrize(
    "other",
    [
        {"epochs": 5},
        {"steps": 7},
        {"seed": 1},
        {"network": ConvNet(width=4)},
        {"protocol": dataclasses.replace(QUICK, lr=0.01)},
    ],
)
def test_other_options_are_other_networks(cache, other):
    prepared()
    prepared(dataclasses.replace(ENCODER, **other))
    assert len(list(cache.iterdir())) == 2


def test_other_data_and_other_classes_are_other_networks(cache):
    prepared()
    part = shapes().select([0, 42])
    assert prepared(data=part)["classes"].tolist() == [0, 42]
    prepared(data=shapes(per_class=9))
    assert len(list(cache.iterdir())) == 3


def test_every_seed_ipc_and_method_shares_them(cache):
    for seed, ipc, lr in ((0, 1, 1.0), (5, 2, 1.0), (5, 1, 2.0)):
        recipe = Recipe(DistributionMatching(batch_real=4, lr=lr, calibration=0.1), ENCODER)
        made = condense(shapes(), recipe, ipc=ipc, steps=1, seed=seed, machine=ONE)
        assert made.work["encoders"]["images"] == 2 * 6 * len(shapes())  # whether trained now or earlier
    assert len(list(cache.glob("*/network-*.safetensors"))) == 2


@pytest.mark.parametrize("at", [1, 5, 9, 11])
def test_a_stopped_training_goes_on_bit_for_bit(cache, at):
    """The rate drops after steps 8 and 10 of 12 of each network."""
    whole = prepared(dataclasses.replace(ENCODER, steps=12, count=1))
    networks.remove(next(cache.iterdir()).name)
    with pytest.raises(KeyboardInterrupt):
        prepared(dataclasses.replace(ENCODER, steps=12, count=1), progress=Counting(at))
    (left,) = cache.glob("*/network-0.part")
    counted = Counting()
    assert equal(whole, prepared(dataclasses.replace(ENCODER, steps=12, count=1), progress=counted))
    assert counted.steps == 12
    assert not left.exists()


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("at", [3, 6, 7])
def test_a_training_goes_on_where_it_stood(restart, at):
    """With and without a restart of the momentum after step 6 of 12."""
    data = shapes()
    protocol = dataclasses.replace(QUICK, milestones=(0.5,), steps=12, restart_momentum=restart)
    targets = class_indices(data.labels[data.order], data.classes)

    class Stop(Stage):
        steps = 0

        def advance(self, steps=1, values=None):
            self.steps += steps
            if self.steps == at:
                raise InterruptedError

    with Compute(ONE) as compute:
        options = (data, targets, ConvNet(width=8), protocol, Draw(1), compute, 4)
        whole, standing = train_network(*options), Standing()
        with pytest.raises(InterruptedError):
            train_network(*options, stage=Stop(), standing=standing)
        rest = train_network(*options, standing=Standing(standing.tensors(), standing.step))
    assert standing.step == at
    assert equal(whole.state_dict(), rest.state_dict())


def test_a_process_that_is_killed_leaves_what_it_had(cache, tmp_path):
    code = """
        import dataclasses, os, signal
        from condensekit.compute import Compute, Machine
        from condensekit.rng import Draw
        from condensekit.testing import shapes
        from condensekit.training import networks
        from tests.training.test_networks import ENCODER, Counting
        networks.SAVED_EVERY = 0
        class Killed(Counting):
            def stage(self, name, total, done=0):
                made = super().stage(name, total, done)
                advance = made.advance
                def dying(steps=1, values=None):
                    advance(steps, values)
                    if self.steps == 9:
                        os.kill(os.getpid(), signal.SIGKILL)
                made.advance = dying
                return made
        with Compute(Machine("cpu", workers=1)) as compute:
            dataclasses.replace(ENCODER, steps=20).prepare(shapes(), Draw(3), compute, Killed())
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=dict(os.environ), timeout=300)
    assert ended.returncode == -signal.SIGKILL
    (left,) = cache.glob("*/network-0.part")
    kept = load_tensors(left, networks.UNFINISHED)[1]["step"]
    assert 7 <= kept <= 9
    counted = Counting()
    found = prepared(dataclasses.replace(ENCODER, steps=20), progress=counted)
    networks.remove(next(cache.iterdir()).name)
    assert equal(found, prepared(dataclasses.replace(ENCODER, steps=20)))


def test_a_damaged_unfinished_training_begins_again(cache, caplog):
    encoder = dataclasses.replace(ENCODER, count=1)
    with pytest.raises(KeyboardInterrupt):
        prepared(encoder, progress=Counting(5))
    (left,) = cache.glob("*/network-0.part")
    left.write_bytes(left.read_bytes()[:-9])
    prepared(encoder)
    assert "is trained from its beginning" in caplog.text


def test_a_damaged_network_is_named(cache):
    prepared()
    path = next(cache.glob("*/network-1.safetensors"))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(StoreError, match=r"network-1.safetensors: cannot read: .*damaged"):
        prepared()


def test_the_file_of_another_network_is_refused(cache):
    prepared()
    prepared(data=shapes().select([0, 42]))
    one, two = (path / "network-0.safetensors" for path in sorted(cache.iterdir()))
    two.write_bytes(one.read_bytes())
    for data in (shapes(), shapes().select([0, 42])):
        if data.fingerprint() == json.loads((two.parent / "about.json").read_text())["data"]:
            with pytest.raises(StoreError, match="the network of other data or options: remove it"):
                prepared(data=data)


def test_a_network_that_another_process_trains_is_waited_for(cache):
    whole = prepared()
    path = next(cache.glob("*/network-0.safetensors"))
    content = path.read_bytes()
    path.unlink()
    calls = []
    with trying(path.with_suffix(".lock")) as held, pytest.MonkeyPatch.context() as patch:
        assert held

        def other_ends(seconds):
            calls.append(seconds)
            path.write_bytes(content)

        patch.setattr("condensekit.runs.sharing.time.sleep", other_ends)
        assert equal(whole, prepared())
    assert len(calls) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written_costs_a_warning(cache, caplog):
    cache.parent.mkdir()
    cache.parent.chmod(0o500)
    assert prepared()["work"].shape == (2, 2)
    assert "the encoders are not kept" in caplog.text


def test_a_cache_that_is_a_file_costs_a_warning(cache, caplog):
    cache.parent.write_text("no folder")
    assert prepared()["work"].shape == (2, 2)
    assert "the encoders are not kept" in caplog.text


def test_a_training_that_diverges_is_not_kept(cache):
    wild = dataclasses.replace(ENCODER, protocol=dataclasses.replace(QUICK, lr=1e30), steps=5)
    with pytest.raises(ConfigError, match="not finite"):
        prepared(wild)
    assert not list(cache.glob("*/network-*"))


def test_what_the_time_cuts_short_is_not_kept(cache):
    data, told = shapes(), Counting()
    with Compute(ONE) as compute:
        long = dataclasses.replace(ENCODER, steps=10**7)
        steps = long.within(0.2, data, compute)
        assert steps is not None
        assert 1 <= steps < 10**7
        assert long.prepare(data, Draw(0), compute, told, 3)["work"][:, 0].tolist() == [3 * 16] * 2
        assert not list(cache.glob("*/network-*"))
        assert ENCODER.within(1e9, data, compute) is None
        ENCODER.prepare(data, Draw(0), compute)
        assert ENCODER.within(1e-9, data, compute) is None  # they are there


def test_they_are_listed_and_removed(cache):
    assert list(shelves()) == []
    prepared()
    ((path, about, count),) = shelves()
    assert (about["images"], about["classes"], count) == (len(shapes()), list(shapes().classes), 2)
    assert json.loads((path / "about.json").read_text())
    assert networks.remove(path.name) == path
    assert list(shelves()) == []
    with pytest.raises(ConfigError, match="unknown folder of networks"):
        networks.remove("../elsewhere")


def test_a_protocol_never_mirrors_what_must_not_be_mirrored():
    data = shapes()
    upright = Shelf.of(ENCODER.shelf(data).course, data).course.protocol.augmentation
    assert upright is not None
    spec = dataclasses.replace(data.spec, flippable=False)
    digits = type(data)(data.images, data.labels, spec)
    kept = ENCODER.shelf(digits).course.protocol.augmentation
    assert "flip" in upright.ops
    assert kept is not None
    assert "flip" not in kept.ops
