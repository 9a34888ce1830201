"""The protocol runner: orders, scores, rows, leakage, resume, and that its from-scratch regime is the plugin's."""

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import textwrap
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import ReplayPlugin

from condensekit.compute import Compute, Machine
from condensekit.data import datasets
from condensekit.data.images import ClassImages
from condensekit.errors import ConfigError, DataError
from condensekit.replay import FromScratchOnMemory, Images, Online, Settings
from condensekit.replay.memory.base import DivergedError
from condensekit.replay.memory.fillers import Selecting
from condensekit.replay.study.baselines import GDumb
from condensekit.replay.study.contrasts import contrasts, named_pair
from condensekit.replay.study.incremental import Stream, without_avalanches_warnings
from condensekit.replay.study.memories import MemoryKind, memory
from condensekit.replay.study.protocol import Bench, numbered, predictions
from condensekit.replay.study.results import ReplayResult, row
from condensekit.replay.study.scores import curve, final_accuracies
from condensekit.rng import Draw
from condensekit.runs.files import read_json
from condensekit.selection.classic import Random
from condensekit.sets.condensed import CondensedSet
from condensekit.sets.formation import Formation
from condensekit.stats import holm
from condensekit.training.train import accuracy
from tests.replay.runs import LONG, MAKING, NET, PLAIN, SMALL, go
from tests.replay.worlds import buffer, naive, stream


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


def unchanging(result):
    """A result without what time and place decide."""
    kept = {k: v for k, v in json.loads(json.dumps(result.to_json())).items() if k != "environment"}
    for found in kept["rows"]:
        del found["condense_s"], found["condense_s_per_experience"], found["train_s"]
    return kept


def test_orders_are_those_of_the_published_code():
    np.random.seed(3)  # noqa: NPY002
    wanted = np.random.permutation(100).tolist()  # noqa: NPY002
    found = Settings(experiences=10).stream(3, 100)
    assert [len(labels) for labels in found] == [10] * 10
    assert [label for labels in found for label in labels] == wanted
    with pytest.raises(ConfigError, match="experiences=11 is more than the 10 classes: use 2 to 10"):
        Settings(experiences=11).stream(0, 10)


def test_first_experiences_have_a_class_more():
    settings = Settings(experiences=2)
    assert list(map(len, settings.stream(0, 5))) == [3, 2]
    assert list(map(len, Settings(experiences=4).stream(0, 10))) == [3, 3, 2, 2]
    assert sorted(label for labels in settings.stream(1, 5) for label in labels) == list(range(5))


def test_seeds_and_work():
    settings = Settings(orders=5, seeds=2, ipc=10, seed=7)
    first, second = settings.set_seed(0), settings.set_seed(1)
    assert [settings.set_seed(order) for order in settings.order_numbers()] == [first, second, first, second, first]
    assert len({Settings(seed=seed).set_seed(order) for seed in range(5) for order in range(5)}) == 25
    assert Settings(orders=3, first_order=100).order_numbers() == range(100, 103)
    assert len({settings.network_seed(o, n) for o in range(3) for n in range(3)}) == 9
    assert (settings.work([99] * 4).steps, settings.work([99] * 4).batch) == (300, 40)
    assert (settings.work([99] * 100).steps, settings.work([99] * 100).batch) == (1200, 256)
    assert settings.work([99, 10, 4, 1]).batch == 25  # small classes have fewer than ipc
    with pytest.raises(ConfigError, match=r"orders must be an integer of at least 1.*seeds must be an integer"):
        Settings(orders=0, seeds=0)
    with pytest.raises(ConfigError, match=r"epochs must be an integer of at least 1.*lr must be positive"):
        Online(epochs=0, lr=0)


def test_classes_are_numbered_and_must_agree(caplog):
    pixels = torch.zeros(6, 1, 8, 8, dtype=torch.uint8)
    train = ClassImages.from_arrays(pixels, torch.tensor([9, 2, 9, 5, 5, 2]), class_names={2: "a", 5: "b", 9: "c"})
    test = train.subset(torch.tensor([0, 1, 3]))
    a, b = numbered(train, test)
    assert a.labels.tolist() == [2, 0, 2, 1, 1, 0]
    assert (a.classes, b.classes) == ((0, 1, 2), (0, 1, 2))
    assert b.order.tolist() == [1, 3, 0]
    assert a.spec.class_names == {0: "a", 1: "b", 2: "c"}
    assert "no test images of class 9 ('c'): accuracy is that of the others" not in caplog.text
    assert numbered(train, train.select([2, 5]))[1].classes == (0, 1)
    assert "no test images of class 9 ('c'): accuracy is that of the others" in caplog.text
    with pytest.raises(DataError, match=r"class 9 \('c'\) is in the test images only"):
        numbered(train.select([2, 5]), train)


