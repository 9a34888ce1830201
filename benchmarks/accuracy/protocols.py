"""Does the short recipe rank sets as the full one does?

    python benchmarks/protocols.py --json benchmarks/results/protocols-digits-ipc3.json

Condensed and selected sets of scikit-learn's digits are judged under the protocols ``short`` and ``dc``, on a part
of the training data held out before condensation. The JSON has both rows of every kind of set, and Spearman's
correlation of the two protocols: between the kinds' means, and between all single sets.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from record import write
from scipy.stats import spearmanr

from condensekit.compute import Compute, make_plan
from condensekit.data import datasets
from condensekit.driver import condense
from condensekit.methods import DistributionMatching
from condensekit.rng import Draw
from condensekit.selection.base import selected_set
from condensekit.selection.classic import Herding, KCenter, KMeans, Random
from condensekit.training.augment import Augmentation
from condensekit.training.evaluation import DC, SHORT, Candidate, evaluate

ITERATIONS = (30, 300)  # of distribution matching: two qualities of condensed set


def main() -> None:
    """Make the sets, judge them twice, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ipc", type=int, default=3)
    parser.add_argument("--sets", type=int, default=3)
    parser.add_argument("--networks", type=int, default=3)
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    args = parser.parse_args()
    whole, _ = datasets.load("digits")
    train, held_out = whole.split(0.2, Draw(0))
    augmentation = Augmentation().without("flip")
    seeds = range(args.sets)
    with Compute(make_plan(train.spec.shape[1:])) as compute:
        candidates = [
            Candidate(selection.name, tuple(selected_set(train, selection, args.ipc, Draw(s), compute) for s in seeds))
            for selection in (Random(), Herding(), KMeans(), KCenter())
        ]
        for steps in ITERATIONS:
            sets = [
                condense(
                    train, DistributionMatching(), ipc=args.ipc, iterations=steps, seed=s, augmentation=augmentation
                ).set
                for s in seeds
            ]
            candidates.append(Candidate(f"dm-{steps}", tuple(sets)))
        found = {
            protocol.name: evaluate(
                candidates,
                held_out,
                networks=args.networks,
                protocol=replace(protocol, augmentation=augmentation),
                compute=compute,
            )
            for protocol in (SHORT, DC)
        }
    short, full = ([[fmean(a) for a in row["accuracies"]] for row in found[name].rows] for name in ("short", "dc"))
    record = {
        "rank_correlation": {
            "kinds": float(spearmanr([fmean(x) for x in short], [fmean(x) for x in full]).statistic),
            "sets": float(spearmanr([*chain(*short)], [*chain(*full)]).statistic),
        },
        "settings": {"data": "digits, 20% of the training images held out", "ipc": args.ipc, "seeds": list(seeds)},
        "protocols": {name: {"rows": e.rows, "protocol": e.protocol} for name, e in found.items()},
    }
    write(args.json, record)
    for name, evaluation in found.items():
        print(f"{name}\n{evaluation.table()}\n")
    print(record["rank_correlation"])


if __name__ == "__main__":
    main()
