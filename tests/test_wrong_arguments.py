"""Wrong arguments in Python, as first users give them: a string for an object, a class for an object, an array, a path.

The situations are lines 31 to 34 of a new user's log: each ended in an AttributeError or a TypeError from inside.
"""

import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch.utils.data import DataLoader, TensorDataset

import condensekit as ck
from condensekit.errors import CondensekitError, ConfigError, DataError
from condensekit.nas import FullTraining, ProxyData, ProxyProtocol, Truth
from condensekit.progress import SILENT
from condensekit.replay import (
    ERACE,
    Coded,
    CondensedBuffer,
    CondensedReplay,
    DERpp,
    Distillation,
    FineTuneOnMemory,
    FromScratchOnMemory,
    Hybrid,
    Images,
    LearnerEncoder,
    Making,
    Memory,
    Online,
    Settings,
    TensorLoader,
)
from condensekit.replay.memory.fillers import Selecting
from condensekit.replay.memory.hybrid import SoftLabelled
from condensekit.report import report
from condensekit.sets.export import to_folder, to_png_grid
from condensekit.testing import shapes

DATA = shapes()
A_SET = ck.select(DATA, "random", ipc=1)
PIXELS, LABELS = torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1])
ITEMS = TensorDataset(torch.zeros(2, 1, 8, 8), LABELS)
SPEC = ck.ImageSpec((1, 8, 8), (0.5,), (0.5,))
WRONG = {
    "text": "nonsense",
    "path": Path("nonsense"),
    "number": 3,
    "fraction": 0.5,
    "nothing": None,
    "list": ["a", 1.5],
    "dict": {"a": 1},
    "array": np.zeros((2, 3)),
    "tensor": torch.zeros(2, 3),
    "module": torch.nn.Linear(2, 2),
    "class": ck.KMeans,
    "function": print,
    "loader": DataLoader(ITEMS),
    "dataset": ITEMS,
    "pictures": torchvision.datasets.FakeData(4, (1, 8, 8), 2),
    "set": A_SET,
    "data": DATA,
    "machine": ck.Machine("cpu"),
    "recipe": ck.recipes.dm(),
    "object": object(),
}
RUN = {"ipc": 1, "steps": 1}
CALLS = {
    "load root": lambda v: ck.load("nowhere", root=v),
    "load mmap": lambda v: ck.load("nowhere", mmap=v),
    "load layout": lambda v: ck.load("nowhere", layout=v),
    "load splits": lambda v: ck.load("nowhere", splits=v),
    "load progress": lambda v: ck.load("nowhere", progress=v),
    "condense data": lambda v: ck.condense(v, "dm", **RUN) if v is not DATA else None,
    "condense recipe": lambda v: ck.condense(A_SET, v, **RUN),
    "condense ipc": lambda v: ck.condense(DATA, "dm", ipc=v, steps=0),
    "condense saving": lambda v: ck.condense(DATA, "dm", ipc=1, steps=0, saving=v),
    "condense stop": lambda v: ck.condense(DATA, "dm", ipc=1, steps=0, stop=v),
    "condense progress": lambda v: ck.condense(DATA, "dm", ipc=1, steps=0, progress=v),
    "select data": lambda v: ck.select(v, "random", ipc=10**6),
    "select selection": lambda v: ck.select(DATA, v, ipc=10**6),
    "select formation": lambda v: ck.select(DATA, "random", ipc=10**6, formation=v),
    "select machine": lambda v: ck.select(DATA, "random", ipc=10**6, machine=v),
    "evaluate sets": lambda v: ck.evaluate(v, DATA, networks=0),
    "evaluate test": lambda v: ck.evaluate(A_SET, v, networks=0, against=None),
    "evaluate train": lambda v: ck.evaluate(A_SET, DATA, train=v, networks=0),
    "evaluate against": lambda v: ck.evaluate(A_SET, DATA, train=DATA, against=[v], networks=0),
    "evaluate network": lambda v: ck.evaluate(A_SET, DATA, network=v, networks=0, against=None),
    "evaluate protocol": lambda v: ck.evaluate(A_SET, DATA, protocol=v, networks=0, against=None),
    "evaluate progress": lambda v: ck.evaluate(A_SET, DATA, progress=v, networks=0, against=None),
    "data split": lambda v: DATA.split(v, seed=v),
    "data select": lambda v: DATA.select(v),
    "data subset": lambda v: DATA.subset(v),
    "data count": lambda v: DATA.count(v),
    "data gather": lambda v: DATA.gather(v),
    "data to": lambda v: DATA.to(v),
    "images": lambda v: ck.ClassImages(v, LABELS, SPEC),
    "labels": lambda v: ck.ClassImages(PIXELS, v, SPEC),
    "spec": lambda v: ck.ClassImages(PIXELS, LABELS, v),
    "array images": lambda v: ck.ClassImages.from_arrays(v, [1, 2, 3]),
    "array labels": lambda v: ck.ClassImages.from_arrays(PIXELS, v),
    "array names": lambda v: ck.ClassImages.from_arrays(PIXELS, LABELS, class_names=v, flippable=None),
    "array mean": lambda v: ck.ClassImages.from_arrays(PIXELS, LABELS, mean=v, std=0),
    "spec shape": lambda v: ck.ImageSpec(v, (0.5,), (0.5,)),
    "spec mean": lambda v: ck.ImageSpec((1, 8, 8), v, (0.5,)),
    "spec std": lambda v: ck.ImageSpec((1, 8, 8), (0.5,), v),
    "set images": lambda v: ck.CondensedSet(v, LABELS, SPEC),
    "set labels": lambda v: ck.CondensedSet(torch.zeros(2, 1, 8, 8), v, SPEC),
    "set spec": lambda v: ck.CondensedSet(torch.zeros(2, 1, 8, 8), LABELS, v),
    "set select": lambda v: A_SET.select(v),
    "set take": lambda v: A_SET.take(v),
    "set stored": lambda v: A_SET.stored_as(v),
    "set merge": lambda v: A_SET.merge(v) if v is not A_SET else None,
    "set picture": lambda v: A_SET.picture(0 if isinstance(v, int) else v),
    "set soft": lambda v: A_SET.with_soft_labels(v, v),
    "set load": lambda v: ck.CondensedSet.load(v),
    "report": lambda v: report(v, v),
    "export set": lambda v: to_folder(v, __file__),
    "export folder": lambda v: to_folder(A_SET, v if not isinstance(v, str | Path) else __file__),
    "export picture": lambda v: to_png_grid(A_SET, v if not isinstance(v, str | Path) else None),
    "encoder": lambda v: ck.Fresh(v, keep=0),
    "trained": lambda v: ck.Trained(v, count=0),
    "augmentation": lambda v: ck.Augmentation(v),
    "crop": lambda v: ck.Augmentation(crop=2 if isinstance(v, int | float) else v),
    "importance": lambda v: ck.Importance(epsilon=v, refresh=0),
    "formation": lambda v: ck.Formation(dtype=v),
    "machine": lambda v: ck.Machine(precision=v),
    "chunk": lambda v: ck.Machine(chunk=v, workers=-1),
    "width": lambda v: ck.ConvNet(v, depth=0),
    "norm": lambda v: ck.ConvNet(norm=v),
    "saving": lambda v: ck.Saving("run", resume=v),
    "every": lambda v: ck.Saving("run", every=v, minutes=-1),
    "kernel": lambda v: ck.KernelRidge(labels=v),
    "method": lambda v: ck.DistributionMatching(space=v),
    "recipe encoder": lambda v: ck.recipes.dm(encoder=v, steps_=1),
}

