"""What the processes of torchrun do in the tests; rank 0 prints one JSON object.

torchrun --standalone --nproc-per-node N -m tests.ranks.child CASE FOLDER
"""

import json
import math
import os
import signal
import sys
import time
from argparse import Namespace
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

import condensekit as ck
from benchmarks.record import fill
from condensekit.errors import ConfigError
from condensekit.methods.base import keep_if
from condensekit.progress import SILENT
from condensekit.ranks import alone, joined, launched
from condensekit.testing import shapes
from condensekit.training.train import SHORT
from tests.replay.runs import PLAIN, go
from tests.replay.runs import SMALL as STUDY

SMALL = "batch_real=8 encoder_network=ConvNet-w8-d1"
RECIPES = {
    "dm": f"dm {SMALL}",
    "m3d": f"m3d {SMALL} init=kmeans sampling=importance schedule=cosine average=0.5",
    "trained": f"dm {SMALL} encoder=trained encoder.steps=2 encoder.count=2 calibration=0.1",
    "turns": f"dm {SMALL} classes_per_step=3 nested=True",  # a rank may have no class of a step
    "dsa": f"dsa {SMALL} outer=2 inner=1",
    "ncfm": f"ncfm {SMALL} encoder.steps=2 encoder.count=2 discrepancy=characteristic-64 schedule.patience=0",
    "adamw turns": f"dm {SMALL} classes_per_step=3 optimiser=adamw schedule=plateau schedule.patience=0 average=1",
}
MACHINE = ck.Machine("cpu", workers=1)


@dataclass(frozen=True)
class Bad(ck.DistributionMatching):
    """DM that is not finite for the last class in the first attempt of step 2, and in both attempts of step 4."""

    batch_real: int = 4

    def step(self, state, ctx):
        new, metrics = super().step(state, ctx)
        bad = 42 in ctx.data.classes and (ctx.draw.step, ctx.draw.attempt) in ((2, 0), (4, 0), (4, 1))
        finite = metrics["finite"] & (not bad)
        return keep_if(finite, new, state), {**metrics, "finite": finite}


@dataclass(frozen=True)
class Dying(ck.DistributionMatching):
    """DM whose rank 1 is killed in step 5."""

    batch_real: int = 4

    def step(self, state, ctx):
        if ctx.draw.step == 5 and launched().number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(state, ctx)


def made(data, recipe, **options):
    """A short run."""
    return ck.condense(data, recipe, **{"ipc": 2, "steps": 4, **options}, machine=MACHINE, progress=SILENT)


def same(one, other):
    """Whether two runs have the same images, bit for bit, and the same metrics up to rounding."""
    rows = list(zip(one.history, other.history, strict=True))
    return (
        torch.equal(one.set.images, other.set.images)
        and one.status == other.status
        and all(a["attempt"] == b["attempt"] for a, b in rows)
        and all(math.isclose(a[name], b[name], rel_tol=1e-5) for a, b in rows for name in ("loss", "gradient_norm"))
    )


def equal(folder):
    """Each recipe on all ranks, and on one."""
    digits, _ = ck.load("digits", progress=SILENT)
    uneven = digits.subset(torch.cat([digits.order[:1], digits.order[200:]]))  # the first class has one image
    runs: dict[str, tuple[ck.ClassImages, object]] = {name: (digits, recipe) for name, recipe in RECIPES.items()}
    runs |= {"uneven": (uneven, RECIPES["dm"]), "bad": (shapes(), Bad())}
    found = {}
    for name, (data, recipe) in runs.items():
        together = made(data, recipe)
        with alone():
            single = made(data, recipe)
        found[name] = same(together, single)
        if name not in (
            "dsa",
            "m3d",
            "turns",
            "adamw turns",
        ):  # whose network, scorer or idle step is that of each rank
            found[f"{name} work"] = together.work == single.work
        found[f"{name} attempts"] = [row["attempt"] for row in together.history]
    return {**found, "ranks": together.set.provenance["ranks"], "status": together.status.value}


