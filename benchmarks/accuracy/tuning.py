"""Search for options: compares recipes of condensation on held-out training images.

    python benchmarks/accuracy/tuning.py --data fashionmnist --ipc 10 --steps 300 --out FILE \
        --try "dm batch_real=64" --try "dm batch_real=64 lr=3"

A recipe is ``METHOD NAME=VALUE ...`` as for ``condensekit condense``, with lr, init, sampling, encoder, factor and all
other options of the method. A tenth of the training images is held out before the condensation and judges the recipes;
the test images are never read. Recipes that FILE has with the same settings are skipped, and condensations are resumed.
All recipes have the same number of gradient steps, and of images in a step, also with packed images.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import condensekit as ck
from benchmarks.record import RUNS, Record, read, recipe_parser, start, write
from condensekit import catalog
from condensekit.data import datasets
from condensekit.data.images import ClassImages
from condensekit.driver import Saving, Status
from condensekit.rng import Draw
from condensekit.runs.kept import refuse_other

HELD_OUT = 0.1  # fraction of the training images that is held out


def measure(text: str, train: ClassImages, held_out: ClassImages, args: argparse.Namespace) -> Record:
    """Row of a recipe: the accuracy of networks that are trained on its sets."""
    begun = time.perf_counter()
    folder = args.runs / f"{args.data}-ipc{args.ipc}-{args.steps}-{zlib.crc32(text.encode()):08x}"
    made = []
    for seed in range(args.sets):
        saving = Saving(folder / f"seed-{seed}", resume=True)
        made.append(ck.condense(train, text, ipc=args.ipc, steps=args.steps, seed=seed, saving=saving))
        if made[-1].signum is not None:
            raise KeyboardInterrupt
    row = {"recipe": text, **terms(args)}
    bad = next((result for result in made if result.status is Status.DIVERGED), None)
    if bad:
        return {**row, "accuracy_mean": None, "message": bad.message}
    making_s = time.perf_counter() - begun
    protocol = replace(catalog.protocol("short").as_on(args.ipc * len(train.classes)), steps=args.train_steps)
    (found,) = ck.evaluate(
        made, held_out, against=None, network=args.network, networks=args.networks, protocol=protocol
    ).rows
    measured = {name: getattr(found, name) for name in ("accuracy_mean", "accuracy_std", "accuracies")}
    return {**row, "making_s": round(making_s, 1), **measured}


def terms(args: argparse.Namespace) -> dict[str, Any]:
    """Settings, other than recipe and data, that decide the accuracy of a recipe."""
    return {name: getattr(args, name) for name in ("steps", "network", "train_steps", "sets", "networks")}


def main() -> None:
    """Measure the missing recipes."""
    parser = recipe_parser(__doc__)
    parser.add_argument("--steps", type=int, required=True, help="matching steps")
    parser.add_argument("--train-steps", type=int, default=300, help="gradient steps of each training")
    parser.add_argument("--network", default="ConvNet", help="network that is trained on the sets and judged")
    parser.add_argument("--sets", type=int, default=2)
    parser.add_argument("--networks", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=RUNS / "tuning", help="folder of the runs")
    args = parser.parse_args()
    whole, _ = datasets.load(args.data, root=args.data_root, trust_local_copy=args.trust_local_copy)
    train, held_out = whole.split(HELD_OUT, Draw(0))
    settings = {"data": args.data, "ipc": args.ipc, "held_out": HELD_OUT, "split_seed": 0}
    before: Record = read(args.out) if args.out.exists() else {"search": [], "settings": settings}
    refuse_other(f"{args.out} holds another search", before["settings"], settings, "give another file")
    rows: list[Record] = before["search"]
    for text in args.recipes:
        asked = {"recipe": text, **terms(args)}
        if any({name: row[name] for name in asked} == asked for row in rows):
            continue
        rows.append(measure(text, train, held_out, args))
        write(args.out, {"search": rows, "settings": settings})
        print(text, args.steps, rows[-1]["accuracy_mean"], flush=True)


if __name__ == "__main__":
    start(main)
