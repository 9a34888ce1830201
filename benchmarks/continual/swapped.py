"""Where a difference between two memories of real pictures comes from: the choice of images, or the buffer.

    python benchmarks/continual/swapped.py --seeds 500 560 --out benchmarks/results/swapped.jsonl

The class-incremental pictures of ``streams.py``, with four memories of equal size: Avalanche's ``ClassBalancedBuffer``;
our ``random`` in a ``CondensedBuffer``; Avalanche's buffer with the images that our ``random`` chooses; and our buffer
with images from another generator. A line of the file has a seed, a memory and the accuracy of former tasks on test
images.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from avalanche.training.storage_policy import ClassBalancedBuffer, ReservoirSamplingBuffer

from benchmarks.continual import streams
from benchmarks.record import parser, start
from condensekit.compute import Compute
from condensekit.data import datasets
from condensekit.data.images import ClassImages
from condensekit.replay import CondensedBuffer, Images
from condensekit.rng import Draw
from condensekit.selection.base import Chosen
from condensekit.stats import paired_interval

KIND = streams.KINDS["digits-pictures"]
STOCK = "ClassBalancedBuffer"
OURS, CHOICE, BUFFER = "random", "ClassBalancedBuffer with our choice", "CondensedBuffer with another choice"


class OurChoice(ClassBalancedBuffer):  # type: ignore[misc]
    """Avalanche's buffer, whose images are those that the selection ``random`` chooses; each class comes once."""

    def __init__(self, size: int, seed: int) -> None:
        super().__init__(size)
        self.draw = Draw(seed)

    def update_from_dataset(self, new_data: Any, strategy: Any = None) -> None:
        """Store an experience."""
        targets = torch.tensor([int(label) for label in new_data.targets])
        for label in dict.fromkeys(targets.tolist()):
            rows = torch.nonzero(targets == label).flatten()
            group = ReservoirSamplingBuffer(len(rows))
            group.buffer = new_data.subset(rows[self.draw.permutation(f"random/{label}", len(rows))])
            self.buffer_groups[label] = group
            self.seen_classes.add(label)
        sizes = dict(zip(self.seen_classes, self.get_group_lengths(len(self.seen_classes)), strict=True))
        for label, group in self.buffer_groups.items():
            group.resize(strategy, sizes[label])


def another(seed: int) -> Callable[[ClassImages, int, Draw, Compute], Chosen]:
    """A random choice by torch's generator."""
    generator = torch.Generator().manual_seed(7_000_003 * seed + 11)

    def choose(data: ClassImages, ipc: int, draw: Draw, compute: Compute) -> Chosen:
        every = [data.indices_of(label) for label in data.classes]
        return Chosen(torch.cat([rows[torch.randperm(len(rows), generator=generator)[:ipc]] for rows in every]))

    return choose


streams.MEMORIES |= {
    CHOICE: lambda kind, seed: OurChoice(kind.memory, seed),
    BUFFER: lambda kind, seed: CondensedBuffer(Images(kind.memory), another(seed), seed=seed),
}


def main() -> None:
    """Measure the seeds that FILE lacks, and print the differences."""
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, nargs=2, required=True, metavar=("FIRST", "END"))
    options.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl")
    args = options.parse_args()
    train, test = datasets.load(KIND.data)
    lines = args.out.read_text().splitlines() if args.out.exists() else []
    found = {(seed, memory): accuracy for seed, memory, accuracy in map(json.loads, lines)}
    seeds, memories = range(*args.seeds), (STOCK, OURS, CHOICE, BUFFER)
    with args.out.open("a") as file:
        for key in [(seed, memory) for seed in seeds for memory in memories if (seed, memory) not in found]:
            found[key] = streams.former(KIND, key[1], train, test, key[0])
            print(json.dumps([*key, found[key]]), file=file, flush=True)
    stock = [[found[seed, STOCK]] for seed in seeds]
    for memory in memories[1:]:
        mean, interval, _ = paired_interval([[found[seed, memory]] for seed in seeds], stock)
        low, high = interval or (mean, mean)
        print(f"{memory} above {STOCK}: {100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}], {len(seeds)} seeds")


if __name__ == "__main__":
    start(main)
