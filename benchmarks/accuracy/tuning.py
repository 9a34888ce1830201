"""Compare recipes of condensation on training images held out before anything is condensed.

    python benchmarks/tuning.py --data fashionmnist --ipc 10 --iterations 300 --json FILE \
        --try "dm batch_real=64" --try "dm batch_real=64 lr=3"

A recipe is ``METHOD NAME=VALUE ...`` with the names of ``condensekit condense``: lr, init, sampling, encoder, factor
and so on, and any other option of the method. A tenth of the training images is held out, and judges all of them;
the test images are never read. Recipes that FILE has already, measured alike, are skipped, and runs of condensation are
resumed. All recipes are trained on for as many gradient steps of as many images, however many they decode to.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from condensekit.recipe import Recipe
from record import HERE, recipe_parser, start, write

from condensekit import catalog
from condensekit.compute import Compute, make_plan
from condensekit.data import datasets
from condensekit.data.images import ClassImages
from condensekit.driver import Saving, Status, condense
from condensekit.errors import ConfigError
from condensekit.rng import Draw
from condensekit.training.evaluation import Candidate, evaluate

HELD_OUT = 0.1


def measure(text: str, train: ClassImages, held_out: ClassImages, args: argparse.Namespace) -> dict[str, Any]:
    """One recipe's row: the accuracy of networks trained on its sets."""
    method, arguments = Recipe.parse(text).build(args.data)
    start = time.perf_counter()
    folder = args.runs / f"{args.data}-ipc{args.ipc}-{args.iterations}-{zlib.crc32(text.encode()):08x}"
    made = []
    for seed in range(args.sets):
        saving = Saving(folder / f"seed-{seed}", resume=True)
        arguments |= {"ipc": args.ipc, "iterations": args.iterations, "saving": saving}
        made.append(condense(train, method, seed=seed, **arguments))
        if made[-1].status is Status.INTERRUPTED:
            raise KeyboardInterrupt
    row = {"recipe": text, **terms(args)}
    bad = next((result for result in made if result.status is Status.DIVERGED), None)
    if bad:
        return {**row, "accuracy_mean": None, "message": bad.message}
    making_s = time.perf_counter() - start
    protocol = catalog.protocol("short", args.data).as_on(args.ipc * len(train.classes))
    with Compute(make_plan(train.spec.shape[1:])) as compute:
        found = evaluate(
            [Candidate(text, tuple(result.set for result in made), args.ipc)],
            held_out,
            networks=args.networks,
            architectures=[catalog.network(args.judge)],
            protocol=replace(protocol, steps=args.steps),
            compute=compute,
            baseline=None,
        ).rows[0]
    measured = {name: found[name] for name in ("accuracy_mean", "accuracy_std", "accuracies")}
    return {**row, "making_s": round(making_s, 1), **measured}


def terms(args: argparse.Namespace) -> dict[str, Any]:
    """What decides a recipe's figure besides the recipe and the data."""
    return {name: getattr(args, name) for name in ("iterations", "judge", "steps", "sets", "networks")}


def main() -> None:
    """Measure the recipes that are missing."""
    parser = recipe_parser(__doc__)
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--steps", type=int, default=300, help="gradient steps of each network's training")
    parser.add_argument("--judge", default="ConvNet", help="architecture of the networks trained on the sets")
    parser.add_argument("--sets", type=int, default=2)
    parser.add_argument("--networks", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=HERE.parent / "runs" / "tuning", help="folder of the runs")
    args = parser.parse_args()
    whole, _ = datasets.load(args.data, root=args.data_root, trust_local_copy=args.trust_local_copy)
    train, held_out = whole.split(HELD_OUT, Draw(0))
    settings = {"data": args.data, "ipc": args.ipc, "held_out": HELD_OUT, "split_seed": 0}
    before = json.loads(args.json.read_text()) if args.json.exists() else {"search": [], "settings": settings}
    if before["settings"] != settings:
        raise ConfigError(f"{args.json} holds a search on {before['settings']}, asked on {settings}: name another file")
    rows: list[dict[str, Any]] = before["search"]
    for text in args.recipes:
        asked = {"recipe": text, **terms(args)}
        if any({name: row[name] for name in asked} == asked for row in rows):
            continue
        rows.append(measure(text, train, held_out, args))
        write(args.json, {"search": rows, "settings": settings})
        print(text, args.iterations, rows[-1]["accuracy_mean"], flush=True)


if __name__ == "__main__":
    start(main)
