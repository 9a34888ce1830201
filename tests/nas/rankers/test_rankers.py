"""Rankers by name, the sets they train on, equal steps, costs, and that nothing is scored on what was trained on."""

import json
import re
from dataclasses import replace
from itertools import count as counted
from typing import Any

import pytest
import torch

from condensekit import ClassImages, ConvNet, Machine, recipes
from condensekit.data import datasets
from condensekit.errors import ConfigError, DataError
from condensekit.nas.rankers import zero_cost
from condensekit.nas.rankers.base import Combination, Ranker, Setting
from condensekit.nas.rankers.by_name import ranker
from condensekit.nas.rankers.sets import DivergedError, Maker, UnfinishedError
from condensekit.nas.rankers.trained import Condensed, EarlyStop, Half, Selected, Started
from condensekit.nas.rankers.training import ProxyProtocol
from condensekit.nas.rankers.untrained import ZeroCost
from condensekit.nas.spaces import spaces
from condensekit.nas.trials.time_budget import OutOfTimeError
from condensekit.networks.cost import count
from condensekit.progress import Progress
from condensekit.rng import Draw
from condensekit.sets.condensed import CondensedSet

TRAIN, HELD = datasets.load("digits")[0].split(0.2, Draw(0))

WIDE, NARROW = (ConvNet(w).new((1, 8, 8), 10, Draw(0)).flops for w in (128, 32))  # a forward pass
EMBEDDING = ConvNet(32).new((1, 8, 8), 1, Draw(0)).flops  # of a network with one output


def single(name):
    """A ranker that is no combination."""
    found = ranker(name)
    assert isinstance(found, Ranker)
    return found


@pytest.fixture
def setting(tmp_path):
    maker = Maker(TRAIN, steps=2, folder=tmp_path / "sets", machine=Machine("cpu"))
    return Setting(maker, HELD, ProxyProtocol(3, batch=16, augmentation=None), ipc=4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dm", Condensed("dm", "dm")),
        ("dm ipc=50 lr=3", Condensed("dm ipc=50 lr=3", "dm lr=3", 50)),
        ("m3d@5 init=kmeans", Condensed("m3d@5 init=kmeans", "m3d init=kmeans", 5)),
        ("random@250", Selected("random@250", "random", 250)),
        ("packed-kmeans", Selected("packed-kmeans", "packed-kmeans")),
        ("kmeans ipc=3 candidates=40", Selected("kmeans ipc=3 candidates=40", "kmeans candidates=40", 3)),
        ("packed-kmeans candidates=40", Selected("packed-kmeans candidates=40", "packed-kmeans candidates=40")),
        ("half-m3d@10", Half("half-m3d@10", "m3d", 10)),
        ("half-m3d lr=2", Half("half-m3d lr=2", "m3d lr=2")),
        ("start-m3d", Started("start-m3d", "m3d")),
        ("random-equal", Selected("random-equal", "random", equal=True)),
        ("packed-random-equal@5", Selected("packed-random-equal@5", "packed-random", 5, equal=True)),
        ("early-stop@3", EarlyStop("early-stop@3", 3)),
        ("early-stop epochs=3", EarlyStop("early-stop epochs=3", 3)),
        ("jacov", ZeroCost("jacov")),
        ("additive", Combination("additive", fitted=True)),
        ("dm+jacov", Combination("dm+jacov", (Condensed("dm", "dm"), ZeroCost("jacov")))),
        ("dm lr=3+jacov", Combination("dm lr=3+jacov", (Condensed("dm lr=3", "dm lr=3"), ZeroCost("jacov")))),
        ("ridge:params", Combination("ridge:params", (ZeroCost("params"),), True)),
        (recipes.m3d(lr=3), Condensed("m3d lr=3", recipes.m3d(lr=3))),
    ],
)
def test_rankers_have_names(name, expected):
    assert ranker(name) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("randon", r"unknown ranker 'randon'\. Did you mean 'random'"),
        ("half-random", "unknown ranker 'half-random'"),
        ("half-start-dm", "unknown ranker 'half-start-dm'"),
        ("kmeans-equal", "unknown ranker 'kmeans-equal'"),
        ("dm@0", "ranker 'dm@0': ipc must be an integer of at least 1, got '0'"),
        ("dm@²", "ipc must be an integer of at least 1, got '²'"),
        ("dm@ten", "ipc must be an integer of at least 1, got 'ten'"),
        ("early-stop@0", "epochs must be an integer of at least 1, got '0'"),
        ("dm@3 ipc=4", "@3 is short for ipc=3: give only one"),
        ("dm lr", "a ranker is written NAME key=value ..., got 'lr' in 'dm lr'"),
        ("dm speed=3", "unknown option of method 'dm' 'speed'"),
        ("kmeans speed=3", "unknown option of selection 'kmeans' 'speed'"),
        ("random-equal speed=3", "random-equal takes no speed"),
        ("params@3", "params takes no ipc"),
        ("dm+", "unknown ranker ''"),
        ("nowhere:Method", "cannot import method"),
    ],
)
def test_mistakes_in_names_are_told(name, message):
    with pytest.raises(ConfigError, match=message):
        ranker(name)


