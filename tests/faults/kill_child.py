"""A run that kills itself with SIGKILL at a named point; driven by test_kill.py.

    python kill_child.py RUN METHOD POINT OCCURRENCE

POINT is one of: before-temporary, mid-write, before-rename, after-rename, mid-step, never.
"""

import os
import signal
import sys
from pathlib import Path

import torch

from condensekit.condense import Noise, Saving, condense
from condensekit.encoders import Fresh
from condensekit.methods import DistributionMatching
from condensekit.networks import ConvNet
from condensekit.testing import shapes

METHODS = {"dm": lambda: DistributionMatching(batch_real=4)}
ITERATIONS = 200


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point, occurrence):
    """Wrap the system call of ``point`` so that its n-th use kills the process."""
    left = [occurrence]

    def due():
        left[0] -= 1
        return left[0] == 0

    def wrap(name, before):
        real = getattr(os, name)

        def call(*args, **kwargs):
            if before and due():
                die()
            result = real(*args, **kwargs)
            if not before and due():
                die()
            return result

        setattr(os, name, call)

    if point in ("before-rename", "after-rename"):
        wrap("replace", point == "before-rename")
    elif point == "mid-write":
        wrap("fsync", True)
    elif point == "before-temporary":
        import condensekit.store as store

        real = store.save_tensors

        def save(*args, **kwargs):
            if due():
                die()
            return real(*args, **kwargs)

        store.save_tensors = save
        import condensekit.run as run

        run.save_tensors = save
    elif point == "mid-step":
        real_step = DistributionMatching.step

        def step(self, state, ctx):
            if due():
                die()
            return real_step(self, state, ctx)

        DistributionMatching.step = step


def main():
    folder, method, point, occurrence = sys.argv[1:]
    torch.set_num_threads(1)
    arm(point, int(occurrence))
    condense(
        shapes(),
        METHODS[method](),
        ipc=2,
        iterations=ITERATIONS,
        init=Noise(),
        encoder=Fresh(ConvNet(width=8)),
        workers=1,
        saving=Saving(Path(folder), resume=True, every=10),
    )


if __name__ == "__main__":
    main()
