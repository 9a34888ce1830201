"""A memory of your own: what is stored of each class; budget, files and replay stay as they are.

python examples/own_memory.py
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

import condensekit as ck
from condensekit.data.images import ClassImages
from condensekit.replay import Images, Memory
from condensekit.replay.memory.base import Filler, Job
from condensekit.rng import Draw
from condensekit.selection.base import stored_each
from condensekit.sets.condensed import CondensedSet


@dataclass(frozen=True)
class Averages(Filler):
    """Stores the means of random groups of images."""

    formation: ck.Formation = ck.Formation()  # noqa: RUF009 - frozen
    name: ClassVar[str] = "averages"

    def fill(self, data: ClassImages, ipc: int, job: Job) -> CondensedSet:
        """The stored images of each class of one experience; all randomness comes from the seed of the job."""
        images, labels = [], []
        for label, count in stored_each(data, ipc).items():  # a small class stores what it has
            own = data.indices_of(label)
            rows = own[Draw(job.seed).permutation(f"averages/{label}", len(own))]
            images += [data.gather(part).mean(0) for part in rows.tensor_split(count)]
            labels += [label] * count
        return CondensedSet.from_images(torch.stack(images), torch.tensor(labels), data.spec, formation=self.formation)


def main() -> None:
    """Fill three memories with the digits, two classes at a time, and judge what they hold."""
    train, test = ck.load("digits")
    stored = {}
    for filler in (Averages(), "random"):
        memory = Memory(Images(20), filler, classes=10, spec=train.spec)
        for first in range(0, 10, 2):
            now = train.select([first, first + 1])
            memory.observe(now.gather(now.order), now.labels[now.order])
        print(memory)
        stored[memory.rules.filler.name] = memory.stored
    print(ck.evaluate(stored, test, against=None, network="ConvNet-w32", networks=1))
    # The same object is the memory of a stream of Avalanche: CondensedBuffer(Images(20), Averages(), classes=10)


if __name__ == "__main__":
    main()