def test_scores_by_hand(digits, tmp_path):
    train, test = numbered(*digits)
    with Compute(Machine("cpu"), (8, 8)) as compute:
        bench = Bench(train, test, SMALL, MAKING, tmp_path, compute, 1)
        module = NET.new((1, 8, 8), 10, Draw(0))
        score = bench.score(module, [[3, 1], [7, 4]])
        seen = test.select([1, 3, 4, 7])
        found = predictions(module, seen, compute)
        assert sum(score["right"]) / sum(score["count"]) == accuracy(module, seen, tuple(range(10)), compute)
    wanted = seen.labels[seen.order]
    old = (wanted == 1) | (wanted == 3)
    assert score["right"][0] == int((found[old] == wanted[old]).sum())
    assert score["count"] == [int(old.sum()), int((~old).sum())]
    assert score["old_to_new"] == pytest.approx(((found[old] == 7) | (found[old] == 4)).float().mean().item())


def cell(*orders):
    """Orders of experiences, each with (right of each experience so far), of 10 images each, of one network."""
    return [
        [
            {
                "scores": [{"right": list(r), "count": [10] * len(r), "old_to_new": 0.5 if len(r) > 1 else None}],
                "nbytes": 7 * len(r),
                "images": len(r),
                "condense_s": 1.0,
                "work": {"images": 150, "flops": 7},
                "train_s": 2.0,
                "train_steps": 6,
                "passes": 3.0,
            }
            for r in experiences
        ]
        for experiences in orders
    ]


REAL = ClassImages.from_arrays(torch.zeros(100, 1, 8, 8, dtype=torch.uint8), torch.arange(100) % 10)


def test_rows_by_hand():
    settings = Settings(orders=3, experiences=3, ipc=4)
    ours = cell(
        [(10,), (8, 10), (6, 7, 10)],
        [(10,), (9, 9), (8, 9, 8)],
        [(9,), (9, 9), (9, 9, 9)],
    )
    theirs = cell(*([[(10,), (8, 8), (5, 6, 10)]] * 3))
    found = row(memory("dm"), "er", ours, theirs, settings, REAL)
    finals = [23 / 30, 25 / 30, 27 / 30]
    assert found.final_accuracy_mean == pytest.approx(statistics.fmean(finals))
    assert found.final_accuracy_std == pytest.approx(statistics.stdev(finals))
    assert found.average_accuracy_mean == pytest.approx(
        statistics.fmean([(1 + 0.9 + 23 / 30) / 3, (1 + 0.9 + 25 / 30) / 3, (0.9 + 0.9 + 0.9) / 3])
    )
    assert found.forgetting_mean == pytest.approx(statistics.fmean([(0.4 + 0.3) / 2, (0.2 + 0) / 2, 0]))
    assert found.old_accuracy_mean == pytest.approx(statistics.fmean([13 / 20, 17 / 20, 18 / 20]))
    assert found.new_accuracy_mean == pytest.approx(0.9)
    assert found.difference == pytest.approx(statistics.fmean(finals) - 0.7)
    from scipy.stats import ttest_rel

    interval = ttest_rel(finals, [0.7] * 3).confidence_interval(0.95)
    assert found.ci95 == pytest.approx([interval.low, interval.high])
    assert (found.n, found.unit, found.images, found.nbytes) == (3, "set", 3, 21)
    assert (found.condense_s, found.train_s, found.old_to_new_mean) == (3, 6, 0.5)
    assert found.work is not None
    assert (found.work["images"], found.work["passes"], found.reference) == (450, 4.5, "random")
    assert curve(ours)["mean"][1] == pytest.approx(0.9)
    lists = {"dm": final_accuracies(ours), "random": final_accuracies(theirs)}
    assert (found.train_steps, found.memory_passes, found.condense_s_per_experience) == (18, 3, 1)
    (entry,) = contrasts("er", lists, ["dm"], ["random"], ("dm", "random"))
    assert entry.primary
    assert entry.p == pytest.approx(ttest_rel(finals, [0.7] * 3).pvalue)


