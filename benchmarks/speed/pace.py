"""How many steps of each method fit into a minute of wall time?

    python benchmarks/pace.py --data fashionmnist --ipc 10 --json FILE --try "m3d batch_real=64"

What is done before the first step (training of encoders, clustering) counts, and leaves less for the steps. Run it on a
machine that does nothing else: `benchmarks/accuracy.py` takes its numbers of steps at equal time from here. Recipes are
written as for `benchmarks/tuning.py`; those that FILE has already are skipped.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from condensekit.recipe import Recipe
from record import recipe_parser, start, write

from condensekit.data import datasets
from condensekit.data.images import ClassImages
from condensekit.driver import condense

BUDGETS = (60, 300)  # seconds


def measure(text: str, train: ClassImages, args: argparse.Namespace) -> dict[str, Any]:
    """One recipe's row; what the first step takes longer than the others, to fill caches, counts as preparation."""
    method, arguments = Recipe.parse(text).build(args.data)
    result = condense(train, method, ipc=args.ipc, iterations=args.steps, **arguments)
    preparation_s = result.set.provenance["preparation_s"]
    step_s = median(row["seconds"] for row in result.history[1:])
    preparation_s += max(0.0, result.history[0]["seconds"] - step_s)
    return {
        "recipe": text,
        "preparation_s": round(preparation_s, 2),
        "step_s": round(step_s, 4),
        **{f"steps_in_{budget}_s": max(0, int((budget - preparation_s) / step_s)) for budget in BUDGETS},
    }


def main() -> None:
    """Measure the recipes that are missing."""
    parser = recipe_parser(__doc__)
    parser.add_argument("--steps", type=int, default=6, help="steps to time, at least 2")
    args = parser.parse_args()
    train, _ = datasets.load(args.data, root=args.data_root, trust_local_copy=args.trust_local_copy)
    rows: list[dict[str, Any]] = json.loads(args.json.read_text())["pace"] if args.json.exists() else []
    for text in args.recipes:
        if any(row["recipe"] == text for row in rows):
            continue
        rows.append(measure(text, train, args))
        write(args.json, {"pace": rows, "settings": {"data": args.data, "ipc": args.ipc}})
        print(rows[-1], flush=True)


if __name__ == "__main__":
    start(main)
