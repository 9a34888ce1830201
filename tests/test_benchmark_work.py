"""The work of runs that benchmarks/work.py counts afterwards, and the passes in tables."""

from dataclasses import replace

import pytest

import condensekit as ck
from benchmarks import passes, record, tables, work
from benchmarks.accuracy.run import selected
from benchmarks.continual.cells import Cell
from benchmarks.continual.run import recipe_options, room
from condensekit import Recipe
from condensekit.compute import Machine, Spent
from condensekit.data import datasets
from condensekit.replay.memory.base import Job
from condensekit.replay.memory.content import spent_on
from condensekit.replay.memory.fillers import filled
from condensekit.replay.study.memories import Making, memory
from condensekit.replay.study.protocol import Settings

TRAIN = datasets.load("digits")[0]
NARROW = "encoder_network=ConvNet-w8"
RUNS = {
    "each step is the same work": (f"dm batch_real=8 init=kmeans {NARROW}", 2, 7, 1),
    "several networks": (f"krr batch_real=4 networks=2 {NARROW}", 2, 5, 1),
    "outer loops": (f"dc batch_real=4 outer=3 inner=2 {NARROW}", 2, 11, 3),
    "batches by clusters": (
        f"m3d batch_real=4 sampling=kmeans sampling.clusters=4 sampling.refresh=2 {NARROW}",
        1,
        7,
        2,
    ),
    "a scorer before the first step": (f"dm batch_real=4 init=importance-krr sampling=importance {NARROW}", 1, 5, 1),
    "trained encoders": (
        f"dm batch_real=4 encoder=trained encoder.count=2 encoder.steps=3 calibration=1 {NARROW}",
        *(1, 5, 1),
    ),
    "prefixes of random length": (f"dm batch_real=4 nested=true {NARROW}", 3, 5, None),
}


@pytest.mark.parametrize("name", RUNS)
def test_counted_work_is_that_of_the_run(name):
    text, ipc, steps, turn = RUNS[name]
    recipe = Recipe.parse(text)
    assert work.period(recipe, ipc, steps)[0] == turn
    made = ck.condense(TRAIN, recipe, ipc=ipc, steps=steps)
    assert passes.told(work.of_recipe(TRAIN, recipe, ipc, steps), TRAIN) == made.work


@pytest.mark.parametrize("name", ["random", "kmeans", "packed-kmeans", "herding", "importance-kmeans"])
def test_counted_work_is_that_of_the_selection(name):
    made = selected(TRAIN, name, 1, 3, Machine("cpu"))
    assert passes.told(work.of_selection(TRAIN, name, 1), TRAIN) == made.provenance["work"]
    assert made.provenance["work"]["preparation"]["passes"] == (0 if name == "random" else 1)


@pytest.mark.parametrize("name", ["dm", "hybrid", "herding", "random-soft"])
def test_counted_work_is_that_of_filling_a_memory(name):
    cell = Cell("cpu", "digits", 5, 3, "from-scratch", "ConvNet-w8", name, steps=4, batch_real=4)
    kind = memory(name, Making(cell.steps, recipe_options(cell)))
    stream = Settings(experiences=5).stream(0, 10)
    job = Job(steps=4, machine=Machine("cpu"), room=kind.room(TRAIN, room(cell, TRAIN)))
    sets = [filled(kind.filler, TRAIN.select(classes), 3, job).values() for classes in stream]
    assert work.of_memory(cell, TRAIN)["filling"] == sum((spent_on(s)[1] for s in sets), Spent())


def test_the_learner_of_a_stream_is_the_network_that_is_counted():
    cell = Cell("cpu", "digits", 5, 3, "er", "ConvNet-w8", "dm", steps=4, batch_real=4, options=("init=kmeans",))
    by_learner, by_own = (work.of_memory(c, TRAIN)["filling"] for c in (cell, replace(cell, regime="er-ace")))
    assert by_learner.images == by_own.images
    assert by_learner.flops < by_own.flops  # the start of a recipe embeds with a wide network of its own


def test_each_result_has_its_work():
    records = [record.read(path) for path in sorted(record.RESULTS.rglob("*.json"))]
    assert {name for name, _, _ in work.missing(records)} <= passes.counted(records).keys()


def test_trained_encoders_are_added_with_a_plus():
    part = {"passes": 24.04, "w128_passes": 300.4}
    assert passes.texts([{"preparation": part, "condensing": part, "encoders": part}]) == ("48.1 + 24.0", "601 + 300")
    assert passes.texts([{"preparation": part}]) == ("24.0", "300")
    assert passes.texts([None]) == ("-", "-")


def test_tables_are_the_same_again():
    records = [record.read(path) for path in sorted(record.RESULTS.rglob("*.json"))]
    names = ("accuracy", "pace", "experience")
    once = tables.rewritten((record.HERE / "README.md").read_text(), records, names)
    assert tables.rewritten(once, records, names) == once