ONE_BY_ONE = {
    "none": None,
    "text": "nonsense",
    "bool": True,
    "minus one": -1,
    "zero": 0,
    "nan": math.nan,
    "inf": math.inf,
    "fraction": 1.5,
    "empty list": [],
    "object": object(),
    "class": ck.KMeans,
    "dict": {"a": 1},
    "tensor": torch.zeros(2, 3),
    "data": DATA,
    "module": torch.nn.Linear(2, 2),
    "function": lambda a, b: None,
}
NET = torch.nn.Linear(64, 10)
PIECES = {"model": NET, "optimizer": torch.optim.SGD(NET.parameters(), 0.1), "train_mb_size": 8}
REAL = Selecting(ck.Random())
SHORT = ck.catalog.protocol("short")


def buffer(**given):
    return CondensedBuffer(**{"budget": Images(20), "recipe": "random", **given})


STRATEGY = {**PIECES, "storage_policy": buffer()}
SEED = "minus one, zero"
BATCHES = "none, module"
KEPT = {
    "classes": "none",
    "steps": "none",
    "seed": SEED,
    "storage": "none",
    "spec": "none",
    "out": "none, text",
    "progress": "none",
    "cache": "none, dict",
}
CONSTRUCTORS: dict[Any, tuple[dict[str, Any], dict[str, str]]] = {
    FullTraining: ({"train": DATA, "test": DATA, "protocol": ProxyProtocol()}, {"train": "data", "test": "data"}),
    ProxyData: ({"train": DATA, "test": DATA}, {"train": "data", "test": "data", "statistics": "none, data"}),
    ProxyProtocol: (
        {},
        {
            "lr": "fraction",
            "augmentation": "none",
            "momentum": "zero",
            "nesterov": "bool",
            "weight_decay": "zero, fraction",
            "steps": "none",
        },
    ),
    Truth: ({"name": "table", "values": {}}, {"name": "text", "cost_s": "dict", "image_steps": "dict"}),
    Coded: ({"images": REAL}, {}),
    Hybrid: ({"recipe": ck.recipes.dm()}, {"share": "zero"}),
    SoftLabelled: ({"images": REAL}, {}),
    Selecting: ({"selection": ck.Random()}, {}),
    Memory: (
        {"budget": Images(20), "recipe": "random"},
        KEPT,
    ),
    CondensedBuffer: (
        {"budget": Images(20), "recipe": "random"},
        {**KEPT, "transforms": "none, module, function"},
    ),
    CondensedReplay: (
        STRATEGY,
        {
            "model": "module",
            "criterion": "none, module, function",
            "batch_size_mem": "none",
            "learner_encoder": "bool",
            "augmentation": BATCHES,
            "distillation": "zero, fraction",
            "fine_tune": "none",
            "seed": SEED,
            "plugins": "none, empty list",
        },
    ),
    ERACE: (STRATEGY, {"model": "module", "augmentation": BATCHES, "seed": SEED, "plugins": "none, empty list"}),
    DERpp: (
        {**STRATEGY, "alpha": 0.1, "beta": 0.5},
        {
            "model": "module",
            "batch_size_mem": "none",
            "learner_encoder": "bool",
            "augmentation": BATCHES,
            "seed": SEED,
            "plugins": "none, empty list",
            "alpha": "zero, fraction",
            "beta": "zero, fraction",
        },
    ),
    TensorLoader: ({}, {"augmentation": BATCHES, "seed": SEED}),
    FromScratchOnMemory: ({"storage_policy": buffer(), "protocol": SHORT}, {"network": "none", "seed": SEED}),
    FineTuneOnMemory: ({"storage_policy": buffer(), "protocol": SHORT}, {"seed": SEED}),
    Distillation: ({}, {"weight": "fraction", "temperature": "fraction"}),
    LearnerEncoder: ({}, {"interpolate": "bool"}),
    Online: (
        {},
        {
            "lr": "fraction",
            "momentum": "zero",
            "weight_decay": "zero, fraction",
            "learner_encoder": "bool",
            "distillation": "zero, fraction",
            "fine_tune": "zero",
        },
    ),
    Settings: ({}, {"first_order": "zero", "seeds": "none", "seed": SEED}),
    Making: ({}, {"steps": "none", "options": "dict"}),
}
"""By class: arguments that work, and by argument the values of ONE_BY_ONE that are right."""
ARGUMENTS = [
    pytest.param(made, name, id=f"{made.__name__} {name}")
    for made, (working, _) in CONSTRUCTORS.items()
    for name in dict.fromkeys([*inspect.signature(made).parameters, *working])
    if name != "kwargs"
]


