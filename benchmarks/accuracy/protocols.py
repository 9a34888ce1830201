"""Comparison of the protocols ``short`` and ``dc``: whether both rank sets in the same order.

    python benchmarks/accuracy/protocols.py --out benchmarks/results/protocols-digits-ipc3.json

Condensed and selected sets of scikit-learn's digits are judged with both protocols on training images that are held out
before the condensation. The JSON file has two rows for each kind of set, and Spearman's correlation between the two
protocols, over the means of kinds and over all single sets.
"""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scipy.stats import spearmanr

import condensekit as ck
from benchmarks import record
from condensekit.rng import Draw

SELECTIONS = ("random", "herding", "kmeans", "kcenter")
STEPS = (30, 300)  # steps of distribution matching, for condensed sets of two qualities
PROTOCOLS = ("short", "dc")


def main() -> None:
    """Make the sets, judge them with both protocols, and compare the results."""
    parser = record.parser(__doc__)
    parser.add_argument("--ipc", type=int, default=3)
    parser.add_argument("--sets", type=int, default=3)
    parser.add_argument("--networks", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    args = parser.parse_args()
    whole, _ = ck.load("digits")
    train, held_out = whole.split(0.2, Draw(0))
    seeds = range(args.sets)
    sets = {name: [ck.select(train, name, ipc=args.ipc, seed=s) for s in seeds] for name in SELECTIONS}
    for steps in STEPS:
        sets[f"dm-{steps}"] = [ck.condense(train, "dm", ipc=args.ipc, steps=steps, seed=s).set for s in seeds]
    found = {
        name: ck.evaluate(sets, held_out, train=train, networks=args.networks, protocol=name) for name in PROTOCOLS
    }
    short, full = ([[fmean(a) for a in row.accuracies] for row in found[name].rows] for name in PROTOCOLS)
    made = {
        "rank_correlation": {
            "kinds": float(spearmanr([fmean(x) for x in short], [fmean(x) for x in full]).statistic),
            "sets": float(spearmanr([*chain(*short)], [*chain(*full)]).statistic),
        },
        "settings": {"data": "digits, 20% of the training images held out", "ipc": args.ipc, "seeds": list(seeds)},
        "protocols": {
            name: {key: value for key, value in evaluation.to_json().items() if key in ("rows", "protocol")}
            for name, evaluation in found.items()
        },
    }
    record.write(args.out, made)
    for name, evaluation in found.items():
        print(f"{name}\n{evaluation.table()}\n")
    print(made["rank_correlation"])


if __name__ == "__main__":
    record.start(main)
