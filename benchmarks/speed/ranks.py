"""Speed of ranks: seconds of a step by several processes of torchrun, against one process with one thread.

    python benchmarks/speed/ranks.py --data cifar10 --recipe dm --ipc 10 --ranks 2 --pairs 5 --json FILE

Each pair is one run of one process, and one of several that share the classes, one thread each. Run it on an idle
machine: ``ratio`` is the time of one process divided by that of several, the medians of the steps after the first.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.record import Record, start, write
from condensekit.errors import refuse, whole
from condensekit.sets.condensed import CondensedSet

ROOT = Path(__file__).resolve().parents[2]


def measure(ranks: int, args: argparse.Namespace, out: Path) -> float:
    """Median seconds of a step of a run by this number of ranks, in the folder ``out``."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    words = ["--data", args.data, "--method", args.recipe, "--ipc", str(args.ipc), "--steps", str(args.steps)]
    words += ["--data-root", str(args.data_root)] if args.data_root else []
    machine = ["--device", "cpu", "--workers", "1", "--not-compiled", "--quiet", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *launcher, "-m", "condensekit", "condense", *words, *machine]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    with (out / "metrics.csv").open() as file:
        return statistics.median(float(row["seconds"]) for row in list(csv.DictReader(file))[1:])


def pair(number: int, args: argparse.Namespace) -> Record:
    """One run of one process, and one of several; every second pair begins with several."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, sets = {}, {}
        for ranks in (1, args.ranks) if number % 2 == 0 else (args.ranks, 1):
            seconds[ranks] = measure(ranks, args, Path(folder) / str(ranks))
            sets[ranks] = CondensedSet.load(Path(folder) / str(ranks) / "set.safetensors").images
    return {
        "one_s": seconds[1],
        "several_s": seconds[args.ranks],
        "ratio": round(seconds[1] / seconds[args.ranks], 3),
        "equal_bits": sets[1].equal(sets[args.ranks]),
    }


def main() -> None:
    """Measure the pairs, and write them with their median."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10", help="name or folder of the data")
    parser.add_argument("--data-root", type=Path, help="folder of the named data sets")
    parser.add_argument("--recipe", default="dm", help="a method or a recipe in quotes")
    parser.add_argument("--ipc", type=int, default=10, help="images per class")
    parser.add_argument("--steps", type=int, default=6, help="steps of each run, at least 2")
    parser.add_argument("--ranks", type=int, default=2, help="number of processes, at least 2")
    parser.add_argument("--pairs", type=int, default=5, help="number of pairs")
    parser.add_argument("--json", type=Path, required=True, help="the file to write")
    args = parser.parse_args()
    lengths = {"--steps": (args.steps, 2), "--ranks": (args.ranks, 2), "--pairs": (args.pairs, 1)}
    refuse(*(whole(name, value, low) for name, (value, low) in lengths.items()))
    rows: list[Record] = []
    for number in range(args.pairs):
        rows.append(pair(number, args))
        print(rows[-1], flush=True)
        ratios = [row["ratio"] for row in rows]
        found = {"ratio_min": min(ratios), "ratio_median": statistics.median(ratios), "ratio_max": max(ratios)}
        settings = {name: str(value) for name, value in vars(args).items() if name not in ("json", "data_root")}
        write(args.json, {**found, "pairs": rows, "settings": settings})


if __name__ == "__main__":
    start(main)
