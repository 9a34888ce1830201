"""Ranks that die at each stage; prints a JSON object with their exit codes, and whether others end their work.

python -m tests.ranks.stages FOLDER

The ranks are forked from this process, which has imported everything, and no torchrun ends the ranks that are left.
"""

import importlib
import json
import os
import socket
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import torch

import condensekit as ck
from condensekit.errors import RankError
from condensekit.methods.preparation import Preparation
from condensekit.progress import SILENT
from condensekit.ranks import launched
from condensekit.replay.study import from_scratch
from condensekit.replay.study.results import FILE
from condensekit.replay.study.runner import run_protocol
from condensekit.runs import folder as run_folder
from condensekit.runs.files import read_json
from condensekit.testing import shapes
from condensekit.training import evaluation, networks
from condensekit.training.train import SHORT
from tests.faults.kill_child import arm
from tests.ranks import child
from tests.ranks.child import MACHINE, RECIPES, cells, made
from tests.replay.runs import PLAIN, SMALL

LATE = ("torch._dynamo", "sklearn.cluster", "scipy.stats", "matplotlib.pyplot")  # which each rank would import
TIMES = ("_s", "_s_per_experience", "peak_mib", "environment")
CONDENSE = {
    "encoders": (1, networks, "train_network", 1),
    "first images": (0, Preparation, "_images", 1),
    "step": (1, ck.DistributionMatching, "step", 3),
    "checkpoint": (0, run_folder, "save_tensors", 2),
}  # the rank that dies, and the call before which it dies
SHARE = {
    "evaluate": (1, evaluation, "train_network", 1),
    "replay": (1, from_scratch, "train_network", 2),
    "replay, rank 0": (0, from_scratch, "train_network", 2),
}


def condense(folder):
    """A run with all stages, or what is left of it."""
    os.environ["CONDENSEKIT_CACHE"] = f"{folder}-cache"  # whose encoders are trained anew
    saving = ck.Saving(folder, resume=True, every=2)
    made(shapes(), RECIPES["trained"], steps=6, saving=saving)


def evaluate(folder):
    """Four networks."""
    train, test = shapes().split(0.5)
    chosen = {name: ck.select(train, name, ipc=1) for name in ("random", "kmeans")}
    given = {"network": "ConvNet-w8-d1", "networks": 2, "protocol": replace(SHORT, steps=30), "against": None}
    return ck.evaluate(chosen, test, **given, machine=MACHINE, progress=SILENT, out=folder)


def replay(folder):
    """Two memories in two orders, four trainings each."""
    settings = replace(SMALL, experiences=2, orders=2, networks=2, protocol=replace(SHORT, steps=2))
    making = replace(PLAIN, machine=MACHINE, options={"batch_real": 8, "encoder_network": "ConvNet-w8-d1"})
    train, test = shapes().split(0.5)
    return run_protocol(
        train, test, memories=["dm", "random"], out=folder, settings=settings, making=making, resume=True
    )


def forked(count, work, dies=None):
    """Exit codes of ranks that call ``work``; with one, there are no ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for number in range(count):
        process = os.fork()
        if process == 0:
            told = {"RANK": number, "WORLD_SIZE": count, "LOCAL_RANK": number, "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in told.items()}, MASTER_ADDR="127.0.0.1")
            if dies and dies[0] == launched().number:
                arm(dies[1], dies[2], True, dies[3])
            try:
                work()
                os._exit(0)
            except RankError as error:
                os._exit(error.exit_code)
            except BaseException:
                traceback.print_exc()
                os._exit(99)
        children.append(process)
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in children]


def benchmark(folder):
    """Cells of a benchmark, of which rank 1 dies in its first: how often each began, and how many are there."""
    codes = forked(2, lambda: cells(folder), (1, child, "busy", 1))
    log = (folder / "log.txt").read_text().split()
    return [*codes, log.count("begins"), log.count("ends"), len(list(folder.glob("*.json")))]


def figures(record):
    """A result without times."""
    if isinstance(record, dict):
        return {name: figures(value) for name, value in record.items() if not name.endswith(TIMES)}
    return [figures(value) for value in record] if isinstance(record, list) else record


def main(folder):
    """All stages."""
    found = {"whole": forked(1, lambda: (condense(folder / "whole"), evaluate(folder), replay(folder / "study")))}
    images = ck.CondensedSet.load(folder / "whole" / "set.safetensors").images
    for number, (stage, dies) in enumerate(CONDENSE.items()):
        run = folder / f"condense-{number}"
        codes = forked(2, lambda run=run: condense(run), dies)
        resumed = forked(1, lambda run=run: condense(run))
        same = torch.equal(ck.CondensedSet.load(run / "set.safetensors").images, images)
        found[stage] = [*codes, *resumed, same]
    wholes = {"evaluate": (evaluate, folder / evaluation.FILE), "replay": (replay, folder / "study" / FILE)}
    for number, (stage, dies) in enumerate(SHARE.items()):
        run = folder / f"share-{number}"
        work, whole = wholes[stage.partition(",")[0]]
        codes = forked(2, lambda run=run, work=work: work(run), dies)
        written = (run / whole.name).exists()
        resumed = forked(1, lambda run=run, work=work: work(run))
        same = figures(read_json(run / whole.name)) == figures(read_json(whole))
        found[stage] = [*codes, written, *resumed, same, len(list(run.rglob("cells/**/*.lock")))]
    return {**found, "benchmark": benchmark(folder / "benchmark")}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in LATE:
        importlib.import_module(name)
    print(json.dumps(main(Path(sys.argv[1]))))