def test_the_primary_contrast_is_named_and_not_found():
    kinds = [memory(name) for name in ("herding", "m3d", "random", "dm", "naive")]
    assert named_pair(kinds) == ("m3d", "random")
    assert named_pair([*kinds, memory("random-equal-bytes")]) == ("m3d", "random-equal-bytes")
    assert named_pair([memory("reservoir"), memory("dm")]) == ("dm", "reservoir")
    assert named_pair([memory("naive"), memory("dm")]) is named_pair([memory("random")]) is None
    finals = {"m3d": [[0.1], [0.2], [0.2]], "dm": [[0.9], [0.8], [0.9]], "random": [[0.5], [0.4], [0.4]]}
    finals["reservoir"] = [[0.5], [0.45], [0.4]]
    found = list(contrasts("er", finals, ["m3d", "dm"], ["random", "reservoir"], ("m3d", "random")))
    assert [(e.memory, e.against, e.primary) for e in found] == [
        ("m3d", "random", True),
        ("m3d", "reservoir", False),
        ("dm", "random", False),
        ("dm", "reservoir", False),
    ]
    assert [e.p_holm is None for e in found] == [True, False, False, False]


def test_memories_that_did_the_same_are_one_comparison():
    finals = {"dm": [[0.9], [0.8], [0.9]], "random": [[0.5], [0.4], [0.4]], "herding": [[0.5], [0.6], [0.7]]}
    finals["packed-random"], finals["m3d"] = [[0.6], [0.7], [0.4]], [[0.7], [0.5], [0.9]]
    alone = list(contrasts("er", finals, ["dm", "m3d"], ["random", "packed-random", "herding"], ("dm", "random")))
    finals |= {"random-equal-bytes": finals["random"], "downscaled": finals["packed-random"]}
    real = ["random", "random-equal-bytes", "packed-random", "downscaled", "herding"]
    found = list(contrasts("er", finals, ["dm", "m3d"], real, ("dm", "random-equal-bytes")))
    assert [(e.memory, e.against, e.same) for e in found] == [
        ("dm", "random-equal-bytes", ["random"]),
        ("dm", "packed-random", ["downscaled"]),
        ("dm", "herding", []),
        ("m3d", "random-equal-bytes", ["random"]),
        ("m3d", "packed-random", ["downscaled"]),
        ("m3d", "herding", []),
    ]
    assert [e.p_holm for e in found] == [e.p_holm for e in alone]


def test_rows_say_what_a_strategy_goes_without():
    def note(name, **online):
        settings = Settings(orders=1, experiences=1, online=Online(**online))
        return row(memory(name), "er", cell([(9,)]), None, settings, REAL).note

    assert note("naive") == memory("naive").note
    assert note("naive", fine_tune=3) == f"{memory('naive').note}; no fine-tune"
    assert note("gdumb", fine_tune=3, distillation=1.0).endswith("; no distillation; no fine-tune")
    assert note("dm", fine_tune=3) == note("reservoir", fine_tune=3) == ""


def test_orders_that_share_a_set_are_one_unit():
    settings = Settings(orders=4, seeds=2, experiences=1, ipc=4)
    found = row(memory("dm"), "er", cell([(9,)], [(8,)], [(7,)], [(8,)]), cell(*[[(5,)]] * 4), settings, REAL)
    assert (found.sets, found.unit) == (2, "network")
    settings = replace(settings, seeds=3)
    found = row(memory("dm"), "er", cell([(9,)], [(8,)], [(7,)], [(7,)]), cell(*[[(5,)]] * 4), settings, REAL)
    assert (found.sets, found.unit) == (3, "set")
    assert found.difference == pytest.approx((0.3 + 0.3 + 0.2) / 3)  # the first and the last share one


def test_holms_correction():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.7, "b": 0.6}) == {"b": 1.0, "a": 1.0}
    assert holm({}) == {}