@pytest.mark.parametrize(
    ("name", "images", "synthetic"),
    [("dm", 40, 40), ("half-dm", 40, 20), ("kmeans@2", 20, 0), ("packed-random", 160, 0), ("start-dm", 40, 0)],
)
def test_sets_have_the_size_asked_for_and_train_equally_long(setting, name, images, synthetic):
    evaluator, cost = single(name).prepare(setting)
    data = evaluator.data
    assert len(data.targets) == images
    real = {image.numpy().tobytes() for image in TRAIN.gather(TRAIN.order)}
    if "packed" not in name:
        assert sum(image.numpy().tobytes() not in real for image in data.images) == synthetic
    assert evaluator.protocol.steps_on(images) == 8  # 3 passes over 40 images, in full batches of 16
    assert cost.seconds > 0
    assert (cost.flops > 0) == (cost.images > 0) == (name not in ("packed-random", "start-dm"))


def test_a_start_is_that_of_the_condensation(setting):
    options = {"init": "kmeans", "factor": 2, "init.candidates": 20, "lr": 1e-30}
    setting = replace(setting, maker=replace(setting.maker, options=options))
    (start, cost), (made, whole) = single("start-dm").prepare(setting), single("dm").prepare(setting)
    torch.testing.assert_close(start.data.images, made.data.images)
    assert whole.flops == cost.flops + WIDE * 2 * (10 * 256 + 3 * 160)
    with pytest.raises(ConfigError, match="start-dm: a condensation from noise starts without images"):
        single("start-dm").check(replace(setting, maker=replace(setting.maker, options={"init": "noise"})))


def test_a_set_is_made_once(setting):
    first, cost = single("dm").prepare(setting)
    again, same = single("dm").prepare(replace(setting, maker=replace(setting.maker, stop=lambda: True)))
    assert torch.equal(first.data.images, again.data.images)
    assert cost == same
    assert isinstance(again.data.train, CondensedSet)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("dm", {"steps": 99}, "steps: 2 there, 99 here"),
        ("kmeans", {"seed": 3}, "seed: 0 there, 3 here"),
        ("random", {"train": HELD}, 'data: "'),
        ("dm", {"options": {"lr": 3.0}}, r"method.lr: 1\.0 there, 3\.0 here"),
        ("dm", {"machine": Machine("cpu", "bf16")}, r'machine.precision: "fp32" there, "bf16" here'),
    ],
)
def test_a_kept_set_made_otherwise_is_refused(setting, name, change, message):
    single(name).prepare(setting)
    other = Setting(replace(setting.maker, **change), TRAIN if "train" in change else HELD, setting.protocol, ipc=4)
    with pytest.raises(ConfigError, match=message):
        single(name).prepare(other)


