"""A strategy that trains with checkpoints and folders; driven by test_killed.py.

    python -m tests.replay.killed FOLDER STEP

At matching step STEP (0: never) it kills itself with SIGKILL. Started again it goes on.
"""

import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import torch
from avalanche.checkpointing import maybe_load_checkpoint, save_checkpoint
from avalanche.training.determinism.rng_manager import RNGManager

from condensekit.progress import Progress, Stage
from condensekit.replay import CondensedBuffer, Images
from tests.replay.worlds import accuracy, buffer, network, replaying, stream


class Ending(Progress):
    """Ends the process at a matching step, counted over all experiences."""

    def __init__(self, at):
        self.at, self.steps = at, 0

    @contextmanager
    def stage(self, name, total, done=0):
        yield _Counting(self) if name.startswith("condense") else Stage()


class _Counting(Stage):
    def __init__(self, owner):
        self.owner = owner

    def advance(self, steps=1, values=None):
        self.owner.steps += 1
        if self.owner.steps == self.owner.at:
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder, step):
    """Train on what is left; returns the memory, the accuracy and the matching steps this took."""
    torch.set_num_threads(1)
    bar = Ending(step)
    memory = buffer(Images(12), steps=110, out=folder / "condense", progress=bar)
    strategy, benchmark = replaying(memory, model=network(), epochs=2), stream()
    if not (folder / "checkpoint").exists():
        RNGManager.set_random_seeds(0)
    strategy, start = maybe_load_checkpoint(strategy, folder / "checkpoint")
    memory = CondensedBuffer.of(strategy)
    memory.core.rules.job.__dict__["progress"] = bar
    for experience in benchmark.train_stream[start:]:
        strategy.train(experience)
        save_checkpoint(strategy, folder / "checkpoint")
    return memory.memory, accuracy(strategy, benchmark), bar.steps


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