def test_a_run_writes_what_it_promises_and_repeats_nothing(digits, tmp_path):
    out = tmp_path / "run"
    record = {"data": "digits"}
    result = go(digits, out, ("dm", "random", "random-equal-bytes"), record=record)
    assert read_json(out / "replay.json") == json.loads(json.dumps(result.to_json()))
    assert ReplayResult.load(out).to_json() == result.to_json()
    assert (out / "replay.png").stat().st_size > 10_000
    dm, random, equal = result.rows
    assert dm.work["images"] > 0 == random.work["images"]
    assert dm.work["passes"] == pytest.approx(dm.work["images"] / len(digits[0]), rel=1e-3)
    assert repr(result).startswith(f"ReplayResult(dm {100 * dm.final_accuracy_mean:.1f} %, random ")
    assert list(result.to_pandas()["memory"]) == ["dm", "random", "random-equal-bytes"]
    assert (dm.n, dm.ipc, dm.images, dm.nbytes) == (2, 2, 20, 20 * (64 + 8 + 8))
    assert random.difference is None
    assert random.nbytes == 20 * (64 + 8)  # pixels of 8 bits need no ranges
    assert {found.train_steps for found in result.rows} == {5 * 10}
    assert {found.memory_passes for found in result.rows} == {10}
    assert result.primary_contrast == ("dm", "random-equal-bytes")
    assert equal.finals == random.finals  # as bytes, equal images are equal bytes: the same cells
    assert not (out / "cells" / "from-scratch" / "random-equal-bytes-2").exists()
    assert set(result.accuracy_by_experience) == {f"from-scratch/{m}" for m in ("dm", "random", "random-equal-bytes")}
    assert len(result.accuracy_by_experience["from-scratch/dm"]["mean"]) == 5
    assert [entry.against for entry in result.contrasts if entry.primary] == ["random-equal-bytes"]
    assert re.search(r"^\| dm +\|.*\| 20 +\| 1,600 \|", result.table(200), re.MULTILINE)
    before = {file: file.stat().st_mtime_ns for file in out.glob("cells/**/*.json")}
    more = go(digits, out, ("herding", "unpacked-m3d"), replace(SMALL, orders=3), resume=True, record=record)
    names = ["dm", "random", "random-equal-bytes", "herding", "unpacked-m3d"]
    assert [(found.memory, found.n) for found in more.rows] == [(name, 3) for name in names]
    assert more.primary_contrast == result.primary_contrast
    assert all(file.stat().st_mtime_ns == when for file, when in before.items())
    with pytest.raises(ConfigError, match="ipc: 2 there, 3 here"):
        go(digits, out, settings=replace(SMALL, ipc=3), resume=True, record=record)
    with pytest.raises(ConfigError, match="not empty"):
        go(digits, out)
    with pytest.raises(ConfigError, match='data: "digits" there, "svhn" here'):
        go(digits, out, resume=True, record={"data": "svhn"})
    mine = MemoryKind("random", Selecting(Random(), Formation(2, "uint8")))
    text = r"of another memory 'random' \(formation.factor: 1 there, 2 here\): give 'random' another name"
    with pytest.raises(ConfigError, match=text):
        go(digits, out, (mine,), resume=True, record=record)
    with pytest.raises(ConfigError, match="option lrr=3: none of dm, unpacked-m3d has this option"):
        go(digits, out, making=replace(MAKING, options={"lrr": 3}), resume=True)
    with pytest.raises(ConfigError, match=r'making.machine.precision: "fp32" there, "mixed" here'):
        go(digits, out, making=replace(MAKING, machine=Machine("cpu", "mixed")), resume=True, record=record)
    with pytest.raises(ConfigError, match="test_fingerprint"):
        go((digits[0], digits[1].subset(digits[1].order[1::2])), out, resume=True, record=record)


def test_the_number_of_experiences_does_not_matter_from_scratch(digits, tmp_path):
    """A method whose classes are separable gives the same images in all cases; a difference would be leakage."""
    finals = {}
    for experiences in (5, 2, 1):
        result = go(digits, tmp_path / str(experiences), settings=replace(SMALL, experiences=experiences, orders=1))
        finals[experiences] = [found.finals for found in result.rows]
    assert finals[5] == finals[2] == finals[1]


def test_each_experience_is_condensed_from_its_own_classes(digits, tmp_path):
    go(digits, tmp_path / "run", ("m3d",), replace(SMALL, orders=1))
    for number, classes in enumerate(SMALL.stream(0, 10), 1):
        folder = tmp_path / "run" / "sets" / "m3d-2" / f"order-0-experience-{number}-of-5"
        found = read_json(folder / "config.json")
        train, _ = numbered(*digits)
        assert found["data_fingerprint"] == train.select(classes).fingerprint()
        assert found["seed"] == SMALL.set_seed(0)