def test_a_set_of_version_1_is_refused_by_name(setting):
    folder = setting.maker.folder / "dm-4"
    folder.mkdir(parents=True)
    recipe = {"method": {"type": "DistributionMatching", "lr": 1.0}, "ipc": 4, "iterations": 2, "seed": 0, "data": "x"}
    record = {"recipe": recipe, "cost": {"seconds": 1.0, "flops": 2.0}, "diverged": None}
    (folder / "made.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"dm-4 holds a set of condensekit 0\.1, .* or use another folder"):
        single("dm").prepare(setting)


def test_rankers_with_other_options_have_sets_of_their_own(setting):
    (plain, cost), (steep, _) = (single(name).prepare(setting) for name in ("dm", "dm lr=9"))
    assert not torch.equal(plain.data.images, steep.data.images)
    assert sorted(path.name for path in setting.maker.folder.iterdir()) == ["dm-4", "dm-lr-9-4"]
    same, again = Condensed("mine", recipes.dm()).prepare(setting)
    assert torch.equal(plain.data.images, same.data.images)
    assert again == cost  # it was not made again


def test_a_killed_condensation_costs_what_it_did_before_as_well(setting):
    _, whole = single("dm").prepare(replace(setting, maker=replace(setting.maker, folder=None)))
    asked = iter([False, True])
    with pytest.raises(OutOfTimeError, match="after step 1 of 2"):
        single("dm").prepare(replace(setting, maker=replace(setting.maker, stop=lambda: next(asked))))
    _, resumed = single("dm").prepare(setting)
    assert (resumed.images, resumed.flops) == (whole.images, whole.flops)


def test_a_condensation_that_diverged_is_not_tried_again(setting):
    bad = replace(setting, maker=replace(setting.maker, options={"lr": 1e38}))
    with pytest.raises(DivergedError, match=r"condensing with dm: .* not finite") as first:
        single("dm").prepare(bad)
    never = replace(bad, maker=replace(bad.maker, stop=lambda: True))
    with pytest.raises(DivergedError) as again:
        single("dm").prepare(never)
    assert str(first.value) == str(again.value)


def rounded(error):
    """The text without its seconds, which a thousandth of a second may round the other way."""
    return re.sub(r"about \d+ s", "about N s", str(error))


def test_a_condensation_that_is_stopped_goes_on_where_it_was(setting):
    whole, _ = single("dm").prepare(replace(setting, maker=replace(setting.maker, folder=None, steps=4)))
    asked = iter([False, False, True])
    maker = replace(setting.maker, steps=4)
    with pytest.raises(UnfinishedError, match="after step 2 of 4 of condensing with dm") as first:
        single("dm").prepare(replace(setting, maker=replace(maker, stop=lambda: next(asked))))
    over = replace(setting, maker=replace(maker, stop=lambda: True))
    for _ in range(2):  # resumes without time tell what the first process spent
        with pytest.raises(UnfinishedError) as again:
            single("dm").prepare(over)
        assert rounded(again.value) == rounded(first.value)
        assert again.value.cost == replace(first.value.cost, seconds=pytest.approx(first.value.cost.seconds, abs=0.002))
    with pytest.raises(OutOfTimeError, match="before kmeans-4-1 was made"):
        single("kmeans").prepare(over)
    seen = []

    class Seen(Progress):
        def stage(self, name, total, done=0):
            seen.append((name, total, done))
            return super().stage(name, total, done)

    resumed, _ = single("dm").prepare(replace(setting, maker=replace(maker, progress=Seen())))
    assert ("condense (dm)", 4, 2) in seen
    assert torch.equal(resumed.data.images, whole.data.images)


def test_sets_do_not_depend_on_the_folder(setting):
    kept, _ = single("kmeans").prepare(setting)
    free, _ = single("kmeans").prepare(replace(setting, maker=replace(setting.maker, folder=None)))
    assert torch.equal(kept.data.images, free.data.images)


def test_condensing_costs_the_images_that_pass_through(setting):
    _, cost = single("dm").prepare(setting)
    assert cost.flops == WIDE * 2 * (10 * 256 + 3 * 40)  # two steps, 256 real images of each class


@pytest.mark.parametrize(
    ("options", "flops"),
    [
        ({"encoder": "trained", "encoder.count": 2, "encoder.steps": 7}, 2 * 7 * 3 * 64 * WIDE),
        ({"sampling": "importance", "sampling.refresh": 1}, 2 * (100 * 3 * 64 + len(TRAIN)) * NARROW),
        ({"sampling": "kmeans"}, len(TRAIN) * EMBEDDING),
    ],
)
def test_networks_that_help_to_condense_are_counted(setting, options, flops):
    """Beside matching: encoders and scorers forward and back, what is scored or clustered forward."""
    _, cost = single("dm").prepare(replace(setting, maker=replace(setting.maker, options=options)))
    assert cost.flops == WIDE * 2 * (10 * 256 + 3 * 40) + flops


def test_a_random_set_at_equal_cost_is_the_same_set_trained_on_longer(setting):
    richer = replace(setting, extra=160.0)
    plain, equal = (single(name).prepare(richer)[0] for name in ("random", "random-equal"))
    assert torch.equal(plain.data.images, equal.data.images)
    assert (plain.protocol.steps, equal.protocol.steps) == (8, 8 + 10)
    assert [single(name).at_equal_cost for name in ("random", "random-equal", "early-stop", "early-stop@2")] == [
        False,
        True,
        True,
        False,
    ]


def test_early_stopping_trains_on_everything_for_the_extra_image_steps(setting):
    evaluator, _ = single("early-stop").prepare(replace(setting, extra=160.0))
    assert len(evaluator.data.targets) == len(TRAIN)
    assert evaluator.protocol.steps == 8 + 10
    evaluator, _ = single("early-stop@2").prepare(replace(setting, extra=160.0))
    assert evaluator.protocol.steps == -(-2 * len(TRAIN) // 16)


def test_scores_are_on_the_held_out_images_alone(setting):
    evaluator, _ = single("random").prepare(setting)
    test = evaluator.data.test
    assert len(test.images) == len(test) == len(HELD)
    assert torch.equal(test.gather(test.order), HELD.gather(HELD.order))


def test_an_overlap_is_refused(setting):
    overlapping = TRAIN.subset(torch.cat([TRAIN.order[:5], HELD.order]))
    with pytest.raises(DataError, match="both trained on and held out"):
        replace(setting, maker=replace(setting.maker, train=overlapping))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"score": "loss"}, "unknown score 'loss'"), ({"score": "margin", "hopeless": 1.5}, "given up first")],
)
def test_scores_are_checked_before_a_set_is_made(setting, change, message):
    with pytest.raises(ConfigError, match=message):
        replace(setting, **change)


