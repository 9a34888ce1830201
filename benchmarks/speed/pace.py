"""Pace of recipes: the number of matching steps in 60 s and in 300 s of wall time.

    python benchmarks/speed/pace.py --data fashionmnist --ipc 10 --out FILE --try "m3d batch_real=64"

The time before the first step (training of encoders, clustering) counts, so that less time is left for steps. Run the
script on an idle machine: ``accuracy/cells.py`` has its numbers of steps at equal time from here. Recipes are written
as for ``accuracy/tuning.py``; recipes that FILE has already are skipped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import condensekit as ck
from benchmarks.passes import told
from benchmarks.record import Record, read, recipe_parser, start, write
from benchmarks.work import of_recipe
from condensekit import Recipe
from condensekit.data import datasets
from condensekit.data.images import ClassImages

BUDGETS = (60, 300)  # times in seconds


def measure(text: str, train: ClassImages, args: argparse.Namespace) -> Record:
    """Row of a recipe; the additional time of the first step, which fills caches, counts as preparation."""
    result = ck.condense(train, text, ipc=args.ipc, steps=args.steps)
    preparation_s = result.set.provenance["preparation_s"]
    step_s = median(row["seconds"] for row in result.history[1:])
    preparation_s += max(0.0, result.history[0]["seconds"] - step_s)
    steps = {f"steps_in_{budget}_s": max(0, int((budget - preparation_s) / step_s)) for budget in BUDGETS}
    minute = steps[f"steps_in_{BUDGETS[0]}_s"]
    work = {"work": told(of_recipe(train, Recipe.parse(text), args.ipc, minute), train)} if minute else {}
    return {
        "recipe": text,
        "preparation_s": round(preparation_s, 2),
        "step_s": round(step_s, 4),
        **steps,
        **work,
    }


def main() -> None:
    """Measure the missing recipes."""
    parser = recipe_parser(__doc__)
    parser.add_argument("--steps", type=int, default=6, help="steps to time, at least 2")
    args = parser.parse_args()
    train, _ = datasets.load(args.data, root=args.data_root, trust_local_copy=args.trust_local_copy)
    rows: list[Record] = read(args.out)["pace"] if args.out.exists() else []
    for text in args.recipes:
        if any(row["recipe"] == text for row in rows):
            continue
        rows.append(measure(text, train, args))
        write(args.out, {"pace": rows, "settings": {"data": args.data, "ipc": args.ipc}})
        print(rows[-1], flush=True)


if __name__ == "__main__":
    start(main)