def test_orders_with_one_seed_share_their_classes(digits, tmp_path):
    result = go(digits, tmp_path / "run", ("dm",), replace(SMALL, seeds=1))
    folders = sorted(p.name for p in (tmp_path / "run" / "sets" / "dm-2").iterdir() if p.is_dir())
    assert folders == [f"order-0-experience-{i}-of-5" for i in range(1, 6)]  # none for the second order
    assert len(list((tmp_path / "run" / "sets" / "classes").iterdir())) == 10
    sets = tmp_path / "run" / "sets" / "dm-2"
    spent = [
        [CondensedSet.load(file).provenance["seconds"] for file in sets.glob(f"order-{o}-*.safetensors")]
        for o in (0, 1)
    ]
    assert sum(spent[0]) == pytest.approx(sum(spent[1]))  # what making them took, though the second order made none
    assert result.rows[0].condense_s == pytest.approx(sum(spent[0]))


@pytest.mark.parametrize("networks", [1, 2])
def test_the_incremental_regimes_run_with_every_kind_of_memory(digits, tmp_path, networks):
    names = ("dm", "random", "class-balanced", "joint") if networks == 1 else ("hybrid", "random")
    result = go(
        digits,
        tmp_path / "run",
        names,
        replace(SMALL, orders=1, networks=networks, experiences=2),
        regimes=("er",) if networks == 1 else ("er", "er-ace", "der++"),
    )
    rows = {(found.regime, found.memory): found for found in result.rows}
    assert all(found.n == networks for found in rows.values())
    if networks == 1:
        assert rows["er", "joint"].average_accuracy_mean is None
        assert rows["er", "class-balanced"].images == rows["er", "dm"].images == 20
        assert set(rows) == {("er", name) for name in names}
    else:
        assert rows["der++", "random"].nbytes == rows["er", "random"].nbytes + 20 * 10 * 4


@pytest.mark.parametrize(
    "name",
    [
        "experience-balanced",
        "reservoir",
        "avalanche-herding",
        "closest-to-mean",
        "avalanche-er-ace",
        "avalanche-der++",
        "gdumb",
        "icarl",
        "naive",
        "cumulative",
    ],
)
def test_avalanches_own_baselines_run(digits, tmp_path, name):
    (found,) = go(
        digits, tmp_path / "run", (name,), replace(SMALL, orders=1, experiences=2), PLAIN, regimes=("er",)
    ).rows
    assert found.work is None
    assert 0 < found.final_accuracy_mean <= 1
    stored = {"naive": 0, "cumulative": len(digits[0])}.get(name, 20)
    assert found.images == stored
    assert found.nbytes == stored * (64 + 8 + (40 if name == "avalanche-der++" else 0))


def test_equal_terms_for_all_that_replay(digits, tmp_path):
    """Steps of every memory, and images in each step, are those of any other; GDumb's too, but for a fine-tune."""
    names = ("dm", "random", "packed-random", "herding", "class-balanced", "reservoir", "gdumb")
    plain = replace(SMALL, orders=1, experiences=2)
    tuned = replace(plain, online=replace(plain.online, fine_tune=7))
    steps, passes = {}, {}
    for fine_tune, settings in ((0, plain), (7, tuned)):
        result = go(digits, tmp_path / str(fine_tune), names, settings, regimes=("er",))
        for found in result.rows:
            name, own = found.memory, fine_tune if found.memory != "gdumb" else 0
            steps[name, fine_tune] = found.train_steps - 2 * own
            passes[name, fine_tune] = found.memory_passes
    assert len(set(steps.values())) == 1
    for fine_tune in (0, 7):
        mine = {name: passes[name, fine_tune] for name in names}
        assert mine["dm"] == mine["random"] == mine["reservoir"] == 4 * mine["packed-random"] > 0
        assert mine["gdumb"] is None
    assert passes["dm", 7] == pytest.approx(passes["dm", 0] + 7 * 10 / 20)  # as many as are stored after one experience