def outcome(call, value):
    """The text of our error, empty if the call works; another error is raised."""
    try:
        call(value)
    except CondensekitError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_wrong_argument_is_one_line(call):
    """Every value is wrong here, or another argument is; nothing but our own errors leaves a call."""
    for name, value in WRONG.items():
        told = outcome(call, value)
        assert len(told) < 800, (name, told)
        assert "\n" not in told, (name, told)


@pytest.mark.parametrize(("made", "name"), ARGUMENTS)
def test_each_wrong_argument_is_refused_when_it_is_given(made, name):
    """No wrong value is taken in silence to fail later; the error tells the value."""
    working, right = CONSTRUCTORS[made]
    for kind, value in ONE_BY_ONE.items():
        if kind in right.get(name, "").split(", "):
            made(**{**working, name: value})
            continue
        with pytest.raises((ConfigError, DataError)) as caught:
            made(**{**working, name: value})
        told = str(caught.value)
        assert "unknown " in told or (name in told and "got " in told), (kind, told)
        assert len(told) < 800, (kind, told)
        assert "\n" not in told, (kind, told)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"values": {"a": 71.5}}, "values\\['a'\\] must be a tuple of percents, got 71.5 .float.: pass .*71.5,"),
        ({"values": {"a": ()}}, "must be a tuple of percents, got \\(\\)"),
        ({"values": {"a": (math.nan,)}}, "must be a tuple of percents, got .nan,"),
        ({"values": {"a": (101,)}}, "must be a tuple of percents, got .101,"),
        ({"values": {3: (71.5,)}}, "values must have texts as keys, got 3"),
        ({"values": {"a": (1, 2), "b": (1,)}}, "values have .1, 2. measurements"),
        ({"cost_s": {"a": -1}}, "cost_s.*must be seconds of at least 0, got -1"),
    ],
)
def test_the_entries_of_a_truth_are_checked(given, told):
    with pytest.raises(ConfigError, match=told):
        Truth(**{"name": "table", "values": {}, **given})