def test_half_needs_two_images(setting):
    with pytest.raises(ConfigError, match="at least 2 images per class, got ipc=1"):
        single("half-dm@1").check(setting)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("random@500", {}, "images but ipc=500"),
        ("packed-kmeans@60", {}, "with factor=2, which takes 240"),
        ("dm", {"speed": 3}, "unknown option of method 'dm' 'speed'"),
    ],
)
def test_sets_that_cannot_be_made_are_refused_early(setting, name, options, message):
    maker = replace(setting.maker, options=options)
    with pytest.raises((ConfigError, DataError), match=message):
        single(name).check(replace(setting, maker=maker))
    single("dm").check(setting)


def test_zero_cost_scores_reach_nni(setting, monkeypatch):
    space = spaces.convnet_space((1, 8, 8), 10, depths=(1,), widths=(4, 8))
    small, large = ({"depth": 1, "width": w, "activation": "relu", "norm": "batch", "pooling": "avg"} for w in (4, 8))
    told: list[dict[str, Any]] = []
    monkeypatch.setattr("nni.report_final_result", told.append)
    for kind in ("params", "flops", "synflow", "nwot", "jacov", "zen"):
        evaluator, _ = single(kind).prepare(setting)
        scores = [evaluator.evaluate(lambda a=a: spaces.build(space, a)) for a in (small, large)]
        assert told[-1] == {"default": scores[1], "scores": {kind: scores[1]}, **told[-1]}
        assert scores[1] > scores[0] or kind == "jacov"
        assert scores[0] == evaluator.evaluate(lambda: spaces.build(space, small))
    assert told[0]["default"] == count(spaces.build(space, small), (1, 8, 8)).params


def test_the_batch_of_zero_cost_scores_has_every_class(setting):
    assert zero_cost.batch(TRAIN, Draw(0)).shape == (64, 1, 8, 8)
    few = ClassImages.from_arrays(torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 2] * 2))
    assert zero_cost.batch(few, Draw(0)).shape == (64, 1, 8, 8)


def test_a_half_without_time_for_its_real_images_tells_what_its_condensed_images_cost(setting):
    asked = counted()
    late = replace(setting.maker, stop=lambda: next(asked) > 2)  # asked before the set and after each of two steps
    with pytest.raises(UnfinishedError, match="before kmeans-2-1 was made") as caught:
        single("half-dm").prepare(replace(setting, maker=late))
    assert caught.value.cost.images > 0