def test_equal_terms_from_scratch_and_one_training_for_equal_memories(digits, tmp_path):
    names = ("dm", "random", "herding", "packed-random", "downscaled")
    result = go(digits, tmp_path / "run", names, replace(SMALL, orders=1, experiences=2))
    rows = {found.memory: found for found in result.rows}
    assert len({found.train_steps for found in rows.values()}) == 1
    assert rows["dm"].memory_passes == rows["random"].memory_passes == rows["herding"].memory_passes == 10
    assert rows["packed-random"].memory_passes == 2.5
    assert [rows[name].packed for name in names] == [1, 1, 1, 4, 4]
    assert rows["downscaled"].finals == rows["packed-random"].finals
    folders = sorted(folder.name for folder in (tmp_path / "run" / "cells" / "from-scratch").iterdir())
    assert folders == ["dm-2", "herding-2", "packed-random-2", "random-2"]
    assert next(e.same for e in result.contrasts if e.against == "packed-random") == ["downscaled"]


def test_an_encoder_that_was_asked_for_is_used_in_er(digits, tmp_path):
    settings = replace(SMALL, orders=1, experiences=2)
    for name, making in (("own", replace(MAKING, options={"encoder": "kept", "keep": 2})), ("learner", MAKING)):
        go(digits, tmp_path / name, ("dm",), settings, making, regimes=("er",))
    folder = "sets/er/dm-2/order-0-network-0"
    used = {}
    for name in ("own", "learner"):
        configs = (tmp_path / name / folder).glob("*/config.json")
        used[name] = {read_json(file)["encoder"]["type"] for file in configs}
    assert used == {"own": {"Fresh"}, "learner": {"LearnerEncoder"}}


def test_gdumb_trains_with_the_steps_and_images_of_replay():
    sizes: list[list[int]] = []

    class Spy(SupervisedPlugin):
        def before_training_exp(self, strategy, **kwargs):
            sizes.append([])

        def before_training_iteration(self, strategy, **kwargs):
            sizes[-1].append(len(strategy.mb_x))

    plugin = GDumb(mem_size=6, batch_mem=5)
    strategy = naive(plugin, Spy(), epochs=2)
    for exp in stream("nc").train_stream:  # 24 images in batches of 8
        strategy.train(exp)
    assert sizes == [[8] * 6, [13] * 6, [13] * 6]


def test_only_avalanches_own_warnings_are_kept_back():
    def run(ends):
        with without_avalanches_warnings():
            naive(ReplayPlugin(4)).train(stream().train_stream[0])  # Avalanche calls what it deprecates
            warnings.warn("of somebody else", RuntimeWarning, stacklevel=1)
            if ends:
                raise Killed

    for ends in (False, True):
        with warnings.catch_warnings(record=True) as caught, suppress(Killed):
            warnings.simplefilter("always")
            run(ends)
        assert [str(found.message) for found in caught] == ["of somebody else"]


class Killed(Exception):  # noqa: N818
    """Ends a run."""


def test_from_scratch_is_the_plugin_in_an_avalanche_strategy(digits, tmp_path):
    settings = replace(SMALL, orders=1, ipc=3)
    result = go(digits, tmp_path / "run", ("random",), settings, PLAIN)
    train, test = numbered(*digits)
    experiences = settings.stream(0, 10)
    flat = [label for step in experiences for label in step]
    exps = nc_benchmark(Stream(train), Stream(test), 5, task_labels=False, fixed_class_order=flat).train_stream
    kind = memory("random")
    store = buffer(Images(per_class=3), kind.filler, spec=train.spec, seed=settings.set_seed(0))
    plugin = FromScratchOnMemory(store, network=NET, seed=settings.network_seed(0, 0))
    model = NET.new((1, 8, 8), 10, Draw(1))
    strategy = naive(plugin, model=model)
    found = []
    with Compute(Machine("cpu"), (8, 8)) as compute:
        bench = Bench(train, test, settings, PLAIN, tmp_path, compute, 1)
        for i, exp in enumerate(exps):
            plugin.protocol = settings.work([99] * 2 * (i + 1)).on(train.spec)
            strategy.train(exp, eval_streams=[])
            score = bench.score(model, experiences[: i + 1])
            found.append(sum(score["right"]) / sum(score["count"]))
    wanted = result.accuracy_by_experience["from-scratch/random"]["orders"][0]
    assert found == pytest.approx(wanted, abs=0.01)  # sums in another order: an image or two may tip over