@pytest.mark.parametrize("made", [CondensedReplay, ERACE, DERpp])
def test_a_plugin_is_an_object_of_avalanche(made):
    """Avalanche calls what a plugin has, and ignores an object that has nothing."""
    for wrong in ("nonsense", Distillation, 3):
        with pytest.raises(ConfigError, match="plugins must be plugins of Avalanche, got "):
            made(**STRATEGY, plugins=[wrong])


def test_images_of_another_shape_are_told_before_the_training():
    small = ck.ClassImages(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), LABELS, ck.ImageSpec((1, 4, 4), (0.5,), (0.5,)))
    with pytest.raises(DataError, match="'the training images' and the test images differ in shape"):
        FullTraining(DATA, small, ProxyProtocol())


def test_what_can_work_works():
    """Values of other libraries that mean the same thing are taken."""
    assert DATA.select(np.array([0, 7])).classes == DATA.select(torch.tensor([0, 7])).classes == (0, 7)
    assert A_SET.select(range(0, 8, 7)).classes == (0, 7)
    assert len(DATA.split(np.float32(0.2), np.int64(0))[1]) == len(DATA.split(np.float64(np.float32(0.2)), 0)[1])
    assert ck.Saving("run").out == Path("run")
    assert len(ck.load((np.zeros((10, 8, 8)), [0, 1] * 5), progress=SILENT)[0]) == 8


def test_a_set_is_saved_with_an_ending_and_not_over_another(tmp_path):
    path = A_SET.save(tmp_path / "scene")
    assert path == tmp_path / "scene.safetensors"
    assert ck.CondensedSet.load(tmp_path / "scene").nbytes == A_SET.nbytes
    with pytest.raises(CondensekitError, match="pass overwrite=True to replace it, or choose another name"):
        A_SET.save(str(tmp_path / "scene"))
    assert A_SET.save(tmp_path / "scene", overwrite=True) == path
