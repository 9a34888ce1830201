"""A run that kills itself with SIGKILL at a named point; driven by test_kill.py.

    python kill_child.py RUN METHOD POINT OCCURRENCE

POINT is one of: before-temporary, mid-write, before-rename, after-rename, mid-step, never.
"""

import os
import signal
import sys
from pathlib import Path

import torch

from condensekit.compute import Machine
from condensekit.driver import Saving, condense
from condensekit.methods import DistributionMatching, GradientMatching
from condensekit.methods.encoders import Fresh
from condensekit.methods.recipe import Recipe
from condensekit.networks.convnet import ConvNet
from condensekit.runs import folder as run
from condensekit.selection.base import Noise
from condensekit.testing import shapes

METHODS = {
    "dm": lambda: DistributionMatching(batch_real=4),
    "dsa": lambda: GradientMatching(batch_real=4, outer=3, inner=2),
}
STEPS = 200


def arm(owner, name, before, occurrence):
    """Wrap ``owner.name`` so that its n-th call kills this process, before or after it has done its work."""
    real, left = getattr(owner, name), [occurrence]

    def call(*args, **kwargs):
        left[0] -= 1
        result = None if before and left[0] == 0 else real(*args, **kwargs)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, call)


def main():
    folder, method, point, occurrence = sys.argv[1:]
    torch.set_num_threads(1)
    made = METHODS[method]()
    points = {
        "before-temporary": (run, "save_tensors", True),
        "mid-write": (os, "fsync", True),
        "before-rename": (os, "replace", True),
        "after-rename": (os, "replace", False),
        "mid-step": (type(made), "step", True),
    }
    if point != "never":
        arm(*points[point], int(occurrence))
    recipe = Recipe(made, Fresh(ConvNet(width=8)), init=Noise())
    saving = Saving(Path(folder), resume=True, every=10)
    condense(shapes(), recipe, ipc=2, steps=STEPS, machine=Machine("cpu", workers=1), saving=saving)


if __name__ == "__main__":
    main()
