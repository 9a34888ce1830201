"""Wrong arguments in Python, as first users give them: a string for an object, a class for an object, an array, a path.

The situations are lines 31 to 34 of a new user's log: each ended in an AttributeError or a TypeError from inside.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch.utils.data import DataLoader, TensorDataset

import condensekit as ck
from condensekit.errors import CondensekitError
from condensekit.progress import SILENT
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