def resume(folder):
    """Runs that are stopped, and go on with another number of ranks."""
    found = {}
    whole = made(shapes(), RECIPES["m3d"], steps=6)
    for name, shared in (("fewer", (True, False)), ("more", (False, True))):
        for part, together in enumerate(shared):
            options: dict[str, object] = {
                "saving": ck.Saving(folder / name, resume=part > 0, every=2, snapshot_every=2),
                "steps": 6,
            }
            left = iter(range(2 if part == 0 else 99))
            options["stop"] = lambda left=left: next(left, None) is None
            if together:
                last = made(shapes(), RECIPES["m3d"], **options)
            elif launched().first:
                with alone():
                    last = made(shapes(), RECIPES["m3d"], **options)
            with joined() as ranks:
                ranks.arrive()
        found[name] = torch.equal(last.set.images, whole.set.images), last.status.value
    return found


def refuse(folder):
    """What ranks refuse before any step, with one text for all."""
    number, data, few = launched().number, shapes(), shapes().select([0])
    other = data.subset(data.order[number:])
    norm = "dm encoder_network=ConvNet-w8-d1-batch"
    (folder / "used").mkdir(exist_ok=True)
    (folder / "used" / "mine.txt").touch()
    runs = {
        "options": lambda: made(data, RECIPES["dm"], steps=2 + number),
        "saving": lambda: made(data, RECIPES["dm"], saving=ck.Saving(folder / "a", every=1 + number)),
        "data": lambda: made(other, RECIPES["dm"], ipc=1),
        "classes": lambda: made(few, RECIPES["dm"], ipc=1),
        "krr": lambda: made(data, "krr encoder_network=ConvNet-w8-d1"),
        "norm": lambda: made(data, norm),
        "folder": lambda: made(data, RECIPES["dm"], saving=folder / "used"),
    }
    found = {}
    for name, run in runs.items():
        try:
            run()
        except ConfigError as error:
            with joined() as ranks:
                found[name] = sorted(set(ranks.objects(str(error))))
    return found


@dataclass(frozen=True)
class Fake:
    """A cell of no benchmark; the last three have a run in common."""

    kind: ClassVar[str] = "fake"
    number: int
    data: str = "digits"

    @property
    def stem(self):
        return f"cell-{self.number}"

    @property
    def lock(self):
        return f"cell-{min(self.number, 3)}"


def busy():
    """The work of a fake cell."""
    time.sleep(0.3)


def cells(folder):
    """Fill a table of fake cells with the other processes."""
    folder.mkdir(exist_ok=True)

    def measure(cell, train, test, args):
        for word, work in (("begins", busy), ("ends", lambda: None)):
            with (folder / "log.txt").open("a") as file:
                file.write(f"{cell.stem} {word}\n")
            work()
        assert not launched().several
        return {"fake": asdict(cell), "images": len(train), "wall_s": 0.0, "by": os.getpid()}

    names = {"results": folder, "only": "", "list": False, "device": "cpu"}
    args = Namespace(**names, data_root=None, download=False, trust_local_copy=False)
    fill([Fake(number) for number in range(6)], args, measure, lambda record: 1.0)


def replay(folder):
    """A study on all ranks and on one; what a study refuses; and a table of fake cells."""
    digits = ck.load("digits", progress=SILENT)
    settings = replace(STUDY, experiences=2, protocol=replace(SHORT, steps=10))
    making = replace(PLAIN, machine=MACHINE, options={"batch_real": 8, "encoder_network": "ConvNet-w8"})
    terms = {"settings": settings, "making": making, "regimes": ["from-scratch", "er"]}
    shared = go(digits, folder / "shared", **terms)
    found = {}
    for name in ("ipc", "orders"):
        other = replace(settings, **{name: 1 + launched().number})
        try:
            go(digits, folder / name, settings=other, making=making)
        except ConfigError as error:
            with joined() as ranks:
                found[name] = [*sorted(set(ranks.objects(str(error)))), (folder / name).exists()]
    cells(folder / "cells")
    with joined() as ranks:
        results = ranks.objects(shared.accuracy_by_experience)
    if not launched().first:
        return {}
    with alone():
        once = go(digits, folder / "once", **terms)
    return {**found, "equal": [result == once.accuracy_by_experience for result in results], "rows": len(shared.rows)}


def die(folder):
    """A run whose rank 1 is killed: while data are read, and after a restart in a step."""
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and launched().number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    made(shapes(), Dying(), steps=6, saving=ck.Saving(folder / "run", every=2))
    return {}


if __name__ == "__main__":
    torch.set_num_threads(1)
    cases = {"equal": equal, "resume": resume, "refuse": refuse, "die": die, "replay": replay}
    result = cases[sys.argv[1]](Path(sys.argv[2]))
    if launched().first:
        print(json.dumps(result))
