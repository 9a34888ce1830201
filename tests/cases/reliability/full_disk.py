"""Commands on a full disk, for which a limit on the size of files stands; driven by test_full_disk.py.

    python -m tests.cases.reliability.full_disk condense OUT
    python -m tests.cases.reliability.full_disk evaluate RUN
    python -m tests.cases.reliability.full_disk resume COMMAND ...

The last line of standard output is a JSON object of what was found.
"""

import json
import resource
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

from torch.optim.optimizer import register_optimizer_step_post_hook

from condensekit.cli import main
from condensekit.data import datasets
from condensekit.driver import Saving, condense
from condensekit.errors import StoreError
from condensekit.methods import DistributionMatching
from condensekit.methods.encoders import Fresh
from condensekit.methods.recipe import Recipe
from condensekit.networks.convnet import ConvNet
from tests.cases.command import EVALUATE


@contextmanager
def full(room):
    """No file grows beyond ``room`` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def learn(out, resume):
    """200 steps, whose rows in metrics.csv are more than there is room for."""
    train, _ = datasets.load("digits")
    recipe = Recipe(DistributionMatching(batch_real=4), encoder=Fresh(ConvNet(width=8, depth=1)))
    return condense(train, recipe, ipc=1, steps=200, saving=Saving(Path(out), resume=resume))


def condensing(out):
    """How the run fails, and how it goes on when there is room again."""
    failure = None
    try:
        with full(3000):
            learn(out, False)
    except (OSError, StoreError) as error:
        failure = error
    try:
        steps = learn(out, True).set.provenance["steps"]
    except Exception as error:
        steps = str(error)
    kept = getattr(failure, "result", None) is not None
    return {"failure": repr(failure), "ours": isinstance(failure, StoreError), "kept": kept, "steps": steps}


def evaluating(run):
    """The exit code and the steps of training; the table comes on standard output."""
    steps = []
    register_optimizer_step_post_hook(lambda *_: steps.append(1))
    try:
        with full(0):
            main([*EVALUATE, run])
    except SystemExit as end:
        return {"code": end.code, "steps": len(steps)}


def resuming(*words):
    """The exit code of a command that has room for its small files alone, not for that of its result."""
    try:
        with full(1300):
            main([*words, "--resume"])
    except SystemExit as end:
        return {"code": end.code}


if __name__ == "__main__":
    doing = {"condense": condensing, "evaluate": evaluating, "resume": resuming}
    print(json.dumps(doing[sys.argv[1]](*sys.argv[2:])))