def test_bad_runs_are_refused(digits, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match="memory 'gdumb' runs in er only: add that regime"):
        go(digits, out, ("gdumb",))
    with pytest.raises(ConfigError, match="unknown regime 'err'"):
        go(digits, out, regimes=("err",))
    with pytest.raises(ConfigError, match="memory 'dm' is given twice"):
        go(digits, out, ("dm", "dm"))
    with pytest.raises(ConfigError, match="at least one memory"):
        go(digits, out, ())
    tuned = replace(SMALL, online=replace(SMALL.online, distillation=1.0, fine_tune=3))
    for regimes, bare in ((("er", "der++"), r"der\+\+"), (("from-scratch",), "from-scratch")):
        with pytest.raises(ConfigError, match=f"distillation=1.0 and fine_tune=3 belong to regime er, {bare} has no"):
            go(digits, out, settings=tuned, regimes=regimes)
    for regime in ("from-scratch", "er"):
        with pytest.raises(DataError, match=r"'m3d' keeps 60 .*, each packed from 4, and class .*: use ipc=\d+ or"):
            go(digits, out, ("m3d",), replace(SMALL, ipc=60), regimes=(regime,))
        with pytest.raises(DataError, match="'class-balanced' keeps 900 images"):
            go(digits, out, ("class-balanced",), replace(SMALL, ipc=900), PLAIN, regimes=("er",))
    sizes = [sum(map(digits[0].count, step)) for step in SMALL.stream(0, 10)]
    norm = replace(SMALL, network=replace(NET, norm="batch"), online=replace(SMALL.online, batch=sizes[0] - 1))
    with pytest.raises(
        ConfigError, match=r"ConvNet.* has batch norm, and an experience .* another batch for the learner, such as"
    ):
        go(digits, out, ("random",), norm, PLAIN, regimes=("er-ace",))
    assert not out.exists()


def test_a_learner_that_diverges_is_told_from_a_condensation(digits, tmp_path):
    wild = replace(SMALL, orders=1, online=replace(SMALL.online, lr=1e30))
    for name, making in (("random", PLAIN), ("dm", MAKING)):
        with pytest.raises(
            DivergedError, match=r"learner's weights are not finite in experience 1: .*learning rate \(lr=1e\+30\)"
        ):
            go(digits, tmp_path / name, (name,), wild, making, regimes=("er",))


CHILD = """
import os, signal, sys
from pathlib import Path
from tests.replay.runs import LONG, SMALL, go
from condensekit.data import datasets
from condensekit.driver import _Loop
from dataclasses import replace

at = int(sys.argv[3])
done, before = 0, _Loop._checkpoint

def checkpoint(self):
    global done
    before(self)
    done += 1
    if done == at:
        os.kill(os.getpid(), signal.SIGKILL)

_Loop._checkpoint = checkpoint
settings = replace(SMALL, orders=1, experiences=2)
go(datasets.load("digits"), Path(sys.argv[1]), ("dm",), settings, LONG, regimes=(sys.argv[2],))
"""


# the first checkpoint is within a condensation, the second at its end, the third within the next one
@pytest.mark.parametrize(("regime", "at"), [("from-scratch", 1), ("er", 3)])
def test_a_killed_run_goes_on_and_ends_as_an_unbroken_one(digits, tmp_path, regime, at):
    settings = replace(SMALL, orders=1, experiences=2)
    root = str(Path(__file__).parents[3])
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path / "killed"), regime, str(at)],
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        timeout=120,
    )
    assert child.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "replay.json").exists()
    resumed = go(digits, tmp_path / "killed", ("dm",), settings, LONG, regimes=(regime,), resume=True)
    whole = go(digits, tmp_path / "whole", ("dm",), settings, LONG, regimes=(regime,))
    assert unchanging(resumed) == unchanging(whole)


def test_a_run_of_version_0_1_opens_and_is_not_continued(digits, tmp_path):
    former = Path(__file__).with_name("version_0_1")
    result = ReplayResult.load(former)
    dm, random = result.rows
    assert (dm.memory, dm.ipc, dm.reference, dm.work) == ("dm", 2, "random", None)
    assert (random.difference, random.reference) == (None, None)
    assert dm.train_steps == read_json(former / "replay.json")["rows"][0]["gradient_steps"]
    assert dm.difference == pytest.approx(dm.final_accuracy_mean - random.final_accuracy_mean)
    assert list(result.accuracy_by_experience) == ["from-scratch/dm", "from-scratch/random"]
    assert result.contrasts[0].primary
    assert re.search(r"^\| dm +\|.*\| 20 +\| 1,600 \|", result.table(200), re.MULTILINE)
    shutil.copytree(former, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"holds a run of condensekit 0\.1, which this version can read"):
        go(digits, tmp_path / "run", resume=True)
