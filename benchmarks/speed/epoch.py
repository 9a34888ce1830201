"""Time of one training epoch on a set compared with the public code, in turn in one process.

    python benchmarks/speed/epoch.py --reference PATH --ipc 10 --pairs 5 --out FILE

Both train ConvNet-3 on the same random images with SGD, batches of 256 and DSA augmentation. ``ratio`` is the time of
the public code's epochs divided by that of ours, for each pair of trainings of ``--epochs`` epochs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor

from benchmarks.record import Record, parser, start, write
from benchmarks.speed.public_dm import PublicDM
from condensekit.compute import PRECISIONS, Compute, Machine
from condensekit.networks.convnet import ConvNet
from condensekit.rng import Draw
from condensekit.training.train import DC, train_network

CLASSES, SIZE = 10, 32


def ours(images: Tensor, labels: Tensor, epochs: int, compute: Compute) -> float:
    """Seconds of our epochs."""
    began = time.perf_counter()
    train_network(images, labels, ConvNet(), replace(DC, epochs=epochs), Draw(0), compute, CLASSES)
    return time.perf_counter() - began


def measure(reference: Path, ipc: int, epochs: int, pairs: int, machine: Machine) -> Record:
    """Row of the table."""
    public = PublicDM(reference)
    images = torch.randn(CLASSES * ipc, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(CLASSES).repeat_interleave(ipc)
    theirs, mine = [], []
    threads = torch.get_num_threads()
    with Compute(machine, (SIZE, SIZE)) as compute:
        ours(images, labels, 1, compute)  # compiles
        for _ in range(pairs + 1):
            torch.set_num_threads(threads)
            theirs.append(public.train(images, labels, epochs, DC.lr))
            mine.append(ours(images, labels, epochs, compute))
    ratios = [a / b for a, b in zip(theirs[1:], mine[1:], strict=True)]
    return {
        "precision": machine.precision,
        "ipc": ipc,
        "epoch_ratio_min": min(ratios),
        "epoch_ratio_median": statistics.median(ratios),
        "epoch_ratio_max": max(ratios),
        "reference_epoch_s": statistics.median(theirs[1:]) / epochs,
        "ours_epoch_s": statistics.median(mine[1:]) / epochs,
    }


def main() -> None:
    """Measure the given precisions and write the rows."""
    options = parser(__doc__)
    options.add_argument("--reference", type=Path, required=True, help="a checkout of VICO-UoE/DatasetCondensation")
    options.add_argument("--ipc", type=int, default=10, help="images per class")
    options.add_argument("--epochs", type=int, default=5, help="epochs of each training")
    options.add_argument("--pairs", type=int, default=5, help="trainings of each code that count")
    options.add_argument("--precision", default="fp32", help=f"any of {','.join(PRECISIONS)}, separated by commas")
    options.add_argument(
        "--compiled", action=argparse.BooleanOptionalAction, default=True, help="compile our network (default: yes)"
    )
    options.add_argument("--out", type=Path, required=True, help="file to write")
    args = options.parse_args()
    record: Record = {"rows": [], "settings": {"classes": CLASSES, "compiled": args.compiled, "pairs": args.pairs}}
    for precision in args.precision.split(","):
        machine = Machine(precision=precision, compiled=args.compiled)
        record["rows"].append(measure(args.reference, args.ipc, args.epochs, args.pairs, machine))
        write(args.out, record)
        print(json.dumps(record["rows"][-1]))


if __name__ == "__main__":
    start(main)
