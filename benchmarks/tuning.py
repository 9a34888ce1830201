"""Compare recipes of condensation on training images held out before anything is condensed.

    python benchmarks/tuning.py --data fashionmnist --ipc 10 --iterations 300 --json FILE \
        --try "dm batch_real=64" --try "dm batch_real=64 lr=3"

A recipe is ``METHOD NAME=VALUE ...`` with the names of ``condensekit condense``: lr, init, sampling, encoder, factor
and so on, and any other option of the method. A tenth of the training images is held out, and judges all of them;
the test images are never read. Recipes that FILE has already are skipped. All recipes are trained on for the same
number of gradient steps, however many images they decode to.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from record import recipe_parser, start, write

from condensekit import catalog, datasets
from condensekit.compute import Compute, make_plan
from condensekit.condense import Status, condense
from condensekit.evaluate import Candidate, evaluate
from condensekit.images import ClassImages
from condensekit.recipe import Recipe
from condensekit.rng import Draw

HELD_OUT = 0.1


def measure(text: str, train: ClassImages, held_out: ClassImages, args: argparse.Namespace) -> dict[str, Any]:
    """One recipe's row: the accuracy of networks trained on its sets."""
    method, arguments = Recipe.parse(text).build(args.data)
    start = time.perf_counter()
    made = [
        condense(train, method, ipc=args.ipc, iterations=args.iterations, seed=seed, **arguments)
        for seed in range(args.sets)
    ]
    if any(result.status is Status.INTERRUPTED for result in made):
        raise KeyboardInterrupt
    bad = next((result for result in made if result.status is Status.DIVERGED), None)
    if bad:
        return {"recipe": text, "iterations": args.iterations, "accuracy_mean": None, "message": bad.message}
    making_s = time.perf_counter() - start
    protocol = replace(catalog.protocol("short", args.data), steps=args.steps)
    with Compute(make_plan(train.spec.shape[1:])) as compute:
        candidate = Candidate(text, tuple(result.set for result in made), args.ipc)
        found = evaluate(
            [candidate],
            held_out,
            networks=args.networks,
            architectures=[catalog.network(args.judge)],
            protocol=protocol,
            compute=compute,
            baseline=None,
        )
    row = found.rows[0]
    return {
        "recipe": text,
        "iterations": args.iterations,
        "making_s": round(making_s, 1),
        "judge": args.judge,
        **{k: row[k] for k in ("accuracy_mean", "accuracy_std", "sets", "networks", "steps", "accuracies")},
    }


def main() -> None:
    """Measure the recipes that are missing."""
    parser = recipe_parser(__doc__)
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--steps", type=int, default=300, help="gradient steps of each network's training")
    parser.add_argument("--judge", default="ConvNet", help="architecture of the networks trained on the sets")
    parser.add_argument("--sets", type=int, default=2)
    parser.add_argument("--networks", type=int, default=1)
    args = parser.parse_args()
    whole, _ = datasets.load(args.data, root=args.data_root, trust_local_copy=args.trust_local_copy)
    train, held_out = whole.split(HELD_OUT, Draw(0))
    rows: list[dict[str, Any]] = json.loads(args.json.read_text())["search"] if args.json.exists() else []
    for text in args.recipes:
        if any((row["recipe"], row["iterations"]) == (text, args.iterations) for row in rows):
            continue
        rows.append(measure(text, train, held_out, args))
        settings = {"data": args.data, "ipc": args.ipc, "held_out": HELD_OUT, "split_seed": 0}
        write(args.json, {"search": rows, "settings": settings})
        print(text, args.iterations, rows[-1]["accuracy_mean"], flush=True)


if __name__ == "__main__":
    start(main)
